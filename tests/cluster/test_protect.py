"""Protected fields: what a rule names reaches nobody, whichever way an event goes out, and nothing is stored that a rule cannot tell.

Asked of the kinds: isolation and transaction (rollback, another session in the middle of a transaction, an append that is open), session (prepared statements, cached states), role (admin, manage,
superusers), code of others (upcasters, handlers), tenant, size (many documents, long arrays), number and text (scale, keys with / and ~), copies (dump and restore), verification (acts, es_verify,
the hash without the document), retries."""

import json
import random
import subprocess
import sys
import threading
import uuid

import psycopg
import pytest
from database import Database, near_edge, partitions, rows, value, verify
from operating import run_psql
from outside import PROGRAM
from psycopg.types.json import Jsonb
from server import run, wait_until

NAME, CLEAR = "Mia Q. Canary", '{"name": "Mia Q. Canary", "amount": 12.50, "lines": [{"who": "Mia Q. Canary", "n": 1}, {"n": 2}]}'
RESIDUAL = {"name": None, "amount": 12.5, "lines": [{"who": None, "n": 1}, {"n": 2}]}
PROTECT = "select es_protect('Named', pointers => '{/name,/lines/*/who}')"


@pytest.fixture
def session(quiet):
    with quiet.connect() as connection:
        yield connection


def append(session, payload=CLEAR, stream="customer-1", event_type="Named", **more):
    names = "".join(f", {name} => %s" for name in more)
    return value(session, f"select es_append(%s, %s, %s::jsonb{names})", stream, event_type, payload, *more.values())


def refused(call, *args, **more):
    with pytest.raises(psycopg.Error) as error:
        call(*args, **more)
    return error.value.diag


WAYS = {
    "es_read": "select payload from es_read('customer-1')",
    "a page of es_read": "select payload from es_read('customer-1') limit 1",
    "in the target list": "select (es_read('customer-1')).payload",
    "raw": "select payload from es_read('customer-1', raw => true)",
    "raw, in the target list": "select (es_read('customer-1', raw => true)).payload",
    "backward": "select payload from es_read('customer-1', backward => true)",
    "es_read_all": "select payload from es_read_all()",
    "es_read_backward": "select payload from es_read_backward()",
    "es_read_subject": "select payload from es_read_subject('p-1')",
    "es_event": "select payload from es_event('01890a5d-ac96-774b-bcce-b302099a8057')",
    "es_query": "select (event).payload from es_query('{}')",
    "the view": "select payload from eventstream.events",
    "es_fetch": "select (event).payload from es_fetch('sub', 'me')",
    "a handler's fold": "select es_state('customer-1') -> 'last'",
    "a fold by rules": "select es_state('customer-1', fold => 'ruled') -> 'last'",
    "the history": "select state -> 'last' from es_history('customer-1')",
    "a timeline": "select state -> 'last' from es_timeline('customer-1')",
    "a handler's read model": "select payload from seen",
    "a state table": "select last from named",
}


def prepare(session):
    session.execute("""
        create function keep(state jsonb, event eventstream.event) returns jsonb immutable language sql as $$ select jsonb_build_object('last', event.payload) $$;
        create table seen (payload jsonb);
        create function see(event eventstream.event) returns void language sql as $$ insert into public.seen values (event.payload) $$;
        select es_register_fold('kept', 'customer', 'keep(jsonb, eventstream.event)', initial_state => '{}');
        select es_register_fold('ruled', 'customer', rules => '{"on": {"Named": [{"set": {"/last": ""}}]}}', initial_state => '{}', is_default => false);
        select es_create_projection('seen', 'see(eventstream.event)', mode => 'inline');
        select es_create_state_table('named', 'customer', '[{"name": "last", "type": "jsonb", "path": "/last"}]', mode => 'inline');
        select es_create_subscription('sub');
    """)


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_is_protected_goes_out_nowhere(session, when):
    prepare(session)
    if when == "before":
        session.execute(PROTECT)
    append(session, subject="p-1", event_id="01890a5d-ac96-774b-bcce-b302099a8057")
    if when == "after":
        assert value(session, WAYS["es_read"])["name"] == NAME and value(session, WAYS["a state table"])["name"] == NAME
        session.execute("select es_snapshot('customer-1'), es_state('customer-1'), es_state('customer-1', fold => 'ruled')")
        session.execute(PROTECT)
        # What a handler has kept is its own.
        assert value(session, WAYS["a handler's read model"])["name"] == NAME
        session.execute("create function empty() returns void language sql as 'truncate public.seen'")
        session.execute("select es_alter_projection('seen', '{\"reset\": \"public.empty()\"}'); select es_rebuild_projection('seen'); select es_run_projection('seen')")
    told = {way: [payload for (payload,) in rows(session, statement)] for way, statement in WAYS.items()}
    assert told == {way: [RESIDUAL] for way in WAYS}
    assert verify(session) == []
    assert rows(session, "select * from es_verify_snapshots()") == [] or when == "after"
    # It hides, and changes nothing.
    assert value(session, "select payload ->> 'name' from _eventstream.events where tenant_id > 0") == NAME


def test_all_but_what_is_clear_is_protected_and_so_are_metadata(session):
    session.execute("select es_protect('Named', clear_pointers => '{/amount,/lines/*/n}', metadata_pointers => '{/note}')")
    append(session, metadata='{"note": "Mia", "actor": "clerk"}')
    assert rows(session, "select payload::text, metadata::text, salt from es_read('customer-1')") == [
        ('{"name": null, "lines": [{"n": 1, "who": null}, {"n": 2}], "amount": 12.50}', '{"note": null, "actor": "clerk"}', None)]
    assert rows(session, "select payload::text, metadata ->> 'note', salt from eventstream.events") == [
        ('{"name": null, "lines": [{"n": 1, "who": null}, {"n": 2}], "amount": 12.50}', None, None)]
    assert value(session, "select actor from eventstream.audit") == "clerk"


