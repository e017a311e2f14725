"""Event types that are declared: which payloads and schema versions may be appended, and that whatever is declared agrees.

Asked of the kinds: isolation and gate (an idle session, an open append), transaction (savepoint, rollback), role, tenant, code of others (upcasters that raise
or make worse), size (schemas that take for ever), copies (dump and restore), verification (acts), retries."""

import json
import uuid

import psycopg
import pytest
from database import Database, forced, rows, value, verify
from operating import run_psql
from psycopg.types.json import Jsonb
from server import run

AMOUNT = {"type": "object", "properties": {"amount": {"type": "number", "multipleOf": 0.01}}, "required": ["amount"], "additionalProperties": False}


@pytest.fixture
def session(database):
    with database.connect() as connection:
        yield connection


def declare(session, event_type="Credited", version=1, schema=None, example=None, **more):
    names = "".join(f", {name} => %s" for name in more)
    statement = f"select es_create_event_type(%s, %s, %s, example => %s{names})"
    return value(session, statement, event_type, version, Jsonb(schema) if schema is not None else None,
                 Jsonb(example) if example is not None else None, *more.values())  # fmt: skip


def append(session, payload, stream="account-1", event_type="Credited", **more):
    names = "".join(f", {name} => %s" for name in more)
    return value(session, f"select es_append(%s, %s, %s{names})", stream, event_type, Jsonb(payload), *more.values())


def refused(call, *args, **more):
    with pytest.raises(psycopg.Error) as error:
        call(*args, **more)
    return error.value.diag


def upcaster(session, name, body, event_type="Credited", version=1):
    session.execute(f"create or replace function {name}(p jsonb, m jsonb) returns jsonb immutable language sql as $$ select {body} $$")
    session.execute("select es_register_upcaster(%s, %s, %s)", (event_type, version, f"{name}(jsonb, jsonb)"))


def test_a_payload_that_breaks_its_schema_is_refused_with_its_place_and_not_its_content(session):
    declare(session, schema=AMOUNT, example={"amount": 1.5})
    assert append(session, {"amount": 12.34}) == 1
    diag = refused(append, session, {"amount": "top secret"})
    assert diag.sqlstate == "ES016" and "/amount" in diag.message_primary and "/properties/amount/type" in diag.message_primary
    told = f"{diag.message_primary}{diag.message_detail}{diag.message_hint}"
    assert "secret" not in told and "a string" in told and 'stream "account-1"' in told
    assert value(session, diag.message_hint.removeprefix("The schema: ")) == AMOUNT
    for payload in ({}, [], 1, {"amount": 1.001}, {"amount": 1, "other": 2}):
        assert refused(append, session, payload).sqlstate == "ES016"
    assert value(session, "select es_stream_version('account-1')") == 1
    # Another type of the same stream is anything.
    assert append(session, 1, event_type="Other") == 2


#: What the library that reads JSON for us calls its own by; and a text where a number would be told apart from it.
ODD_KEYS = ("$serde_json::private::Number", "$serde_json::private::RawValue")


