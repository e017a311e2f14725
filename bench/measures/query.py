"""Pages of es_query by each criterion that has an index, the first one and the thousandth, in a long log; and what rare intersections and criteria without an index cost, for
what they cost."""
import json
import time
from statistics import median

from databases import create

EVENTS, BATCH = 5_000_000, 10_000
MOST_MS = 10.0
COUNT, PAGE = 100, 1_000

# Half of the log is one stream and one subject; every fourth event bears a tag that is everywhere, every fourth another one, and every sixth one of all correlation ids; the rest is spread.
FILL = """
    select count(*) from es_append_streams((
        select jsonb_agg(jsonb_build_object('stream', stream, 'events', events)) from (
            select case when n %% 2 = 0 then 'busy-1' when n %% 100 = 1 then 'rare-' || n %% 7 else 'kind' || n %% 5 || '-' || n / 97 %% 5000 end as stream,
                   jsonb_agg(jsonb_build_object('type', 'Type' || n %% 10, 'payload', jsonb_build_object('amount', n %% 1000, 'n', n),
                       'subject', case when n %% 2 = 0 then 'big' when n %% 1000 = 1 then 'small-' || n %% 50 end,
                       'metadata', case when n %% 3 = 0 then jsonb_build_object('correlation_id', case when n %% 2 = 0 then 'big' else 'c-' || n / 10 end) else '{}'::jsonb end,
                       'tags', case when n %% 4 = 0 then jsonb_build_array('big', 'k:' || n / 20) when n %% 4 = 2 then '["other"]' else '[]'::jsonb end) order by n) as events
            from generate_series(%s::int, %s::int) n group by 1) s))
"""

INDEXED = {
    "a stream": {"streams": ["busy-1"]},
    "8 streams": {"streams": ["busy-1", *(f"kind{number % 5}-{number}" for number in range(7))]},
    "a prefix of 7 streams": {"stream_prefix": "rare-"},
    "a prefix of a stream before 25,000 others": {"stream_prefix": "busy-"},
    "a category": {"categories": ["kind1"]},
    "3 categories": {"categories": ["kind1", "kind2", "rare"]},
    "a tag": {"tags": ["big"]},
    "items": {"items": [{"tags": ["big"]}, {"tags": ["k:7"], "event_types": ["Type0"]}]},
    "a subject": {"subjects": ["big"]},
    "a correlation id": {"correlation_id": "big"},
    "a correlation id of 3 events": {"correlation_id": "c-1"},
}
OTHERS = {
    "a tag that is everywhere, in a rare category": {"tags": ["big"], "categories": ["rare"]},
    "a subject of a half, in a rare category": {"subjects": ["big"], "categories": ["rare"]},
    "a stream of a half, of a rare subject": {"streams": ["busy-1"], "subjects": ["small-1"]},
    "two tags that never meet": {"tags": ["big", "other"]},
    "two tags that never meet, in a rare category": {"tags": ["big", "other"], "categories": ["rare"]},
    "a tag of 5 events an item, beside two that never meet": {"tags": ["other"], "items": [{"tags": ["k:7"]}, {"tags": ["big", "other"]}]},
    "a tag that is everywhere, in 100 streams without it": {"tags": ["big"], "streams": [f"rare-{number}" for number in range(7)] + [f"kind1-{number}" for number in range(93)]},
    "a type that is not there": {"event_types": ["None"]},
    "a type that is not there, in a category of a tenth": {"categories": ["kind1"], "event_types": ["None"]},
    "a payload that is not there": {"payload": {"/n": -1}},
    "a payload that is not there, in a rare category": {"payload": {"/n": -1}, "categories": ["rare"]},
}


def milliseconds(connection, criteria, count=COUNT, page=None, runs=5):
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        connection.execute("select page, event from es_query(%s, %s, %s)", (json.dumps(criteria), count, page)).fetchall()
        taken.append(1000 * (time.perf_counter() - began))
    return median(taken)


def page_before(connection, criteria, page):
    """What leads to that page; None where there are not so many."""
    found = connection.execute("select page from es_query(%s, 1, skip => %s)", (json.dumps(criteria), COUNT * (page - 1) - 1)).fetchone()
    return found and found[0]


def measure(bench):
    events = bench.events or EVENTS // (25 if bench.is_quick else 1)
    with create(bench, "query") as connection:
        connection.execute("set eventstream.durability = session")
        for first in range(1, events, BATCH):
            connection.execute(FILL, (first, first + BATCH - 1))
        connection.execute("vacuum analyze")
    for name, criteria in INDEXED.items():
        for order in ("forward", "backward"):
            asked = {**criteria, "order": order}
            with bench.connect("query") as connection:
                later = page_before(connection, asked, PAGE)
                firsts = [milliseconds(connection, asked) for _ in range(bench.rounds)]
                thousandths = [milliseconds(connection, asked, page=later) for _ in range(bench.rounds)] if later else []
            what = f"es_query by {name}, {order}, {events:,} events"
            bench.report.add(f"{what}: the first page of {COUNT}", "", f"< {MOST_MS:.0f} ms", firsts, "", median(firsts) < MOST_MS, " ms")
            if thousandths:
                bench.report.add(f"{what}: page {PAGE:,}", "", f"< {MOST_MS:.0f} ms", thousandths, "", median(thousandths) < MOST_MS, " ms")
    for name, criteria in OTHERS.items():
        with bench.connect("query") as connection:
            taken = [milliseconds(connection, criteria, runs=1) for _ in range(bench.rounds)]
        bench.report.add(f"es_query by {name}, {events:,} events", "", "", taken, "", None, " ms")
