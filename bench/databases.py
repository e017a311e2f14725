"""The databases that measures run in, filled so that a run meets a log in use and not an empty one."""
import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg

from pgbench import METADATA, PAYLOAD

SQL = Path(__file__).parent / "sql"

# Streams of each category that single appends choose from, and what they hold at the start.
STREAMS, EVENTS_A_STREAM = 10_000, 10
# Streams of BATCH events each, for reads.
LEDGERS, BATCH = 100, 1000

# States: the lengths of streams, the accounts of the bank's data, and a snapshot_every that no stream reaches.
SHORT, LONG = 1_000, 100_000
ACCOUNTS, TRANSACTIONS = 1_201, 47_527
NEVER = 2_000_000_000

MESSAGE_DB = "@eventide/message-db@1.3.1"

FILL_STREAMS = """
    select count(*)
    from generate_series(0, %(streams)s / 100 - 1) as hundred,
         lateral es_append_streams((
             select jsonb_agg(jsonb_build_object(
                 'stream', format(%(name)s, hundred * 100 + s),
                 'events', (select jsonb_agg(%(event)s::jsonb) from generate_series(1, %(events)s))))
             from generate_series(1, 100) as s))
"""

FILL_MESSAGES = """
    insert into message_store.messages (stream_name, position, type, data, metadata)
    select format(%(name)s, s), v, 'AccountCredited', %(payload)s, %(metadata)s
    from generate_series(1, %(streams)s) as s, generate_series(0, %(events)s - 1) as v
"""

FILL_PLAIN = """
    insert into plain.events
    select 1, s, v, nextval('plain.positions'), now(), now(), now(), gen_random_uuid(), 1, 'AccountCredited', 'account',
        session_user, null, null, '\\x00112233445566778899aabbccddeeff', sha256(s::text::bytea), %(payload)s, %(metadata)s
    from generate_series(1, %(streams)s) as s, generate_series(1, %(events)s) as v
"""

APPEND_BATCH = "select es_append_events(%(stream)s, %(batch)s)"
INSERT_BATCH = """
    insert into plain.events
    select 1, %(stream)s::bigint, %(version)s::bigint + e.n, nextval('plain.positions'), now(), now(), now(), gen_random_uuid(), 1,
        e.type, 'ledger', session_user, null, null, '\\x00112233445566778899aabbccddeeff'::bytea,
        '\\x00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff'::bytea, e.payload, e.metadata
    from rows from (jsonb_to_recordset(%(batch)s::jsonb) as (type text, payload jsonb, metadata jsonb))
        with ordinality as e (type, payload, metadata, n)
"""


# A payload of ten properties, and what is asked of it.
TEN_PROPERTIES = json.dumps({
    "account": "1000", "amount": 1234.50, "currency": "EUR", "counterparty": "CZ6508000000192000145399", "text": "Invoice 2024-10-0815",
    "entry": "2024-0815", "booked": "2024-10-31", "lines": [1, 2, 3], "final": True, "clerk": {"id": 17},
})
SCHEMA = {
    "type": "object", "additionalProperties": False,
    "required": ["account", "amount", "currency", "counterparty", "text", "entry", "booked", "lines", "final", "clerk"],
    "properties": {
        "account": {"type": "string", "pattern": "^[0-9]+$"}, "amount": {"type": "number", "minimum": 0, "multipleOf": 0.01},
        "currency": {"enum": ["EUR", "USD", "CZK"]}, "counterparty": {"type": "string", "maxLength": 34}, "text": {"type": "string", "minLength": 1},
        "entry": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{4}$"}, "booked": {"type": "string"},
        "lines": {"type": "array", "items": {"type": "integer"}, "maxItems": 100}, "final": {"type": "boolean"},
        "clerk": {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}},
    },
}


def event():
    return json.dumps({"type": "AccountCredited", "payload": json.loads(PAYLOAD), "metadata": json.loads(METADATA)})


def batch(events=BATCH):
    """The text of a batch for one stream."""
    return "[" + ", ".join([event()] * events) + "]"


