"""Subscriptions as outside consumers use them: competing for streams, dying in the middle, being too late, nacking, and beside
appends that stay open."""

import os
import threading
import time
import uuid
from collections import Counter

import psycopg
import pytest
from consuming import FETCH, ack, expire, fetch, fill, orders, refused
from database import Database, all_at_once, raised, rows, value
from psycopg.types.json import Jsonb
from server import wait_until

__all__ = ["orders"]  # a fixture

class Consumers:
    """Threads that fetch and acknowledge until nothing comes any more; what each of them acknowledged, in order."""

    def __init__(self, database, count, most=100, until=None, work=0.0):
        self.database, self.most, self.until = database, most, until
        #: Seconds that the processing of an event takes.
        self.work = work
        self.done: list[list[tuple]] = [[] for _ in range(count)]
        self.count = count

    def run(self, seconds=120):
        results = all_at_once(self.count, self.consume, seconds)
        assert raised(results) == []
        return self

    def consume(self, number):
        with self.database.connect() as session:
            empty = 0
            while empty < 3:
                batch = fetch(session, f"consumer-{number}", self.most, wait="300ms")
                if batch:
                    time.sleep(self.work * len(batch))
                    assert ack(session, batch[0][0]) == len(batch)
                    self.done[number] += batch
                    empty = 0
                elif self.until is None or self.until.is_set():
                    empty += 1

    def positions(self):
        return [row[2] for done in self.done for row in done]


def assert_in_order(done):
    """Each stream's events, as one consumer acknowledged them."""
    newest: Counter = Counter()
    for _, _, _, stream, version, _ in done:
        assert version > newest[stream], f"{stream}: {version} after {newest[stream]}"
        newest[stream] = version


# -- sharing ---------------------------------------------------------------------------------------------------------


def test_four_consumers_over_a_thousand_streams_share_the_events_evenly_and_get_each_once(orders):
    with orders.connect() as session:
        # All four are known before there is anything to share, and what they do with an event takes longer than its delivery: who gets how
        # many says something of the slots then, and not of who had a processor.
        for number in range(4):
            assert fetch(session, f"consumer-{number}") == []
        fill(session, 1000, 20)
    consumers = Consumers(orders, 4, most=50, work=0.0005).run()
    positions = consumers.positions()
    assert len(positions) == 20_000 == len(set(positions))
    shares = [len(done) / len(positions) for done in consumers.done]
    assert all(0.2 <= share <= 0.3 for share in shares), shares
    for done in consumers.done:
        assert_in_order(done)


def test_consumers_hold_disjoint_streams(orders):
    with orders.connect() as session:
        fill(session, 200, 3)
    with orders.connect() as one, orders.connect() as two:
        fetch(two, "two", 1)  # seen: the slots are shared
        first, second = fetch(one, "one", 1000), fetch(two, "two", 1000)
        assert len(first) > 100 and len(second) > 100
        assert not {row[3] for row in first} & {row[3] for row in second}


def test_a_consumer_with_an_open_transaction_blocks_no_other(orders):
    with orders.connect() as session:
        fill(session, 200, 2)
    with orders.connect() as open_one, orders.connect() as other, orders.connect() as same:
        fetch(other, "other", 1)
        with open_one.transaction():
            held = fetch(open_one, "open", 1000)
            for session, name in ((other, "other"), (same, "open")):
                session.execute("set statement_timeout = '2s'")
                found = fetch(session, name, 1000)
                assert not {row[3] for row in found} & {row[3] for row in held}
                if found:
                    assert ack(session, found[0][0]) == len(found)
            refused("ES024", other, "select es_ack(%s)", held[0][0])  # nobody can see it yet
            ack(open_one, held[0][0])


