"""The histories of streams that were recorded late, up to newest first: the answers are those of es_state_at, in either order of the fold,
by rules that depend on the order and by rules that do not, whole and within a range of time; and what they cost grows with the events. Work
is counted in events folded (eventstream.stats), not in seconds. Only a handler, and rules that change a place and what lies within it, may
cost more: what they are asked for, and no more than that.

Size: 1,000 events in each order of arrival. Code of others: a handler. Death: a cancel ends what is long. Memory: as much
as the events that are kept, up to a bound (docs/rules.md)."""

import random

import psycopg
import pytest
from database import rows, value

FOLDS = {
    # Neither reads the state nor depends on the order, once it is known which event set the name last.
    "unordered": '{"on": {"Moved": [{"add": {"/balance": "/amount"}}, {"increment": "/moves"}, {"set": {"/last": "/amount"}}]}}',
    "ordered": '{"on": {"Moved": [{"add": {"/balance": "/amount"}}, {"append": {"/all": "/amount"}}, {"min": {"/least": "/amount"}}]}}',
    # The order counts, and of one place another is made.
    "exact": """{"on": {"Moved": [
        {"set": {"/euros": "/amount"}}, {"multiply": {"/euros": {"value": 1.0671}}}, {"round": {"/euros": {"scale": 2, "mode": "half_even"}}},
        {"add": {"/total": "state:/euros"}}, {"add": {"/index": "/amount"}}, {"multiply": {"/index": {"value": 1.0}}, "when": {"/amount": {"less_than": 4}}},
        {"remove": "/odd"}, {"set": {"/odd": "/amount", "/by/{/kind}": "/amount"}, "when": {"/kind": "odd"}}, {"max": {"/most": "/amount"}},
        {"merge": {"/seen": "/flags"}}
    ]}}""",
    # What an event does depends on the state.
    "guarded": """{"on": {"Moved": [
        {"add": {"/balance": "/amount"}}, {"increment": "/above", "when": {"state:/balance": {"more_than": 100}}},
        {"set": {"/average": "state:/balance"}}, {"divide": {"/average": {"by": {"value": 7}, "scale": 3, "mode": "half_up"}}}
    ]}}""",
    # Places within each other.
    "nested": """{"on": {"Moved": [{"set": {"/of": ""}, "when": {"/kind": "odd"}}, {"add": {"/of/sum": "/amount"}}]}}""",
}
#: What costs more than a few folds of all events in the worst of orders.
COSTLY = ("nested", "handler")
ORDERS = ("version", "occurred_at")


@pytest.fixture
def session(quiet):
    with quiet.connect() as session:
        session.execute("set eventstream.durability = 'session'")
        session.execute("set timezone = 'UTC'")
        session.execute(
            "create function public.moved(state jsonb, event eventstream.event) returns jsonb language sql immutable as"
            " $$ select jsonb_build_object('last', (event).payload -> 'amount', 'count', coalesce((state ->> 'count')::int, 0) + 1) $$"
        )
        for order in ORDERS:
            session.execute(
                "select es_register_fold(%s, 'account', handler => 'public.moved(jsonb, eventstream.event)', initial_state => '{}', fold_order => %s, snapshot_every => 1000000)",
                (f"handler {order}", order),
            )
            for name, rules in FOLDS.items():
                session.execute(
                    "select es_register_fold(%s, 'account', rules => %s, fold_order => %s, snapshot_every => 1000000)",
                    (f"{name} {order}", rules, order),
                )
        yield session


def append(session, stream, hours):
    """An event for each of the hours, in this order."""
    session.execute(
        "select es_append_events(%s, (select jsonb_agg(jsonb_build_object('type', 'Moved', 'payload', jsonb_build_object('amount', n, 'kind', case mod(n, 2) when 1 then 'odd' else 'even' end, 'flags', jsonb_build_object('f' || mod(n, 3), n)),"
        " 'occurred_at', '2024-01-01T00:00:00Z'::timestamptz + h * interval '1 hour') order by n)"
        " from unnest(%s::int[]) with ordinality u (h, n)))",
        (stream, hours),
    )


def folded(session) -> int:
    return value(session, "select value from eventstream.stats where name = 'events_folded' and scope = 'database'")


def cost(session, statement) -> int:
    before = folded(session)
    rows(session, statement)
    return folded(session) - before


