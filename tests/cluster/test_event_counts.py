"""How many events of each declared event type there are (view event_types), and what is stored that does not fit what is declared (es_check_event_types).

Asked of the kinds: isolation (a look between any two steps, own appends, older snapshots), transaction (rollback, open appends, upkeep that is rolled back), role (none,
narrowed to a category), tenant (counts, and an open append of another's), size (more than is counted at once, several partitions, a position that is far behind), copies
(dump and restore; a standby's are in test_event_type_kinds), death (the server is killed between any two calls), load (racers that append while several sessions count),
verification (counts compared with the log itself), reader of the answer (no content in what is told). Time and text: recorded_at is the database's; names are those of appends,
and judged there."""

import threading

import psycopg
import pytest
from costs import pages
from database import Database, all_at_once, forced, last_position, near_edge, rows, value
from operating import check as health
from operating import run_psql
from psycopg.types.json import Jsonb
from server import run, wait_until
from test_event_types import AMOUNT, append, declare, refused, upcaster

COUNTS = "select event_type, schema_version, events, last_recorded_at, counted_to from eventstream.event_types order by 1, 2"
#: The same without what upkeep keeps.
LIVE = """select e.event_type, e.schema_version, coalesce(n.events, 0), n.last_recorded_at, null::bigint from _eventstream.event_types e left join lateral (
    select count(*) as events, max(v.recorded_at) as last_recorded_at from _eventstream.events v
    where v.tenant_id = e.tenant_id and v.event_type = e.event_type and v.schema_version = e.schema_version) n on true
    where e.tenant_id = 1 order by 1, 2"""
CHECK = "select event_type, schema_version, problem, events from es_check_event_types()"


@pytest.fixture
def database(quiet):
    """Without workers: their upkeep would come in between."""
    return quiet


def maintain(session):
    return value(session, "select done from es_maintain() where task = 'events counted'")


def kept(session):
    return dict(rows(session, "select event_type, sum(events)::int from _eventstream.event_counts group by 1"))


def many(session, count, event_type="Credited", stream="account-1"):
    session.execute(
        "select es_append_events(%s, (select jsonb_agg(jsonb_build_object('type', %s::text, 'payload', n)) from generate_series(1, %s) n))",
        (stream, event_type, count),
    )


def test_counts_are_kept_and_what_came_since_is_counted_when_asked(database):
    with database.connect() as session:
        declare(session)
        declare(session, event_type="Never")
        assert rows(session, COUNTS) == rows(session, LIVE)
        many(session, 5)
        many(session, 3, event_type="Undeclared")
        append(session, 1, stream="other-1")
        assert [row[:3] for row in rows(session, COUNTS)] == [("Credited", 1, 6), ("Never", 1, 0)]
        assert kept(session) == {}
        assert maintain(session) == 9
        assert kept(session) == {"Credited": 6, "Undeclared": 3}
        assert rows(session, COUNTS) == rows(session, LIVE)
        append(session, 2)
        assert rows(session, COUNTS) == rows(session, LIVE) and kept(session)["Credited"] == 6
        assert maintain(session) == 1 and maintain(session) == 0
        assert rows(session, COUNTS) == rows(session, LIVE) and kept(session)["Credited"] == 7


def test_who_asks_for_no_counts_has_none_made(database):
    with database.connect() as session:
        declare(session)
        for columns, counted in (("event_type, json_schema", False), ("event_type, events", True), ("counted_to", True)):
            plan = "\n".join(line for (line,) in rows(session, f"explain (analyze, costs off, timing off, summary off) select {columns} from eventstream.event_types"))
            assert ("Function Scan on event_counts" in plan and "never executed" not in plan) is counted, plan


def test_events_are_counted_whether_their_types_are_declared_or_not(database):
    with database.connect() as session:
        many(session, 3)
        assert maintain(session) == 3 and kept(session) == {"Credited": 3}
        declare(session)
        assert maintain(session) == 0 and rows(session, COUNTS) == rows(session, LIVE)
        session.execute("select es_drop_event_type('Credited')")
        many(session, 3)
        assert maintain(session) == 3
        declare(session)
        assert maintain(session) == 0 and rows(session, COUNTS) == rows(session, LIVE)


