"""Projections at work: how fast one runner applies a log, against the same done by hand; and state tables against a handler."""
import time
from statistics import median

from clock import until_current
from databases_live import BALANCE, append_at_random, events_of

LEAST_EVENT, LEAST_BATCH, LEAST_TABLE = 0.6, 0.6, 0.5
# Events that arrive while a state table and a handler follow the log.
ARRIVED = 50_000


def measure(bench):
    database = bench.database("live")
    handlers(bench, database)
    state_table(bench, database)


def in_rounds(bench, sides):
    """Runs sides in turn, changing who goes first; each returns events a second."""
    for side in sides:
        side()
    rates = [[] for _ in sides]
    for number in range(bench.rounds):
        places = range(len(sides)) if number % 2 == 0 else reversed(range(len(sides)))
        for place in places:
            with bench.watched():
                rates[place].append(sides[place]())
    return rates


def followed(bench, database, table, handler):
    """A side: a projection made at the log's beginning, until it is current."""

    def run():
        with bench.connect(database) as connection:
            connection.execute(f"truncate {table}")
            began = time.perf_counter()
            connection.execute("select es_create_projection('measured', %s::regprocedure)", (handler,))
            until_current(connection, "measured")
            rate = events_of(bench) / (time.perf_counter() - began)
            must_be_complete(connection, table)
            connection.execute("select es_drop_projection('measured')")
            return rate

    return run


def in_session(bench, database, table, handler):
    """The same by es_run_projection: in one transaction, which nobody else sees before its end."""

    def run():
        with bench.connect(database) as connection:
            connection.execute(f"truncate {table}")
            began = time.perf_counter()
            with connection.transaction():
                connection.execute("select es_create_projection('measured', %s::regprocedure)", (handler,))
                applied = connection.execute("select es_run_projection('measured')").fetchone()[0]
            rate = applied / (time.perf_counter() - began)
            must_be_complete(connection, table)
            connection.execute("select es_drop_projection('measured')")
            return rate

    return run


def by_hand(bench, database, table, call):
    def run():
        with bench.connect(database) as connection:
            connection.execute(f"truncate {table}")
            connection.execute("set synchronous_commit = off")
            began = time.perf_counter()
            connection.execute(call)
            rate = events_of(bench) / (time.perf_counter() - began)
            must_be_complete(connection, table)
            return rate

    return run


def must_be_complete(connection, table):
    """A fast answer that is wrong is none."""
    found, wanted = connection.execute(
        f"""select (select sum(balance) from {table}),
                   (select sum((payload ->> 'amount')::numeric) from plain.log)"""
    ).fetchone()
    if found != wanted:
        raise SystemExit(f"{table} holds {found} and not {wanted}")


def handlers(bench, database):
    for name, table, handler, call, against, target in (
        (
            "async projection, PL/pgSQL upsert an event, one runner", "plain.by_event", "plain.on_event(eventstream.event)",
            "call plain.loop(500)", "a PL/pgSQL loop that calls the same function", LEAST_EVENT,
        ),
        (
            "batch handler, set-based upsert, batches of 500", "plain.by_batch", "plain.on_batch(eventstream.event[])",
            "call plain.batches(500)", "the same INSERT … SELECT by hand", LEAST_BATCH,
        ),
    ):
        ours, here, theirs = in_rounds(
            bench,
            [followed(bench, database, table, handler), in_session(bench, database, table, handler), by_hand(bench, database, table, call)],
        )
        bench.report.add_ratio(name, against, target, ours, theirs, what="events/s")
        bench.report.add_ratio("the same by es_run_projection", "the same", None, here, theirs, what="events/s")


def state_table(bench, database):
    """Events become visible all at once, when an append that was held open commits; the state table, which ran all the while, is timed until
    it is current. Then the handler, which was paused, goes on alone. At last the same with workers that keep no states."""
    arrived = ARRIVED // (5 if bench.is_quick else 1)
    with bench.connect(database) as connection:
        connection.execute("truncate plain.by_batch")
        connection.execute("select es_create_state_table('plain.balances', 'counter', %s)", (BALANCE,))
        connection.execute("select es_create_projection('batches', 'plain.on_batch(eventstream.event[])', categories => '{counter}')")

        def round_of():
            until_current(connection)
            connection.execute("select es_pause_projection('batches')")
            with bench.connect(database) as holder, bench.watched():
                with holder.transaction():
                    holder.execute("select es_append('holder-1', 'Held', '{}')")
                    append_at_random(connection, "counter", arrived)
                began = time.perf_counter()
                until_current(connection, "plain.balances")
                table = arrived / (time.perf_counter() - began)
                began = time.perf_counter()
                connection.execute("select es_resume_projection('batches')")
                until_current(connection, "batches")
                return table, arrived / (time.perf_counter() - began)

        def rounds():
            round_of()  # warms up
            return zip(*(round_of() for _ in range(bench.rounds)))

        kept = rounds()
        connection.execute("alter system set eventstream.state_cache_size = 0")
        connection.execute("select pg_reload_conf()")
        not_kept = rounds()
        connection.execute("alter system reset eventstream.state_cache_size")
        connection.execute("select pg_reload_conf()")
        differing = connection.execute(
            "select count(*) from plain.balances as a full join plain.by_batch as b using (stream, version, balance) where a.stream is null or b.stream is null"
        ).fetchone()[0]
        if differing:
            raise SystemExit(f"{differing} rows of the state table are not what the batch handler made")
        for name in ("plain.balances", "batches"):
            connection.execute("select es_drop_projection(%s, true)", (name,))
    against = "the batch handler, the same events"
    for name, target, (ours, theirs) in (
        (f"state table by rules, {arrived:,} events that arrive", LEAST_TABLE, kept),
        ("the same, eventstream.state_cache_size = 0: each batch folds its streams anew", None, not_kept),
    ):
        bench.report.add_ratio(name, against, target, ours, theirs, what=f"events/s; median {median(ours):,.0f}")
