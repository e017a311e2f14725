"""A session that was there before a restore of the data alone knows what came with it: it judges, reads and decides as one that begins afterwards. Nothing but rows comes
then, and no function of ours writes them (kinds: copies, session; the same rows come by logical replication)."""

import psycopg
import pytest
from database import Database, rows, value
from operating import run_psql
from server import run

SCRIPT = """
create role restored_clerk login;
create function up(p jsonb, m jsonb) returns jsonb immutable language sql as $$ select p || '{"b": 2}' $$;
create function seen(event eventstream.event) returns void language sql as '';
create function judge(events eventstream.event[]) returns text stable language sql as $$ select 'no'::text $$;
create function decide(state jsonb, command eventstream.command) returns jsonb stable language sql as $$ select '{"result": "decided"}'::jsonb $$;
"""
DEFINITIONS = """
select es_append('account-1', 'Credited', '{"a": 1}', occurred_at => '2024-12-01Z');
select es_create_event_type('Credited', json_schema => '{"required": ["a"]}');
select es_register_upcaster('Credited', 1, 'up(jsonb, jsonb)');
select es_register_fold('count', 'account', rules => '{"on": {"Credited": [{"increment": "/n"}]}}', initial_state => '{"n": 0}');
select es_alter_category('ruled', '{"actor": "required"}');
select es_close_period('{account}', '2024-12-31 23:59:59Z', 'CLOSE-1');
select es_register_decider('decides', 'account', 'decide(jsonb, eventstream.command)');
select es_command('account-1', 'Any', '{}', command_key => 'k');
select es_register_invariant('few', '{account}', require => '{"/n": {"at_most": 3}}');
select es_register_invariant('none', '{judged}', 'judge(eventstream.event[])');
select es_schedule_command('account-1', 'Any', '{}', '2100-01-01Z', 'later');
select es_append('guest-1', 'GuestNamed', '{"name": "Ada"}');
select es_protect('GuestNamed', pointers => '{/name}');
select es_create_tenant('acme'), es_create_tenant('gone');
select es_close_tenant('gone', 'CHG-1');
select es_grant('restored_clerk', 'read', tenant => 'default', category => 'account');
"""
ASKED = {
    "event types": "select es_append('other-1', 'Credited', '{}')",
    "upcasters": "select payload, schema_version from es_read('account-1')",
    "folds": "select es_state('account-1')",
    "category rules": "select es_append('ruled-1', 'Else', '{}')",
    "protected fields": "select payload from es_read('guest-1')",
    "periods": "select es_append('account-1', 'Else', '{}', occurred_at => '2024-12-02Z')",
    "deciders": "select es_command('account-1', 'Any', '{}')",
    "invariants of states": "select es_append_events('account-1', '[{\"type\": \"Credited\", \"payload\": {\"a\": 1}}, {\"type\": \"Credited\", \"payload\": {\"a\": 1}}, {\"type\": \"Credited\", \"payload\": {\"a\": 1}}]')",
    "answers": "select es_command('account-1', 'Any', '{}', command_key => 'k')",
    "scheduled": "select es_unschedule_command('later', 'not wanted')",
    "tenants": "select es_use_tenant('acme')",
    "closed tenants": "select set_config('eventstream.tenant', 'gone', true), es_append('a-1', 'Else', '{}')",
}


def answer(session, statement):
    session.execute("set eventstream.tenant = 'default'")
    try:
        with session.transaction(force_rollback=True):
            return rows(session, statement)
    except psycopg.Error as error:
        return error.sqlstate, error.diag.message_primary


@pytest.mark.parametrize("what", ["session", "role"])
def test_a_session_from_before_knows_what_was_restored(new_server, what):
    server = new_server("definitions")
    original, copy = Database(server, "original").create(), Database(server, "copy").create()
    for database in (original, copy):
        with database.connect() as session:
            session.execute(SCRIPT if database is original else SCRIPT.split(";", 1)[1])
    with original.connect() as session:
        session.execute("set eventstream.tenant = 'default'")
        session.execute(DEFINITIONS)
        expected = {name: answer(session, statement) for name, statement in ASKED.items()}
    data = run("pg_dump", "-a", env=server.address("original"))
    if what == "role":
        with copy.connect(user="restored_clerk") as clerk:
            before = answer(clerk, ASKED["upcasters"])
            assert before[0] == "42501"
            run_psql(copy, data)
            assert answer(clerk, ASKED["upcasters"]) == expected["upcasters"]
        return
    with copy.connect() as session:
        for statement in ASKED.values():
            answer(session, statement)
        # Nothing of it is kept: it is a database that has not appended yet.
        assert value(session, "select count(*) from eventstream.events") == 0
        run_psql(copy, data)
        told = {name: answer(session, statement) for name, statement in ASKED.items()}
    with copy.connect() as fresh:
        assert told == {name: answer(fresh, statement) for name, statement in ASKED.items()}
    assert told == expected