def test_what_is_open_is_counted_once_it_has_committed(database):
    with database.connect() as session, database.connect(autocommit=False) as slow, database.connect(autocommit=False) as undone:
        declare(session)
        append(slow, 1)
        append(undone, 1, stream="account-2")
        append(session, 1, stream="account-3")
        assert maintain(session) == 0, "all lies behind what is open"
        assert rows(session, COUNTS)[0][2] == 1
        # Its own, which nobody else sees.
        assert value(slow, "select events from eventstream.event_types") == 2
        undone.rollback()
        assert maintain(session) == 0
        slow.commit()
        assert rows(session, COUNTS)[0][2] == 2
        assert maintain(session) == 2 and rows(session, COUNTS) == rows(session, LIVE)
        slow.rollback()


def test_upkeep_of_a_transaction_that_has_appended_counts_nothing_of_its_own(database):
    with database.connect() as session, database.connect(autocommit=False) as both:
        declare(session)
        append(session, 1)
        append(both, 2)
        maintain(both)
        assert value(both, "select events from eventstream.event_types") == 2
        both.rollback()
        assert rows(session, COUNTS) == rows(session, LIVE)
        maintain(session)
        assert rows(session, COUNTS) == rows(session, LIVE) and value(session, "select events from eventstream.event_types") == 1


def test_upkeep_that_is_rolled_back_or_open_counts_nothing_twice_and_stops_nobody(database):
    with database.connect() as session, database.connect(autocommit=False) as other:
        declare(session)
        many(session, 10)
        assert maintain(other) == 10
        session.execute("set statement_timeout = '10 s'")
        assert maintain(session) == 0, "somebody else is at it"
        assert rows(session, COUNTS) == rows(session, LIVE)
        append(session, 1)
        other.rollback()
        assert maintain(session) == 11 and rows(session, COUNTS) == rows(session, LIVE)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_snapshot_shows_the_counts_of_its_moment(database, level):
    with database.connect() as session, database.connect(autocommit=False) as old:
        declare(session)
        many(session, 4)
        old.execute(f"set transaction isolation level {level}")
        assert value(old, "select events from eventstream.event_types") == 4
        many(session, 5)
        maintain(session)
        many(session, 6)
        maintain(session)
        assert value(old, "select events from eventstream.event_types") == 4
        # Own events, and a count within the transaction, build on what is there by now.
        append(old, 1, stream="account-9")
        assert value(old, "select events from eventstream.event_types") == 5
        old.commit()
        assert rows(session, COUNTS) == rows(session, LIVE)


def test_racers_that_append_and_count_agree(database):
    with database.connect() as session:
        declare(session)
        stop, wrong = threading.Event(), []

        def look():
            with database.connect() as there, database.connect(autocommit=False) as both:
                while not stop.is_set():
                    maintain(there)
                    both.execute("set transaction isolation level repeatable read")
                    kept_and_live, live = rows(both, COUNTS), rows(both, LIVE)
                    both.commit()
                    if kept_and_live != live:
                        wrong.append((kept_and_live, live))

        lookers = [threading.Thread(target=look) for _ in range(2)]
        for looker in lookers:
            looker.start()

        def write(number):
            with database.connect(autocommit=False) as there:
                for n in range(60):
                    append(there, n, stream=f"account-{number}-{n % 7}")
                    (there.rollback if n % 5 == number else there.commit)()

        assert all_at_once(6, write) == [None] * 6
        stop.set()
        for looker in lookers:
            looker.join(30)
        assert wrong == []
        maintain(session)
        assert rows(session, COUNTS) == rows(session, LIVE)
        assert kept(session) == {"Credited": value(session, "select count(*) from _eventstream.events where tenant_id = 1")}


def test_partitions_and_positions_far_behind(database):
    database.make_partitions_small()
    with database.connect() as session:
        declare(session)
        many(session, 10)
        near_edge(session, 5)
        many(session, 700)
        assert rows(session, COUNTS) == rows(session, LIVE)
        assert maintain(session) == 710 and rows(session, COUNTS) == rows(session, LIVE)
        many(session, 2000)
        assert rows(session, COUNTS) == rows(session, LIVE)
        assert maintain(session) == 2000 and rows(session, COUNTS) == rows(session, LIVE)
        # Others go on: what has nothing for it is not looked through again and again.
        session.execute("select es_create_tenant('b')")
        session.execute("select setval('_eventstream.positions', (select last_value + 2000000 from _eventstream.positions))")
        session.execute("set eventstream.tenant = 'b'")
        append(session, 1)
        session.execute("set eventstream.tenant = 'default'")
        assert maintain(session) == 1
        assert value(session, "select global_position from _eventstream.event_count_progress where tenant_id = 1") >= last_position(session) - 1