def test_each_event_counts_once_where_effects_and_acknowledgement_commit_together(orders):
    """Consumers that are killed at any moment: their effect and their acknowledgement are there, or neither."""
    with orders.connect() as session:
        fill(session, 50, 20)
        session.execute("create table effects (global_position bigint)")
    over = threading.Event()

    def consume(number):
        while True:
            try:
                with orders.connect() as session:
                    while True:
                        with session.transaction():
                            batch = fetch(session, f"consumer-{number}", 20)
                            for row in batch:
                                session.execute("insert into effects values (%s)", (row[2],))
                            if batch:
                                ack(session, batch[0][0])
                        if over.is_set() and not batch:
                            return
            except psycopg.OperationalError:
                continue

    def kill():
        with orders.connect() as session:
            for _ in range(25):
                time.sleep(0.04)
                session.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname = current_database()"
                    " and query like '%%es_%%' order by random() limit 1"
                )
        over.set()

    killer = threading.Thread(target=kill)
    killer.start()
    assert raised(all_at_once(3, consume, 120)) == []
    killer.join()
    with orders.connect() as session:
        # A killed consumer's slots are free at once: its lease was never committed.
        assert value(session, "select count(*) from effects") == 1000
        assert value(session, "select count(distinct global_position) from effects") == 1000


# -- too late ---------------------------------------------------------------------------------------------------------


def test_whoever_comes_after_the_lease_is_refused_also_under_the_old_name(orders):
    with orders.connect() as session:
        fill(session, 3, 2)
    with orders.connect() as one, orders.connect() as two:
        first = fetch(one, "one", lease="100ms")
        assert len(first) == 6
        time.sleep(0.15)
        second = fetch(two, "two")
        assert [row[2:5] for row in second] == [row[2:5] for row in first]
        assert {row[1] for row in second} == {2}
        for statement in ("select es_ack(%s)", "select es_nack(%s, 1, 'no')", "select es_extend_lease(%s, '1 min')"):
            error = refused("ES024", one, statement, first[0][0])
            assert "ended" in str(error) and str(first[0][0]) in error.diag.message_detail
        assert fetch(one, "one") == []
        assert ack(two, second[0][0]) == 6
        assert "acknowledged already" in str(refused("ES024", two, "select es_ack(%s)", second[0][0]))
        assert "never given" in str(refused("ES024", two, "select es_ack(%s)", uuid.uuid4()))


def test_a_lease_is_as_long_as_it_was_made(orders):
    with orders.connect() as session:
        fill(session, 1, 2)
        batch = fetch(session, lease="300ms")
        assert value(session, "select es_extend_lease(%s, '30 minutes')", batch[0][0]) == 2
        time.sleep(0.4)
        assert fetch(session, "two") == []
        assert ack(session, batch[0][0]) == 2
        refused("ES005", session, "select es_extend_lease(%s, '25 hours')", batch[0][0])


@pytest.mark.parametrize("kill", ["consumer", "server"])
def test_what_was_not_acknowledged_is_delivered_again_after_a_kill_and_nothing_is_lost(new_server, kill):
    server = new_server(f"killed_{kill}", fsync=True)
    database = Database(server, "books").create()
    with database.connect() as session:
        session.execute("select es_create_subscription('orders')")
        fill(session, 20, 5)
        done = fetch(session, "first", 30)
        ack(session, done[0][0])
    victim = database.connect()
    held = fetch(victim, "victim", 40, lease="1s")
    assert held
    if kill == "consumer":
        victim.close()
    else:
        server.kill_everything()
    server.start() if kill == "server" else (server.stop("immediate"), server.start())
    with database.connect() as session:
        again, seen = [], []
        while len(again) < 70:
            batch = fetch(session, "second", 100, wait="2s")
            assert batch, f"{len(again)} of 70"
            again += batch
            ack(session, batch[0][0])
        seen = [row[2] for row in done + again]
        assert sorted(seen) == sorted({row[2] for row in done + again}) and len(seen) == 100
        attempts = {row[2]: row[1] for row in again}
        assert all(attempts[row[2]] == 2 for row in held)
        assert fetch(session, "second") == []


# -- nack -------------------------------------------------------------------------------------------------------------


def test_a_parked_stream_holds_back_nothing_but_itself(orders):
    with orders.connect() as session:
        fill(session, 10, 4)
        batch = fetch(session)
        assert len(batch) == 40
        bad = next(row for row in batch if row[3] == "order-3" and row[4] == 2)
        assert value(session, "select es_nack(%s, %s, 'no', '1 s')", batch[0][0], bad[2]) == 3
        assert ack(session, batch[0][0]) == 37
        fill(session, 10, 1)
        others = fetch(session)
        assert {row[3] for row in others} == {f"order-{n}" for n in range(1, 11) if n != 3}
        ack(session, others[0][0])
        begun = time.monotonic()
        again = fetch(session, wait="5s")
        assert 0.5 < time.monotonic() - begun < 1.5, "a retry that is due is noticed"
        assert [(row[1], row[3], row[4]) for row in again] == [(2, "order-3", 2)], "the failed event comes alone first"
        ack(session, again[0][0])
        rest = fetch(session)
        assert [(row[1], row[4]) for row in rest] == [(1, 3), (1, 4), (1, 5)]
        ack(session, rest[0][0])
        fetch(session)
        assert rows(session, "select * from _eventstream.subscription_parked") == []
        fill(session, 10, 1)
        assert len(fetch(session)) == 10