SHAPES = {
    "in order": lambda n: list(range(n)),
    "falling": lambda n: list(range(n, 0, -1)),
    "equal": lambda n: [5] * n,
    "random": lambda n: random.Random(n).choices(range(n), k=n),
    "mostly in order": lambda n: [hour if hour % 7 else hour // 3 for hour in range(n)],
    "falling in blocks": lambda n: [hour // 5 * 5 + 4 - hour % 5 for hour in range(n)],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_histories_are_those_of_folding_each_state_anew(session, shape):
    append(session, "account-1", SHAPES[shape](40))
    known_at = value(session, "select recorded_at from es_read('account-1', 20, 1)")
    for name in (*FOLDS, "handler"):
        for order in ORDERS:
            fold = f"{name} {order}"
            wrong = rows(
                session,
                "select version, state, es_state_at_version('account-1', version, %(fold)s) from es_history('account-1', fold => %(fold)s)"
                " where state::text is distinct from es_state_at_version('account-1', version, %(fold)s)::text".replace("%(fold)s", f"'{fold}'"),
            )
            assert not wrong, f"es_history by {fold}"
            assert value(session, "select count(*) from es_history('account-1', fold => %s)", fold) == 40
            some = rows(session, "select * from es_history('account-1', 17, 9, %s)", fold)
            assert some == rows(session, "select * from es_history('account-1', fold => %s) where version between 17 and 25", fold)
            for known in (None, known_at):
                whole = rows(session, "select * from es_timeline('account-1', %s, %s)", known, fold)
                for valid_from, _, version, state in whole:
                    asked = ("account-1", valid_from, known, fold)
                    assert state == value(session, "select es_state_at(%s, %s, %s, %s)", *asked), f"{fold} at {valid_from}"
                assert [row[1] for row in whole] == [row[0] for row in whole[1:]] + [None]
                for first, last in ((3, 20), (0, 1), (20, 20), (39, 100), (None, 7), (30, None)):
                    at = [
                        hour if hour is None else value(session, "select '2024-01-01Z'::timestamptz + %s * interval '1 hour' + interval '30 min'", hour)
                        for hour in (first, last)
                    ]
                    part = rows(session, "select * from es_timeline('account-1', %s, %s, %s, %s)", known, fold, *at)
                    assert part == [
                        row for row in whole
                        if (at[1] is None or row[0] < at[1]) and (at[0] is None or row[1] is None or row[1] > at[0])
                    ], f"{fold} {first} {last}"


@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_history_costs_grows_with_the_events(session, shape):
    events = 1_000
    append(session, "account-1", SHAPES[shape](events))
    for order in ORDERS:
        for call in (
            f"select * from es_history('account-1', fold => 'unordered {order}')",
            f"select * from es_history('account-1', {events - 24}, 24, 'unordered {order}')",
            f"select * from es_timeline('account-1', fold => 'unordered {order}')",
            f"select es_explain_state('account-1', fold => 'ordered {order}')",
            f"select es_state_at('account-1', '2024-02-01Z', fold => 'ordered {order}')",
        ):
            assert cost(session, call) <= 2 * events, call
        # Where the order counts, events may be gone back for before it is seen to be often.
        for call in (
            f"select * from es_history('account-1', fold => 'exact {order}')",
            f"select * from es_history('account-1', {events - 24}, 24, 'exact {order}')",
            f"select * from es_history('account-1', {events - 24}, 24, 'ordered {order}')",
            f"select * from es_timeline('account-1', fold => 'exact {order}')",
        ):
            assert cost(session, call) <= 5 * events, call
    # In valid time each version's state goes back to one that was kept of what occurred before, however long the stream is.
    if shape in ("in order", "equal", "falling in blocks"):
        assert cost(session, "select * from es_history('account-1', fold => 'ordered occurred_at')") <= 10 * events
    # What depends on the order is folded in valid time by one walk, and else anew for each moment that is asked for, and for no other.
    assert cost(session, "select * from es_timeline('account-1', fold => 'ordered occurred_at')") <= 2 * events
    a_day = "from_moment => '2024-01-10 12:30Z', to_moment => '2024-01-11 12:30Z'"
    for fold in ("ordered", "guarded"):
        assert cost(session, f"select * from es_timeline('account-1', fold => '{fold} version', {a_day})") <= 5 * events
    # Others pay for what they are asked for: in valid time one walk, else a fold for each moment or version.
    for fold in COSTLY:
        assert cost(session, f"select * from es_timeline('account-1', fold => '{fold} occurred_at')") <= 2 * events
        assert cost(session, f"select * from es_history('account-1', fold => '{fold} version')") <= 2 * events
        assert cost(session, f"select * from es_timeline('account-1', fold => '{fold} version', {a_day})") <= 30 * events
        assert cost(session, f"select * from es_history('account-1', {events - 24}, 24, '{fold} occurred_at')") <= 30 * events


def test_a_history_that_takes_long_can_be_cancelled(session):
    append(session, "account-1", SHAPES["falling"](1_500))
    session.execute("set statement_timeout = '300ms'")
    for call in ("es_history('account-1', fold => 'handler occurred_at')", "es_timeline('account-1', fold => 'handler version')"):
        with pytest.raises(psycopg.errors.QueryCanceled):
            rows(session, f"select * from {call}")


def test_a_fold_that_fails_fails_where_it_is_asked_for(session):
    session.execute(
        """select es_register_fold('strict', 'account', rules => '{"on": {"Moved": [{"add": {"/sum": "/amount"}}, {"append": {"/all": "/amount"}}]}}',"""
        " fold_order => 'occurred_at')"
    )
    append(session, "account-1", SHAPES["falling"](500))
    session.execute("""select es_append('account-1', 'Moved', '{"amount": "text"}', occurred_at => '2023-01-01Z')""")
    append(session, "account-1", [-9_000])
    assert value(session, "select count(*) from es_history('account-1', 1, 500, 'strict')") == 500
    for fold in ("strict", "exact occurred_at", "exact version"):
        with pytest.raises(psycopg.Error, match='version 501: rule .* is the string "text"') as caught:
            rows(session, "select * from es_history('account-1', fold => %s)", fold)
        assert caught.value.sqlstate == "ES013"