def test_more_than_is_counted_at_once_is_said(database):
    with database.connect() as session:
        declare(session)
        for _ in range(11):
            many(session, 10_000)
        found = rows(session, COUNTS)
        assert found[0][2] == 100_000 and found[0][4] is not None
        assert value(session, "select count(*) from _eventstream.events where event_type = 'Credited' and global_position <= %s", found[0][4]) == 100_000
        (told,) = rows(session, CHECK)
        assert told[:2] == (None, None) and f"after global position {found[0][4]} " in told[2]
        assert rows(session, "select from es_check_event_types(thorough => true)") == []
        counted = 0
        while counted < 110_000:
            step = maintain(session)
            assert step > 0
            counted += step
        assert rows(session, COUNTS) == rows(session, LIVE)
        assert rows(session, CHECK) == []


def test_nothing_is_skipped_when_the_server_is_killed(new_server):
    server = new_server("counting")
    database = Database(server, "counting").create()
    with database.connect() as session:
        declare(session)
    for cycle in range(4):
        stop = threading.Event()

        def work(number, stop=stop):
            try:
                with database.connect() as there:
                    while not stop.is_set():
                        append(there, 1, stream=f"account-{number}") if number else maintain(there)
            except psycopg.Error:
                pass

        workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for worker in workers:
            worker.start()
        stop.wait(0.7)
        server.kill_everything()
        stop.set()
        for worker in workers:
            worker.join(30)
        server.start()
        with database.connect() as session:
            assert rows(session, COUNTS) == rows(session, LIVE), cycle
            maintain(session)
            assert rows(session, COUNTS) == rows(session, LIVE), cycle
            assert rows(session, COUNTS)[0][2] > 0


def test_a_restored_log_counts_anew_and_not_before_it_has_appended(new_server):
    server = new_server("restored")
    original, copy = Database(server, "original").create(), Database(server, "copy").create(extension=False)
    with original.connect() as session:
        declare(session)
        many(session, 20)
        assert maintain(session) is not None
        many(session, 3)
        before = rows(session, COUNTS)
    run_psql(copy, run("pg_dump", env=server.address("original")))
    with copy.connect() as session:
        assert kept(session) == {} and maintain(session) == 0
        assert rows(session, COUNTS) == before
        append(session, 1)
        maintain(session)
        assert kept(session) == {"Credited": 24} and rows(session, COUNTS) == rows(session, LIVE)


def test_roles_see_the_counts_of_what_they_may_read(database):
    with database.connect() as session:
        nobody, reader, narrow, keeper = (database.role(f"{database.name}_{name}") for name in ("nobody", "reader", "narrow", "keeper"))
        for role, privilege, category in ((reader, "read", None), (narrow, "read", "account"), (keeper, "manage", None)):
            session.execute("select es_grant(%s, %s, tenant => 'default', category => %s)", (role, privilege, category))
        declare(session)
        many(session, 3)
        many(session, 4, stream="other-1")
        many(session, 2, event_type="Else", stream="other-1")
        for _ in range(2):
            for role, count, problems in ((reader, 7, [("Else", 2)]), (narrow, 3, [])):
                with database.connect(user=role) as there:
                    assert value(there, "select events from eventstream.event_types") == count
                    assert rows(there, "select event_type, events from es_check_event_types()") == problems
                    assert rows(there, "select event_type, events from es_check_event_types(true)") == problems
            for role in (nobody, keeper):
                with database.connect(user=role) as there:
                    for ask in ("select * from eventstream.event_types", "select * from _eventstream.event_counts(1)", "select * from es_check_event_types()",
                                "select * from _eventstream.event_counts"):  # fmt: skip
                        assert refused(there.execute, ask).sqlstate == "42501", ask
            maintain(session)


