"""What an index of events by their type would cost an append, against none (docs/decisions/0003-no-index-by-event-type.md): WAL, disk, and time in
turns. Two ways: an index of its own, and the type within the index by category."""
import time

from databases import batch, create, event

EVENTS, BATCHES = 8_000, 20
WAYS = {
    "none": "",
    "an index (tenant, type, position)": "create index on _eventstream.events_1 (tenant_id, event_type, global_position)",
    "the type within the index (tenant, category, position)": """
        create index on _eventstream.events_1 (tenant_id, category, event_type, global_position);
        drop index _eventstream.events_1_category_idx""",
}
LOOP = """
    do $$ begin
        for n in 1 .. %s loop
            perform es_append('account-' || n %% 1000, 'AccountCredited', '%s');
        end loop;
    end $$
"""


def name_of(place):
    return f"type_index_{place}"


def prepare(bench):
    for place, statements in enumerate(WAYS.values()):
        with create(bench, name_of(place)) as connection:
            connection.execute("select es_append('account-0', 'Opened', '{}')")
            connection.execute("set eventstream.allow_drop = on")
            connection.execute(statements or "select")


def appended(bench, place, by_batch):
    """Seconds and bytes of WAL an event."""
    with bench.connect(name_of(place)) as connection:
        connection.execute("set eventstream.durability = session; set synchronous_commit = off")
        connection.execute("checkpoint")
        before, began = wal(connection), time.perf_counter()
        events = EVENTS
        if by_batch:
            events = 0
            for number in range(BATCHES):
                connection.execute("select es_append_events(%s, %s)", (f"account-{number}", batch()))
                events += 1_000
        else:
            connection.execute(LOOP % (EVENTS, event().replace("'", "''")))
        return (time.perf_counter() - began) / events, (wal(connection) - before) / events


def wal(connection):
    return connection.execute("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')").fetchone()[0]


def index_bytes(bench, place):
    with bench.connect(name_of(place)) as connection:
        return connection.execute("select pg_indexes_size('_eventstream.events_1') / count(*) from _eventstream.events_1").fetchone()[0]


def measure(bench):
    prepare(bench)
    found = {}
    for by_batch in (False, True):
        for number in range(bench.rounds + 1):
            for place in range(len(WAYS)):
                with bench.watched():
                    taken = appended(bench, place, by_batch)
                # The first round touches pages for the first time.
                if number > 0:
                    found.setdefault((place, by_batch), []).append(taken)
    for place, way in enumerate(WAYS):
        if place == 0:
            continue
        more = index_bytes(bench, place) - index_bytes(bench, 0)
        for by_batch in (False, True):
            ours, without = found[place, by_batch], found[0, by_batch]
            ratios = [float(one[0] / other[0]) for one, other in zip(ours, without)]
            wal_ratio = sum(one[1] for one in ours) / sum(other[1] for other in without)
            bench.report.add(
                f"{way}: {'a batch of 1,000' if by_batch else 'es_append in a loop'}, time an event", "none", "", ratios,
                f"WAL {wal_ratio:.2f} ×, {more:+,} bytes of indexes an event", None, " ×",
            )