@pytest.mark.parametrize("key", ODD_KEYS)
@pytest.mark.parametrize("digits", ["5", "x"])
def test_an_object_is_no_number_whatever_its_keys_are(session, key, digits):
    odd = {key: digits}
    declare(session, schema=AMOUNT, example={"amount": 1.5})
    diag = refused(append, session, {"amount": odd})
    assert diag.sqlstate == "ES016" and "/properties/amount/type" in diag.message_primary
    # As a whole, and where anything may stand, it is what it is.
    declare(session, "Any", schema={"type": "object", "properties": {key: {"type": "string"}}, "required": [key]}, example=odd)
    assert append(session, odd, event_type="Any") == 1
    assert refused(append, session, {key: 1}, event_type="Any").sqlstate == "ES016"
    assert value(session, "select payload from es_read('account-1')") == odd
    assert value(session, "select example from eventstream.event_types where event_type = 'Any'") == odd
    # A command's schema, a refusal's detail, a fold's state and a test's expectations.
    session.execute("""create function decide(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $$ begin
        perform es_require(false, 'no', 'no', command.payload); end $$""")
    session.execute("select es_register_fold('f', 'account', initial_state => %s, rules => %s)", (Jsonb({"odd": odd}), Jsonb({"on": {}, "otherwise": "ignore"})))
    session.execute("select es_register_decider('d', 'account', 'decide(jsonb, eventstream.command)', commands => %s)", (Jsonb({"Do": {"schema": AMOUNT}, "Any": {}}),))
    assert refused(session.execute, "select es_command('account-2', 'Do', %s)", (Jsonb({"amount": odd}),)).sqlstate == "ES016"
    assert value(session, "select es_simulate_command('account-2', 'Any', %s) #> '{refusal,detail,detail}'", Jsonb({"a": odd})) in (None, {"a": odd})
    assert key in refused(session.execute, "select es_command('account-2', 'Any', %s)", (Jsonb({"a": odd}),)).message_detail
    assert append(session, 1, "account-3", "Other") == 1
    assert value(session, "select es_state('account-3')") == {"odd": odd}
    report = value(session, "select es_test('t', sql => %s, result => %s)", f"select '{json.dumps({'a': odd})}'::jsonb", Jsonb({"a": 5}))
    assert report.startswith("not ok")
    assert value(session, "select es_test('t', sql => %s, result => %s)", f"select '{json.dumps({'a': odd})}'::jsonb", Jsonb({"a": odd})).startswith("ok")
    with pytest.raises(psycopg.Error):
        session.execute("select es_tests_done()")


def test_every_door_in_is_judged(session):
    declare(session, schema=AMOUNT)
    session.execute("select es_register_fold('n', 'account', rules => '{\"on\": {}}')")
    bad = Jsonb([{"type": "Credited", "payload": {"amount": 1}}, {"type": "Credited", "payload": {}}])
    diag = refused(session.execute, "select es_append_events('account-1', %s)", (bad,))
    assert diag.sqlstate == "ES016" and "event 2 for stream" in diag.message_primary
    streams = Jsonb([{"stream": "account-2", "events": [{"type": "X", "payload": 1}]}, {"stream": "account-1", "events": bad.obj}])
    assert refused(session.execute, "select es_append_streams(%s)", (streams,)).sqlstate == "ES016"
    session.execute("create function again(event eventstream.event) returns void language sql as $$ select es_append('other-1', 'Credited', '{}') $$")
    session.execute("select es_create_projection('again', 'again(eventstream.event)', mode => 'inline', categories => '{account}')")
    assert refused(append, session, {"amount": 1}).sqlstate == "ES016"
    assert rows(session, "select from es_read_all()") == []
    session.execute("select es_drop_projection('again')")
    append(session, {"amount": 1})
    session.execute("select es_close_stream('account-1', 'over')")


def test_without_a_version_the_newest_that_is_appendable(session):
    declare(session, schema={"required": ["a"]}, example={"a": 1})
    upcaster(session, "up", "p || '{\"b\": 2}'")
    declare(session, version=2, schema={"required": ["a", "b"]}, example={"a": 1, "b": 2})
    append(session, {"a": 1, "b": 2})
    append(session, {"a": 1}, schema_version=1)
    assert rows(session, "select schema_version from es_read('account-1', raw => true)") == [(2,), (1,)]
    session.execute("select es_alter_event_type('Credited', 1, '{\"appendable\": false}')")
    diag = refused(append, session, {"a": 1}, schema_version=1)
    assert diag.sqlstate == "ES016" and "version 1 is not appendable" in diag.message_primary
    assert rows(session, diag.message_hint.removeprefix("Which are: ")) == [(1, False), (2, True)]
    diag = refused(append, session, {"a": 1}, schema_version=7)
    assert diag.sqlstate == "ES016" and "version 7 is not declared" in diag.message_primary
    session.execute("select es_alter_event_type('Credited', 2, '{\"appendable\": false}')")
    assert "none of its schema versions" in refused(append, session, {"a": 1, "b": 2}).message_primary
    # What is stored is read as before.
    assert rows(session, "select schema_version from es_read('account-1')") == [(2,), (2,)]
    session.execute("select es_drop_event_type('Credited')")
    assert append(session, "anything") == 3
    assert rows(session, "select schema_version from es_read('account-1', raw => true)") == [(2,), (1,), (1,)]