def test_the_salt_is_shown_where_nothing_is_hidden_alone(session):
    append(session, '{"amount": 1}')
    append(session, '{"name": "Mia"}')
    append(session, '{"name": null}')
    append(session, '{"name": "Mia"}', event_type="Other")
    session.execute(PROTECT)
    for statement in ("select salt is null from es_read('customer-1')", "select salt is null from eventstream.events order by version",
                      "select salt is null from es_read_all()", "select (event).salt is null from es_query('{}')"):
        assert [hidden for (hidden,) in rows(session, statement)] == [False, True, True, False], statement
    assert value(session, "select count(*) from eventstream.events where chain_hash is null") == 0


@pytest.mark.parametrize(
    ("payload", "stray"),
    [
        ('"Mia"', 'has a string at its root'),
        ('{"lines": {"who": "Mia"}}', 'has an object at "/lines"'),
        ('{"lines": [7]}', 'has a number at "/lines/0"'),
        ('{"lines": [{}, true]}', 'has a boolean at "/lines/1"'),
        ('[{"name": "Mia"}]', 'has an array at its root'),
    ],
)
def test_what_stands_in_the_way_of_a_pointer_is_refused(session, payload, stray):
    session.execute(PROTECT)
    diag = refused(append, session, payload)
    assert diag.sqlstate == "ES016" and stray in diag.message_primary and "Mia" not in str(diag.message_primary) + str(diag.message_detail)
    assert value(session, "select count(*) from _eventstream.events where tenant_id > 0") == 0
    diag = refused(session.execute, "select es_append_events('customer-1', %s::jsonb)", (json.dumps([{"type": "Named", "payload": {}}, {"type": "Named", "payload": json.loads(payload)}]),))
    assert diag.sqlstate == "ES016" and "event 2" in diag.message_primary


def test_what_was_stored_in_the_way_before_the_rule_is_hidden_whole(session):
    append(session, '{"lines": {"who": "Mia"}, "n": 1}')
    append(session, '"Mia"')
    session.execute(PROTECT)
    assert [text for (text,) in rows(session, "select payload::text from es_read('customer-1')")] == ['{"n": 1, "lines": null}', "null"]


def test_a_schema_version_that_no_rule_names_is_neither_taken_nor_shown(session):
    append(session, '{"full": "Mia"}', schema_version=2)
    session.execute(PROTECT)
    assert rows(session, "select payload, metadata, salt, event_type from es_read('customer-1')") == [(None, None, None, "Named")]
    assert rows(session, "select payload, metadata, salt from eventstream.events") == [(None, None, None)]
    diag = refused(append, session, '{"full": "Mia"}', schema_version=2)
    assert diag.sqlstate == "ES016" and "version 2, which no rule names" in diag.message_primary
    assert refused(session.execute, "select es_protect('Named', 3, '{/full}')").sqlstate == "ES005"
    session.execute("select es_protect('Named', 2, '{/full}')")
    append(session, '{"full": "Mia", "n": 1}', schema_version=2)
    assert [payload for (payload,) in rows(session, "select payload from es_read('customer-1')")] == [{"full": None}, {"full": None, "n": 1}]
    assert verify(session) == []


def test_a_retry_is_compared_by_what_is_shown(session):
    session.execute(PROTECT)
    first = str(uuid.uuid4())
    append(session, event_id=first)
    for guess in (CLEAR, CLEAR.replace(NAME, "Somebody Else")):
        assert append(session, guess, event_id=first) == 1
        assert value(session, "select replayed from es_last_append()")
    assert refused(append, session, CLEAR.replace("12.50", "12.51"), event_id=first).sqlstate == "ES006"
    # Of those who only imagine an append, too.
    session.execute("create function f(s jsonb, e eventstream.event) returns jsonb immutable language sql as $$ select s || '{\"n\": 1}' $$")
    session.execute("select es_register_fold('f', 'customer', 'f(jsonb, eventstream.event)', initial_state => '{}')")
    simulate = "select es_simulate('customer-1', %s::jsonb)"
    event = '[{"type": "Named", "event_id": "%s", "payload": %s}]' % (first, CLEAR.replace(NAME, "Guess"))
    assert value(session, simulate, event) == {"n": 1}
    assert refused(session.execute, simulate, (event.replace("12.50", "13"),)).sqlstate == "ES006"


def oracle(document, pointers, way=()):
    """What a document shows, said plainly."""
    steps = [pointer for pointer in pointers if len(pointer) > len(way) and all(token == step or token == "*" and isinstance(step, int) or token == str(step)
                                                                              for token, step in zip(pointer, way))]
    ends = any(len(pointer) == len(way) and all(token == step or token == "*" and isinstance(step, int) or token == str(step) for token, step in zip(pointer, way)) for pointer in pointers)
    if ends:
        return None
    if not steps or document is None:
        return document
    nexts = {pointer[len(way)] for pointer in steps}
    if isinstance(document, dict) and (not document or nexts & set(document) or any(token != "*" and not token.isdigit() for token in nexts)):
        return {key: oracle(member, pointers, (*way, key)) for key, member in document.items()}
    if isinstance(document, list) and (not document or any(token == "*" or token.isdigit() for token in nexts)):
        return [oracle(element, pointers, (*way, place)) for place, element in enumerate(document)]
    return None


KEYS = ["a", "b", "name", "a/b", "~", "0", "1", "*", "a rather long key, of more bytes than a few"]


def imagined(source, depth):
    kind = source.random()
    if depth == 0 or kind < 0.35:
        return source.choice([None, True, False, "", "Mia", "ä €", "x" * source.choice([1, 50, 3000]), "number:1.10", "number:-0.001", "number:123456789012345678901234567890.5"])
    if kind < 0.6:
        return [imagined(source, depth - 1) for _ in range(source.choice([0, 1, 3, 35]))]
    return {key: imagined(source, depth - 1) for key in source.sample(KEYS, source.randrange(len(KEYS)))}