def test_earlier_events_of_a_nacked_stream_stay_with_the_lease(orders):
    with orders.connect() as session:
        fill(session, 1, 5)
        batch = fetch(session)
        assert value(session, "select es_nack(%s, %s, 'no', '0')", batch[0][0], batch[2][2]) == 3
        expire(session, batch[0][0])
        again = fetch(session)
        assert [(row[1], row[4]) for row in again] == [(2, 1), (2, 2)], "those behind wait for them"
        ack(session, again[0][0])
        assert [(row[1], row[4]) for row in fetch(session)] == [(2, 3)]


def test_an_event_that_is_nacked_max_deliveries_times_is_dead_and_its_stream_goes_on(database):
    with database.connect() as session:
        session.execute("select es_create_subscription('orders', max_deliveries => 3)")
        fill(session, 2, 3)
        for attempt in (1, 2, 3):
            batch = fetch(session)
            bad = next(row for row in batch if row[3:5] == ("order-1", 1))
            assert bad[1] == attempt
            session.execute("select es_nack(%s, %s, 'the ' || %s || '. no', '0')", (batch[0][0], bad[2], attempt))
            if len(batch) > 3:
                ack(session, batch[0][0])
        assert rows(session, "select stream, version, attempts, reason from _eventstream.dead_letters") == [
            ("order-1", 1, 3, "the 3. no")
        ]
        rest = fetch(session)
        assert [row[3:5] for row in rest] == [("order-1", 2), ("order-1", 3)]
        ack(session, rest[0][0])
        letter = value(session, "select id from _eventstream.dead_letters")
        assert value(session, "select es_retry_dead_letter(%s)", letter) == "orders"
        again = fetch(session)
        assert [(row[1], *row[3:5]) for row in again] == [(1, "order-1", 1)]
        session.execute("select es_nack(%s, %s, 'dead', dead_letter => true)", (again[0][0], again[0][2]))
        letter = value(session, "select id from _eventstream.dead_letters")
        assert value(session, "select es_drop_dead_letter(%s, 'a test')", letter) == "orders"
        assert fetch(session) == []
        refused("ES005", session, "select es_retry_dead_letter(%s)", letter)


def test_pauses_grow_with_each_attempt(orders):
    with orders.connect() as session:
        fill(session, 1, 1)
        pauses = []
        for _ in range(4):
            batch = fetch(session)
            session.execute("select es_nack(%s, %s, 'no')", (batch[0][0], batch[0][2]))
            pauses.append(
                value(
                    session,
                    "select extract(epoch from retry_at - clock_timestamp())::float8 from _eventstream.subscription_parked",
                )
            )
            session.execute("update _eventstream.subscription_parked set retry_at = clock_timestamp()")
        assert [round(pause * 2) / 2 for pause in pauses] == [0.5, 1, 2, 4]


def test_a_poison_event_that_kills_its_consumers_is_isolated_and_dies_alone(database):
    """Its consumer dies with whatever it holds whenever the event is among it; all others are processed, once acknowledged."""
    with database.connect() as session:
        session.execute("select es_create_subscription('orders', max_deliveries => 6)")
        fill(session, 30, 10)
        poison = value(session, "select global_position from es_read('order-7', from_version => 5, max_count => 1)")
        done, dead_with = Counter(), []
        for _ in range(300):
            batch = fetch(session, most=50)
            if not batch:
                break
            if poison in {row[2] for row in batch}:
                dead_with.append(len(batch))
                expire(session, batch[0][0])
            else:
                done.update(row[2] for row in batch)
                ack(session, batch[0][0])
        assert len(dead_with) == 6 and dead_with[3:] == [1, 1, 1]
        assert rows(session, "select global_position, attempts from _eventstream.dead_letters") == [(poison, 6)]
        assert set(done.values()) == {1} and len(done) == 299