def create(bench, name):
    """An empty database with the extension, and a role that may append and read: nobody benchmarks superusers."""
    with bench.connect("postgres") as connection:
        connection.execute(f"create database {name}")
        if connection.execute("select from pg_roles where rolname = 'bench_client'").fetchone() is None:
            connection.execute("create role bench_client login")
    connection = bench.connect(name)
    connection.execute("create extension eventstream")
    for privilege in ("append", "read"):
        connection.execute("select es_grant('bench_client', %s)", (privilege,))
    return connection


def make_bench(bench):
    """Streams account-<n>, account<n>-1 and ledger-<n>, and the plain table with as much in it."""
    with create(bench, "bench") as connection:
        connection.execute((SQL / "plain_table.sql").read_text())
        size = {"streams": STREAMS, "events": EVENTS_A_STREAM, "event": event(), "payload": PAYLOAD, "metadata": METADATA}
        for name in ("account-%s", "account%s-1"):
            connection.execute(FILL_STREAMS, {**size, "name": name})
        connection.execute(FILL_PLAIN, size)
        for ledger in range(1, LEDGERS + 1):
            connection.execute(APPEND_BATCH, {"batch": batch(), "stream": f"ledger-{ledger}"})
            connection.execute(INSERT_BATCH, {"batch": batch(), "stream": 1_000_000 + ledger, "version": 0})
        connection.execute("vacuum analyze")
    return "bench"


def make_declared(bench):
    """Streams account-<n>, as in bench, in a log that declares event types: some that nobody appends here, and one with a schema."""
    with create(bench, "declared") as connection:
        size = {"streams": STREAMS, "events": EVENTS_A_STREAM, "event": event(), "payload": PAYLOAD, "metadata": METADATA}
        connection.execute(FILL_STREAMS, {**size, "name": "account-%s"})
        for number in range(10):
            connection.execute("select es_create_event_type(%s, json_schema => %s)", (f"Other{number}", json.dumps(SCHEMA)))
        connection.execute("select es_create_event_type('Judged', json_schema => %s, example => %s)", (json.dumps(SCHEMA), TEN_PROPERTIES))
        connection.execute("vacuum analyze")
    return "declared"


RULES = {"event_types": "declared", "actor": "required", "id_pattern": "[0-9]{1,10}", "max_future": "24 hours", "personal_data": "refused"}


def make_ruled(bench):
    """Streams account-<n>, as in bench, without rules; ruled-<n> and folded-<n> with some; and ten categories with rules where nobody appends."""
    with create(bench, "ruled") as connection:
        size = {"streams": STREAMS, "events": EVENTS_A_STREAM, "event": event(), "payload": PAYLOAD, "metadata": METADATA}
        for name in ("account-%s", "ruled-%s", "folded-%s"):
            connection.execute(FILL_STREAMS, {**size, "name": name})
        connection.execute("select es_create_event_type('AccountCredited')")
        for number in range(10):
            connection.execute("select es_alter_category(%s, %s)", (f"other{number}", json.dumps(RULES)))
        connection.execute("select es_alter_category('ruled', %s)", (json.dumps(RULES),))
        connection.execute(
            """select es_register_fold('folded', 'folded', initial_state => '{"sum": 0}', rules => '{"on": {"AccountCredited": [{"add": {"/sum": "/amount"}}]}}')"""
        )
        connection.execute("select es_alter_category('folded', '{\"foldable\": \"required\"}')")
        connection.execute("vacuum analyze")
    return "ruled"


PROTECTED = ["/counterparty", "/text"]


def make_hidden(bench):
    """Streams account-<n> and ledger-<n>, as in bench, without rules, and hidden-<n>, as ledger-<n>, of events of which two fields are protected."""
    with create(bench, "hidden") as connection:
        size = {"streams": STREAMS, "events": EVENTS_A_STREAM, "event": event(), "payload": PAYLOAD, "metadata": METADATA}
        connection.execute(FILL_STREAMS, {**size, "name": "account-%s"})
        for ledger in range(1, LEDGERS + 1):
            connection.execute(APPEND_BATCH, {"batch": batch(), "stream": f"ledger-{ledger}"})
            connection.execute(APPEND_BATCH, {"batch": batch().replace("AccountCredited", "Hidden"), "stream": f"hidden-{ledger}"})
        connection.execute("select es_protect('Hidden', pointers => %s)", (PROTECTED,))
        connection.execute("vacuum analyze")
    return "hidden"


