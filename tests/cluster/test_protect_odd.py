"""Protected fields and what does not fit them: events in whose way something stands, folds that cannot live with null, schemas that ask around it, readers whose snapshot is older than the rule."""

import json

import psycopg
import pytest
from database import rows, value

CANARY = "Mia Q. Canary"
KEEP = """create function keep(state jsonb, event eventstream.event) returns jsonb immutable language sql as $$ select state || event.payload $$;
select es_register_fold('kept', 'customer', 'keep(jsonb, eventstream.event)')"""


@pytest.fixture
def session(quiet):
    with quiet.connect() as connection:
        yield connection


@pytest.fixture
def said(session):
    """What it is told beside its answers."""
    told = []
    session.add_notice_handler(lambda notice: told.append(f"{notice.severity_nonlocalized}: {notice.message_primary}"))
    return told


def refused(session, statement, *args):
    with pytest.raises(psycopg.Error) as error:
        session.execute(statement, args)
    return error.value.diag


# Something stands in the way, and an upcaster cannot take null in its place

UPCAST = """create function numbers(payload jsonb, metadata jsonb) returns jsonb immutable language sql as $$
    select payload || jsonb_build_object('count', case jsonb_typeof(payload -> 'contacts') when 'object' then 1 else jsonb_array_length(payload -> 'contacts') end) $$;
select es_create_event_type('Named', 1, example => '{"name": "x", "contacts": [{"kind": "phone", "number": "1"}]}');
select es_register_upcaster('Named', 1, 'numbers(jsonb, jsonb)');"""


@pytest.mark.parametrize("rule", ["pointers => '{/contacts/*/number}'", "clear_pointers => '{/name,/contacts/*/kind}'"])
def test_an_event_with_something_in_the_way_does_not_stop_the_others(session, said, rule):
    session.execute(UPCAST + KEEP)
    session.execute("select es_create_subscription('sub')")
    for stream, contacts in (("customer-1", '[{"kind": "phone", "number": "%s"}]'), ("customer-2", '{"kind": "phone", "number": "%s"}'), ("customer-3", "[]")):
        session.execute("select es_append(%s, 'Named', %s)", (stream, '{"name": "n", "contacts": %s}' % (contacts.replace("%s", CANARY))))
    session.execute(f"select es_protect('Named', 1, {rule})")
    session.execute("select es_protect('Named', 2, pointers => '{}')")
    said.clear()
    found = rows(session, "select stream, schema_version, payload -> 'contacts', payload -> 'count' from es_read_all()")
    assert found == [("customer-1", 2, [{"kind": "phone", "number": None}], 1), ("customer-2", 1, None, None), ("customer-3", 2, [], 0)]
    assert [text for text in said if text.startswith("WARNING") and "upcaster" in text and "customer-2" in text] and CANARY not in str(said)
    for statement in ("select count(*) from es_read('customer-2')", "select count(*) from es_query('{}')", "select count(*) from es_fetch('sub', 'me')", "select count(*) from es_category_state('customer')"):
        assert value(session, statement) > 0, statement
    assert value(session, "select es_state('customer-2')") == {"name": "n", "contacts": None}
    # What fails without that is an error as ever.
    session.execute("create or replace function numbers(payload jsonb, metadata jsonb) returns jsonb immutable language sql as $$ select to_jsonb(1 / (payload ->> 'count')::int) $$")
    session.execute("""select es_append('customer-4', 'Named', '{"name": "n", "contacts": [], "count": 0}')""")
    assert refused(session, "select * from es_read('customer-4')").sqlstate in ("22012", "ES014")


# Folds by functions


def test_a_fold_that_fails_on_null_is_named(session, said):
    for name, category in (("fails", "customer"), ("fine", "supplier"), ("never", "other")):
        body = {"fails": "if event.payload ->> 'name' is null then raise division_by_zero; end if;", "fine": "", "never": "raise 'never';"}[name]
        session.execute(f"create function {name}(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$ begin {body} return state || event.payload; end $$")
        session.execute(f"select es_register_fold('{name}', '{category}', '{name}(jsonb, eventstream.event)')")
    session.execute("select es_create_event_type('Named', 1, example => '{\"name\": \"x\", \"n\": 1}')")
    said.clear()
    session.execute("select es_protect('Named', pointers => '{/name}')")
    warnings = [text for text in said if text.startswith("WARNING")]
    assert len(warnings) == 1 and 'fold "fails" fails with null' in warnings[0] and "22012" in warnings[0]
    assert not [text for text in said if "no example" in text]
    # It comes as it was said.
    session.execute(f"select es_append('customer-1', 'Named', '{{\"name\": \"{CANARY}\"}}'), es_append('supplier-1', 'Named', '{{\"name\": \"{CANARY}\"}}')")
    assert refused(session, "select es_state('customer-1')").sqlstate == "22012"
    assert value(session, "select es_state('supplier-1')") == {"name": None}