def test_a_nack_storm_slows_no_other_stream(orders):
    """Thousands of streams are parked, again and again; the others' events come as fast as before."""
    with orders.connect() as session:
        fill(session, 3000, 1)
        parked = 0
        while batch := fetch(session, most=100):
            with session.pipeline():
                for row in batch:
                    session.execute("select es_nack(%s, %s, 'no', '1 hour')", (batch[0][0], row[2]))
            parked += len(batch)
            if parked >= 3000:
                break
        session.execute("update _eventstream.subscription_parked set retry_at = clock_timestamp() + interval '1 hour'")
        assert value(session, "select count(*) from _eventstream.subscription_parked") == 3000
        fill(session, 100, 20, "quick")
        begun, count = time.monotonic(), 0
        while batch := fetch(session):
            ack(session, batch[0][0])
            count += len(batch)
        assert count == 2000
        assert time.monotonic() - begun < 5
        # All of them again, due at once: attempts go up, nothing is lost, and a fresh stream is not starved.
        session.execute("update _eventstream.subscription_parked set retry_at = clock_timestamp()")
        fill(session, 1, 1, "late")
        seen, lates = Counter(), 0
        for _ in range(400):
            batch = fetch(session, most=500)
            if not batch:
                break
            seen.update(row[2] for row in batch if row[3].startswith("order"))
            lates += sum(row[3] == "late-1" for row in batch)
            ack(session, batch[0][0])
        assert len(seen) == 3000 and set(seen.values()) == {1} and lates == 1


# -- the log ----------------------------------------------------------------------------------------------------------


def test_events_of_transactions_that_commit_late_come_once_and_in_order(orders):
    """An append is held open while thousands of others pass."""
    over = threading.Event()
    with orders.connect() as holder, orders.connect() as other:
        consumers = Consumers(orders, 2, until=over)
        thread = threading.Thread(target=consumers.run)
        thread.start()
        for round_ in range(3):
            with holder.transaction():
                holder.execute("select es_append('order-1', 'Held', '1')")
                fill(other, 300, 5, "quick")
                time.sleep(0.5)
                assert not any(row[3] == "order-1" and row[4] > round_ for done in consumers.done for row in done)
        over.set()
        thread.join(60)
        last = value(other, "select count(*) from eventstream.events")
    positions = consumers.positions()
    assert sorted(positions) == sorted(set(positions)) and len(positions) == last == 4503
    for done in consumers.done:
        assert_in_order(done)


def test_wait_ends_when_something_is_appended_and_when_it_is_cancelled(orders):
    with orders.connect() as waiter, orders.connect() as other:
        assert fetch(waiter, wait="100ms") == []
        timer = threading.Timer(0.3, lambda: other.execute("select es_append('order-1', 'Moved', '1')"))
        timer.start()
        begun = time.monotonic()
        assert len(fetch(waiter, wait="20s")) == 1
        assert time.monotonic() - begun < 2
        timer.join()
        pid = waiter.info.backend_pid
        timer = threading.Timer(0.3, lambda: other.execute("select pg_cancel_backend(%s)", (pid,)))
        timer.start()
        begun = time.monotonic()
        refused("57014", waiter, FETCH, "orders", "one", 1, "30s", "20s")
        assert time.monotonic() - begun < 2
        timer.join()


def test_whoever_waits_holds_no_row_and_notices_a_lease_that_ends(orders):
    with orders.connect() as session, orders.connect() as other:
        fill(session, 2, 1)
        held = fetch(session, "one", lease="700ms")
        assert len(held) == 2
        with orders.connect() as waiter:
            waiter.execute("begin")
            begun = time.monotonic()
            again = fetch(waiter, "two", wait="10s")
            assert len(again) == 2 and 0.3 < time.monotonic() - begun < 2
            waiter.execute("rollback")
            found: list = []
            thread = threading.Thread(target=lambda: found.append(fetch(waiter, "two", wait="1s", subscription="quiet")))
            other.execute("select es_create_subscription('quiet', event_types => '{Never}')")
            thread.start()
            time.sleep(0.3)
            other.execute("set lock_timeout = '100ms'")
            other.execute("select 1 from _eventstream.subscription_slots for update nowait")
            thread.join()
            assert found == [[]]


