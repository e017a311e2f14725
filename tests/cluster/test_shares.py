"""Nobody is kept waiting for strangers: not for a row or a table that somebody holds locked, not for another tenant's slow handlers, not for
a place among the databases that are served.
"""

import threading
import time

import psycopg
from database import Database, rows, value
from server import PROGRAMS_WITH_TEST_POINTS, wait_until
from workers import append, is_sleeping, make_projection, wait_until_exact

#: A handler that lets every cancel pass.
STUBBORN = "loop begin perform pg_sleep(60); exception when query_canceled then null; end; end loop;"


def moves(database: Database, name: str, stream: str = "account-1", seconds: float = 5) -> float:
    """How long it takes until an event that is appended now is seen by a projection."""
    append(database, 1, stream)
    began = time.monotonic()
    wait_until_exact(database, name, seconds=seconds)
    return time.monotonic() - began


def test_a_row_that_a_stranger_holds_stalls_no_other_projection(new_server):
    """Where the runner of a stuck projection is ended, the next one in the queue for the projection's row is a stranger, who keeps it. The
    scheduler, which has a failure to note in that row, does not wait."""
    server = new_server("held", **{"eventstream.handler_timeout": "1s"})
    database = Database(server, "held").create()
    make_projection(database, "stuck", STUBBORN)
    make_projection(database, "seen")
    append(database)
    wait_until_exact(database)
    wait_until(lambda: is_sleeping(database), 10, "the stuck projection to be at work")
    with database.connect() as stranger:
        stranger.autocommit = False

        def hold():
            stranger.execute("select * from _eventstream.projection_progress p where projection_id = 1 for update")

        holding = threading.Thread(target=hold, daemon=True)
        holding.start()
        holding.join(30)
        assert not holding.is_alive(), "the stuck runner was not ended"
        # Long enough for the scheduler to learn of the runner's end, and to meet the lock.
        for _ in range(8):
            assert moves(database, "seen") < 3
            time.sleep(0.5)
        stranger.rollback()


def has_it_alone(session, table: str) -> bool:
    """Whether the transaction got the table without waiting, behind which others would."""
    try:
        session.execute(f"lock table {table} in access exclusive mode nowait")
    except psycopg.errors.LockNotAvailable:
        session.rollback()
        return False
    return True


def test_a_table_that_a_stranger_holds_stalls_no_other_database(new_server):
    """A scheduler's looks at health and at the list of projections wait for no table for long, and the launcher waits for none of its own."""
    server = new_server("locked")
    locked, other = Database(server, "locked").create(), Database(server, "other").create()
    make_projection(locked)
    append(locked)
    wait_until_exact(locked)
    with locked.connect() as stranger, server.connect("postgres") as admin:
        stranger.autocommit = False
        # Health asks for dead letters; nothing that moves a projection does.
        stranger.execute("lock table _eventstream.dead_letters")
        for _ in range(6):
            assert moves(locked, "seen") < 3
            time.sleep(0.3)
        stranger.rollback()
        stranger.execute("lock table _eventstream.projections")
        admin.autocommit = False
        wait_until(lambda: has_it_alone(admin, "pg_database"), 20, "nobody to read pg_database at that moment")
        time.sleep(3)
        stuck = "select count(*) from pg_stat_activity where backend_type in ('eventstream launcher', 'eventstream scheduler') and wait_event_type = 'Lock' and state_change < clock_timestamp() - interval '2 s'"
        assert value(admin, stuck) == 0
        admin.rollback()
        stranger.rollback()
    make_projection(other)
    assert moves(other, "seen", seconds=15) < 15


#: How many runners sleep in a handler.
BUSY = "select count(*) from pg_stat_activity where backend_type = 'eventstream runner' and wait_event = 'PgSleep'"


def make_slow_tenant(owner, seconds: int, settings: str, runners: int) -> None:
    """A tenant with twelve projections and a backlog, whose handlers sleep for so long; it has that many runners then. The session goes back to default."""
    owner.execute("select es_create_tenant('slow')")
    owner.execute("set eventstream.tenant = 'slow'")
    owner.execute(
        f"create function sleeps(event eventstream.event) returns void language plpgsql as $$ begin perform pg_sleep({seconds}); end $$"
    )
    for number in range(12):
        owner.execute(f"select es_create_projection('slow_{number}', 'sleeps(eventstream.event)'{settings})")
    for _ in range(20):
        owner.execute("select es_append('account-1', 'Opened', '{}')")
    wait_until(lambda: value(owner, BUSY) == runners, 20, f"the slow tenant to have {runners} runners")
    owner.execute("set eventstream.tenant = 'default'")