def test_a_fold_that_nothing_tried_is_told_of(session, said):
    def of_folds():
        return [text for text in said if "spelt" not in text]

    session.execute("select es_protect('First', pointers => '{/name}')")
    assert of_folds() == []
    session.execute(KEEP)
    session.execute("select es_protect('Second', pointers => '{/name}')")
    assert of_folds() == []
    session.execute("select es_append('other-1', 'Third', '{}'), es_append('customer-1', 'Named', '{}')")
    session.execute("select es_protect('Third', pointers => '{/name}')")
    assert of_folds() == []
    session.execute("select es_protect('Named', pointers => '{/name}')")
    assert [text for text in said if '"Named" version 1 has no example' in text and "folds by functions" in text]


#: Kinds of folds: what the function does with an event, or rules; of a category, or for queries. What is said where it fails on null, or cannot be tried.
FOLDS = {
    "a function": ("if event.payload ->> 'name' is null then raise division_by_zero; end if;", "'customer'", "fails with null where a value of \"Named\" version 1"),
    "a function for queries": ("if event.payload ->> 'name' is null then raise division_by_zero; end if;", "null", "fails with null where a value of \"Named\" version 1"),
    "one that takes null": ("", "'customer'", None),
    "one that takes nothing": ("raise 'never';", "'customer'", None),
    "one that fails on metadata": ("if event.metadata ->> 'why' is null then raise division_by_zero; end if;", "'customer'", None),
    "one of what an upcaster makes": ("if event.event_type = 'Newer' and event.payload ->> 'name' is null then raise division_by_zero; end if;", "'customer'", "of \"Older\" version 1"),
    "one that meets what was not tried": ("", "'other'", "\"Stored\" version 1 has no example"),
    "rules": (None, "'customer'", None),
}


@pytest.mark.parametrize("kind", FOLDS)
def test_the_same_is_said_of_a_fold_whichever_of_the_two_comes_first(quiet, session, said, kind):
    body, category, expected = FOLDS[kind]
    session.execute(
        """create function same(payload jsonb, metadata jsonb) returns jsonb immutable language sql as 'select payload';
           select es_create_event_type('Named', 1, example => '{"name": "x", "n": 1}'), es_create_event_type('Older', 1, example => '{"name": "x", "n": 1}');
           select es_register_upcaster('Older', 1, 'same(jsonb, jsonb)', to_event_type => 'Newer');
           select es_append('other-1', 'Stored', '{}'); select es_maintain()"""
    )
    if body is None:
        how = """rules => '{"on": {"Named": [{"set": {"/n": "/n"}}, {"increment": "/count"}]}}'"""
    else:
        session.execute(f"create function folds(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$ begin {body} return state || event.payload; end $$")
        how = "'folds(jsonb, eventstream.event)'" if body is not None else ""
        how = f"handler => {how}"
    register = f"select es_register_fold('f', {category}, {how}, initial_state => '{{\"count\": 0}}')"
    protect = "select es_protect(of, 1, pointers => '{/name}') from unnest('{Older,Newer,Named,Stored}'::text[]) of; select es_protect('Newer', 2, pointers => '{/name}')"
    told = []
    for order in ((register, protect), (protect, register)):
        said.clear()
        for statement in order:
            session.execute(statement)
        of_folds = sorted(text for text in said if "fails with null" in text or "no example" in text)
        told.append(of_folds)
        session.execute("select es_unregister_fold('f')")
        session.execute("select es_unprotect(of) from unnest('{Named,Newer,Stored}'::text[]) of; select es_unprotect('Older')" if order[0] == register else "select 1")
    assert set(told[0]) == set(told[1])
    assert any(expected in text for text in told[1]) if expected else told[1] == [], told


# What rules read by a key that an event names