def test_a_filtered_subscription_moves_on_over_what_it_does_not_want(database):
    with database.connect() as session:
        session.execute("select es_create_subscription('orders', categories => '{order}', event_types => '{Moved}')")
        session.execute("select es_create_subscription('rare', event_types => '{Rare}')")
        fill(session, 1000, 5, "noise")
        session.execute("select es_append('order-1', 'Other', '1'), es_append('order-1', 'Moved', '2')")
        session.execute("select es_append('noise-1', 'Rare', '2')")
        assert [row[3:5] for row in fetch(session)] == [("order-1", 2)]
        assert [row[3:5] for row in fetch(session, subscription="rare")] == [("noise-1", 6)]
        # What has nothing lies close behind the end of the log.
        assert value(
            session,
            "select min(global_position) > 4000 from _eventstream.subscription_slots l join _eventstream.subscriptions s"
            " on s.id = l.subscription_id where s.name = 'rare' and l.lease_id is null",
        )


def test_partition_edges_and_large_events_fit(orders):
    orders.make_partitions_small(100)
    with orders.connect() as session:
        session.execute("select setval('_eventstream.positions', 16777206)")
        fill(session, 7, 50)
        seen = []
        while batch := fetch(session, most=33):
            seen += batch
            ack(session, batch[0][0])
        assert len(seen) == 350
        assert_in_order(seen)
        for _ in range(12):
            session.execute("select es_append('big-1', 'Big', %s)", (Jsonb(os.urandom(400_000).hex()),))
        sizes = []
        while batch := fetch(session):
            sizes.append(len(batch))
            ack(session, batch[0][0])
        assert sum(sizes) == 12 and len(sizes) > 1, sizes


def test_a_seek_delivers_again_and_ends_the_leases(orders):
    with orders.connect() as session:
        fill(session, 3, 3)
        first = fetch(session)
        session.execute("select es_nack(%s, %s, 'no', '1 hour')", (first[0][0], first[0][2]))
        assert value(session, "select es_seek_subscription('orders', %s)", first[4][2]) == "orders"
        assert "moved to position" in str(refused("ES024", session, "select es_ack(%s)", first[0][0]))
        again = fetch(session)
        assert [row[2] for row in again] == [row[2] for row in first[5:]]
        assert {row[1] for row in again} == {1}
        refused("ES025", session, "select es_seek_subscription('orders', 1000000)")
        assert value(session, "select es_drop_subscription('orders')") == "orders"
        refused("ES024", session, "select es_ack(%s)", again[0][0])
        refused("ES020", session, "select * from es_fetch('orders', 'one')")
        for table in ("subscriptions", "subscription_slots", "subscription_leases", "subscription_consumers", "subscription_parked"):
            assert rows(session, f"select * from _eventstream.{table}") == []


def test_a_subscription_ahead_of_the_log_says_so(orders):
    with orders.connect() as session:
        fill(session, 3, 3)
        while batch := fetch(session):
            ack(session, batch[0][0])
        session.execute("select setval('_eventstream.positions', 3)")
        error = refused("ES025", session, "select * from es_fetch('orders', 'one')")
        assert '"last_position":3' in error.diag.message_detail.replace(" ", "")


# -- upcasters --------------------------------------------------------------------------------------------------------


def test_events_are_upcast_and_one_that_cannot_be_blocks_only_its_stream(database):
    with database.connect() as session:
        session.execute("select es_create_subscription('orders', max_deliveries => 2)")
        fill(session, 3, 1)
        session.execute("select es_append('order-2', 'Moved', '\"bad\"')")
        fill(session, 3, 1)
        session.execute(
            "create function moved_2(payload jsonb, metadata jsonb) returns jsonb immutable language sql as"
            " $$ select jsonb_build_object('n', (payload #>> '{}')::int) $$"
        )
        session.execute("select es_register_upcaster('Moved', 1, 'moved_2(jsonb, jsonb)')")
        payloads = rows(session, "select (event).stream, (event).version, (event).schema_version, lease_id from es_fetch('orders', 'one')")
        assert [row[:3] for row in payloads] == [
            ("order-1", 1, 2), ("order-2", 1, 2), ("order-3", 1, 2), ("order-1", 2, 2), ("order-3", 2, 2)
        ]  # fmt: skip
        assert ack(session, payloads[0][3]) == 5
        assert fetch(session, wait="3s")[0][3:5] == ("order-2", 3)
        assert rows(session, "select stream, version, attempts from _eventstream.dead_letters") == [("order-2", 2, 2)]
        assert "22P02" in value(session, "select reason from _eventstream.dead_letters")


