"""What a statement costs, counted in pages of shared buffers that it looks at; and a log to ask it of."""

import re

from database import rows

#: Pages that the same answer may cost more of in the longer log: an index may have become one level deeper.
MORE = 60

FILL = """
select count(*) from es_append_streams((
    select jsonb_agg(jsonb_build_object('stream', s.category || '-' || s.id, 'events', s.events))
    from (
        select n % {busy} as category_number, 'busy' || n % {busy} as category, n % {streams} as id,
               jsonb_agg(jsonb_build_object('type', 'Moved', 'payload', jsonb_build_object('n', n), 'tags', jsonb_build_array('busy', 'third:' || n % 3))) as events
        from generate_series(1, {count}) n group by 1, 2, 3
    ) s))
"""


def grow(session, events, busy=2):
    """So many more events, and with them more streams."""
    for _ in range(events // 3_000):
        streams = 300 + session.execute("select count(*) from _eventstream.streams").fetchone()[0]
        session.execute(FILL.format(busy=busy, count=3_000, streams=streams))


def rare(session, categories=("rare",)):
    for category in categories:
        for number in range(4):
            session.execute("select es_append(%s, 'Seen', %s, tags => %s)", (f"{category}-{number}", '{"n": 1}', [f"n:{number}", "busy", category]))


def pages(session, statement) -> int:
    """Pages of shared buffers that a run of the statement looks at; earlier ones have made its plans."""
    for _ in range(2):
        rows(session, statement)
    plan = "\n".join(line for (line,) in rows(session, f"explain (analyze, buffers, costs off, timing off) {statement}"))
    return sum(int(number) for number in re.findall(r"(?:hit|read)=(\d+)", plan.split("Planning")[0].splitlines()[1]))