def printed(document):
    """As JSON, with numbers as they are written."""
    return json.dumps(document).replace('"number:1.10"', "1.10").replace('"number:-0.001"', "-0.001").replace('"number:123456789012345678901234567890.5"', "123456789012345678901234567890.5")


def test_documents_of_all_forms_show_what_the_pointers_leave(session):
    """As PostgreSQL holds them, and prints them: numbers with their scale, the same bytes as if they had been written so."""
    source = random.Random(12)
    documents = [imagined(source, 4) for _ in range(2000)]
    for begin in range(0, len(documents), 100):
        events = ", ".join('{"type": "Any", "payload": %s}' % printed(document) for document in documents[begin : begin + 100])
        session.execute("select es_append_events('any-1', %s::jsonb)", (f"[{events}]",))
    for _ in range(4):
        pointers = [tuple(source.choice(KEYS) for _ in range(source.randrange(4))) for _ in range(source.randrange(1, 6))]
        texts = ["".join("/" + token.replace("~", "~0").replace("/", "~1") for token in pointer) for pointer in pointers]
        session.execute("select es_protect('Any', pointers => %s)", (texts,))
        told = [text for (text,) in rows(session, "select payload::text from es_read('any-1', raw => true)")]
        wanted = [printed(oracle(document, pointers)) for document in documents]
        same = rows(session, "select t.n from unnest(%s::text[], %s::text[]) with ordinality t (a, b, n) where a::jsonb::text <> b", wanted, told)
        assert same == [], (texts, [(wanted[n - 1], told[n - 1]) for (n,) in same[:3]])
        # An index or a DISTINCT takes them for the same, too.
        assert value(session, "select bool_and(e.payload = w::jsonb and jsonb_hash(e.payload) = jsonb_hash(w::jsonb))"
                              " from es_read('any-1', raw => true) e join unnest(%s::text[]) with ordinality t (w, n) on n = e.version", wanted)


def test_rules_count_for_every_session_from_their_commit_on(quiet, session):
    append(session)
    with quiet.connect() as other:
        other.execute("prepare read as select payload ->> 'name' from es_read('customer-1'); prepare look as select payload ->> 'name' from eventstream.events")
        with other.transaction():
            other.execute("set transaction isolation level repeatable read")
            assert value(other, "execute read") == NAME == value(other, "execute look")
            with session.transaction():
                session.execute(PROTECT)
                assert value(other, "execute read") == NAME
            assert value(other, "execute read") is None and value(other, "execute look") is None
        with session.transaction(force_rollback=True):
            session.execute("select es_unprotect('Named')")
            assert value(session, "select payload ->> 'name' from es_read('customer-1')") is None
        assert value(session, "select payload ->> 'name' from es_read('customer-1')") is None


def test_an_append_that_is_open_is_waited_for(quiet, session):
    with quiet.connect() as other:
        with other.transaction():
            append(other, '{"lines": {"who": "Mia"}}')
            session.execute("set eventstream.gate_timeout = '200ms'")
            assert refused(session.execute, PROTECT).sqlstate == "55P03"
        session.execute("reset eventstream.gate_timeout")
        done = threading.Event()

        def protect():
            session.execute(PROTECT)
            done.set()

        with other.transaction():
            append(other)
            thread = threading.Thread(target=protect)
            thread.start()
            assert not done.wait(0.3)
        thread.join(20)
        assert done.is_set() and value(other, "select payload ->> 'name' from es_read('customer-1', from_version => 2)") is None


def test_only_an_admin_protects_and_everybody_who_reads_sees_the_rules(quiet, session):
    clerk = quiet.role("protect_clerk")
    session.execute("select es_grant('protect_clerk', p) from unnest('{read,manage,append,audit,upkeep}'::text[]) p")
    with quiet.connect(user=clerk) as junior:
        for statement in (PROTECT, "select es_unprotect('Named')"):
            assert refused(junior.execute, statement).sqlstate == "42501"
        session.execute("select es_grant('protect_clerk', 'admin')")
        junior.execute(PROTECT)
        junior.execute("select es_protect('Named', pointers => '{/name}', metadata_pointers => '{/note}')")
        assert rows(junior, "select kind, event_type, schema_version, pointers, clear_pointers, metadata_pointers, tenant from eventstream.protections") == [
            ("event", "Named", 1, ["/name"], None, ["/note"], "default")]
        assert value(junior, "select es_unprotect('Named')") == 1
    acts = rows(session, "select event_type, payload -> 'after' ->> 'event_type' from eventstream.administration where payload ->> 'kind' = 'protection' order by 1")
    assert acts == [("FieldsProtected", "Named"), ("FieldsUnprotected", None), ("ProtectionAltered", "Named")]
    assert rows(session, "select * from es_verify_audit()") == []
    # Who proves what was recorded is told what is hidden of it, and of no other tenant.
    session.execute(PROTECT)
    session.execute("select es_create_tenant('other')")
    with session.transaction():
        session.execute("set local eventstream.tenant = 'other'; select es_protect('Else', pointers => '{/name}')")
    auditor = quiet.role("protect_reviewer")
    session.execute("set eventstream.tenant = 'default'; select es_grant('protect_reviewer', 'audit')")
    with quiet.connect(user=auditor) as there:
        assert rows(there, "select event_type, tenant from eventstream.protections") == [("Named", "default")]
        assert rows(there, "select tenant, status from eventstream.tenants") == [("default", "open")]
        there.execute("set eventstream.tenant = 'other'")
        assert refused(there.execute, "select * from eventstream.protections").sqlstate == "42501"
        assert rows(there, "select tenant from eventstream.tenants") == [("default",)]
        session.execute("select es_grant('protect_reviewer', 'audit', 'other')")
        # He verifies one after the other, and has to know which.
        there.execute("reset eventstream.tenant")
        assert rows(there, "select tenant from eventstream.tenants order by 1") == [("default",), ("other",)]
        there.execute("set eventstream.tenant = 'other'")
        assert rows(there, "select event_type, tenant from eventstream.protections") == [("Else", "other")]


