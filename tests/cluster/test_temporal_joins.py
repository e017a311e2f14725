"""Temporal views of streams that were made a moment ago are joined by hash, each state folded once, by whatever of their names, whether statistics
know of the streams or not; one stream is looked up by its name, and a category of few streams costs what these do;
and upkeep makes these statistics, without what is in the events."""

import pytest
from costs import pages
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
    # The server's own autovacuum would analyze the one or the other first.
    session.execute("alter table _eventstream.events_1 set (autovacuum_enabled = off)")
    fill(session, streams=4_000)
    done = [value(session, "select done from es_maintain() where task = 'tables analyzed'") for _ in range(3)]
    assert done == [1, 1, 0]
    # One of each is the act of whoever registered the fold.
    acts = value(session, "select count(*) from eventstream.administration")
    assert rows(session, known) == [("events_1", 8_000 + acts), ("streams", 8_001)]
    fill(session, ("more",), streams=4_000)
    done = [value(session, "select done from es_maintain() where task = 'tables analyzed'") for _ in range(3)]
    assert done == [1, 1, 0]
    assert rows(session, known) == [("events_1", 12_000 + acts), ("streams", 12_001)]
    assert not rows(session, "select from pg_stats where schemaname = '_eventstream' and attname in ('payload', 'metadata', 'subject')")


#: Conditions over expressions of both names: nothing bounds how many pairs there are to compare but the plan.
EXPRESSIONS = {
    "replaced": "replace(a.stream, 'account', 'limit') = l.stream",
    "split": "split_part(a.stream, '-', 2) = split_part(l.stream, '-', 2)",
    "cut on both sides": "substr(a.stream, 9) = substr(l.stream, 7)",
    "the same but for a fixed part": "'limit-' || split_part(a.stream, '-', 2) = l.stream",
}
SOURCES = {
    "views": ("accounts", "limits"),
    "functions": ("accounts_at('2030-01-01 00:00Z')", "limits_at('2030-01-01 00:00Z')"),
    "views within subqueries": ("(select * from accounts)", "(select stream from limits)"),
}


@pytest.mark.parametrize("known", ["nothing is known", "statistics of before", "of two tenants", "analyzed"])
@pytest.mark.parametrize("sources", SOURCES)
def test_a_join_by_expressions_over_names_compares_no_stream_with_each_other(session, sources, known):
    if known == "statistics of before":
        fill(session, ("other",), 500)
        session.execute("analyze")
    if known == "of two tenants":
        rows(session, "select es_create_tenant('busy')")
        session.execute("set eventstream.tenant = 'busy'")
        fill(session, ("other",), 1_000)
        session.execute("analyze")
        session.execute("set eventstream.tenant = 'default'")
    fill(session)
    if known == "analyzed":
        session.execute("analyze")
    session.execute("set statement_timeout = '60s'")
    one, other = SOURCES[sources]
    for name, condition in EXPRESSIONS.items():
        join = f"select count(*) from {one} a join {other} l on {condition}"
        plan = "\n".join(line for (line,) in rows(session, f"explain {join}"))
        assert "Join Filter" not in plan, f"{name}: {plan}"
        before = folded(session)
        assert value(session, join) == STREAMS
        assert folded(session) - before <= 2 * STREAMS, name


def test_a_join_that_was_prepared_before_there_were_streams_is_by_hash(session):
    """The plan that serves every call, made by the first statement of a session that knows nothing of the log yet."""
    session.execute("set plan_cache_mode = force_generic_plan")
    condition = EXPRESSIONS["split"]
    session.execute(f"prepare joined as select count(*) from accounts a join limits l on {condition}")
    assert value(session, "execute joined") == 0
    fill(session)
    session.execute("set statement_timeout = '60s'")
    assert "Join Filter" not in str(rows(session, "explain execute joined"))
    assert value(session, "execute joined") == STREAMS


@pytest.mark.parametrize("known", ["nothing is known", "analyzed"])
def test_one_stream_of_a_view_is_looked_up_by_its_name(session, known):
    fill(session, ("account", "limit", "other"))
    if known == "analyzed":
        session.execute("analyze")
    session.execute("set plan_cache_mode = force_generic_plan")
    session.execute("prepare one(text) as select * from accounts where stream = $1")
    for one in (
        "select * from accounts where stream = 'account-1999'",
        "select * from accounts_at(null, stream => 'account-1999')",
        "execute one('account-1999')",
    ):
        assert len(rows(session, one)) == 1
        assert pages(session, one) < 60, one


def test_a_category_of_few_streams_costs_what_they_do(session):
    """However many streams others have: they are found by the index, or all are looked at where these are few."""
    session.execute("select es_register_fold('rare', 'rare', rules => '{\"on\": {\"Moved\": [{\"add\": {\"/balance\": \"/amount\"}}]}}')")
    rows(session, "select es_create_temporal_view('rares', 'rare', %s)", BALANCE)
    fill(session, ("rare",), 3)
    taken = []
    for number in range(2):
        fill(session, (f"some{number}", f"more{number}"), 4_000)
        taken.append(pages(session, "select * from rares"))
        session.execute("analyze")
        taken.append(pages(session, "select * from rares"))
    assert max(taken) < 400, taken


def test_events_of_a_rare_category_are_found_by_its_streams(session):
    """What is said of a category's streams is said where temporal views look for them, and not where events are joined to them."""
    for number in range(10):
        session.execute(
            "select count(es_append_events('busy-' || s, (select jsonb_agg(jsonb_build_object('type', 'Moved', 'payload', n))"
            " from generate_series(1, 100) n))) from generate_series(%s::int, %s::int) s",
            (20 * number, 20 * number + 19),
        )
    fill(session, ("rare",), 4)
    session.execute("analyze")
    page = "select * from eventstream.events where category = 'rare' order by global_position desc limit 5"
    assert len(rows(session, page)) == 4
    assert pages(session, page) < 150
