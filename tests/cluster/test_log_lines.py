"""What the server's log says, and does not say: conflicts are numbers, failures are lines with stream, version and position, workers name
their database; and health warns of what grows old before it breaks, with a look before anything is taken away.
"""

import re
import time
from pathlib import Path

import psycopg
import pytest
from database import Database, position_of, rows, value
from operating import check, create_projection, run_psql, wait_for_status
from server import wait_until
from workers import wait_for_workers, workers


def conflict(session) -> None:
    with pytest.raises(psycopg.Error) as caught:
        session.execute("select es_append('account-1', 'Added', '{}', expected_version => 0)")
    assert caught.value.sqlstate == "ES001"


def fail_condition(session) -> None:
    condition = '{"query": {"items": [{"event_types": ["Added"]}]}, "after": 0}'
    with pytest.raises(psycopg.Error) as caught:
        session.execute("select es_append_streams('[{\"stream\": \"account-2\", \"events\": [{\"type\": \"Added\", \"payload\": {}}]}]', condition => %s)", (condition,))
    assert caught.value.sqlstate == "ES015"


def test_what_helps_against_conditions_that_fail_is_told(new_server):
    server = new_server("conditions")
    database = Database(server, "conditions").create()
    with database.connect() as session:
        session.execute("select es_append('account-1', 'Added', '{}')")
        for _ in range(70):
            fail_condition(session)
        found = check(session, "conflicts")
        assert found.status == "warning" and "0 of 71 appends were refused for a conflict (ES001), and 70 for a condition" in found.detail
        assert "for_update" not in found.detail and "the rarest among them" in found.detail
        for _ in range(10):
            conflict(session)
        found = check(session, "conflicts")
        assert "for_update" in found.detail and "the rarest among them" in found.detail
        assert "ES015" not in server.log.read_text()


def test_keys_of_other_requests_are_told_where_they_are_many(new_server):
    server = new_server("mismatches")
    database = Database(server, "mismatches").create()
    begin = "select es_begin_command('charge', 'order-1', %s)"
    with database.connect() as session:
        session.execute(begin, ('{"amount": 1}',))
        assert check(session, "command keys") is None
        for number in range(2, 22):
            with pytest.raises(psycopg.Error) as caught:
                session.execute(begin, (f'{{"amount": {number}}}',))
            assert caught.value.sqlstate == "ES030"
            if number == 2:
                told = check(session, "command keys")
                assert told.status == "ok" and "1 command was refused" in told.detail and "ES030" in told.detail
        told = check(session, "command keys")
        assert told.status == "warning" and "20 commands were refused" in told.detail
        assert "20" in run_psql(database, told.fix)


def test_conflicts_are_counted_and_not_logged(new_server):
    server = new_server("conflicts")
    database = Database(server, "conflicts").create()
    with database.connect() as session:
        assert check(session, "conflicts").status == "ok"
        session.execute("select es_append('account-1', 'Added', '{}')")
        for _ in range(70):
            conflict(session)
        assert value(session, "select value from eventstream.stats where name = 'conflicts'") == 70
        assert "ES001" not in server.log.read_text() and "account-1" not in server.log.read_text()
        found = check(session, "conflicts")
        assert found.status == "warning" and "70 of 71 appends were refused for a conflict (ES001), and 0 for a condition" in found.detail
        # What helps against conflicts on streams does not against conditions, and the other way round.
        assert "for_update" in found.detail and "tags" not in found.detail
        run_psql(database, found.fix)
        session.execute("set eventstream.log_conflicts = on")
        conflict(session)
        assert "account-1" in server.log.read_text()
        session.execute("set eventstream.log_conflicts = off")
        # What users raise under our SQLSTATE is theirs.
        with pytest.raises(psycopg.Error) as theirs:
            session.execute("do $$ begin raise exception 'theirs alone' using errcode = 'ES001'; end $$")
        assert theirs.value.sqlstate == "ES001" and "theirs alone" in server.log.read_text()
        session.execute("set eventstream.log_conflicts = on")
        # Nothing else is kept from the log.
        with pytest.raises(psycopg.Error):
            session.execute("select es_append('nonsense', 'Added', '{}')")
        assert "nonsense" in server.log.read_text()