# -- rights and arguments ---------------------------------------------------------------------------------------------


def test_only_who_may_read_all_that_it_delivers_fetches_and_acknowledges(database):
    for role in ("reader", "narrow", "manager", "other"):
        database.role(role)
    with database.connect() as session:
        session.execute("select es_create_subscription('all'), es_create_subscription('orders', '{order}')")
        session.execute("select es_create_tenant('vault')")
        session.execute("set eventstream.tenant = 'default'")
        session.execute("select es_grant('reader', 'read'), es_grant('narrow', 'read', category => 'order'), es_grant('manager', 'manage')")
        session.execute("select es_grant('other', p, 'vault') from unnest('{read,consume,manage}'::text[]) p")
        session.execute("select es_grant('reader', 'consume'), es_grant('narrow', 'consume', category => 'order')")
        fill(session, 3, 3)
        held = fetch(session, most=4)
        session.execute("select es_nack(%s, %s, 'no', dead_letter => true)", (held[0][0], held[0][2]))
        letter = value(session, "select id from _eventstream.dead_letters")
    with database.connect("narrow") as session:
        refused("42501", session, "select * from es_fetch('all', 'one')")
        assert fetch(session, "two", 1)
        for statement in ("es_create_subscription('mine')", "es_drop_subscription('all')", "es_seek_subscription('all', 0)",
                          f"es_retry_dead_letter({letter})", f"es_drop_dead_letter({letter}, 'x')"):  # fmt: skip
            refused("42501", session, f"select {statement}")
    with database.connect("manager") as session:
        refused("42501", session, "select * from es_fetch('all', 'one')")
        refused("42501", session, "select es_ack(%s)", held[0][0])
        assert value(session, "select es_seek_subscription('all', 1)") == "all"
    with database.connect("other") as session:
        # Another tenant's are not there.
        refused("ES020", session, "select * from es_fetch('all', 'one')")
        refused("ES020", session, "select es_drop_subscription('all')")
        refused("ES020", session, "select es_seek_subscription('all', 0)")
        refused("ES024", session, "select es_ack(%s)", held[0][0])
        refused("ES024", session, "select es_nack(%s, 1, 'x')", held[0][0])
        refused("ES005", session, f"select es_retry_dead_letter({letter})")
        refused("ES005", session, f"select es_drop_dead_letter({letter}, 'x')")
        assert value(session, "select es_create_subscription('all')") == "all"
    with database.connect("reader") as session:
        assert fetch(session, "three", 1, subscription="all")
        assert ack(session, held[0][0]) == 2


def test_without_preload_es_fetch_says_what_to_configure(new_server):
    server = new_server("no_preload_subscriptions", preload=False)
    with Database(server, "books").create().connect() as session:
        session.execute("select es_create_subscription('orders')")
        refused("ES008", session, "select * from es_fetch('orders', 'one')")


def test_a_dump_and_restore_keeps_where_a_subscription_is(orders, tmp_path):
    with orders.connect() as session:
        fill(session, 3, 3)
        batch = fetch(session, most=5)
        ack(session, batch[0][0])
        table = "select slot, global_position from _eventstream.subscription_slots order by slot"
        before = rows(session, table)
        assert value(
            session,
            "select count(*) from pg_extension e, unnest(e.extconfig) c where e.extname = 'eventstream'"
            " and c::regclass::text like '\\_eventstream.subscription%'",
        ) == 6
        assert len(before) == 64


def test_a_killed_consumer_of_a_long_transaction_leaves_nothing_behind(orders):
    with orders.connect() as session:
        fill(session, 5, 2)
        victim = orders.connect()
        victim.execute("begin")
        assert len(fetch(victim, "victim")) == 10
        pid = victim.info.backend_pid
        assert fetch(session, "other") == []
        session.execute("select pg_terminate_backend(%s)", (pid,))
        wait_until(lambda: value(session, "select count(*) from pg_stat_activity where pid = %s", pid) == 0)
        again = fetch(session, "other")
        assert len(again) == 10 and {row[1] for row in again} == {1}


