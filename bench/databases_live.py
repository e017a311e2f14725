"""The databases of the live measures: a log to follow, the handlers that follow it, and what one would write by hand instead."""
from databases import ADD_BY_RULES, create

# What a measure of rates reads: so many events, spread at random over so many streams.
EVENTS, STREAMS = 100_000, 10_000
# The log of the rebuild.
REBUILT_EVENTS, REBUILT_STREAMS = 1_000_000, 10_000

# 500 events a call, each in a stream drawn at random, as a log in use has them.
APPEND_AT_RANDOM = """
    select count(*)
    from (
        select call, jsonb_agg(jsonb_build_object('stream', stream, 'events', events)) as appends
        from (
            select call, stream, jsonb_agg(jsonb_build_object(
                'type', 'AccountCredited',
                'payload', jsonb_build_object('account', stream, 'amount', (n * 7 %% 10007)::numeric / 100, 'currency', 'EUR',
                                              'text', 'Invoice 2024-10-0815'),
                'metadata', jsonb_build_object('actor', 'clerk-17'))) as events
            from (select n, (n - 1) / 500 as call, format('%%s-%%s', %(category)s::text, floor(random() * %(streams)s)::int) as stream
                  from generate_series(1, %(events)s) as n) as drawn
            group by call, stream) as grouped
        group by call) as calls,
        lateral es_append_streams(calls.appends)
"""

# One read model, made one event at a time and a batch at a time: the balance of each stream.
DEFINE_HANDLERS = """
    create schema plain;
    create table plain.by_event (stream text collate "C" primary key, version bigint not null, balance numeric not null);
    create table plain.by_batch (like plain.by_event including all);
    create function plain.on_event(event eventstream.event) returns void language plpgsql as $$
    begin
        insert into plain.by_event as b values (event.stream, event.version, (event.payload ->> 'amount')::numeric)
        on conflict (stream) do update set version = excluded.version, balance = b.balance + excluded.balance;
    end $$;
    create function plain.on_batch(events eventstream.event[]) returns void language plpgsql as $$
    begin
        insert into plain.by_batch as b
        select e.stream, max(e.version), sum((e.payload ->> 'amount')::numeric) from unnest(events) as e group by e.stream
        on conflict (stream) do update set version = excluded.version, balance = b.balance + excluded.balance;
    end $$;
"""

# By hand: the same events in tables of one's own, as composite values for the loop and as columns for the batches.
DEFINE_BY_HAND = """
    create table plain.rows as
        select global_position, event::eventstream.event as event from es_read_all(0, 100000) as event order by global_position;
    create table plain.log as select (event).* from plain.rows;
    alter table plain.rows add primary key (global_position);
    alter table plain.log add primary key (global_position);
    create procedure plain.loop(size int) language plpgsql as $$
    declare
        at bigint := 0;
        last bigint := (select max(global_position) from plain.log);
        r record;
    begin
        while at < last loop
            for r in select event from plain.rows where global_position > at and global_position <= at + size order by global_position loop
                perform plain.on_event(r.event);
            end loop;
            at := at + size;
            commit;
        end loop;
    end $$;
    create procedure plain.batches(size int) language plpgsql as $$
    declare
        at bigint := 0;
        last bigint := (select max(global_position) from plain.log);
    begin
        while at < last loop
            insert into plain.by_batch as b
            select e.stream, max(e.version), sum((e.payload ->> 'amount')::numeric)
            from plain.log as e where e.global_position > at and e.global_position <= at + size group by e.stream
            on conflict (stream) do update set version = excluded.version, balance = b.balance + excluded.balance;
            at := at + size;
            commit;
        end loop;
    end $$;
"""

BALANCE = '[{"name": "balance", "type": "numeric", "path": "/balance"}]'


def append_at_random(connection, category, events, streams=STREAMS):
    """Appends so many events to streams of the category. Not flushed at each commit: that is not measured."""
    connection.execute("set synchronous_commit = off")
    connection.execute("set eventstream.durability = session")
    for first in range(0, events, 10_000):
        size = {"category": category, "streams": streams, "events": min(10_000, events - first)}
        connection.execute(APPEND_AT_RANDOM, size)


def events_of(bench):
    return EVENTS // (5 if bench.is_quick else 1)


def register_fold(connection, category):
    connection.execute(
        "select es_register_fold(%s, %s, rules => %s, initial_state => '{\"balance\": 0}')", (f"{category}-balance", category, ADD_BY_RULES)
    )


def make_live(bench):
    """A log of 100,000 events and the read models that follow it."""
    with create(bench, "live") as connection:
        connection.execute(DEFINE_HANDLERS)
        append_at_random(connection, "counter", events_of(bench))
        connection.execute(DEFINE_BY_HAND)
        register_fold(connection, "counter")
        connection.execute("vacuum analyze")
    return "live"


def make_tailed(bench):
    """A log in use, whose newest events are followed: by nothing yet."""
    with create(bench, "tailed") as connection:
        connection.execute(DEFINE_HANDLERS)
        append_at_random(connection, "account", events_of(bench))
        register_fold(connection, "account")
        connection.execute("vacuum analyze")
    return "tailed"


def make_rebuilt(bench):
    """1 million events (quick: 100,000) of 10,000 streams, to be folded again."""
    events = REBUILT_EVENTS // (10 if bench.is_quick else 1)
    with create(bench, "rebuilt") as connection:
        append_at_random(connection, "account", events, REBUILT_STREAMS)
        register_fold(connection, "account")
        connection.execute("vacuum analyze")
    return "rebuilt"