# Folds that add up amounts, each in every category that is measured; and plain tables with the same rows and the same state.
DEFINE_FOLDS = """
    create schema plain;
    create function plain.add(state jsonb, event eventstream.event) returns jsonb language plpgsql immutable as $$
    begin
        return jsonb_set(state, '{balance}', to_jsonb((state ->> 'balance')::numeric + (event.payload ->> 'amount')::numeric));
    end $$;
    create aggregate plain.balance(eventstream.event) (sfunc = plain.add, stype = jsonb, initcond = '{"balance": 0}');
"""
REGISTER_FOLDS = """
    select es_register_fold(%(category)s || '-handler', %(category)s, 'plain.add(jsonb, eventstream.event)', null, '{"balance": 0}', %(every)s),
           es_register_fold(%(category)s || '-rules', %(category)s, null, %(rules)s, '{"balance": 0}', %(every)s, is_default => false)
"""
ADD_BY_RULES = '{"on": {"AccountCredited": [{"add": {"/balance": "/amount"}}]}}'

# Events over a year of valid time, evenly; every `late`th one (0: none) occurred a minute before the one in front of it.
FILL_YEAR = """
    select es_append_events(%(stream)s, (
        select jsonb_agg(jsonb_build_object(
            'type', 'AccountCredited',
            'payload', jsonb_build_object('amount', (n * 7 %% 10007)::numeric / 100, 'text', 'Invoice 2024-10-0815'),
            'occurred_at', timestamptz '2024-01-01Z' + (n - case when n %% %(late)s = 0 then 2 else 0 end) * (interval '366 days' / %(events)s)))
        from generate_series(%(first)s::int, %(first)s::int + %(count)s::int - 1) as n))
"""


def make_states(bench):
    """Streams to fold, their folds and snapshots, and what they are compared with."""
    with create(bench, "states") as connection:
        connection.execute(DEFINE_FOLDS)
        # Snapshots only where a measure is about them.
        for category, every in (("counter", NEVER), ("million", NEVER), ("long", 100), ("short", 100)):
            connection.execute(REGISTER_FOLDS, {"category": category, "every": every, "rules": ADD_BY_RULES})
        connection.execute("select es_register_fold('customers', 'customer', rules => %s, initial_state => '{\"balance\": 0}')", (ADD_BY_RULES,))
        fill_year(connection, "counter-1", 10_000)
        fill_year(connection, "counter-2", 9_950)
        connection.execute("select es_snapshot('counter-2')")
        fill_year(connection, "counter-2", 50)
        fill_year(connection, "million-1", 100_000 if bench.is_quick else 1_000_000)
        fill_year(connection, "long-1", LONG, late=100)
        fill_year(connection, "short-1", SHORT)
        while connection.execute("select sum(done) from es_maintain() where task = 'snapshots taken'").fetchone()[0]:
            pass
        for customer in range(ACCOUNTS):
            count = TRANSACTIONS // ACCOUNTS + (customer < TRANSACTIONS % ACCOUNTS)
            fill_year(connection, f"customer-{customer}", count)
        connection.execute("create table plain.counter as select event::eventstream.event from es_read('counter-1') as event")
        connection.execute("create table plain.states (stream text primary key, state jsonb not null)")
        connection.execute("insert into plain.states select 'counter-' || n, es_state('counter-2') from generate_series(1, 10000) as n")
        connection.execute("create role bench_uncached login in role bench_client")
        connection.execute("alter role bench_uncached in database states set eventstream.state_cache_size = 0")
        connection.execute("grant usage on schema plain to bench_client")
        connection.execute("grant select on plain.states to bench_client")
        connection.execute("vacuum analyze")
    return "states"


