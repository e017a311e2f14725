"""Subscriptions where two of their rules meet: upcasters that fail beside dead letters that are tried again, many consumers and
few slots, long transactions, many names."""

import threading
import time

import pytest
from consuming import FETCH, ack, expire, fetch, fill, in_slot_of, orders, refused
from database import rows, value
from server import wait_until

__all__ = ["orders"]  # a fixture


def upcaster(session, is_broken):
    """Of Moved: one that fails for the payload "bad", or for none."""
    cast = "(payload #>> '{}')::int" if is_broken else "0"
    session.execute(
        "create or replace function moved_2(payload jsonb, metadata jsonb) returns jsonb immutable language sql as"
        f" $$ select jsonb_build_object('n', {cast}) $$"
    )


@pytest.fixture
def upcast(database):
    """Whose events die of the first failure."""
    with database.connect() as session:
        session.execute("select es_create_subscription('orders', max_deliveries => 1)")
        upcaster(session, is_broken=True)
        session.execute("select es_register_upcaster('Moved', 1, 'moved_2(jsonb, jsonb)')")
    return database


def retry_dead_letters(session):
    session.execute("select es_retry_dead_letter(id) from _eventstream.dead_letters")


def drain(session):
    """Stream and version of all that comes, acknowledged."""
    done = []
    while batch := fetch(session):
        ack(session, batch[0][0])
        done += [row[3:5] for row in batch]
    return done


# -- upcasters and dead letters ---------------------------------------------------------------------------------------


def test_a_dead_letter_that_fails_again_takes_no_later_event_of_its_stream_along(upcast):
    with upcast.connect() as session:
        session.execute("select es_append('order-1', 'Moved', '\"bad\"')")
        assert drain(session) == []
        fill(session, 2, 2)
        retry_dead_letters(session)
        assert drain(session) == [("order-1", 2), ("order-2", 1), ("order-1", 3), ("order-2", 2)]
        assert rows(session, "select stream, version from _eventstream.dead_letters") == [("order-1", 1)]
        upcaster(session, is_broken=False)
        retry_dead_letters(session)
        assert drain(session) == [("order-1", 1)]


def test_an_event_that_fails_takes_no_dead_letter_of_its_stream_along(upcast):
    with upcast.connect() as session:
        session.execute("select es_append('order-1', 'Moved', '\"bad\"')")
        fill(session, 1, 2)
        batch = fetch(session)
        assert [row[4] for row in batch] == [2, 3]
        session.execute("select es_nack(%s, %s, 'no', dead_letter => true)", (batch[0][0], batch[0][2]))
        ack(session, fetch(session)[0][0])
        # From the beginning: the first event fails, the second one is tried again by itself too, the third waits for the first.
        session.execute("select es_seek_subscription('orders', 0)")
        session.execute("select es_retry_dead_letter(id) from _eventstream.dead_letters where version = 2")
        assert drain(session) == [("order-1", 2), ("order-1", 2), ("order-1", 3)], "once for each who asked for it"


def test_a_batch_is_what_its_lease_holds(upcast):
    """With failures of all kinds at once: what is delivered can be acknowledged, and nothing else is."""
    with upcast.connect() as session:
        for _ in range(3):
            session.execute("select es_append('order-' || n, 'Moved', to_jsonb(n)) from generate_series(1, 4) n")
            session.execute("select es_append('order-' || n, 'Moved', '\"bad\"') from generate_series(2, 3) n")
        given = set()
        for _ in range(30):
            retry_dead_letters(session)
            batch = fetch(session, most=7)
            if not batch:
                break
            held = value(session, "select positions from _eventstream.subscription_leases where lease_id = %s", batch[0][0])
            assert [row[2] for row in batch] == held
            given.update(held)
            assert ack(session, batch[0][0]) == len(held)
        dead = {position for (position,) in rows(session, "select global_position from _eventstream.dead_letters")}
        assert len(given) == 12 and dead and not given & dead


# -- waiting ----------------------------------------------------------------------------------------------------------


def looks(session):
    """How often the slots of subscriptions were looked at in this transaction."""
    return value(
        session,
        "select idx_scan from pg_stat_xact_all_tables where schemaname = '_eventstream' and relname = 'subscription_slots'",
    )


