"""What was found wrong with conditions once, each as the kind that it is of: what is read by an older snapshot than the condition's, a retry that is old, and queries that say a thing many times."""

import json
import threading
import uuid

import pytest
from costs import pages
from database import Database, near_edge, partitions, rows, value
from server import wait_until
from test_conditions import append, decide, of_tags, placed, refused, take

SEEN = "(select coalesce(max(version), 0) from es_read_backward(tags => '{order:1}'))"
CONDITION = """es_condition('{"items": [{"tags": ["order:1"]}]}')"""
#: A pause in the middle of the statement, for which another session holds the lock.
PAUSE = "pg_advisory_lock(4711)"

AT_ONCE = {
    "a statement that reads first": f"select jsonb_build_object('seen', r.seen, 'condition', c.taken) from (select {SEEN} as seen, {PAUSE}::text as p offset 0) r, "
    f"lateral (select case when r.p is not null then {CONDITION} end as taken offset 0) c",
    "a statement that reads afterwards": f"select jsonb_build_object('seen', {SEEN}, 'condition', c.taken) from (select {PAUSE}::text as p offset 0) r, "
    f"lateral (select case when r.p is not null then {CONDITION} end as taken offset 0) c where c.taken is not null",
    "a STABLE function in PL/pgSQL": "select look()",
    "a STABLE function in SQL": "select look_by_sql()",
}


@pytest.fixture
def session(database):
    with database.connect() as connection:
        connection.execute(f"create function look() returns jsonb stable language plpgsql as $$ declare c jsonb; begin perform {PAUSE}; c := {CONDITION}; "
                           f"return jsonb_build_object('seen', {SEEN}, 'condition', c); end $$")  # fmt: skip
        connection.execute("create function look_by_sql() returns jsonb stable language sql as $$ " + AT_ONCE["a statement that reads afterwards"] + " $$")
        yield connection


@pytest.mark.parametrize("way", AT_ONCE)
@pytest.mark.parametrize("meanwhile", ["a match", "another"])
def test_who_reads_by_the_snapshot_of_the_statement_that_takes_a_condition_decides_on_no_less_than_it_covers(database, session, way, meanwhile):
    """What committed since the statement began it does not see: it would decide without it."""
    append(session, "order-1", tags=["order:1"])
    with database.connect() as holder, database.connect() as reader:
        holder.execute(f"select {PAUSE}")
        answers = []
        thread = threading.Thread(target=lambda: answers.append(value(reader, AT_ONCE[way])))
        thread.start()
        wait_until(lambda: rows(session, "select from pg_locks where not granted and pid = %s", reader.info.backend_pid), 10, "the pause")
        append(session, "order-1" if meanwhile == "a match" else "order-2", tags=["order:1" if meanwhile == "a match" else "order:2"])
        holder.execute("select pg_advisory_unlock(4711)")
        thread.join(20)
    (answer,) = answers
    assert answer["seen"] == 1
    if meanwhile == "a match":
        assert refused(decide, session, answer["condition"], placed("order-3")).sqlstate == "ES015"
    else:
        decide(session, answer["condition"], placed("order-3"))
    # Taken again it holds.
    decide(session, take(session, of_tags("order:1")), placed("order-4"))


def test_an_old_retry_is_no_broken_condition(database, session):
    """Its own events are what has changed: whoever is told so would decide, and do, the same again."""
    database.make_partitions_small()
    condition, event_id, other = take(session, of_tags("order:1")), uuid.uuid4(), uuid.uuid4()
    call = (condition, placed("order-1", tags=["order:1"], event_id=event_id), placed("order-2", tags=["order:1"], event_id=other))
    first = decide(session, *call)
    for _ in range(4):
        edge = value(session, "select max(substring(pg_get_expr(c.relpartbound, c.oid) from 'TO \\(''?(\\d+)')::bigint) from pg_inherits i "
                     "join pg_class c on c.oid = i.inhrelid where i.inhparent = '_eventstream.events'::regclass")  # fmt: skip
        near_edge(session, 2, edge)
        for _ in range(4):
            append(session, "order-1", "Other")
            append(session, "order-2", "Other")
    assert len(partitions(session)) >= 5
    assert decide(session, *call) == first
    assert value(session, "select count(*) from es_read_all(tags => '{order:1}')") == 2
    # A part of it, or another content, is none.
    assert refused(decide, session, condition, call[1], placed("order-2", "New", ["order:1"], uuid.uuid4())).sqlstate == "ES006"
    assert refused(decide, session, condition, placed("order-1", "New", ["order:1"], event_id)).sqlstate == "ES006"
    assert refused(decide, session, condition, placed("order-1", tags=["order:1"], event_id=uuid.uuid4())).sqlstate == "ES015"


def test_what_a_query_says_many_times_is_looked_for_once(quiet_server):
    database = Database(quiet_server, "condition_costs").create()
    with database.connect() as session:
        session.execute("select count(*) from (select es_append_events('order-' || n, (select jsonb_agg(jsonb_build_object('type', 'T' || i, 'payload', 1, 'tags', '[\"a\"]'::jsonb)) "
                        "from generate_series(1, 100) i)) from generate_series(1, 50) n) x")  # fmt: skip
        session.execute("vacuum analyze")
        once = {"items": [{"tags": ["a"], "event_types": [f"T{n}" for n in range(1000)]}]}
        often = {"items": [{"tags": ["a"], "event_types": [f"T{n}" for n in range(10 * part, 10 * part + 10)]} for part in range(100)]}
        with database.connect(autocommit=False) as holder:
            # Above an open append nothing is settled: all that matches is looked at.
            holder.execute("select es_append('other-1', 'T', '1')")
            session.execute("select count(*) from (select es_append_events('order-' || n, (select jsonb_agg(jsonb_build_object('type', 'T' || i, 'payload', 1, 'tags', '[\"a\"]'::jsonb)) "
                            "from generate_series(1, 100) i)) from generate_series(1, 50) n) x")  # fmt: skip
            assert take(session, once)["seen"] == take(session, often)["seen"] and take(session, once)["seen"]["count"] == 5000
            cost = [pages(session, f"select es_condition('{json.dumps(query)}')") for query in (once, often)]
            assert cost[1] < 2 * cost[0], cost
            holder.rollback()
        # Of items with and without types those without mean all.
        assert take(session, {"items": [{"tags": ["a"], "event_types": ["T1"]}, {"tags": ["a"]}]})["seen"] == take(session, {"items": [{"tags": ["a"]}]})["seen"]
    database.drop()