def test_nothing_is_said_twice_and_a_rule_is_changed_by_another(session):
    notices = []
    session.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    session.execute(PROTECT)
    session.execute(PROTECT)
    assert notices[1:] == ['"Named" version 1 is protected so already']
    assert value(session, "select count(*) from eventstream.administration where payload ->> 'kind' = 'protection'") == 1
    append(session)
    session.execute("select es_protect('Named', pointers => '{/amount}')")
    assert value(session, "select payload - 'lines' from es_read('customer-1')") == {"name": NAME, "amount": None}


@pytest.mark.parametrize(
    "call",
    [
        "es_protect('Named')",
        "es_protect('Named', pointers => '{/a}', clear_pointers => '{/b}')",
        "es_protect('Named', pointers => '{a}')",
        "es_protect('Named', pointers => '{/a~2}')",
        "es_protect('Named', pointers => '{/a/-}')",
        "es_protect('Named', pointers => '{null}')",
        "es_protect('Named', pointers => array(select '/' || n from generate_series(1, 65) n))",
        "es_protect('Named', 0, '{/a}')",
        "es_protect('Named', 2, '{/a}')",
        "es_protect('Named', null, '{/a}')",
        "es_protect(null, 1, '{/a}')",
        "es_protect('', 1, '{/a}')",
        "es_protect('StreamClosed', 1, '{/a}')",
        "es_protect('Named', pointers => '{}', metadata_pointers => '{/actor}')",
        "es_protect('Named', pointers => '{}', metadata_pointers => array[''])",
        "es_protect('Named', pointers => '{/a}', kind => 'events')",
        "es_protect('Named', pointers => '{/a}', kind => null)",
        "es_protect('Pay', 2, '{/a}', kind => 'command')",
        "es_protect('Pay', pointers => '{/a}', metadata_pointers => '{/a}', kind => 'command')",
        "es_unprotect('Named')",
        "es_unprotect('Named', 'all')",
        "es_unprotect(null)",
    ],
)
def test_what_is_no_rule_is_refused_by_its_argument(session, call):
    assert refused(session.execute, f"select {call}").sqlstate == "ES005"
    assert rows(session, "select * from eventstream.protections") == []


UP = "create function up(p jsonb, m jsonb) returns jsonb immutable language sql as $$ select p - 'name' || jsonb_build_object('first', split_part(p ->> 'name', ' ', 1), 'n', {}) $$"


def test_upcasters_take_what_the_door_gives_them(session):
    session.execute(UP.format("jsonb_array_length(p -> 'lines')"))
    session.execute("select es_register_upcaster('Named', 1, 'up(jsonb, jsonb)')")
    append(session)
    diag = refused(session.execute, PROTECT)
    assert diag.sqlstate == "ES005" and "must have an example of version 1" in diag.message_primary
    session.execute("select es_create_event_type('Named', 1, '{\"required\": [\"name\"], \"properties\": {\"name\": {\"type\": \"string\"}}}', example => %s)", (CLEAR,))
    session.execute("select es_create_event_type('Named', 2, '{\"properties\": {\"first\": {\"type\": \"string\"}}}', appendable => false)")
    session.execute("select es_protect('Named', 1, '{/name,/lines/*/who}')")
    assert value(session, "select payload from es_read('customer-1')") == {"first": None, "n": 2} | {key: RESIDUAL[key] for key in ("amount", "lines")}
    # An array that is null is none.
    diag = refused(session.execute, "select es_protect('Named', 1, '{/name,/lines}')")
    assert diag.sqlstate == "ES005" and "take null" in diag.message_primary and "22023" in diag.message_primary
    assert value(session, "select payload ->> 'n' from es_read('customer-1')") == "2"
    # Nor is one registered that cannot.
    session.execute(UP.replace("up(", "worse(").format("1 / (case when p ->> 'name' is null then 0 else 1 end)"))
    assert refused(session.execute, "select es_register_upcaster('Named', 1, 'worse(jsonb, jsonb)')").sqlstate == "ES005"
    # Nor is the example taken away by which that is known.
    assert refused(session.execute, "select es_alter_event_type('Named', 1, '{\"example\": null}')").sqlstate == "ES005"
    assert value(session, "select payload ->> 'first' from es_read('customer-1')") is None


def test_what_upcasters_turn_into_a_protected_type_is_protected_too(session):
    session.execute("create function up(p jsonb, m jsonb) returns jsonb immutable language sql as 'select p'")
    append(session, event_type="Called")
    session.execute("select es_register_upcaster('Called', 1, 'up(jsonb, jsonb)', to_event_type => 'Named')")
    protect = "select es_protect('Named', 1, '{/name}'), es_protect('Named', 2, '{/name}')"
    diag = refused(session.execute, protect)
    assert diag.sqlstate == "ES005" and 'must not leave out "Called"' in diag.message_primary
    session.execute("select es_create_event_type('Called', 1, example => '{}')")
    session.execute("select es_protect('Called', 1, '{/name}')")
    session.execute(protect)
    assert value(session, "select payload ->> 'name' from es_read('customer-1')") is None
    diag = refused(session.execute, "select es_register_upcaster('Else', 1, 'up(jsonb, jsonb)', to_event_type => 'Named')")
    assert diag.sqlstate == "ES005" and 'must not leave out "Else"' in diag.message_primary
    assert refused(session.execute, "select es_unprotect('Called')").sqlstate == "ES005"