def test_a_simulation_has_the_version_that_an_append_would(session):
    session.execute("select es_register_fold('seen', 'account', rules => '{\"on\": {\"Credited\": [{\"set\": {\"/b\": \"/b\"}}]}}')")
    upcaster(session, "up", "p || '{\"b\": \"upcast\"}'")
    declare(session, version=2)
    assert value(session, "select es_simulate('account-1', %s)", Jsonb([{"type": "Credited", "payload": {"b": "as it is"}}])) == {"b": "as it is"}


@pytest.mark.parametrize("change", ["new version", "stricter schema", "retired"])
def test_a_retry_is_recognised_whatever_has_been_declared_since(session, change):
    event_id = uuid.uuid4()
    declare(session, schema={"required": ["a"]})
    append(session, {"a": 1}, event_id=event_id)
    if change == "new version":
        upcaster(session, "up", "p || '{\"b\": 2}'")
        declare(session, version=2, schema={"required": ["b"]})
    elif change == "stricter schema":
        session.execute("select es_alter_event_type('Credited', 1, '{\"json_schema\": {\"required\": [\"z\"]}}')")
    else:
        session.execute("select es_alter_event_type('Credited', 1, '{\"appendable\": false}')")
    assert append(session, {"a": 1}, event_id=event_id) == 1
    assert rows(session, "select replayed from es_last_append()") == [(True,)]
    assert refused(append, session, {"a": 2}, event_id=event_id).sqlstate == "ES006"
    assert refused(append, session, {"a": 1}, event_id=event_id, schema_version=2).sqlstate == "ES006"


def test_a_new_version_needs_its_upcaster_and_that_the_example_before_becomes_one(session):
    declare(session, schema={"required": ["a"]}, example={"a": 1})
    diag = refused(declare, session, version=2)
    assert diag.sqlstate == "ES005" and "es_register_upcaster('Credited', 1" in diag.message_hint
    upcaster(session, "up", "p || '{\"b\": \"two\"}'")
    diag = refused(declare, session, version=2, schema={"properties": {"b": {"type": "number"}}})
    assert diag.sqlstate == "ES016" and "what upcasters make of the example" in diag.message_primary and "version 2" in diag.message_primary
    declare(session, version=2, schema={"properties": {"b": {"type": "string"}}})
    # Whatever of it comes last.
    assert refused(upcaster, session, "worse", "p || '{\"b\": 2}'").sqlstate == "ES016"
    assert refused(session.execute, "select es_alter_event_type('Credited', 2, '{\"json_schema\": {\"required\": [\"z\"]}}')").sqlstate == "ES016"
    # The upcaster that was refused is not the one that is asked.
    session.execute("select es_alter_event_type('Credited', 1, '{\"example\": {\"a\": 1, \"b\": 2}}')")
    assert refused(session.execute, "select es_alter_event_type('Credited', 1, '{\"example\": {}}')").sqlstate == "ES016"
    session.execute("create function raises(p jsonb, m jsonb) returns jsonb immutable language plpgsql as $$ begin raise 'no' using errcode = 'P0042'; end $$")
    assert refused(session.execute, "select es_register_upcaster('Credited', 1, 'raises(jsonb, jsonb)')").sqlstate == "P0042"
    session.execute("select es_alter_event_type('Credited', 1, '{\"example\": null}')")
    session.execute("select es_register_upcaster('Credited', 1, 'raises(jsonb, jsonb)')")


def test_an_event_type_that_upcasters_rename_is_judged_as_what_it_becomes(session):
    declare(session, event_type="Paid", schema={"required": ["a"]}, example={"a": 1})
    session.execute("create function up(p jsonb, m jsonb) returns jsonb immutable language sql as $$ select p $$")
    session.execute("select es_register_upcaster('Paid', 1, 'up(jsonb, jsonb)', to_event_type => 'Settled')")
    assert refused(declare, session, event_type="Settled", version=2, schema={"required": ["b"]}).sqlstate == "ES016"
    declare(session, event_type="Settled", version=2, schema={"required": ["a"]})


