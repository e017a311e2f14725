"""1,000 commands that are due within one second, each of a stream of its own, through a PL/pgSQL decider: how late the latest is, from its time until it is done. fsync is on: each is a transaction."""
import time

COMMANDS = 1_000
MOST_SECONDS = 1.0
#: So long before their time they are all scheduled.
AHEAD = 4

SETUP = """
select es_register_fold('lapse', 'lapse', initial_state => '{"lapsed": 0}', rules => '{"on": {"Lapsed": [{"increment": "/lapsed"}]}}');
create function decide_on_lapse(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $$
begin
    perform es_require((state ->> 'lapsed')::int < 1000, 'often', 'it lapsed often enough');
    return jsonb_build_array(es_make_event('Lapsed', command.payload));
end $$;
select es_register_decider('lapse', 'lapse', 'decide_on_lapse(jsonb, eventstream.command)');
"""

SCHEDULE = """
select count(*) from (
    select es_schedule_command('lapse-' || n, 'Lapse', '{"amount": 12.50}', %s::timestamptz + n * interval '1 s' / %s, %s || '-' || n) from generate_series(1, %s) n) s
"""
LATEST = """
select extract(epoch from max(finished_at - run_at))::float8, extract(epoch from percentile_disc(0.5) within group (order by finished_at - run_at))::float8,
       min(finished_at - run_at) >= interval '0'
from eventstream.scheduled_commands where command_key like %s || '-%%'
"""


def measure(bench):
    database = bench.database("bench")
    with bench.connect(database) as connection:
        if connection.execute("select to_regproc('decide_on_lapse') is null").fetchone()[0]:
            connection.execute(SETUP)
        latest, medians = [], []
        for number in range(max(3, bench.rounds)):
            key = f"lapse-{time.time_ns()}-{number}"
            with bench.watched():
                at = connection.execute("select clock_timestamp() + make_interval(secs => %s)", (AHEAD,)).fetchone()[0]
                assert connection.execute(SCHEDULE, (at, COMMANDS, key, COMMANDS)).fetchone()[0] == COMMANDS
                pending = "select count(*) from _eventstream.scheduled_commands where command_key like %s || '-%%' and stage <> 'done'"
                time.sleep(AHEAD)
                while connection.execute(pending, (key,)).fetchone()[0]:
                    time.sleep(0.05)
            worst, median, none_early = connection.execute(LATEST, (key,)).fetchone()
            assert none_early
            latest.append(worst)
            medians.append(1000 * median)
    bench.report.note(f"median of a command: {', '.join(f'{median:.0f} ms' for median in medians)}")
    bench.report.add(
        f"{COMMANDS:,} scheduled commands due in one second: the latest", "its own time", f"≤ {MOST_SECONDS:.0f} s", latest, "", max(latest) <= MOST_SECONDS, " s"
    )