def test_a_fold_on_what_is_protected_is_refused_whichever_comes_first(session):
    rules = '{"on": {"Named": [{"set": {"/name": "/name"}}, {"add": {"/sum": "/amount"}}]}}'
    register = "select es_register_fold('sum', 'customer', rules => %s, initial_state => '{\"sum\": 0}')"
    session.execute(register, (rules,))
    diag = refused(session.execute, PROTECT)
    assert diag.sqlstate == "ES005" and 'rule "/on/Named/0/set" of fold "sum" reads "/name"' in diag.message_primary
    session.execute(register, (rules.replace('{"set": {"/name": "/name"}}, ', ""),))
    session.execute(PROTECT)
    assert refused(session.execute, register, (rules,)).sqlstate == "ES005"
    assert refused(session.execute, "select es_register_fold('all', null, rules => %s)", (rules,)).sqlstate == "ES005"
    append(session)
    assert value(session, "select es_state('customer-1')") == {"sum": 12.5}


def test_states_from_before_a_rule_are_no_states_of_now(session):
    prepare(session)
    append(session)
    session.execute("select es_snapshot('customer-1')")
    before = value(session, "select _eventstream.fold_fingerprint(1, 'kept')")
    other = value(session, "select _eventstream.fold_fingerprint(1, 'ruled')")
    session.execute(PROTECT)
    assert value(session, "select _eventstream.fold_fingerprint(1, 'kept')") != before and value(session, "select _eventstream.fold_fingerprint(1, 'ruled')") != other
    assert refused(session.execute, "select es_snapshot_state('customer-1', 1)").sqlstate == "ES012"
    assert value(session, "select is_current from eventstream.snapshots") is False
    assert value(session, "select es_state('customer-1') -> 'last' ->> 'name'") is None
    session.execute("select es_unprotect('Named')")
    assert value(session, "select _eventstream.fold_fingerprint(1, 'kept')") == before


def test_what_failures_said_before_the_rule_is_not_told_any_more(session):
    append(session)
    session.execute("create function see(event eventstream.event) returns void language plpgsql as $$ begin raise 'no: %', event.payload using detail = event.payload::text; end $$")
    session.execute("create function up(p jsonb, m jsonb) returns jsonb immutable language sql as 'select p'")
    session.execute("select es_create_event_type('Named', 1, example => '{}'), es_register_upcaster('Named', 1, 'up(jsonb, jsonb)', to_event_type => 'Renamed')")
    for name, error in (("skips", "skip"), ("stops", "stop")):
        session.execute(f"select es_create_projection('{name}', 'see(eventstream.event)', on_error => '{error}', max_retries => 0)")
        try:
            session.execute(f"select es_run_projection('{name}')")
        except psycopg.Error as raised:
            assert NAME in str(raised)
    session.execute("select es_create_subscription('sub'); select es_append('customer-2', 'Other', '{}')")
    lease, position = rows(session, "select lease_id, (event).global_position from es_fetch('sub', 'me')")[0]
    session.execute("select es_nack(%s, %s, %s, interval '1 h')", (lease, position, f"no: {NAME}"))
    texts = ("select d::text from eventstream.dead_letters d union all select p::text from eventstream.projections p union all select h::text from eventstream.health h"
             " union all select k::text from _eventstream.subscription_parked k union all select g::text from _eventstream.projection_progress g union all select l::text from _eventstream.dead_letters l")
    assert len([text for (text,) in rows(session, texts) if NAME in text]) >= 5
    session.execute(PROTECT)
    assert [text for (text,) in rows(session, texts) if NAME in text] == []
    assert value(session, "select reason from eventstream.dead_letters") == "not told: fields of the event are protected"


def test_another_tenant_has_rules_of_its_own(session):
    session.execute("select es_create_tenant('b')")
    session.execute("set eventstream.tenant = 'default'; " + PROTECT)
    append(session)
    session.execute("set eventstream.tenant = 'b'")
    append(session, '{"lines": 1, "name": "Mia"}')
    assert value(session, "select payload ->> 'name' from es_read('customer-1')") == "Mia"
    assert value(session, "select payload ->> 'name' from eventstream.events") == "Mia"
    assert rows(session, "select * from eventstream.protections") == []


def test_a_dump_takes_the_rules_along(quiet, session):
    session.execute(PROTECT)
    append(session)
    copy = Database(quiet.server, quiet.name[:50] + "_copy").create(extension=False)
    try:
        run_psql(copy, run("pg_dump", env=quiet.server.address(quiet.name)))
        with copy.connect() as there:
            assert value(there, "select payload ->> 'name' from es_read('customer-1')") is None
            assert value(there, "select attstattarget from pg_attribute where attrelid = '_eventstream.events_1'::regclass and attname = 'payload'") == 0
            assert verify(there) == []
    finally:
        copy.drop()


def test_no_column_that_may_repeat_what_events_say_has_statistics(session):
    """By their names: states, answers, and texts of failures."""
    columns = "answer error_detail error_message last_error metadata outline payload reason result state".split()
    found = rows(
        session,
        "select c.relname, a.attname, coalesce(a.attstattarget, -1) from pg_class c join pg_attribute a on a.attrelid = c.oid"
        " where c.relnamespace = '_eventstream'::regnamespace and c.relname <> 'periods' and c.relkind in ('r', 'p') and a.attname = any (%s) order by 1, 2",
        columns,
    )
    assert len(found) > 15 and not [column for *column, target in found if target != 0]


def test_no_statistics_hold_values(session):
    append(session)
    targets = ("select coalesce(attstattarget, -1) from pg_attribute where attname in ('payload', 'metadata') and (attrelid = '_eventstream.events'::regclass"
               " or attrelid in (select inhrelid from pg_inherits where inhparent = '_eventstream.events'::regclass))")
    assert {target for (target,) in rows(session, targets)} == {0}
    found = "select count(*) from pg_stats where schemaname = '_eventstream' and tablename like 'events%' and attname in ('payload', 'metadata')"
    session.execute("analyze")
    assert value(session, found) == 0
    # Of a partition that was restored from a log where they were kept.
    with session.transaction():
        session.execute("set local eventstream.allow_drop = on; alter table only _eventstream.events_1 alter column payload set statistics 100")
    session.execute("analyze _eventstream.events_1")
    assert value(session, found) == 1
    session.execute(PROTECT)
    assert value(session, found) == 0 and {target for (target,) in rows(session, targets)} == {0}
    session.execute("analyze")
    assert value(session, found) == 0


