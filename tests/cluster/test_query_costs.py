"""What es_query costs, in pages: what is returned, what the rarest of the criteria with an index has, or what leads, wherever that lies and however many others have a name (kinds: size,
many names, names that never meet, a leap in vain). Each trap is compared with the same question without it."""

import json

import pytest
from costs import pages
from database import Database, rows, value

EVENTS, STREAMS = 40_000, 50

#: Ten events in a row are one stream's, and others' tags alternate: A and B never meet, L and X neither. Five events are of a rare stream.
FILL = """
select count(*) from generate_series(1, {events}, 10) b cross join lateral es_append_events(
    case when b % ({events} / 5) = 1 then 'rare-1' else 'order-' || b / 10 % {streams} end,
    (select jsonb_agg(jsonb_build_object('type', 'T', 'payload', jsonb_build_object('n', n), 'subject', case when b % ({events} / 5) = 1 then 'rare' end,
         'tags', to_jsonb(array_remove(array[case n % 2 when 0 then 'A' else 'B' end, case n % 100 when 0 then 'L' when 51 then 'X' end, 'n:' || n % 20], null)))
         order by n) from generate_series(b, b + 9) n))
"""


@pytest.fixture(scope="module")
def log(quiet_server):
    database = Database(quiet_server, "query_costs").create()
    with database.connect() as session:
        session.execute(FILL.format(events=EVENTS, streams=STREAMS))
        session.execute("select count(*) from generate_series(1, 20) n, es_append('aa-' || n, 'T', '1')")
        for first in range(0, 10_000, 1000):
            session.execute(
                "select es_append_streams((select jsonb_agg(jsonb_build_object('stream', 'zz-' || n, 'events', '[{\"type\": \"Z\", \"payload\": 1}]'::jsonb)) from generate_series(%s::int, %s::int) n))",
                (first, first + 999),
            )
        session.execute("vacuum analyze")
    yield database
    database.drop()


@pytest.fixture
def session(log):
    with log.connect() as session:
        yield session


def cost(session, criteria, found, order):
    """Pages that the first 100 events cost, of which there must be so many."""
    text = json.dumps({**criteria, "order": order}).replace("'", "''")
    ask = f"select page from es_query('{text}', 100)"
    assert len(rows(session, ask)) == found, criteria
    return pages(session, ask)


NOTHING = {"event_types": ["None"]}
SOME = [f"order-{number}" for number in range(STREAMS)]

#: What leads, what is a trap beside it, and how many events are found.
TRAPS = {
    "a set of tags that never meet, beside another item": ({"tags": ["L"], "items": [{"tags": ["X"]}]}, {"items": [{"tags": ["X"]}, {"tags": ["A", "B"]}]}, 0),
    "the same where it leads": ({"items": [{"tags": ["X"]}], "categories": ["aa"]}, {"items": [{"tags": ["X"]}, {"tags": ["A", "B"]}]}, 0),
    "many items": ({"tags": ["L"], **NOTHING}, {"items": [{"tags": [f"n:{number}"]} for number in range(1, 20)], "event_types": ["T"]}, 0),
    "many streams": ({"tags": ["L"], **NOTHING}, {"streams": SOME, "subjects": ["rare"], "event_types": ["T"]}, 0),
    "many streams, which the lead has": ({"tags": ["L"], **NOTHING}, {"streams": SOME}, 0),
    "a prefix of many streams": ({"tags": ["L"], **NOTHING}, {"stream_prefix": "order-"}, 0),
}


@pytest.mark.parametrize("order", ["forward", "backward"])
@pytest.mark.parametrize("what", TRAPS)
def test_other_criteria_cost_no_more_than_a_few_times_what_leads(session, what, order):
    plain, trap, found = TRAPS[what]
    assert cost(session, {**plain, **trap}, found, order) < 4 * cost(session, plain, 0, order) + 100


RARE = {
    "a rare stream": ({"tags": ["A", "B"], "streams": ["rare-1"]}, 0),
    "a rare subject": ({"tags": ["A", "B"], "subjects": ["rare"]}, 0),
    "a rare stream leads": ({"items": [{"tags": ["A", "B"]}], "streams": ["rare-1"]}, 0),
    "a rare category": ({"items": [{"tags": ["A", "B"]}], "categories": ["rare"]}, 0),
    "a rare category, and a set that is found": ({"items": [{"tags": ["A", "B"]}, {"tags": ["A", "n:2"]}], "categories": ["rare"]}, 5),
    "no such category": ({"tags": ["A", "B"], "categories": ["none"]}, 0),
}


@pytest.mark.parametrize("order", ["forward", "backward"])
@pytest.mark.parametrize("what", RARE)
def test_what_never_meets_is_left_for_what_is_rare(session, what, order):
    criteria, found = RARE[what]
    assert cost(session, criteria, found, order) < cost(session, {"tags": ["A", "B"]}, 0, order) / 4


@pytest.mark.parametrize("function", ["es_read_all(0, 10, categories => '{{{0}}}', tags => '{{A,B}}')", "es_read_backward(null, 10, categories => '{{{0}}}', tags => '{{A,B}}')"])
def test_tags_that_never_meet_are_left_for_a_rare_category(session, function):
    def ask(categories):
        statement = f"select global_position from {function.format(categories)}"
        assert rows(session, statement) == []
        return pages(session, statement)

    assert ask("rare") < ask("order") / 4 and ask("rare,none") < ask("order") / 4
    # Where leaps are of no use there are few of them, and the fewer the more each costs.
    many = ",".join(["order", *(f"none{number}" for number in range(200))])
    assert ask(many) < 3 * ask("order")


@pytest.mark.parametrize("prefix, found", [("aa-1", 11), ("aa-", 20), ("zz-9999", 1), ("zz-999", 11), ("none-", 0), ("\U0010ffff", 0)])
def test_a_prefix_costs_its_own_streams(session, prefix, found):
    # Not those of the tenant behind it, which are 10,000.
    assert cost(session, {"stream_prefix": prefix}, found, "forward") < 1000


def test_the_streams_of_a_prefix_are_looked_up_once(session):
    named = cost(session, {"streams": [f"order-{number}" for number in (1, *range(10, 20))], "payload": {"/none": 1}}, 0, "forward")
    assert cost(session, {"stream_prefix": "order-1", "payload": {"/none": 1}}, 0, "forward") < 1.1 * named + 100


def test_what_is_not_judged_yet_is_not_read(session):
    some = cost(session, {"tags": ["A"], "metadata": {}}, 100, "forward")
    few = f"select page from es_query('{json.dumps({'tags': ['A'], 'metadata': {}})}', 2)"
    assert len(rows(session, few)) == 2 and pages(session, few) < some / 4
    assert value(session, "select count(*) from es_query('{\"tags\": [\"A\"], \"metadata\": {}}', 100000)") == EVENTS // 2
