"""Invariants: what is required of a state, on one stream that 8 clients append to and on many, against the same without; a handler invariant at the commit of one append, in the time that
it adds to it, of one client; and an append beside them in a category that none covers."""
import os
import pathlib
import statistics
import time

CLIENTS = 8
STREAMS = 1_000
LEAST = 0.80
#: Of streams that the sessions have in their caches or not: as what must be foldable.
LEAST_SPREAD = 0.60
LEAST_BESIDE = 0.97
#: Microseconds that a handler in SQL adds to a commit.
MOST_ADDED = 15

SETUP = """
select es_register_fold('kept', 'kept', initial_state => '{"n": 0}', rules => '{"on": {"AccountCredited": [{"increment": "/n"}]}}');
select es_register_fold('free', 'free', initial_state => '{"n": 0}', rules => '{"on": {"AccountCredited": [{"increment": "/n"}]}}');
select es_register_invariant('kept', '{kept}', require => '{"/n": {"at_least": 0}}');
create function judge(events eventstream.event[]) returns text stable language plpgsql as $$ begin
    return case when (events[1]).payload is null then 'it says nothing' end;
end $$;
select es_register_invariant('judged', '{judged}', 'judge(eventstream.event[])');
create procedure append_and_commit(category text, times int) language plpgsql as $$ begin
    for n in 1..times loop
        perform es_append(category || '-' || n % 100, 'OrderPlaced', '{"order": 4711, "total": 12.50, "lines": 3}');
        commit;
    end loop;
end $$;
select es_grant('bench_client', 'append'), es_grant('bench_client', 'read');
"""


def measure(bench):
    database = bench.database("bench")
    with bench.connect(database) as connection:
        if connection.execute("select to_regproc('judge') is null").fetchone()[0]:
            connection.execute(SETUP)

    def side(category, clients=CLIENTS, streams=STREAMS):
        def run(seconds):
            return bench.pgbench.run(database, "bench_client", ["append_to"], clients, seconds, streams=streams, category=category)

        return run

    for name, ours, against, theirs, least in (
        ("es_append to one hot stream whose state must hold", side("kept", streams=1), "to one without", side("free", streams=1), LEAST),
        ("es_append to 1,000 streams whose states must hold", side("kept"), "to those without", side("free"), LEAST_SPREAD),
        ("es_append in a category that no invariant covers", side("other"), "in a tenant's other one", side("free"), LEAST_BESIDE),
    ):
        mine, others = bench.interleave(ours, theirs)
        bench.report.add_ratio(name, against, least, [each.tps for each in mine], [each.tps for each in others])

    # One backend, no round trip and no flush; its own time on a processor, so that whom it wakes up, and who keeps it off, does not count.
    with bench.connect(database) as connection:
        connection.execute("set eventstream.durability = session")
        connection.execute("set synchronous_commit = off")

        pid = connection.execute("select pg_backend_pid()").fetchone()[0]

        def user_seconds():
            return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11]) / os.sysconf("SC_CLK_TCK")

        def loop(category):
            def run(seconds):
                until, before, count = time.perf_counter() + seconds, user_seconds(), 0
                while time.perf_counter() < until:
                    connection.execute("call append_and_commit(%s, 1000)", (category,))
                    count += 1000
                return (user_seconds() - before) / count * 1_000_000

            return run

        with_it, without = bench.interleave(loop("judged"), loop("free"))
    added = [one - other for one, other in zip(with_it, without)]
    sides = f"{statistics.median(with_it):.1f} : {statistics.median(without):.1f} µs"
    bench.report.add(
        "what a handler in PL/pgSQL adds to an append and its commit", "the same without, the backend's own time", f"< {MOST_ADDED} µs", added, sides,
        statistics.median(added) < MOST_ADDED, " µs",
    )  # fmt: skip