def test_a_fold_that_may_read_what_is_protected_is_refused_whichever_comes_first(session):
    register = "select es_register_fold('rates', 'customer', rules => %s, initial_state => '{\"x\": 0}')"
    rules = '{"on": {"Rated": [{"add": {"/x": "/rates/{/currency}"}}]}}'
    session.execute(register, (rules,))
    diag = refused(session, "select es_protect('Rated', pointers => '{/rates/EUR}')")
    assert diag.sqlstate == "ES005" and "/rates/{/currency}" in diag.message_primary
    session.execute("select es_unregister_fold('rates'); select es_protect('Rated', pointers => '{/rates/EUR}')")
    diag = refused(session, register, rules)
    assert diag.sqlstate == "ES005" and "/rates/{/currency}" in diag.message_primary
    session.execute(register, (rules.replace("/rates/", "/others/"),))


# Schemas that ask around what is hidden

SCHEMA = {
    "properties": {"lines": {"type": "array", "uniqueItems": True, "minItems": 1, "items": {"required": ["who"]}}, "n": {"type": "integer"}},
    "anyOf": [{"properties": {"name": {"type": "string"}}}, {"required": ["company"]}],
    "if": {"properties": {"name": {"const": "x"}}, "required": ["name"]},
    "else": {"required": ["why"]},
    "required": ["n"],
}


def test_a_check_of_stored_events_tells_all_that_breaks_the_schema_behind_what_null_made(session):
    """The first in the schema's order is the protected one, a rule with many parts, a rule of the root, and one of an array's elements; 20 of an event at most, and the first of a large one."""
    schema = {"properties": {"a": {"type": "string"}, "m": {"type": "integer"}, "z": {"type": "array", "items": {"type": "string"}}}, "required": ["r", "s"]}
    payloads = ['{"a": "x", "m": "1", "z": ["a", 2, 3], "s": 1}', json.dumps({"a": "x", "m": 1, "z": list(range(30)), "r": 1, "s": 1}), json.dumps({"a": "x", "m": "1", "z": [1], "r": "x" * 70000, "s": 1})]
    for payload in payloads:
        session.execute("select es_append('c-1', 'Named', %s::jsonb)", (payload,))
    session.execute("select es_create_event_type('Named', 1, %s)", (json.dumps(schema),))
    look = "select version, value, rule from es_check_event_types(thorough => true) where version is not null order by 1, 2"
    told = rows(session, look)
    assert {row[1:] for row in told if row[0] == 1} == {("", "/required"), ("/m", "/properties/m/type"), ("/z/1", "/properties/z/items/type"), ("/z/2", "/properties/z/items/type")}
    assert [row[0] for row in told if row[0] > 1] == [2] * 20 + [3]
    session.execute("select es_protect('Named', pointers => '{/a}')")
    assert {row[1] for row in rows(session, look) if row[0] == 1} == {"", "/m", "/z/1", "/z/2"}
    session.execute("select es_protect('Named', pointers => '{/z}')")
    assert {row[1] for row in rows(session, look) if row[0] == 1} == {"", "/m"}


def test_a_check_of_stored_events_reports_no_breach_that_null_made(session):
    session.execute("select es_create_event_type('Named', 1, %s)", (json.dumps(SCHEMA),))
    session.execute("""select es_append('c-1', 'Named', '{"name": "x", "n": 1, "lines": [{"who": "a"}, {"who": "b"}]}')""")
    session.execute("select es_alter_event_type('Named', 1, '{\"json_schema\": null}')")
    for payload in ('{"name": "x", "lines": [{"who": "a"}]}', '{"name": "x", "n": 1, "lines": [{"who": "a"}, {}]}', '{"name": "x", "n": 1, "lines": []}', '{"name": "x", "n": "1", "lines": [{"who": "a"}]}'):
        session.execute("select es_append('c-1', 'Named', %s::jsonb)", (payload,))
    session.execute("select es_alter_event_type('Named', 1, %s)", (json.dumps({"json_schema": SCHEMA}),))
    told = lambda: rows(session, "select version, problem from es_check_event_types(thorough => true) where version is not null order by 1")
    before = told()
    assert [version for version, _ in before] == [2, 3, 4, 5]
    session.execute("select es_protect('Named', pointers => '{/name,/lines/*/who}')")
    assert told() == before


# What a rule has nothing to do with