def test_examples_satisfy_their_own_schema(session):
    diag = refused(declare, session, schema=AMOUNT, example={"amount": "x"})
    assert diag.sqlstate == "ES016" and "the example" in diag.message_primary
    assert rows(session, "select from eventstream.event_types") == []


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("x", "a JSON Schema"),
        ({"type": "strin"}, "/type"),
        ({"$ref": "http://example.com/x.json"}, "within this one"),
        ({"$ref": "file:///etc/passwd"}, "within this one"),
        ({"pattern": "((a{100}){100}){100}"}, "regular expression"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "2020-12"),
        ({"title": "x" * 300000}, "at most 262144 bytes"),
    ],
)
def test_schemas_that_are_none(session, schema, words):
    diag = refused(declare, session, schema=schema)
    assert diag.sqlstate == "ES005" and words in diag.message_primary, diag.message_primary


def test_no_schema_keeps_a_backend_busy(session):
    doubled = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(60)} | {"a60": {"type": "integer"}}
    declare(session, schema={"$defs": doubled, "$ref": "#/$defs/a0"})
    session.execute("set statement_timeout = '20 s'")
    diag = refused(append, session, 1)
    assert diag.sqlstate == "ES016" and "10000000 steps" in diag.message_primary
    declare(session, event_type="Deep", schema={"properties": {"a": {"$ref": "#"}}})
    session.execute("set eventstream.max_json_depth = 1000")
    deep = 1
    for _ in range(900):
        deep = {"a": deep}
    assert refused(append, session, deep, event_type="Deep").sqlstate == "ES016"
    for _ in range(800):
        deep = deep["a"]
    append(session, deep, event_type="Deep")


def test_keywords_that_judge_nothing_are_told(session):
    heard = []
    session.add_notice_handler(lambda diag: heard.append(diag.message_primary))
    declare(session, schema={"typ": "object", "x-mine": 1})
    assert len(heard) == 1 and '"typ"' in heard[0]


@pytest.mark.parametrize(
    "statement",
    [
        "select es_create_event_type(null)",
        "select es_create_event_type('')",
        "select es_create_event_type('StreamClosed')",
        "select es_create_event_type(repeat('x', 300))",
        "select es_create_event_type('T', null)",
        "select es_create_event_type('T', 0)",
        "select es_create_event_type('T', -1)",
        "select es_create_event_type('T', appendable => null)",
        "select es_create_event_type('T', if_not_exists => null)",
        "select es_create_event_type('T', description => repeat('x', 5000))",
        "select es_alter_event_type('T', 1, '{}')",
        "select es_alter_event_type('Declared', 1, null)",
        "select es_alter_event_type('Declared', null, '{}')",
        "select es_alter_event_type('Declared', 2, '{}')",
        "select es_alter_event_type('Declared', 1, '[]')",
        "select es_alter_event_type('Declared', 1, '{\"unknown\": 1}')",
        "select es_alter_event_type('Declared', 1, '{\"appendable\": null}')",
        "select es_alter_event_type('Declared', 1, '{\"json_schema\": \"x\"}')",
        "select es_alter_event_type('Declared', 1, '{\"description\": 5}')",
        "select es_drop_event_type(null)",
        "select es_drop_event_type('T')",
        "select es_drop_event_type('Declared', 2)",
        "select es_drop_event_type('Declared', 0)",
    ],
)
def test_bad_input(session, statement):
    declare(session, event_type="Declared")
    before = rows(session, "select * from eventstream.event_types")
    assert refused(session.execute, statement).sqlstate == "ES005"
    assert rows(session, "select * from eventstream.event_types") == before


def test_if_not_exists_compares(session):
    same = {"schema": AMOUNT, "example": {"amount": 1}, "description": "what comes in"}
    declare(session, **same)
    assert refused(declare, session, **same).sqlstate == "ES005"
    assert declare(session, **same, if_not_exists=True) == "Credited"
    for other in ({"schema": {}}, {"example": None}, {"description": "else"}, {"appendable": False}):
        diag = refused(declare, session, **(same | other), if_not_exists=True)
        assert diag.sqlstate == "ES005" and f"{ {'schema': 'json_schema'}.get(*other, *other) } " in diag.message_primary