def test_no_statistics_of_a_new_partition_hold_values(quiet):
    quiet.make_partitions_small()
    with quiet.connect() as session:
        append(session)
        near_edge(session, 10)
        session.execute("select * from es_maintain()")
        new = partitions(session)[1:]
        assert new
        session.execute("select es_append('customer-2', 'Named', jsonb_build_object('name', 'canary', 'n', n)) from generate_series(1, 30) n")
        assert value(session, f"select count(*) from _eventstream.{new[0]}") > 0
        session.execute("analyze")
        for partition in new:
            targets = rows(session, "select attname, attstattarget from pg_attribute where attrelid = %s::regclass and attname in ('payload', 'metadata')", f"_eventstream.{partition}")
            assert sorted(targets) == [("metadata", 0), ("payload", 0)], partition
        held = "select distinct attname in ('payload', 'metadata') from pg_stats where schemaname = '_eventstream' and tablename = any(%s)"
        assert rows(session, held, new) == [(False,)]


def test_where_there_is_no_rule_nothing_is_looked_at(session):
    append(session)
    assert rows(session, "select payload::text, salt is null from es_read('customer-1')") == [
        ('{"name": "Mia Q. Canary", "lines": [{"n": 1, "who": "Mia Q. Canary"}, {"n": 2}], "amount": 12.50}', False)]
    assert value(session, "select es_append('customer-1', 'Other', %s)", Jsonb({"name": NAME})) == 2


# Commands, and operations outside

BANK = """
create function pay(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $$
begin
    if command.payload ->> 'fails' is not null then
        raise exception 'no such card: %', command.payload ->> 'card' using errcode = command.payload ->> 'fails', detail = command.payload::text;
    end if;
    return jsonb_build_object('events', jsonb_build_array(jsonb_build_object('type', 'Paid', 'payload', command.payload)),
                              'result', jsonb_build_object('card', command.payload ->> 'card', 'ok', true),
                              'schedule', jsonb_build_array(jsonb_build_object('stream', command.stream, 'command_type', 'Pay', 'payload', command.payload, 'command_key', 'later-' || command.stream, 'run_at', '2100-01-01T00:00:00Z')));
end $$;
create function keep(state jsonb, event eventstream.event) returns jsonb immutable language sql as $$ select jsonb_build_object('last', event.payload) $$;
select es_register_fold('kept', 'account', 'keep(jsonb, eventstream.event)', initial_state => '{}');
select es_register_decider('pays', 'account', 'pay(jsonb, eventstream.command)');
select es_protect('Paid', pointers => '{/card}');
"""
PAY = '{"card": "4111-1111", "amount": 5.00}'


@pytest.mark.parametrize("when", ["before", "after"])
def test_commands_go_out_without_what_is_protected_of_them(session, when):
    session.execute(BANK)
    rule = "select es_protect('Pay', pointers => '{/card}', kind => 'command')"
    if when == "before":
        session.execute(rule)
    first = value(session, "select es_command('account-1', 'Pay', %s, command_key => 'k')", PAY)
    assert first["result"]["card"] == (None if when == "before" else "4111-1111")
    if when == "after":
        session.execute(rule)
    # Its decider was given all of it.
    assert value(session, "select payload ->> 'card' from _eventstream.events where event_type = 'Paid'") == "4111-1111"
    assert value(session, "select payload from es_read('account-1')") == {"card": None, "amount": 5.0}
    if when == "before":
        for guess in (PAY, PAY.replace("4111", "4222")):
            assert value(session, "select es_command('account-1', 'Pay', %s, command_key => 'k')", guess) == first | {"replayed": True}
        assert refused(session.execute, "select es_command('account-1', 'Pay', %s, command_key => 'k')", (PAY.replace("5.00", "5"),)).sqlstate == "ES030"
    else:
        # Kept as a digest over all of it: nobody can tell any more whether it is the same.
        assert refused(session.execute, "select es_command('account-1', 'Pay', %s, command_key => 'k')", (PAY,)).sqlstate == "ES030"
    assert rows(session, "select payload from eventstream.scheduled_commands") == [({"card": None, "amount": 5.0},)]
    told = value(session, "select es_simulate_command('account-2', 'Pay', %s)::text", PAY.replace("4111", "4222"))
    assert "4222" not in told and '"amount": 5.00' in told and "4111" not in told
    diag = refused(session.execute, "select es_command('account-1', 'Pay', '\"text\"')")
    assert diag.sqlstate == ("ES016") and "the command has a string at its root" in diag.message_primary