def waits_of_quick(owner, times: int) -> list[float]:
    """How long the projection `quick` of the tenant default needs for an event, so many times."""
    took = []
    for _ in range(times):
        owner.execute("select es_append('account-1', 'Opened', '{}')")
        began = time.monotonic()
        owner.execute("select es_wait_for('quick', timeout => '30 s')")
        took.append(time.monotonic() - began)
    return took


def test_slow_handlers_of_one_tenant_keep_back_no_other_tenant(new_server):
    server = new_server("fair", **{"eventstream.max_workers": 4})
    database = Database(server, "fair").create()
    make_projection(database, "quick")
    with database.connect() as owner:
        # At most half of the runners are kept for others; one tenant is all the others here.
        make_slow_tenant(owner, seconds=20, settings="", runners=3)
        took = waits_of_quick(owner, 20)
        print(f"median {sorted(took)[10] * 1000:.1f} ms, longest {max(took) * 1000:.1f} ms")
        assert max(took) < 2
        assert value(owner, BUSY) >= 3


def test_where_there_is_one_runner_another_tenant_waits_for_one_turn(new_server):
    """And not for a turn of each of the slow tenant's projections."""
    server = new_server("single", **{"eventstream.max_workers": 1})
    database = Database(server, "single").create()
    make_projection(database, "quick")
    with database.connect() as owner:
        make_slow_tenant(owner, seconds=1, settings=", batch_size => 1", runners=1)
        took = waits_of_quick(owner, 5)
        # A turn takes a second; a round of all of them twelve.
        assert max(took) < 6, took


def test_a_database_without_the_extension_takes_no_place(new_server):
    """1,024 databases can be served; those that are not, and those that are gone, leave room for others, also in the counters."""
    server = new_server("many", **{"eventstream.max_workers": 1, "max_worker_processes": 12})
    with server.connect("postgres") as admin:
        for turn in range(3):
            made = Database(server, f"turn_{turn}").create()
            append(made)
            with made.connect() as session:
                assert value(session, "select value from eventstream.stats where name = 'appends'") == 1
                assert value(session, "select scope from eventstream.stats where name = 'appends'") == "database"
            made.drop()
        # Made while none of the others' places is looked at: the launcher forgets what is gone, and serves this one.
        last = Database(server, "last").create()
        make_projection(last)
        append(last)
        wait_until_exact(last)
        bare = Database(server, "bare").create(extension=False)
        with bare.connect() as session:
            there = "select count(*) from pg_stat_activity where datname = 'bare' and backend_type = 'eventstream scheduler'"
            time.sleep(1)
            wait_until(lambda: value(admin, there) == 0, 20, "the scheduler to leave a database without the extension")
            session.execute("create extension eventstream")
        # Whether its place was given back meanwhile or not.
        make_projection(bare)
        assert moves(bare, "seen", seconds=20) < 20


WORKERS = "select status, detail from eventstream.health where name = 'workers'"
SCOPE = "select distinct scope from eventstream.stats where name = 'appends'"


def test_databases_beyond_the_places_are_told_work_by_hand_and_are_served_once_one_is_free(new_server):
    """The build with test points has four places (src/shared/board/database.rs)."""
    assert PROGRAMS_WITH_TEST_POINTS.exists(), "run `tools/test MAJOR backend` first: it makes the build with test points"
    server = new_server("full", programs=PROGRAMS_WITH_TEST_POINTS, max_worker_processes=20, **{"eventstream.max_workers": 1})
    served = [Database(server, f"served_{number}").create() for number in range(4)]
    for one in served:
        make_projection(one)
        assert moves(one, "seen", seconds=20) < 20
    beyond = Database(server, "beyond").create()
    make_projection(beyond)
    append(beyond)
    told = "WARNING:  eventstream: 1 databases are not served: all 4 places are taken"
    wait_until(lambda: told in server.log.read_text(), 20, "the launcher to tell")
    with beyond.connect() as session:
        ((status, detail),) = rows(session, WORKERS)
        assert status == "critical" and "all 4 places" in detail
        # It counts for itself, and moves where somebody moves it.
        assert value(session, SCOPE) == "session"
        assert rows(session, "select * from seen") == []
        assert value(session, "select es_run_projection('seen')") == 1
    assert all(moves(one, "seen") < 5 for one in served)
    early = beyond.connect()
    early.execute("select es_append('account-2', 'Opened', '{}')")
    # One that is gone leaves its place, and its counters.
    served.pop().drop()
    assert moves(beyond, "seen", seconds=30) < 30
    assert "eventstream: all databases have a place among the 4 that can be served" in server.log.read_text()
    # A session that was there before wakes the scheduler, which else looks every ten seconds.
    for _ in range(3):
        early.execute("select es_append('account-2', 'Moved', '{}')")
        early.execute("select es_wait_for('seen', timeout => '3 s')")
    early.close()
    with beyond.connect() as session:
        assert value(session, WORKERS) == "ok" and value(session, SCOPE) == "database"
    # One that is not to be served any more leaves its place, too: that is what health and the log advise.
    last = Database(server, "last").create()
    make_projection(last)
    append(last)
    wait_until(lambda: server.log.read_text().count(told) == 2, 20, "the launcher to tell again")
    with last.connect() as session:
        session.execute("alter system set eventstream.databases = 'last, beyond'")
        session.execute("select pg_reload_conf()")
    assert moves(last, "seen", seconds=30) < 30
    assert moves(beyond, "seen") < 5