def test_what_is_declared_counts_from_its_commit_on_and_is_undone_with_it(database):
    with database.connect() as idle, database.connect(autocommit=False) as other:
        append(idle, {})
        declare(other, schema=AMOUNT)
        assert refused(append, other, {}).sqlstate == "ES016"
        other.rollback()
        declare(other, event_type="Else")
        other.execute("savepoint s")
        declare(other, schema=AMOUNT)
        other.execute("rollback to s")
        append(other, {}, stream="account-2")
        other.commit()
        append(idle, {})
        declare(other, schema=AMOUNT)
        append(idle, {})
        other.commit()
        assert refused(append, idle, {}).sqlstate == "ES016"
        other.execute("select es_drop_event_type('Credited')")
        other.commit()
        append(idle, {})


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_what_is_declared_counts_under_an_older_snapshot(database, level):
    with database.connect() as other, database.connect(autocommit=False) as old:
        old.execute(f"set transaction isolation level {level}")
        value(old, "select 1")
        declare(other, schema=AMOUNT)
        assert refused(append, old, {}).sqlstate == "ES016"


def test_tenants_and_rights(database):
    with database.connect() as session:
        clerk, keeper, narrow = (database.role(f"{database.name}_{name}") for name in ("clerk", "keeper", "narrow"))
        session.execute("select es_create_tenant('b')")
        for role, privilege, category in ((clerk, "append", None), (clerk, "read", None), (keeper, "manage", None), (narrow, "manage", "account")):
            session.execute("select es_grant(%s, %s, tenant => 'default', category => %s)", (role, privilege, category))
        for role in (clerk, narrow):
            with database.connect(user=role) as there:
                assert refused(declare, there).sqlstate == "42501"
                assert refused(there.execute, "select es_alter_event_type('X', 1, '{}')").sqlstate == "42501"
                assert refused(there.execute, "select es_drop_event_type('X')").sqlstate == "42501"
        with database.connect(user=keeper) as there:
            declare(there, schema=AMOUNT)
            assert refused(there.execute, "select * from eventstream.event_types").sqlstate == "42501"
            assert refused(there.execute, "select * from _eventstream.event_types").sqlstate == "42501"
        with database.connect(user=clerk) as there:
            assert rows(there, "select event_type, json_schema from eventstream.event_types") == [("Credited", AMOUNT)]
            assert refused(append, there, {}).sqlstate == "ES016"
        session.execute("set eventstream.tenant = 'b'")
        append(session, {})
        assert rows(session, "select from eventstream.event_types") == []


def test_what_is_declared_is_an_act_and_guarded(database):
    with database.connect() as session:
        append(session, 1)
        declare(session, schema=AMOUNT, example={"amount": 1})
        session.execute("select es_alter_event_type('Credited', 1, '{\"description\": \"x\"}')")
        declare(session, event_type="Else")
        session.execute("select es_drop_event_type('Else')")
        acts = rows(session, "select event_type from eventstream.administration order by global_position")
        assert [act for (act,) in acts][-4:] == ["EventTypeCreated", "EventTypeAltered", "EventTypeCreated", "EventTypeDropped"]
        assert rows(session, "select * from es_verify_audit()") == [] == verify(session)
        for statement in ("delete from _eventstream.event_types", "truncate _eventstream.event_types", "drop table _eventstream.event_types"):
            assert refused(session.execute, statement).sqlstate in ("ES050", "ES051", "2BP01")
        with forced(session):
            session.execute("update _eventstream.event_types set appendable = false")
        assert [kind for (kind,) in rows(session, "select kind from es_verify_audit()")] == ["event_type"]


def test_what_is_declared_comes_along_with_a_dump(new_server):
    server = new_server("declared")
    original, copy = Database(server, "original").create(), Database(server, "copy").create(extension=False)
    with original.connect() as session:
        append(session, 1)
        declare(session, schema=AMOUNT, example={"amount": 1}, description="x")
        before = rows(session, "select * from eventstream.event_types")
    run_psql(copy, run("pg_dump", env=server.address("original")))
    with copy.connect() as session:
        assert rows(session, "select * from eventstream.event_types") == before
        assert refused(append, session, {}).sqlstate == "ES016"
        assert append(session, {"amount": 1}) == 2
        assert rows(session, "select * from es_verify_audit()") == []