def test_the_errors_of_a_command_repeat_nothing_of_it_but_what_its_decider_says_to_whoever_sent_it(quiet, session):
    session.execute(BANK)
    schema = '{"Pay": {"schema": {"properties": {"amount": {"type": "number"}, "card": {"maxLength": 12, "pattern": "^4"}}}}}'
    session.execute("select es_register_decider('pays', 'account', 'pay(jsonb, eventstream.command)', commands => %s)", (schema,))
    session.execute("select es_protect('Pay', pointers => '{/card}', kind => 'command')")
    # As health asks for.
    session.execute("set log_parameter_max_length = 0; set log_parameter_max_length_on_error = 0; set log_min_error_statement = panic")
    begin = len(quiet.server.log.read_text(errors="replace"))
    ours = [
        ('{"card": "4111-1111", "amount": "much"}', 0, "ES016"),
        ('{"card": "4111-1111 4111-1111", "amount": 1}', 0, "ES016"),
        ('{"card": "x4111-1111", "amount": 1}', 0, "ES016"),
        (PAY, 7, "ES001"),
    ]
    for function in ("es_command", "es_simulate_command"):
        for payload, expected, state in ours:
            diag = refused(session.execute, f"select {function}('account-1', 'Pay', %s, %s)", (payload, expected))
            assert diag.sqlstate == state and "4111" not in f"{diag.message_primary} {diag.message_detail} {diag.message_hint} {diag.context}", diag.message_primary
    assert "4111" not in quiet.server.log.read_text(errors="replace")[begin:]
    # Its words are the decider's, and go to who has the card anyhow, under the SQLSTATE that it chose.
    for state in ("22023", "ES033", "UE001"):
        diag = refused(session.execute, "select es_command('account-1', 'Pay', %s, command_key => %s)", ('{"card": "4111-1111", "fails": "%s"}' % state, state))
        assert (diag.sqlstate, diag.message_primary) == (state, "no such card: 4111-1111")
    # Nothing of them is kept.
    kept = "select (select count(*) from {0} t where t::text like '%%4111%%')"
    for table in ("_eventstream.command_answers", "eventstream.dead_letters", "eventstream.health", "eventstream.commands", "eventstream.scheduled_commands"):
        assert value(session, kept.format(table)) == 0, table


def test_a_scheduled_command_is_executed_whole_and_says_nothing_of_it(new_server):
    server = new_server("protect", **{"eventstream.retry_pause": "10ms", "eventstream.max_retry_pause": "20ms"})
    with Database(server, "protect").create().connect() as session:
        session.execute(BANK)
        later = "select es_schedule_command('account-{}', 'Pay', %s, now() + interval '1 second', %s)"
        session.execute(later.format(1), (PAY, "before"))
        session.execute("select es_protect('Pay', pointers => '{/card}', kind => 'command')")
        session.execute(later.format(2), (PAY, "since"))
        # Another card is the same request to everybody; another amount is not.
        assert value(session, later.format(2), PAY.replace("4111", "4222"), "since")["replayed"]
        assert refused(session.execute, later.format(2), (PAY.replace("5.00", "6"), "since")).sqlstate == "ES030"
        session.execute(later.format(3), ('{"card": "4111-1111", "fails": "ES033"}', "refused"))
        session.execute(later.format(4), ('{"card": "4111-1111", "fails": "22023"}', "dead"))
        wait_until(lambda: value(session, "select count(*) filter (where stage in ('done', 'refused', 'dead')) from eventstream.scheduled_commands") == 4, 60)
        found = rows(session, "select s::text from eventstream.scheduled_commands s union all select d::text from eventstream.dead_letters d order by 1")
        assert len(found) == 7 and not [text for (text,) in found if "4111" in text or "4222" in text]
        # Once each, with what was asked.
        assert rows(session, "select s.name, e.payload ->> 'card' from _eventstream.events e join _eventstream.streams s on s.id = e.stream_id where e.tenant_id > 0 and s.name <> 'x' order by 1") == [
            ("account-1", "4111-1111"), ("account-2", "4111-1111")]
        assert value(session, "select count(*) from eventstream.health where detail like '%%4111%%'") == 0
        # Of what the runners did, the server's log says nothing either.
        failed = [line for line in server.log_tail(2000).splitlines() if "scheduled command" in line]
        assert failed and not [line for line in failed if "4111" in line]


def test_operations_outside_go_out_without_what_is_protected_of_them(session):
    begin = "select es_begin_command('charge', %s, %s)"
    token = value(session, begin, "old", PAY)["attempt_token"]
    session.execute("select es_complete_command(%s::uuid, %s)", (token, PAY))
    session.execute("select es_protect('charge', clear_pointers => '{/amount,/ok}', kind => 'command')")
    assert refused(session.execute, begin, ("old", PAY)).sqlstate == "ES030"
    token = value(session, begin, "new", PAY)["attempt_token"]
    session.execute("select es_complete_command(%s::uuid, %s)", (token, '{"card": "4111-1111", "ok": true}'))
    for guess in (PAY, PAY.replace("4111", "4222")):
        again = value(session, begin, "new", guess)
        assert (again["outcome"], again["result"]) == ("replay", {"card": None, "ok": True})
    token = value(session, begin, "bad", PAY)["attempt_token"]
    session.execute("select es_fail_command(%s::uuid, %s, false)", (token, '{"card": "4111-1111"}'))
    assert value(session, begin, "bad", PAY)["error"] == {"card": None}
    assert rows(session, "select error from eventstream.commands where error is not null") == [({"card": None},)]


def test_a_test_compares_what_is_shown(session):
    session.execute(BANK)
    session.execute("set client_min_messages = warning")
    tried = "select es_test('pays', command => %s, events => %s, states => %s)"
    command = '{"stream": "account-t", "command_type": "Pay", "payload": %s}' % PAY
    state = '{"account-t": {"last": {"card": null, "amount": 5.00}}}'
    hint = "fields of it are protected, and null to everybody: leave them out of what is expected"
    for payload, is_ok, is_explained in (
        ('{"amount": 5.00}', True, False),
        ('{"card": null, "amount": 5.00}', True, False),
        # Right or wrong: what nobody is shown cannot be expected, or a test could not fail.
        ('{"card": "4111-1111", "amount": 5.00}', False, True),
        ('{"card": "4222", "amount": 5.00}', False, True),
        ('{"amount": 6}', False, True),
    ):
        told = value(session, tried, command, '[{"type": "Paid", "payload": %s}]' % payload, state)
        assert told.startswith("ok" if is_ok else "not ok") and (hint in told) == is_explained and 'found "4' not in told, told
    session.execute("select es_protect('Pay', pointers => '{/card}', kind => 'command')")
    told = value(session, "select es_test('pays', command => %s, result => '{\"card\": \"4111-1111\"}')", command)
    assert told.startswith("not ok") and f"result: {hint}" in told, told
    session.execute("select es_unprotect('Paid')")
    told = value(session, tried, command, '[{"type": "Paid", "payload": {"card": "4222"}}]', None)
    assert told.startswith("not ok") and hint not in told, told


