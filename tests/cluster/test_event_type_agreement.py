"""Whatever is declared of event types agrees: examples with the schemas of all versions that they become, versions with the upcasters that lead from each to the next.

Asked of the kinds: transaction and load (two at once: tests/isolation/specs/declared_together.spec), session (a setting that skips upcasters), code of others (upcasters
that raise), reader of the answer (hints typed as they are printed)."""

import zlib

import pytest
from database import rows, value
from test_event_types import append, declare, refused


@pytest.fixture
def session(database):
    with database.connect() as connection:
        yield connection


def step(session, event_type, version, to=None, body="p"):
    name = f"step_{event_type.lower()}_{version}_{zlib.crc32(body.encode())}"
    session.execute(f"create or replace function {name}(p jsonb, m jsonb) returns jsonb immutable language sql as $$ select {body} $$")
    session.execute("select es_register_upcaster(%s, %s, %s, to_event_type => %s)", (event_type, version, f"{name}(jsonb, jsonb)", to))


def schema(session, event_type, version, schema):
    session.execute("select es_alter_event_type(%s, %s, jsonb_build_object('json_schema', %s::jsonb))", (event_type, version, schema))


def test_examples_are_judged_across_all_renamings(session):
    declare(session, event_type="A", version=9, example={"a": 1})
    step(session, "A", 9, to="B")
    step(session, "B", 10, to="C")
    step(session, "C", 11, to="D")
    diag = refused(declare, session, event_type="D", version=12, schema={"required": ["z"]})
    assert diag.sqlstate == "ES016" and 'example of "A" version 9' in diag.message_primary
    declare(session, event_type="D", version=12, schema={"required": ["a"]})
    assert refused(schema, session, "D", 12, '{"required": ["z"]}').sqlstate == "ES016"
    assert refused(step, session, "C", 11, to="D", body="'{}'::jsonb").sqlstate == "ES016"
    # Names in a circle, with versions that go up.
    step(session, "D", 12, to="A")
    declare(session, event_type="A", version=13, schema={"required": ["a"]})
    assert refused(schema, session, "A", 13, '{"required": ["z"]}').sqlstate == "ES016"


def test_each_declared_version_on_the_way_is_judged(session):
    declare(session, event_type="T", example={"a": 1})
    for version in (1, 2, 3):
        step(session, "T", version, body=f"p || '{{\"v{version}\": 1}}'")
    declare(session, event_type="T", version=4)
    assert refused(declare, session, event_type="T", version=2, schema={"required": ["b"]}).sqlstate == "ES016"
    declare(session, event_type="T", version=3, schema={"required": ["v1", "v2"]})
    diag = refused(step, session, "T", 1, body="p")
    assert diag.sqlstate == "ES016" and "version 3" in diag.message_primary
    assert refused(session.execute, "select es_alter_event_type('T', 3, '{\"json_schema\": {\"required\": [\"b\"]}}')").sqlstate == "ES016"


def test_no_setting_lets_an_upcaster_through_that_fails_on_an_example(session):
    declare(session, event_type="T", example={"a": 1})
    session.execute("create function raises(p jsonb, m jsonb) returns jsonb immutable language plpgsql as $$ begin raise 'no' using errcode = 'P0042'; end $$")
    session.execute("set eventstream.on_upcast_error = 'skip'")
    assert refused(session.execute, "select es_register_upcaster('T', 1, 'raises(jsonb, jsonb)')").sqlstate == "P0042"


def test_what_was_refused_is_known_to_nobody_not_to_its_session_either(session):
    assert refused(declare, session, schema={"required": ["a"]}, example={}).sqlstate == "ES016"
    append(session, {})
    declare(session, example={"a": 1}, schema={"required": ["a"]})
    assert refused(session.execute, "select es_alter_event_type('Credited', 1, '{\"json_schema\": {\"required\": [\"z\"]}}')").sqlstate == "ES016"
    append(session, {"a": 1})
    step(session, "Credited", 1)
    declare(session, version=2, schema={"required": ["a"]})
    assert refused(step, session, "Credited", 1, body="'{}'::jsonb").sqlstate == "ES016"
    assert rows(session, "select payload from es_read('account-1')") == [({},), ({"a": 1},)]


def follow(session, diag):
    """Types the hint, with a function that is there."""
    session.execute("create or replace function your_function(p jsonb, m jsonb) returns jsonb immutable language sql as 'select p'")
    session.execute(diag.message_hint.split(": ", 1)[1])


def test_each_declared_version_leads_to_the_next_whichever_came_first(session):
    declare(session, event_type="T", version=4)
    diag = refused(declare, session, event_type="T", version=2)
    assert diag.sqlstate == "ES005" and "version 2 of" in diag.message_primary and "version 4" in diag.message_primary
    assert "'T', 2," in diag.message_hint
    follow(session, diag)
    diag = refused(declare, session, event_type="T", version=2)
    assert "'T', 3," in diag.message_hint
    follow(session, diag)
    declare(session, event_type="T", version=2)
    assert "'T', 4," in refused(declare, session, event_type="T", version=6).message_hint
    # Another name on the way, and one at its end.
    step(session, "T", 4, to="U")
    diag = refused(declare, session, event_type="T", version=6)
    assert "'U', 5," in diag.message_hint and "to_event_type => 'T'" in diag.message_hint
    follow(session, diag)
    declare(session, event_type="T", version=6)
    assert refused(step, session, "U", 5).sqlstate == "ES005"
    assert rows(session, "select schema_version from eventstream.event_types order by 1") == [(2,), (4,), (6,)]


def test_a_step_that_a_declared_version_rests_on_is_not_unregistered(session):
    declare(session, event_type="T")
    step(session, "T", 1)
    step(session, "T", 2)
    step(session, "T", 3)
    declare(session, event_type="T", version=3)
    for version in (1, 2):
        diag = refused(session.execute, f"select es_unregister_upcaster('T', {version})")
        assert diag.sqlstate == "ES005" and 'version 3 of "T"' in diag.message_primary and "es_drop_event_type('T', 3)" in diag.message_hint
    session.execute("select es_unregister_upcaster('T', 3)")
    step(session, "T", 1, body="p || '{\"another\": 1}'")
    session.execute(diag.message_hint.split(": ", 1)[1])
    session.execute("select es_unregister_upcaster('T', 2)")
    # A version in between may go: the others are led to as before.
    step(session, "T", 2)
    declare(session, event_type="T", version=2)
    declare(session, event_type="T", version=3)
    session.execute("select es_drop_event_type('T', 2)")
    assert refused(session.execute, "select es_unregister_upcaster('T', 2)").sqlstate == "ES005"
    assert value(session, "select count(*) from es_check_event_types()") == 0