def test_states_of_folds_that_a_type_says_nothing_to_are_kept(session, said):
    session.execute("""select es_register_fold('sums', 'customer', rules => '{"on": {"Paid": [{"add": {"/sum": "/amount"}}]}}', initial_state => '{"sum": 0}');
        select es_create_state_table('sums', 'customer', '[{"name": "sum", "type": "int", "path": "/sum"}]', mode => 'inline');
        create function same(payload jsonb, metadata jsonb) returns jsonb immutable language sql as 'select payload';
        select es_create_event_type('Called', 1, example => '{"name": "x"}');
        select es_create_event_type('Old', 1, example => '{"amount": 1, "card": "x"}');
        select es_register_upcaster('Called', 1, 'same(jsonb, jsonb)', to_event_type => 'Named');
        select es_register_upcaster('Old', 1, 'same(jsonb, jsonb)', to_event_type => 'Paid');
        select es_append('customer-1', 'Paid', '{"amount": 5, "card": "x"}'), es_append('customer-1', 'Called', '{"name": "Mia"}'), es_append('customer-1', 'Old', '{"amount": 7, "card": "x"}');""")
    session.execute("select es_snapshot('customer-1')")
    fingerprint = "select _eventstream.fold_fingerprint(1, 'sums')"
    before, written = value(session, fingerprint), value(session, "select xmin::text from sums")
    said.clear()
    session.execute("select es_protect('Other', pointers => '{/name}'), es_protect('Called', pointers => '{/name}')")
    assert ["spelt" in text for text in said] == [True] and value(session, fingerprint) == before and value(session, "select xmin::text from sums") == written
    assert value(session, "select is_current from eventstream.snapshots") is True
    # What becomes an event of a type that the fold names does.
    session.execute("begin; select es_protect('Old', pointers => '{/card}')")
    assert value(session, fingerprint) != before and [text for text in said if "sums" in text]
    session.execute("rollback")
    assert value(session, fingerprint) == before
    assert value(session, "select es_state('customer-1')") == {"sum": 12}


# Readers from before the rule


def test_texts_are_withheld_from_a_snapshot_that_is_older_than_the_rule(quiet, session):
    session.execute("set client_min_messages = error")
    session.execute("""create function see(event eventstream.event) returns void language plpgsql as $$ begin raise 'no: %', event.payload using detail = event.payload::text; end $$;
        select es_create_projection('skips', 'see(eventstream.event)', on_error => 'skip', max_retries => 0), es_create_projection('stops', 'see(eventstream.event)', max_retries => 0)""")
    for number in range(3):
        session.execute(f"select es_append('customer-{number}', 'Named', '{{\"name\": \"{CANARY}\"}}')")
    for name in ("skips", "stops"):
        try:
            session.execute(f"select es_run_projection('{name}')")
        except psycopg.Error:
            pass
    letters, projections = "select reason, error_detail from eventstream.dead_letters", "select error_message, error_detail from eventstream.projections"
    with quiet.connect() as reader, quiet.connect() as opened, reader.transaction(), opened.transaction():
        reader.execute("set transaction isolation level repeatable read")
        assert CANARY in str(rows(reader, letters)) and CANARY in str(rows(reader, projections))
        opened.execute(f"declare c cursor for {letters}")
        assert CANARY in str(opened.execute("fetch 1 from c").fetchall())
        session.execute("select es_protect('Named', pointers => '{/name}')")
        for told in (rows(reader, letters), rows(reader, projections)):
            assert told and CANARY not in str(told) and "not told" in str(told)
        with pytest.raises(psycopg.errors.SerializationFailure), opened.transaction():
            opened.execute("fetch all from c")
        # What came since is told.
    session.execute("select es_append('customer-9', 'Other', '{\"n\": \"told\"}')")
    session.execute("select es_run_projection('skips')")
    assert "told" in str(rows(session, f"{letters} where event_type = 'Other'"))


# Who reads the tables


def test_health_names_roles_that_read_the_tables_themselves(quiet, session):
    look = "select status, detail, fix from eventstream.health where name = 'protected tables'"
    bi, group = quiet.role("protect_bi"), quiet.role("protect_group", "nologin")
    session.execute(f"grant pg_read_all_data to {group}; grant {group} to {bi}")
    try:
        assert rows(session, look) == []
        session.execute("select es_protect('Named', pointers => '{/name}')")
        ((status, detail, fix),) = rows(session, look)
        assert status == "warning" and bi in detail and fix == f'revoke pg_read_all_data from "{group}";' and group not in detail
        session.execute(fix)
        assert rows(session, look) == []
    finally:
        session.execute(f"revoke pg_read_all_data from {group}")