def test_health_looks_at_what_the_log_is_told(new_server):
    server = new_server("protect_log")
    with Database(server, "protect_log").create().connect() as session:
        look = "select status, detail, fix from eventstream.health where name = 'protected fields'"
        assert rows(session, look) == []
        session.execute(PROTECT)
        ((status, detail, fix),) = rows(session, look)
        assert status == "warning" and "log_parameter_max_length = 0" in detail and "log_min_error_statement = panic" in detail
        for statement in fix.splitlines():
            session.execute(statement)
        wait_until(lambda: value(session, look) == "ok", 20)
        # Nor is anything told then, of what fails with a value or is slow with one.
        session.execute("set log_min_duration_statement = 0")
        append(session)
        with pytest.raises(psycopg.Error):
            append(session, '{"lines": "Mia Q. Canary"}')
        assert "Canary" not in server.log_tail(2000)


# Proof

EXPORT = """copy (select tenant, tenant_uuid, stream, version, event_id, event_type, schema_version, subject, occurred_at, recorded_at, recorded_by, {},
    chain_hash, global_position, tags from {} order by tenant, stream, version) to stdout with (format csv, header)"""


def proven(session, what, source, change=lambda text: text):
    session.execute("set timezone = 'UTC'; set datestyle = 'ISO'; set bytea_output = 'hex'")
    with session.cursor().copy(EXPORT.format(what, source)) as copy:
        text = b"".join(bytes(part) for part in copy)
    done = subprocess.run([sys.executable, PROGRAM, "-"], input=change(text), capture_output=True, timeout=60)
    return done.returncode, done.stdout.decode().splitlines()[-1]


def test_the_chains_are_proven_without_a_payload(quiet, session):
    append(session)
    append(session, '{"amount": 1}', event_type="Other", tags=["a:1"])
    session.execute(PROTECT)
    append(session)
    assert verify(session) == []
    auditor = quiet.role("protect_auditor")
    session.execute("select es_grant('protect_auditor', 'audit')")
    with quiet.connect(user=auditor) as reader:
        assert refused(reader.execute, "select * from eventstream.events").sqlstate == "42501"
        assert value(reader, "select count(*) from eventstream.proof p where p::text like '%%Mia%%'") == 0
        events = value(reader, "select count(*) from eventstream.proof")
        code, last = proven(reader, "content_digest", "eventstream.proof")
        assert code == 0 and f"{events} of them by their content digests alone" in last
        code, last = proven(reader, "content_digest", "eventstream.proof", lambda text: text.replace(b"Named", b"Namex", 1))
        assert code == 1
    # Where more may be seen, all that is whole is computed.
    both = "(table eventstream.events union all table eventstream.administration) e join (select global_position as at, content_digest, tenant_uuid from eventstream.proof) p on p.at = e.global_position"
    code, last = proven(session, "salt, payload, metadata, content_digest", both)
    assert code == 0 and "2 of them by their content digests alone" in last
    code, _ = proven(session, "salt, payload, metadata, content_digest", both, lambda text: text.replace(b'""amount"": 1}', b'""amount"": 2}', 1))
    assert code == 1


# What is said beside


def said(session, statement):
    """The messages of a statement, with how grave they are."""
    heard = []
    handler = lambda notice: heard.append((notice.severity_nonlocalized, notice.message_primary))  # noqa: E731
    session.add_notice_handler(handler)
    try:
        session.execute(statement)
    finally:
        session.remove_notice_handler(handler)
    return heard


def test_a_rule_in_anothers_place_says_what_it_uncovers(session):
    session.execute("select es_append('patient-1', 'PatientNamed', '{\"name\": \"Mia\", \"phone\": \"1\"}')")
    assert said(session, "select es_protect('PatientNamed', pointers => '{/name}')") == []
    assert said(session, "select es_protect('PatientNamed', pointers => '{/name,/phone}')") == []
    gone = 'of "PatientNamed" version 1 no longer protected, in what is stored already, too: '
    assert said(session, "select es_protect('PatientNamed', pointers => '{/nmae,/phone}')") == [("WARNING", gone + "/name")]
    assert said(session, "select es_protect('PatientNamed', clear_pointers => '{/nmae}')") == [("WARNING", gone + "/nmae")]
    assert said(session, "select es_protect('PatientNamed', pointers => '{/name}')") == [("WARNING", gone + "whatever was not clear, but for what is listed now")]


def test_a_name_that_nothing_has_is_said(session):
    ask = "is protected from its first one on, if that is how it is spelt"
    for kind, what in (("event", "no event of that type is declared, or stored"), ("command", "no decider takes such a command, and no operation has that name")):
        ((severity, message),) = said(session, f"select es_protect('PatinetNamed', pointers => '{{/name}}', kind => '{kind}')")
        assert severity == "NOTICE" and message.startswith('"PatinetNamed": ' + what) and ask in message
    # Stored, declared, taken by a decider, and an operation.
    session.execute("select es_append('patient-1', 'Stored', '{}')")
    session.execute("select es_create_event_type('Declared', example => '{\"name\": \"x\"}')")
    session.execute("create function decide_on(state jsonb, command eventstream.command) returns jsonb stable language sql as $$ select null::jsonb $$")
    session.execute("select es_register_decider('patients', 'patient', 'decide_on(jsonb, eventstream.command)', commands => '{\"Admit\": {}}')")
    session.execute("select es_begin_command('charge', 'k', '{}')")
    for name, kind in (("Stored", "event"), ("Declared", "event"), ("Admit", "command"), ("charge", "command")):
        assert not [message for _, message in said(session, f"select es_protect('{name}', pointers => '{{/name}}', kind => '{kind}')") if "spelt" in message], name