def fill_year(connection, stream, events, late=0):
    """Appends so many events to the stream, at most 10,000 a call."""
    for first in range(1, events + 1, 10_000):
        count = min(10_000, events + 1 - first)
        connection.execute(
            FILL_YEAR, {"stream": stream, "first": first, "count": count, "events": max(events, 1), "late": late or 2_000_000_000}
        )


def make_message_store(bench):
    """message-db, fetched with npm and installed by its own installer. None where there is no npm."""
    if shutil.which("npm") is None:
        return None
    packages = bench.directory / "npm"
    scripts = packages / "node_modules/@eventide/message-db/database"
    if not scripts.exists():
        packages.mkdir(exist_ok=True)
        npm = ["npm", "install", "--prefix", packages, "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", MESSAGE_DB]
        subprocess.run(npm, check=True, stdout=subprocess.DEVNULL)
    environment = {**bench.server.environment("postgres"), "DATABASE_NAME": "message_store"}
    subprocess.run(["bash", scripts / "install.sh"], env=environment, check=True, stdout=subprocess.DEVNULL)
    with bench.connect("message_store") as connection:
        size = {"streams": STREAMS, "events": EVENTS_A_STREAM, "payload": PAYLOAD, "metadata": METADATA}
        for name in ("account-%s", "account%s-1"):
            connection.execute("set search_path = message_store, public")
            connection.execute(FILL_MESSAGES, {**size, "name": name})
        connection.execute("vacuum analyze")
    return "message_store"


# One pass over a part of a cohort's streams: each gets 5 events, so that a stream's events lie apart in the log.
FILL_COHORT = """
    select es_append_streams(jsonb_agg(jsonb_build_object('stream', 'old-' || s, 'events', e.events)))
    from generate_series(%(first)s::bigint, %(last)s) as s,
         (select jsonb_agg(%(event)s::jsonb) as events from generate_series(1, 5)) as e
"""
STREAMS_A_CALL, PASSES = 1000, 4
FIRST_PARTITION_END = 2**24 - 1


def make_small(bench):
    """100,000 events of 5,000 streams in one partition."""
    with create(bench, "small") as connection:
        fill_cohorts(bench, "small", range(1), 5_000)
        connection.execute("vacuum analyze")
    return size_of(bench, "small", 5_000)


def make_big(bench):
    """10 million events (quick: 1 million): the first million in the first partition, the rest over 50 partitions and more.

    50 cohorts of streams, 20 events a stream; in the small partitions a stream's events lie in two or three of them."""
    streams = 1_000 if bench.is_quick else 10_000
    in_first_partition, in_others = 100 * streams, 18 * streams - 1_000
    with create(bench, "big") as connection:
        # The first partition always holds 2^24 positions: what is not wanted of them is jumped over.
        connection.execute("select setval('_eventstream.positions', %s)", (FIRST_PARTITION_END - in_first_partition,))
        connection.execute(f"alter database big set eventstream.partition_size = {in_others}")
        with ThreadPoolExecutor() as loaders:
            list(loaders.map(lambda half: fill_cohorts(bench, "big", range(half, 50, 2), streams), (0, 1)))
        connection.execute("vacuum analyze")
    log = size_of(bench, "big", 50 * streams)
    if log["partitions"] < 50:
        raise SystemExit(f"the big log has {log['partitions']} partitions and not 50")
    return log


def fill_cohorts(bench, database, cohorts, streams):
    """Appends to `streams` streams of each cohort, each 20 events. Not flushed at each commit: that is not measured."""
    with bench.connect(database) as connection:
        connection.execute("set synchronous_commit = off")
        connection.execute("set eventstream.durability = session")
        for cohort in cohorts:
            for _ in range(PASSES):
                for first in range(cohort * streams + 1, (cohort + 1) * streams + 1, STREAMS_A_CALL):
                    last = first + STREAMS_A_CALL - 1
                    connection.execute(FILL_COHORT, {"first": first, "last": last, "event": event()})


def size_of(bench, database, streams):
    with bench.connect(database) as connection:
        events = connection.execute("select count(*) from _eventstream.events").fetchone()[0]
        partitions = connection.execute("select count(distinct tableoid) from _eventstream.events").fetchone()[0]
    return {"name": database, "streams": streams, "events": events, "partitions": partitions}