def test_tenants_count_their_own_and_wait_for_nobody(database):
    with database.connect() as session, database.connect(autocommit=False) as of_b:
        session.execute("select es_create_tenant('b')")
        for tenant in ("default", "b"):
            session.execute(f"set eventstream.tenant = '{tenant}'")
            declare(session)
        of_b.execute("set eventstream.tenant = 'b'")
        append(of_b, 1)
        append(session, 1, stream="account-2")
        session.execute("set eventstream.tenant = 'default'")
        many(session, 5)
        assert maintain(session) == 5, "b's open append holds b's counts only"
        assert rows(session, COUNTS)[0][2] == 5
        of_b.commit()
        assert maintain(session) == 2
        role = database.role(f"{database.name}_of_b")
        for privilege in ("upkeep", "read"):
            session.execute("select es_grant(%s, %s, tenant => 'b')", (role, privilege))
        many(session, 4)
        with database.connect(user=role) as there:
            assert maintain(there) == 0, "what is another's is another's to count"
            assert value(there, "select events from eventstream.event_types") == 2


def test_the_quick_check_finds_what_is_not_declared_or_has_no_way_to_the_newest(database):
    with database.connect() as session:
        append(session, {"a": 1}, event_type="Old")
        append(session, {"a": 1}, event_type="Old", schema_version=2)
        append(session, 1, event_type="Free")
        append(session, 1, event_type="Renamed")
        session.execute("select es_close_stream('account-1', 'over')")
        declare(session, event_type="Old", version=3)
        declare(session, event_type="Renamed")
        upcaster(session, "up", "p", event_type="Old", version=2)
        session.execute("select es_register_upcaster('Renamed', 1, 'up(jsonb, jsonb)', to_event_type => 'Settled')")
        expected = [
            ("Free", 1, "the event type is not declared", 1),
            ("Old", 1, "this schema version is not declared; the newest that is declared is 3", 1),
            ("Old", 1, 'no upcaster turns schema version 1 of "Old" into 2: it is read in version 1, and the newest that is declared is 3', 1),
            ("Old", 2, "this schema version is not declared; the newest that is declared is 3", 1),
            ("Renamed", 1, 'upcasters turn it into schema version 2 of "Settled", which is not declared', 1),
        ]
        for _ in range(2):
            assert rows(session, CHECK) == expected
            assert rows(session, "select event_type, schema_version, problem, events from es_check_event_types(true)") == expected
            maintain(session)
        found = health(session, "event types")
        assert found.status == "warning" and found.tenant == "default"
        assert "2 events are not read in the newest declared schema version of their type, of 2 stored schema versions" in found.detail
        assert len(rows(session, found.fix)) == 5
        metrics = value(session, "select es_metrics()")
        assert '\neventstream_schema_versions_without_upcaster{tenant="default"} 2\n' in metrics
        declare(session, event_type="Settled", version=2)
        upcaster(session, "up1", "p", event_type="Old", version=1)
        assert health(session, "event types") is None
        assert '\neventstream_schema_versions_without_upcaster{tenant="default"} 0\n' in value(session, "select es_metrics()")


def test_the_thorough_check_names_the_events_that_break_their_schema_and_not_what_they_say(database):
    with database.connect() as session:
        append(session, {"amount": 1})
        append(session, {"amount": "top secret"})
        append(session, {"amount": 1.5, "pin": "top secret"}, stream="account-2")
        append(session, {"amount": 7}, event_type="Else")
        deep = 1
        for _ in range(200):
            deep = {"a": deep}
        session.execute("set eventstream.max_json_depth = 1000")
        append(session, deep, stream="account-3")
        declare(session, schema=AMOUNT)
        declare(session, event_type="Else")
        assert rows(session, "select * from es_check_event_types()") == []
        found = rows(session, "select event_type, schema_version, stream, version, value, rule, problem, global_position from es_check_event_types(thorough => true)")
        assert [row[:6] for row in found] == [
            ("Credited", 1, "account-1", 2, "/amount", "/properties/amount/type"),
            ("Credited", 1, "account-2", 1, "", "/additionalProperties"),
            ("Credited", 1, "account-3", 1, None, None),
        ]
        assert not any("secret" in str(row) or "pin" in str(row) for row in found)
        assert "nested deeper" in found[2][6]
        assert [row[7] for row in found] == sorted(row[7] for row in found)
        # It reads the log, and trusts no counts.
        maintain(session)
        with forced(session):
            session.execute("update _eventstream.event_counts set events = 0")
        assert len(rows(session, "select from es_check_event_types(thorough => true)")) == 3