#: What raises each outcome that callers expect, as a statement of PL/pgSQL.
EXPECTED = {
    "ES001": "perform es_append('hushed-1', 'Added', '{}', expected_version => 4711)",
    "ES015": """perform es_append_streams('[{"stream": "hushed-2", "events": [{"type": "Added", "payload": {}}]}]',
        condition => '{"query": {"items": [{"event_types": ["Hushed"]}]}, "after": 0}')""",
    "ES033": "perform es_require(false, 'no', 'hushed')",
}

HUSHED = """
create function hushed() returns int language plpgsql as $$ begin {raises}; return 1; end $$;
create function hushed_again() returns int language plpgsql as $$ begin return hushed(); exception when others then raise; end $$;
create function hushed_in_sql() returns int volatile language sql as 'select hushed()';
create table hushed_now (a int);
create function on_row() returns trigger language plpgsql as $$ begin perform hushed(); return null; end $$;
create trigger now after insert on hushed_now for each row execute function on_row();
create table hushed_later (a int);
create constraint trigger later after insert on hushed_later deferrable initially deferred for each row execute function on_row();
create procedure hushed_behind() language plpgsql as $$ begin commit; perform hushed(); end $$;
"""

#: What it is raised through.
WAYS = [
    "select hushed()",
    "select hushed_again()",
    "select hushed_in_sql()",
    "insert into hushed_now values (1)",
    "insert into hushed_later values (1)",
    "call hushed_behind()",
    "do $$ begin begin perform hushed(); exception when others then raise; end; exception when others then raise; end $$",
]

#: Users' code that we call and that raises it: a decider in two languages, its boundary, a handler, an invariant.
DECIDERS = """
select es_register_fold('hushed', 'hushed', rules => '{{"on": {{}}}}', initial_state => '{{}}');
create function in_plpgsql(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $$ begin {raises}; return '[]'; end $$;
create function in_sql(state jsonb, command eventstream.command) returns jsonb stable language sql as
    $$ select case when es_require(false, 'no', 'hushed') then '[]'::jsonb end $$;
create function bounds(command eventstream.command) returns jsonb stable language plpgsql as $$ begin {raises}; return '{{}}'; end $$;
select es_register_decider('in_plpgsql', 'hushed', 'in_plpgsql(jsonb, eventstream.command)');
select es_register_decider('in_sql', 'hushed', 'in_sql(jsonb, eventstream.command)', is_default => false);
select es_register_decider('in_its_boundary', 'hushed', 'in_sql(jsonb, eventstream.command)', boundary => 'bounds(eventstream.command)', is_default => false);
create function handles(event eventstream.event) returns void language plpgsql as $$ begin {raises}; end $$;
create function holds(events eventstream.event[]) returns text stable language plpgsql as $$ begin {raises}; return null; end $$;
"""


