"""Temporal views of streams that were made a moment ago are joined by hash, each state folded once, whether statistics know of the streams or not;
and upkeep makes these statistics, without what is in the events."""

import pytest
from database import rows, value

STREAMS = 2_000
BALANCE = '[{"name": "balance", "type": "numeric", "path": "/balance"}]'


@pytest.fixture
def session(quiet):
    with quiet.connect() as session:
        session.execute("alter table _eventstream.streams set (autovacuum_enabled = off)")
        session.execute("set eventstream.durability = 'session'")
        session.execute("set jit = off")
        for category in ("account", "limit"):
            session.execute(
                "select es_register_fold(%s, %s, rules => %s)",
                (category, category, '{"on": {"Moved": [{"add": {"/balance": "/amount"}}]}}'),
            )
            rows(session, "select es_create_temporal_view(%s, %s, %s)", f"{category}s", category, BALANCE)
        yield session


def fill(session, categories=("account", "limit"), streams=STREAMS):
    for category in categories:
        session.execute(
            "select count(*) from es_append_streams((select jsonb_agg(jsonb_build_object('stream', %s || '-' || n, 'events',"
            " jsonb_build_array(jsonb_build_object('type', 'Moved', 'payload', jsonb_build_object('amount', n)))))"
            " from generate_series(1, %s) n))",
            (category, streams),
        )


def folded(session):
    return value(session, "select value from eventstream.stats where name = 'events_folded' and scope = 'database'")


JOIN = (
    "select count(*) from accounts a join limits l on substr(l.stream, 7) = substr(a.stream, 9)",
    "select count(*) from accounts a left join limits l on substr(l.stream, 7) = substr(a.stream, 9)",
    "select count(*) from accounts_at(null) a join limits_at(null) l on substr(l.stream, 7) = substr(a.stream, 9)",
    "select count(*) from accounts a where exists (select from limits l where substr(l.stream, 7) = substr(a.stream, 9))",
)


@pytest.mark.parametrize("known", ["nothing is known", "statistics of before", "analyzed"])
def test_views_of_fresh_streams_that_are_joined_fold_each_stream_once(session, known):
    if known == "statistics of before":
        fill(session, ("other",), 500)
        session.execute("analyze")
    fill(session)
    if known == "analyzed":
        session.execute("analyze")
    session.execute("set statement_timeout = '60s'")
    for join in JOIN:
        before = folded(session)
        assert value(session, join) == STREAMS
        assert folded(session) - before <= 2 * STREAMS, join


@pytest.mark.parametrize("known", ["nothing is known", "analyzed"])
def test_a_join_by_a_column_compares_no_stream_with_each_other(session, known):
    """By a column of the one and the stream of the other: a nested loop over n states and n streams is quadratic, whatever the folding costs."""
    fill(session)
    if known == "analyzed":
        session.execute("analyze")
    join = "select count(*) from accounts a join limits l on l.stream = 'limit-' || a.balance"
    plan = "\n".join(line for (line,) in rows(session, f"explain {join}"))
    assert "Join Filter" not in plan, plan
    assert value(session, join) == STREAMS


def test_upkeep_analyzes_what_has_grown(session):
    known = (
        "select c.relname, c.reltuples::bigint from pg_class c where c.relnamespace = '_eventstream'::regnamespace"
        " and c.relname in ('streams', 'events_1') order by 1"
    )
    fill(session, streams=4_000)
    done = [value(session, "select done from es_maintain() where task = 'tables analyzed'") for _ in range(3)]
    assert done == [1, 1, 0]
    assert rows(session, known) == [("events_1", 8_000), ("streams", 8_000)]
    fill(session, ("more",), streams=4_000)
    done = [value(session, "select done from es_maintain() where task = 'tables analyzed'") for _ in range(3)]
    assert done == [1, 1, 0]
    assert rows(session, known) == [("events_1", 12_000), ("streams", 12_000)]
    assert not rows(session, "select from pg_stats where schemaname = '_eventstream' and attname in ('payload', 'metadata', 'subject')")