def test_the_thorough_check_is_seen_at_work_and_can_be_cancelled(database):
    with database.connect() as session, database.connect() as watcher:
        for _ in range(4):
            many(session, 10_000)
        declare(session, schema={"allOf": [{"not": {"const": n}} for n in range(-200, 0)]})
        pid, done = session.info.backend_pid, []

        def work():
            done.append(refused(session.execute, "select * from es_check_event_types(true)").sqlstate)

        thread = threading.Thread(target=work)
        thread.start()
        seen = []
        while thread.is_alive():
            seen += rows(watcher, "select task, name, pid, done > 0, total >= done, unit from eventstream.progress")
            if seen and seen[-1][3]:
                watcher.execute("select pg_cancel_backend(%s)", (pid,))
                break
        thread.join(60)
        assert done == ["57014"]
        assert set(seen) - {("check", None, pid, False, True, "positions")} == {("check", None, pid, True, True, "positions")}
        assert rows(watcher, "select from eventstream.progress") == []


def test_the_thorough_check_has_little_memory(database):
    """However many events break their schema: what is found flows into a tuplestore."""
    with database.connect() as session:
        for _ in range(6):
            many(session, 10_000)
        declare(session, schema={"type": "string"})
    with database.connect() as session:
        session.execute("set work_mem = '1MB'")
        value(session, "select count(*) from es_check_event_types(true) where global_position < 100")
        before = resident(session)
        assert value(session, "select count(*) from es_check_event_types(true)") == 60_000
        assert resident(session) - before < 16 << 10, (before, resident(session))


def resident(session) -> int:
    with open(f"/proc/{session.info.backend_pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))


def test_the_quick_check_and_the_view_do_not_read_what_is_counted(database):
    with database.connect() as session:
        declare(session)
        many(session, 2_000)
        maintain(session)
        before = [pages(session, ask) for ask in (COUNTS, CHECK)]
        for _ in range(4):
            many(session, 10_000)
        maintain(session)
        assert [pages(session, ask) for ask in (COUNTS, CHECK)] < [cost + 40 for cost in before]


@pytest.mark.parametrize("statement", ["select es_check_event_types(null)"])
def test_bad_input_of_the_check(database, statement):
    with database.connect() as session:
        assert refused(session.execute, statement).sqlstate == "ES005"


def test_workers_count(new_server):
    database = Database(new_server("counters"), "counters").create()
    with database.connect() as session:
        declare(session)
        for _ in range(3):
            many(session, 10_000)
        wait_until(lambda: kept(session) == {"Credited": 30_000}, 30, "the workers to count", every=0.2)


def test_upkeep_takes_tenants_in_turn_and_keeps_locks_of_those_alone_that_it_wrote_for(database):
    with database.connect() as session:
        for number in range(450):
            session.execute(f"select es_create_tenant('t{number}')")
            session.execute(f"set eventstream.tenant = 't{number}'")
            session.execute("select es_create_event_type('Counted')")
            session.execute("select es_append('a-1', 'Counted', '1')")
        counted = []
        for _ in range(4):
            session.execute("begin")
            counted.append(maintain(session))
            locks = value(session, "select count(*) from pg_locks where locktype = 'object' and classid = '_eventstream.event_types'::regclass")
            assert locks == counted[-1]
            session.execute("commit")
        # Each of them once, wherever a call began.
        assert sum(counted) == 450 and max(counted) <= 200 and counted[-1] == 0


def test_nobody_empties_the_counts_by_hand(database):
    with database.connect() as session:
        session.execute("select es_create_event_type('Counted')")
        session.execute("select es_append('a-1', 'Counted', '1')")
        maintain(session)
        for table in ("event_counts", "event_count_progress"):
            for statement in (f"truncate _eventstream.{table}", f"delete from _eventstream.{table}", f"update _eventstream.{table} set tenant_id = 2"):
                with pytest.raises(psycopg.Error) as error:
                    session.execute(statement)
                assert error.value.sqlstate == "ES050", statement
