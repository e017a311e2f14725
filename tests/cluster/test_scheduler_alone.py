"""Where no worker slot is left for a runner, the scheduler does the work itself: users' code that ends its process, or catches its cancels, is a failure of that code, and everything else
goes on. Kinds: death, load (no free worker); commands and projections alike."""

import pytest
from database import Database, rows, value
from deciding import balance, bank, decider
from scheduling import schedule, wait_for
from server import wait_until
from workers import append, make_projection, wait_until_exact

BODIES = {
    "ends": ("perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(1);", "57P01"),
    "hangs": ("loop begin perform pg_sleep(1000); exception when query_canceled then null; end; end loop;", "57014"),
}


@pytest.fixture
def alone(new_server):
    """The launcher and the scheduler have the only two slots."""
    server = new_server(
        "alone",
        max_worker_processes=2,
        max_parallel_workers=0,
        max_logical_replication_workers=0,
        **{"eventstream.handler_timeout": "500ms", "eventstream.retry_pause": "10ms"},
    )
    return bank(Database(server, "ledger").create())


def impatient(session) -> None:
    session.execute("alter system set eventstream.command_retries = 0")
    session.execute("select pg_reload_conf()")


def runners(session) -> int:
    return value(session, "select count(*) from pg_stat_activity where backend_type = 'eventstream runner'")


@pytest.mark.parametrize("what", BODIES)
def test_a_command_that_its_scheduler_does_not_come_back_from_is_a_dead_letter(alone, what):
    body, sqlstate = BODIES[what]
    with alone.connect() as session:
        impatient(session)
        decider(session, f"begin {body} end", is_default=False)
        schedule(session, "bad", decider="other")
        for number in range(3):
            schedule(session, f"good-{number}", after=f"{number} s")
        assert wait_for(session, "bad", "dead", seconds=40)[:2] == (1, sqlstate)
        for number in range(3):
            wait_for(session, f"good-{number}", seconds=20)
        assert balance(session) == 30 and runners(session) == 0
        # The next one is another: it has all its attempts.
        schedule(session, "after")
        wait_for(session, "after", seconds=20)


@pytest.mark.parametrize("what", BODIES)
def test_a_projection_that_its_scheduler_does_not_come_back_from_is_stopped(alone, what):
    body, sqlstate = BODIES[what]
    make_projection(alone)
    make_projection(alone, "bad", body, max_retries=0, batch_size=1)
    append(alone)
    with alone.connect() as session:
        found = "select error_sqlstate from _eventstream.projection_progress where status = 'stopped'"
        assert wait_until(lambda: value(session, found), 40, "the projection to be stopped") == sqlstate
        append(alone, 3)
        wait_until_exact(alone, "seen", seconds=20)
        assert runners(session) == 0


def test_a_death_now_and_then_is_no_failure(alone):
    """Its third one in a row is: what is done in between counts."""
    with alone.connect() as session:
        impatient(session)
        session.execute("create table deaths (at timestamptz default clock_timestamp()); create sequence tries")
        # Twice it dies, and then it is executed: what a sequence has given is not taken back.
        body = "if nextval('public.tries') <= 2 then perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(1); end if; return jsonb_build_array(es_make_event('Credited', command.payload));"
        session.execute(f"create function tried(state jsonb, command eventstream.command) returns jsonb volatile language plpgsql as $$ begin {body} end $$")
        decider(session, "begin return public.tried(state, command); end", is_default=False)
        schedule(session, "k", decider="other")
        assert wait_for(session, "k", seconds=40)[0] == 1
        assert rows(session, "select last_value from tries") == [(3,)]


def test_whatever_ends_it_the_rest_goes_on(alone):
    """Two commands and two projections whose code ends the process, and a fold that does when upkeep takes its snapshots: each death is followed by the next scheduler at once, and what is not
    theirs is done meanwhile."""
    with alone.connect() as session:
        ends = BODIES["ends"][0]
        decider(session, f"begin {ends} end", is_default=False)
        session.execute(f"create function ending(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$ begin {ends} return state; end $$")
        session.execute("select es_register_fold('ending', 'frail', 'ending(jsonb, eventstream.event)', snapshot_every => 5)")
        for _ in range(6):
            session.execute("select es_append('frail-1', 'Moved', '{}')")
        make_projection(alone)
        for name in ("bad_1", "bad_2"):
            make_projection(alone, name, ends, batch_size=1)
        for name in ("a", "b"):
            schedule(session, name, decider="other", stream=f"account-{name}")
        for number in range(6):
            schedule(session, f"good-{number}", after=f"{2 * number} s")
            append(alone)
        for number in range(6):
            wait_for(session, f"good-{number}", seconds=40)
        wait_until_exact(alone, "seen", seconds=20)
        assert balance(session) == 60 and runners(session) == 0