def test_whoever_waits_is_woken_also_after_the_horizon_moved_for_others(database):
    with database.connect() as session, database.connect() as other:
        session.execute("select es_create_subscription('orders', categories => '{order}')")
        wait_until(lambda: value(other, "select count(*) from pg_stat_activity where backend_type = 'eventstream scheduler'"))
        sent, late = [], []

        def append():
            for _ in range(2):
                time.sleep(0.1)
                other.execute("select es_append('noise-1', 'Moved', '1')")
            time.sleep(0.1)
            sent.append(time.monotonic())
            other.execute("select es_append('order-1', 'Moved', '1')")

        for _ in range(5):
            thread = threading.Thread(target=append)
            thread.start()
            batch = fetch(session, wait="20s")
            late.append(time.monotonic() - sent[-1])
            thread.join()
            ack(session, batch[0][0])
        assert sorted(late)[2] < 0.1, late


def test_whoever_waits_for_slots_that_others_lease_looks_now_and_then(orders):
    with orders.connect() as holder, orders.connect() as session:
        fill(holder, 300, 1)
        assert len(fetch(holder, "holder", 1000)) == 300
        with session.transaction():
            assert fetch(session, "waiter", wait="1s") == []
            assert looks(session) < 50


def test_whoever_waits_beside_busy_appenders_hardly_looks(database):
    over = threading.Event()

    def append():
        with database.connect() as session:
            session.autocommit = True
            while not over.is_set():
                session.execute("select es_append('noise-1', 'Moved', '1')")

    with database.connect() as session:
        session.execute("select es_create_subscription('orders', categories => '{order}')")
        threads = [threading.Thread(target=append) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            with session.transaction():
                assert fetch(session, wait="2s") == []
                found = looks(session)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        # Whole looks: beside those who append what it does not want it only looks at the index.
        assert 1 <= found < 20, found


def test_nobody_waits_for_longer_than_a_minute(orders):
    """A call keeps a snapshot: what is written meanwhile cannot be pruned."""
    with orders.connect() as session:
        assert "wait" in str(refused("ES005", session, FETCH, "orders", "one", 1, "30s", "61s"))
        fill(session, 1, 1)
        assert len(fetch(session, wait="1 min")) == 1


# -- what a transaction keeps from others -----------------------------------------------------------------------------


def slots_kept(session, watched):
    """How many slots of subscriptions the transaction of `watched` has locked."""
    return value(
        session,
        "select count(*) from pg_locks where locktype = 'object' and classid = '_eventstream.events'::regclass and pid = %s",
        watched.info.backend_pid,
    )


@pytest.mark.parametrize("wanted", [0, 1, 3])
def test_a_transaction_keeps_no_more_slots_than_its_consumers_share(database, wanted):
    """Also after it has looked at so much of the log in vain that slots are moved on."""
    with database.connect() as session, database.connect() as other:
        session.execute("select es_create_subscription('orders', event_types => '{Wanted}')")
        for name in ("a", "b", "c"):
            assert fetch(other, name) == []
        fill(session, 1000, 3)
        session.execute("select es_append('order-' || n, 'Wanted', '1') from generate_series(1, %s) n", (wanted,))
        with session.transaction():
            assert len(fetch(session, "d")) == wanted
            assert 1 <= slots_kept(other, session) <= 16
        positions = "select global_position from _eventstream.subscription_slots where lease_id is null"
        for _ in range(20):
            for name in ("a", "b", "c", "d"):
                if batch := fetch(other, name):
                    ack(other, batch[0][0])
        assert all(position > 2000 for (position,) in rows(session, positions)), "in the end all have been moved on"


def test_a_call_that_moved_slots_on_does_not_wait_and_the_next_one_holds_none(database):
    with database.connect() as session, database.connect() as other:
        session.execute("select es_create_subscription('orders', event_types => '{Wanted}')")
        fill(session, 1000, 3)
        with session.transaction():
            begun = time.monotonic()
            assert fetch(session, wait="5s") == []
            assert time.monotonic() - begun < 2 and slots_kept(other, session) == 64
        thread = threading.Thread(target=fetch, args=(session,), kwargs={"wait": "1s"})
        thread.start()
        time.sleep(0.5)
        assert thread.is_alive() and slots_kept(other, session) == 0
        thread.join()


def test_a_call_that_ended_the_leases_of_others_does_not_wait(orders):
    with orders.connect() as session, orders.connect() as other:
        fill(session, 1, 1)
        batch = fetch(session, "one")
        session.execute("select es_nack(%s, %s, 'no', '0')", (batch[0][0], batch[0][2]))
        batch = fetch(session, "one")
        expire(session, batch[0][0])
        with session.transaction():
            begun = time.monotonic()
            assert fetch(session, "two", wait="400ms") == [], "it was parked: it is tried again after a pause"
            assert time.monotonic() - begun < 0.3
        assert fetch(session, "two", wait="5s")[0][1] == 3


def test_a_parked_stream_comes_also_where_its_slot_has_nothing_before_it(orders):
    """Its slot was left at the last event that was delivered alone, short of the parked one."""
    parked = in_slot_of("order-1")
    with orders.connect() as session:
        fill(session, 64, 1)
        ack(session, fetch(session)[0][0])
        session.execute("select es_append('order-1', 'Moved', '1')")
        session.execute("select es_append('order-2', 'Moved', '1')")
        session.execute("select es_append(%s, 'Moved', '1')", (parked,))
        batch = fetch(session)
        assert [row[3] for row in batch] == ["order-1", "order-2", parked]
        ack(session, batch[0][0], batch[0][2] - 1)
        session.execute("select es_nack(%s, %s, 'no', '0')", (batch[0][0], batch[2][2]))
        seen = []
        for _ in range(3):
            expire(session, batch[0][0])
            batch = fetch(session)
            seen.append([row[3] for row in batch])
        while batch:
            ack(session, batch[0][0])
            batch = fetch(session)
            seen.append([row[3] for row in batch])
        assert [parked] in seen, seen


# -- what is left behind ----------------------------------------------------------------------------------------------


def test_a_lease_that_is_over_is_forgotten_a_minute_later_however_long_it_was(orders):
    with orders.connect() as session:
        fill(session, 1, 30)
        leases = "select count(*) from _eventstream.subscription_leases"
        for _ in range(3):
            ack(session, fetch(session, most=1, lease="1h")[0][0])
        batch = fetch(session, most=1, lease="1h")
        session.execute("select es_nack(%s, %s, 'no', '1 hour')", (batch[0][0], batch[0][2]))
        session.execute("select es_seek_subscription('orders', 0)")
        fetch(session, most=1, lease="1h")
        session.execute("select es_seek_subscription('orders', 0)")
        assert value(session, leases) == 5 == value(session, leases + " where finished_at is not null and lease_until <= finished_at")
        session.execute("update _eventstream.subscription_leases set lease_until = lease_until - interval '61 s'")
        fetch(session, most=1)
        assert value(session, leases) == 1


def test_consumers_that_are_gone_cost_nothing_and_are_forgotten(orders):
    """Every process has a name of its own, and comes once."""
    with orders.connect() as session:
        session.execute(
            "insert into _eventstream.subscription_consumers select id, 'gone-' || n, clock_timestamp() - interval '1 min' * (n % 20)"
            " - interval '1 s' from _eventstream.subscriptions, generate_series(1, 20000) n"
        )
        fetch(session)
        read = "select idx_tup_fetch from pg_stat_xact_all_tables where schemaname = '_eventstream' and relname = 'subscription_consumers'"
        with session.transaction():
            before = value(session, read)
            fetch(session)
            assert value(session, read) - before < 20
        old = "select count(*) from _eventstream.subscription_consumers where seen_until < clock_timestamp() - interval '10 min'"
        before = value(session, old)
        fetch(session, "new")
        assert value(session, old) == before - 100


def test_a_dropped_subscription_leaves_nothing_also_of_calls_under_way(orders):
    with orders.connect() as session, orders.connect() as other:
        fill(session, 1, 1)
        batch = fetch(session)
        session.execute("select es_nack(%s, %s, 'no', dead_letter => true)", (batch[0][0], batch[0][2]))
        assert fetch(session) == []  # its stream is not parked any more
        with other.transaction():
            assert fetch(other, "under-way") == []
            other.execute("select es_retry_dead_letter(id) from _eventstream.dead_letters")
            thread = threading.Thread(target=session.execute, args=("select es_drop_subscription('orders')",))
            thread.start()
            time.sleep(0.3)
            assert thread.is_alive()
        thread.join()
        for table in ("slots", "leases", "consumers", "parked"):
            assert rows(session, f"select * from _eventstream.subscription_{table}") == []
        session.execute("select es_create_subscription('orders')")
        assert drain(session) == [("order-1", 1)]
        with other.transaction():
            assert fetch(other, "under-way") == []
            session.execute("set lock_timeout = '5s'; select es_drop_subscription('orders')")
        assert len(rows(session, "select * from _eventstream.subscription_consumers")) == 1
        session.execute("select * from es_maintain()")
        assert rows(session, "select * from _eventstream.subscription_consumers") == []
