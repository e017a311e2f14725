"""Readers beside 16 writers, some of which dawdle with their transaction open, roll back, or undo to a savepoint (invariant 4).

One load of EVENTSTREAM_TAILING_SECONDS (60) is followed by readers at once: of the whole log, of one rare event type and category
among a hundred thousand others, and a naive one that shows the load to be strong enough to matter.
"""

import os
import threading
import time
from types import SimpleNamespace

import pytest
from database import Database, gaps, near_edge, partitions, rows, value, verify
from writers import Reader, Writers

SECONDS = float(os.environ.get("EVENTSTREAM_TAILING_SECONDS", "60"))
COMMON = 200_000
BATCH = 500


def whole_log(session, checkpoint):
    found = rows(
        session,
        "select global_position, stream, version, payload->>'token' from es_read_all(%s, %s)",
        checkpoint,
        BATCH,
    )
    return found, found[-1][0] if found else checkpoint


def whole_log_in_long_transactions():
    """The same inside REPEATABLE READ transactions of fifty reads each: old snapshots, kept plans, no invalidations of its own."""
    reads = 0

    def step(session, checkpoint):
        nonlocal reads
        if reads % 50 == 0:
            session.execute("begin isolation level repeatable read")
            session.execute("select count(*) from pg_class")
        found = whole_log(session, checkpoint)
        reads += 1
        if reads % 50 == 0:
            session.execute("commit")
        return found

    return step


def filtered(condition):
    def step(session, checkpoint):
        time.sleep(0.005)
        up_to = value(session, "select es_horizon()")
        found = rows(
            session,
            f"select global_position, stream, version, payload->>'token' from es_read_all(%s, 10, {condition}, up_to => %s)",
            checkpoint,
            up_to,
        )
        assert up_to >= checkpoint, "the horizon stepped back"
        return found, found[-1][0] if len(found) == 10 else up_to

    return step


def naive(session, checkpoint):
    found = rows(
        session,
        "select global_position, version, version, payload->>'token' from _eventstream.events"
        " where global_position > %s order by global_position limit %s",
        checkpoint,
        BATCH,
    )
    return found, found[-1][0] if found else checkpoint


@pytest.fixture(scope="module")
def tailed(shared_server):
    database = Database(shared_server, "tailing").create()
    with database.connect() as session:
        # The filtered readers' needles lie in a haystack: two rare events among COMMON others, then the load's own.
        session.execute("select es_append('rare-0', 'Rare', '{\"token\": \"first\"}')")
        for batch in range(COMMON // 10_000):
            session.execute(
                "select es_append_events(%s, (select jsonb_agg(jsonb_build_object('type', 'Common', 'payload', n))"
                " from generate_series(1, 10000) n))",
                (f"haystack-{batch}",),
            )
        session.execute("select es_append('rare-0', 'Rare', '{\"token\": \"second\"}')")
        before = value(session, "select es_horizon()")
        # The load crosses from the first partition into the second.
        near_edge(session, 2_000)
    writers = Writers(database, rare_every=8)
    readers = SimpleNamespace(
        whole=Reader(database, whole_log),
        by_type=Reader(database, filtered("event_types => '{Rare}'")),
        by_category=Reader(database, filtered("categories => '{rare}'")),
        in_transactions=Reader(database, whole_log_in_long_transactions()),
        naive=Reader(database, naive),
    )
    writers.start()
    readers.whole.start(before)
    readers.in_transactions.start(before)
    readers.naive.start(before)
    readers.by_type.start()
    readers.by_category.start()
    time.sleep(SECONDS)
    writers.stop()
    with database.connect() as session:
        last = value(session, "select last_position from es_log_info()")
        for reader in vars(readers).values():
            reader.finish(last)
        yield SimpleNamespace(database=database, session=session, writers=writers, readers=readers, before=before, last=last)
    database.drop()


def test_the_load_is_heavy_and_nobody_fails(tailed):
    assert tailed.writers.errors == []
    assert len(tailed.writers.committed) > 50 * SECONDS
    assert len(tailed.writers.rolled_back) > 2 * SECONDS
    assert len(partitions(tailed.session)) > 1, "the load did not cross a partition edge"


@pytest.mark.parametrize("reader", ["whole", "in_transactions"])
def test_a_tailing_reader_sees_exactly_what_was_committed(tailed, reader):
    tokens = [token for *_, token in getattr(tailed.readers, reader).seen]
    assert len(tokens) == len(set(tokens)), "an event was seen twice"
    missed = tailed.writers.committed - set(tokens)
    invented = set(tokens) - tailed.writers.committed
    assert (len(missed), sorted(missed)[:10]) == (0, [])
    assert (len(invented), sorted(invented)[:10]) == (0, [])


@pytest.mark.parametrize("reader", ["whole", "in_transactions"])
def test_a_tailing_reader_sees_it_in_order(tailed, reader):
    seen = getattr(tailed.readers, reader).seen
    positions = [position for position, *_ in seen]
    assert all(left < right for left, right in zip(positions, positions[1:]))
    versions = {}
    for _, stream, version, _ in seen:
        assert version == versions.get(stream, 0) + 1, f"{stream} went from {versions.get(stream, 0)} to {version}"
        versions[stream] = version


@pytest.mark.parametrize("reader", ["by_type", "by_category"])
def test_a_filtered_reader_misses_none_of_the_rare_events(tailed, reader):
    tokens = [token for *_, token in getattr(tailed.readers, reader).seen]
    assert len(tokens) == len(set(tokens))
    assert set(tokens) == tailed.writers.rare | {"first", "second"}


@pytest.mark.parametrize("reader", ["by_type", "by_category"])
def test_a_filtered_readers_checkpoint_advances_beyond_its_last_event(tailed, reader):
    checkpoints = getattr(tailed.readers, reader).checkpoints
    assert checkpoints == sorted(checkpoints)
    assert len(checkpoints) > 2 * SECONDS, "the checkpoint hardly moved while others wrote"
    assert checkpoints[-1] == tailed.last


def test_a_naive_cursor_misses_events_under_this_load(tailed):
    """Shows that the load would catch a reader that trusts positions: without it the tests above prove nothing."""
    tokens = {token for *_, token in tailed.readers.naive.seen}
    assert len(tailed.writers.committed - tokens) > 0


def test_the_log_is_intact_afterwards(tailed):
    assert gaps(tailed.session) == []
    assert verify(tailed.session) == []


def test_the_horizon_never_steps_back(shared_server):
    """A consumer takes es_horizon(), reads up to it, and goes on from there: a smaller horizon at the read would be a gap."""
    database = Database(shared_server, "steps").create()
    until = time.monotonic() + 8
    failures = []

    def append(number):
        with database.connect() as session:
            while time.monotonic() < until:
                session.execute("select es_append(%s, 'Happened', '{}')", (f"busy-{number}",))

    def watch():
        last = 0
        with database.connect() as session:
            while time.monotonic() < until:
                horizon = value(session, "select es_horizon()")
                if horizon < last:
                    failures.append((last, horizon))
                last = horizon

    threads = [threading.Thread(target=append, args=(number,)) for number in range(16)]
    threads += [threading.Thread(target=watch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    database.drop()
    assert failures == []