#: What a session keeps for its plans.
PLANS = "select sum(total_bytes) from pg_backend_memory_contexts where name like 'CachedPlan%%'"


#: The same of partitions alone: PostgreSQL keeps those of dropped functions in PL/pgSQL.
PLANS_OF_PARTITIONS = PLANS + " and ident like '%%\\_eventstream.events\\_%%'"


def grows(turn, rounds: int = 15) -> float:
    """How many bytes of plans a session keeps more after each turn, once it has made five."""
    first = [turn(number) for number in range(5)][-1]
    last = [turn(number) for number in range(5, 5 + rounds)][-1]
    print(f"after 5 turns: {first} bytes, after {5 + rounds}: {last}")
    return float(last - first) / rounds


def test_plans_of_dropped_state_tables_are_freed(quiet):
    """A session that appends to categories with inline state tables keeps plans for them, and gives them back when tables go."""
    columns = """[{"name": "sum", "type": "numeric", "path": "/sum"}]"""
    with quiet.connect() as session:
        session.execute("select es_register_fold('total', 'account', rules => '{\"on\": {}}', initial_state => '{\"sum\": 1}')")

        def turn(number: int) -> int:
            session.execute(f"select es_create_state_table('balances_{number}', 'account', %s::jsonb, fold => 'total', mode => 'inline')", (columns,))
            session.execute("select es_append('account-1', 'Opened', '{}')")
            session.execute(f"select es_drop_projection('balances_{number}')")
            session.execute("select es_append('account-1', 'Opened', '{}')")
            return value(session, PLANS)

        assert grows(turn) < 10_000


def use_everything(session) -> None:
    """Asks of a partition what keeps a plan. The client keeps none of its own."""
    session.prepare_threshold = None
    session.execute("select es_append('account-1', 'Opened', '{}', tags => array['a:1'])")
    session.execute("select es_append('account-1', 'Moved', '{}', occurred_at => now() - interval '1 day')")
    for statement in (
        "select es_read('account-1')",
        "select es_read_all()",
        "select es_read_all(categories => array['account'])",
        "select es_read_all(event_types => array['Opened'])",
        "select es_state('account-1', 'total')",
        "select es_state_at('account-1', now(), fold => 'total')",
        "select es_fetch('outside', 'me')",
        "select es_verify()",
    ):
        session.execute(statement)


def prepare(session) -> None:
    session.execute("select es_register_fold('total', 'account', rules => '{\"on\": {}}', initial_state => '{}', is_default => true)")
    session.execute("select es_create_subscription('outside')")


def test_plans_of_partitions_of_a_dropped_log_are_freed(quiet):
    with quiet.connect() as session:
        session.execute("set eventstream.allow_drop = on")

        def turn(_: int) -> int:
            session.execute("drop extension eventstream cascade")
            session.execute("create extension eventstream")
            prepare(session)
            use_everything(session)
            return value(session, PLANS_OF_PARTITIONS)

        assert grows(turn) < 10_000


def test_plans_of_detached_partitions_are_freed(quiet):
    """Each time they are attached again they are other partitions to a session."""
    with quiet.connect() as session:
        prepare(session)
        use_everything(session)
        session.execute("set eventstream.allow_drop = on")
        (bound,) = session.execute("select pg_get_expr(relpartbound, oid) from pg_class where oid = '_eventstream.events_1'::regclass").fetchone()

        def turn(_: int) -> int:
            session.execute("alter table _eventstream.events detach partition _eventstream.events_1")
            assert rows(session, "select * from es_read_all()") == []
            session.execute(f"alter table _eventstream.events attach partition _eventstream.events_1 {bound}")
            use_everything(session)
            return value(session, PLANS)

        assert grows(turn) < 10_000