def assert_hushed(session, statement: str, code: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        session.execute(statement)
    assert caught.value.sqlstate == code, (statement, caught.value)


def test_what_is_expected_is_not_logged_by_whatever_way_it_comes(new_server):
    """Caught by users' code, or by us around users' code, and raised again; from triggers, at a COMMIT, out of a parallel worker: an error is ours, or it is not."""
    server = new_server("hushed")
    database = Database(server, "hushed").create()
    with database.connect() as session:
        session.execute("select es_append('hushed-2', 'Hushed', '{}')")
        for code, raises in EXPECTED.items():
            session.execute("drop table if exists hushed_now, hushed_later; drop routine if exists hushed, hushed_again, hushed_in_sql, on_row, hushed_behind")
            session.execute(HUSHED.format(raises=raises))
            for way in WAYS:
                assert_hushed(session, way, code)
        session.execute(DECIDERS.format(raises=EXPECTED["ES033"]))
        for decider in ("in_plpgsql", "in_sql", "in_its_boundary"):
            assert_hushed(session, f"select es_command('hushed-1', 'Hush', '{{}}', decider => '{decider}')", "ES033")
        assert_hushed(session, "select es_command('hushed-1', 'Hush', '{}', command_key => 'once')", "ES033")
        session.execute("select es_protect('Hush', pointers => '{/a}', kind => 'command')")
        assert_hushed(session, """select es_command('hushed-1', 'Hush', '{"a": "hushed"}')""", "ES033")
        parallel = "force_parallel_mode" if session.info.server_version < 160000 else "debug_parallel_query"
        session.execute(f"set {parallel} = on")
        assert_hushed(session, "select es_require(count(*) < 0, 'no', 'hushed') from pg_class", "ES033")
        session.execute(f"reset {parallel}")
        session.execute("select es_create_projection('handles', 'handles(eventstream.event)', mode => 'inline', categories => '{handled}')")
        assert_hushed(session, "select es_append('handled-1', 'Hushed', '{}')", "ES033")
        session.execute("select es_register_invariant('holds', '{held}', 'holds(eventstream.event[])')")
        assert_hushed(session, "select es_append('held-1', 'Hushed', '{}')", "ES033")
        session.execute("select es_schedule_command('hushed-1', 'Hush', '{}', now(), command_key => 'later')")
        wait_until(lambda: value(session, "select stage from eventstream.scheduled_commands where command_key = 'later'") == "refused", 20, "the refusal")
    assert "hushed" not in server.log.read_text().replace('database "hushed"', "")


def test_a_failure_is_a_line_with_stream_version_and_position(new_server):
    server = new_server("failures", **{"eventstream.retry_pause": "10ms"})
    database = Database(server, "failures").create()
    with database.connect() as session:
        create_projection(session, "failing", max_retries=1)
        session.execute("""select es_append('account-1', 'Added', '{}'), es_append('account-1', 'Added', '{"refuse": true}')""")
        wait_for_status(session, "projection failing", "critical")
        failed = position_of(session, 2)
        lines = [line for line in server.log.read_text().splitlines() if 'projection "failing"' in line and "LOG:" in line]
        assert len(lines) == 2
        for attempt, line in enumerate(lines, 1):
            assert (
                f'eventstream in database "failures": projection "failing" of tenant "default" fails on stream "account-1" at version 2,'
                f" global position {failed}, in attempt {attempt} of 2: refused: account-1"
            ) in line
        detail = next(line for line in server.log.read_text().splitlines() if '"projection":"failing"' in line)
        assert f'"global_position":{failed}' in detail and '"sqlstate":"P0001"' in detail and '"version":2' in detail


def test_a_workers_title_names_its_database(new_server):
    server = new_server("titles")
    database = Database(server, "books").create()
    with database.connect() as session:
        create_projection(session, "moving")
        session.execute("select es_append('account-1', 'Added', '{}')")
        wait_for_workers(database, "runner", 1)
        for kind in ("scheduler", "runner"):
            for pid in workers(server, kind, "books"):
                wait_until(lambda: "books" in Path(f"/proc/{pid}/cmdline").read_text(), 10, f"the title of the {kind}")


def test_health_warns_of_old_locks_leases_and_attempts(new_server):
    server = new_server("old", **{"eventstream.max_workers": 0, "eventstream.stale_after": "300ms"})
    database = Database(server, "old").create()
    holder = database.connect()
    with database.connect() as session:
        session.execute("select es_register_fold('account', 'account', rules => '{\"on\": {}}', initial_state => '{}', is_default => true)")
        for number in range(3):
            session.execute(f"select es_append('account-{number}', 'Added', '{{}}')")
        session.execute("select es_create_subscription('mailer')")
        assert check(session, "locks").status == "ok"
        holder.autocommit = False
        holder.execute("select * from es_load('account-1', for_update => true)")
        lease, position = rows(session, "select lease_id, (event).global_position from es_fetch('mailer', 'worker', lease => '1 hour')")[0]
        session.execute("select es_nack(%s, %s, 'no answer')", (lease, position))
        assert check(session, "leases of mailer") is None and check(session, "attempts of mailer") is None
        time.sleep(0.5)
        found = check(session, "locks")
        assert found.status == "warning" and f"process {holder.info.backend_pid} " in found.detail and "streams" in found.detail
        leases = check(session, "leases of mailer")
        assert leases.status == "warning" and "consumer worker" in leases.detail
        assert "worker" in run_psql(database, leases.fix)
        attempts = check(session, "attempts of mailer")
        assert attempts.status == "warning" and "no answer" in attempts.detail
        assert "mailer" in run_psql(database, attempts.fix)
        run_psql(database, found.fix)
        wait_for_status(session, "locks", "ok")
    holder.close()


def test_health_warns_of_a_gate_that_is_closed_for_long(new_server):
    """By a session that works behind it: one that idles is ended."""
    server = new_server("gate", **{"eventstream.max_workers": 0, "eventstream.stale_after": "300ms"})
    database = Database(server, "gate").create()
    holder = database.connect(autocommit=False)
    with database.connect() as session:
        create_projection(session, "moving")
        session.execute("create function on_event(event eventstream.event) returns void language sql as ''")
        holder.execute("select es_create_projection('behind', 'on_event(eventstream.event)', mode => 'inline')")
        time.sleep(0.5)
        found = check(session, "locks")
        assert found.status == "warning" and f"process {holder.info.backend_pid} " in found.detail
        assert "the gate of a tenant, whose appends wait" in found.detail
        run_psql(database, found.fix)
        wait_for_status(session, "locks", "ok")
    holder.close()


def test_what_takes_something_away_shows_it_first(quiet):
    """In each fix that health prints, a look at what goes stands before what takes it away."""
    destroys = re.compile(r"es_drop_|es_unregister_|es_prune_|pg_terminate_backend|es_end_lease|delete |drop ")
    with quiet.connect() as session, quiet.connect() as holder:
        create_projection(session, "headless")
        session.execute("create function adds(state jsonb, event eventstream.event) returns jsonb immutable language sql as 'select state'")
        session.execute("select es_register_fold('adds', 'account', handler => 'adds(jsonb, eventstream.event)', initial_state => '{}')")
        session.execute("select es_create_subscription('nobody')")
        session.execute("set eventstream.allow_drop = on; drop function headless(eventstream.event), adds(jsonb, eventstream.event)")
        holder.autocommit = False
        session.execute("select es_append('account-1', 'Added', '{}')")
        holder.execute("select es_append('account-2', 'Added', '{}')")
        time.sleep(0.5)
        fixes = [fix for (fix,) in rows(session, "select fix from eventstream.health where fix is not null") if destroys.search(fix)]
        assert len(fixes) >= 4, fixes
        for fix in fixes:
            statements = [line for line in fix.splitlines() if not line.startswith("set ")]
            assert statements[0].startswith("select ") and " from " in statements[0] and not destroys.search(statements[0]), fix
        holder.rollback()


def test_creating_the_extension_without_preload_says_what_will_not_work(new_server):
    server = new_server("plain", preload=False)
    notices = []
    with server.connect("postgres") as session:
        session.add_notice_handler(lambda notice: notices.append((notice.severity, notice.message_primary, notice.message_hint)))
        session.execute("create extension eventstream")
    said = [notice for notice in notices if "preload" in notice[1]]
    assert len(said) == 1 and said[0][0] == "WARNING"
    assert "projections" in said[0][1] and "shared_preload_libraries" in said[0][2]
