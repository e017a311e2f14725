"""Conditions: an append goes through only where no event has come that its decision would have had to know of, whatever stream that is in; of two decisions that
depend on each other's events one goes through, and of two that do not, both.

Asked of the kinds: isolation (every pair at every level, snapshots that are too old), transaction (paused, rolled back, savepoints, own events), role, tenant, size
(lock table, 20,000 tags), number (smaller positions that commit later), copies (restored, promoted, template), load (50 racers, 64 clients on everything, upgrades of the
gate), verification (forged conditions), reader of the answer (what DETAIL tells). EVENTSTREAM_SEED=<number> draws the same again.
Interleavings one by one are in tests/isolation (conditions)."""

import os
import random
import threading
import time
import uuid

import psycopg
import pytest
from database import Database, all_at_once, contents, forced, last_position, near_edge, partitions, raised, rows, value, verify
from operating import run_psql
from psycopg.types.json import Jsonb
from server import run, wait_until

SEED = int(os.environ.get("EVENTSTREAM_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
LEVELS = ("read committed", "repeatable read", "serializable")


@pytest.fixture
def session(database):
    with database.connect() as connection:
        yield connection


def event(event_type="Placed", tags=None, event_id=None):
    return {"type": event_type, "payload": {}, "tags": tags, "event_id": event_id and str(event_id)}


def of_tags(*tags):
    return {"items": [{"tags": [tag]} for tag in tags]}


def take(session, query):
    return value(session, "select es_condition(%s)", Jsonb(query))


def append(session, stream, event_type="Placed", tags=None):
    return value(session, "select es_append(%s, %s, '{}', tags => %s)", stream, event_type, tags)


def decide(session, condition, *elements):
    return rows(session, "select version, positions from es_append_streams(%s, condition => %s)", Jsonb(list(elements)), Jsonb(condition))


def placed(stream, event_type="Placed", tags=None, event_id=None):
    return {"stream": stream, "events": [event(event_type, tags, event_id)]}


def refused(call, *args, **more):
    with pytest.raises(psycopg.Error) as error:
        call(*args, **more)
    return error.value


def detail(error):
    return psycopg.types.json.json.loads(error.diag.message_detail)


def test_a_condition_holds_until_an_event_comes_that_matches(session):
    append(session, "order-1", tags=["order:1"])
    query = of_tags("order:1")
    condition = take(session, query)
    assert condition["query"] == query and condition["seen"]["count"] == 0 and condition["after"] == last_position(session)
    append(session, "order-2", tags=["order:2"])
    assert len(decide(session, condition, placed("order-1", tags=["order:1", "more"]))) == 1
    before, position = contents(session), last_position(session)
    error = refused(decide, session, condition, placed("order-1", tags=["order:1"]))
    assert error.sqlstate == "ES015" and str(error).startswith("the condition does not hold: its query matches 1 event after position")
    assert "and none was seen" in str(error) and "es_condition(query)" in error.diag.message_hint
    assert detail(error)["first"] == {"global_position": before[-1][3], "event_type": "Placed", "tags": ["more", "order:1"]}
    assert contents(session) == before and last_position(session) == position
    assert len(decide(session, take(session, query), placed("order-1", tags=["order:1"]))) == 1


def test_what_matches_is_said_by_types_and_tags(session):
    query = {"items": [{"event_types": ["Placed", "Paid"], "tags": ["a", "b"]}, {"event_types": ["Closed"]}, {"tags": ["c"]}]}
    for event_type, tags, matches in (
        ("Placed", ["a"], False), ("Placed", ["a", "b"], True), ("Paid", ["b", "x", "a"], True), ("Other", ["a", "b"], False), ("Closed", None, True),
        ("Other", ["c"], True), ("Closed", ["a", "b", "c"], True), ("Other", None, False), ("placed", ["a", "b"], False),
    ):  # fmt: skip
        condition = take(session, query)
        append(session, f"order-{uuid.uuid4()}", event_type, tags)
        if matches:
            assert refused(decide, session, condition, placed("order-1")).sqlstate == "ES015", (event_type, tags)
        else:
            decide(session, condition, placed("order-1"))
    condition = take(session, {"all": True})
    session.execute("select es_create_event_type('Declared')")
    # Acts of administration are no events of the tenant's.
    decide(session, condition, placed("order-1"))
    assert refused(decide, session, condition, placed("order-1")).sqlstate == "ES015"


QUERIES = {
    '{}': 'query must have items, or be {"all": true}',
    '[]': "query must be a JSON object",
    '{"items": []}': "query.items must have at least one element",
    '{"items": {}}': "query.items must be an array of objects",
    '{"items": [1]}': "query.items[0] must be an object",
    '{"items": [{}]}': "query.items[0] must have event_types, or tags",
    '{"items": [{"tags": ["a"]}, {"tags": []}]}': "query.items[1].tags must have at least one element",
    '{"items": [{"event_types": []}]}': "query.items[0].event_types must have at least one element",
    '{"items": [{"tags": ["a", ""]}]}': "query.items[0].tags[1] must not be empty",
    '{"items": [{"tags": "a"}]}': "query.items[0].tags must be an array of strings",
    '{"items": [{"event_types": ["A", 1]}]}': "query.items[0].event_types[1] must be a string",
    '{"items": [{"event_types": [" A"]}]}': "query.items[0].event_types[0] must not start or end with a blank",
    '{"items": [{"types": ["A"]}]}': "query.items[0].types is not a key that can stand here",
    '{"item": []}': "query.item is not a key that can stand here",
    '{"all": false}': "query.all must be true",
    '{"all": true, "items": [{"tags": ["a"]}]}': "query.all must not stand beside items",
    '{"all": 1}': "query.all must be a boolean",
}


def test_queries_that_say_something_else_are_refused_by_name_and_place(session):
    for query, words in QUERIES.items():
        for statement, place in (("select es_condition(%s)", ""), (
            """select es_append_streams('[{"stream": "a-1", "events": [{"type": "A", "payload": 1}]}]', condition => jsonb_build_object('query', %s::jsonb, 'after', 0))""",
            "condition.",
        )):  # fmt: skip
            error = refused(session.execute, statement, (query,))
            wanted = words if place == "" or words != "query must be a JSON object" else "query must be an object"
            assert error.sqlstate == "ES005" and str(error).startswith(place + wanted), (query, str(error))
    many = {"items": [{"tags": [f"n:{n}"]} for n in range(101)]}
    assert str(refused(take, session, many)).startswith("query.items must have at most 100 elements, not 101")
    many["items"].pop()
    assert take(session, many)["seen"]["count"] == 0
    tags = {"items": [{"tags": [f"n:{n}" for n in range(33)]}]}
    assert "query.items[0].tags must have at most 32 tags, not 33" in str(refused(take, session, tags))


def test_conditions_that_say_something_else_are_refused_by_name_and_place(session):
    good = take(session, of_tags("a"))
    for change, words in (
        ({"after": -1}, "condition.after must be 0 or more"),
        ({"after": None}, "condition.after must be"),
        ({"seen": {"count": -1, "digest": "0" * 64}}, "condition.seen.count must be 0 or more"),
        ({"seen": {"count": 0, "digest": "0"}}, "condition.seen.digest must be 64 hexadecimal digits"),
        ({"seen": {"count": 0}}, "condition.seen.digest must be given"),
        ({"seen": {"count": 0, "digest": "0" * 64, "x": 1}}, "condition.seen.x is not a key"),
        ({"log": {}}, "condition.log.id must be given"),
        ({"more": 1}, "condition.more is not a key"),
    ):
        error = refused(decide, session, good | change, placed("order-1"))
        assert error.sqlstate == "ES005" and str(error).startswith(words), (change, str(error))
    assert refused(decide, session, {"query": of_tags("a")}, placed("order-1")).sqlstate == "ES005"
    assert refused(decide, session, [], placed("order-1")).sqlstate == "ES005"
    assert decide(session, good, placed("order-1"))


def queries(number):
    """One of each kind, about events of one type that bear one tag."""
    tag, event_type = f"t:{number}", f"T{number}"
    return {
        "tag": {"items": [{"tags": [tag, "common"]}]},
        "type": {"items": [{"event_types": [event_type]}]},
        "type and tag": {"items": [{"tags": [f"x:{number}"]}, {"event_types": [event_type], "tags": [tag]}]},
        "all": {"all": True},
    }, event_type, [tag, "common"]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("first", ["tag", "type", "type and tag", "all"])
def test_of_two_decisions_that_depend_on_each_other_one_goes_through_and_of_others_both(database, session, level, first):
    """Two at once, and one that waits for the other's commit, or rollback."""
    number = 0
    for second in ("tag", "type", "type and tag", "all"):
        for overlap in (True, False):
            for ending in ("commit", "rollback", "race"):
                number += 2
                mine, my_type, my_tags = queries(number)
                theirs, their_type, their_tags = (mine, my_type, my_tags) if overlap else queries(number + 1)
                # Whether the second has to know of the first's event, and the other way round.
                depends = {1: overlap or second == "all", 0: overlap or first == "all"}
                conditions = take(session, mine[first]), take(session, theirs[second])
                decisions = (f"a-{number}", my_type, my_tags), (f"b-{number}", their_type, their_tags)

                def work(place):
                    with database.connect(autocommit=False) as connection:
                        connection.execute(f"set transaction isolation level {level}")
                        decide(connection, conditions[place], placed(*decisions[place]))
                        if ending != "race" and place == 0:
                            started.set()
                            time.sleep(0.15)
                            if ending == "rollback":
                                connection.rollback()
                        connection.commit()

                started = threading.Event()
                if ending == "race":
                    results = all_at_once(2, work)
                else:
                    outcome = []

                    def later():
                        started.wait(10)
                        try:
                            outcome.append(work(1))
                        except psycopg.Error as error:
                            outcome.append(error)

                    thread = threading.Thread(target=later)
                    thread.start()
                    results = [work(0)]
                    thread.join(30)
                    results += outcome
                what = (first, second, overlap, ending, results)
                failed = {place: error.sqlstate for place, error in enumerate(results) if error is not None}
                if level == "serializable":
                    # PostgreSQL itself may refuse either, for what its indexes note.
                    assert set(failed.values()) <= {"ES015", "40001"} and len(failed) < 2, what
                else:
                    assert set(failed.values()) <= {"ES015"}, what
                if ending == "commit":
                    assert (1 in failed) == depends[1] or level == "serializable" and not depends[1], what
                elif ending == "race":
                    assert len(failed) == 1 or not (depends[0] and depends[1]), what
                    assert all(depends[place] or sqlstate == "40001" for place, sqlstate in failed.items()), what
                else:
                    assert "ES015" not in failed.values(), what
    assert verify(session) == []


@pytest.mark.parametrize("level", LEVELS)
def test_an_append_without_a_condition_is_noticed_as_well(database, session, level):
    for query in (of_tags("order:1"), {"items": [{"event_types": ["Placed"]}]}, {"all": True}):
        condition = take(session, query)
        with database.connect(autocommit=False) as open_one, database.connect(autocommit=False) as other:
            other.execute(f"set transaction isolation level {level}")
            rows(other, "select 1 from eventstream.events limit 1")
            append(open_one, f"order-{uuid.uuid4()}", tags=["order:1"])
            results = []
            thread = threading.Thread(target=lambda: results.append(refused(decide, other, condition, placed("order-9"))))
            thread.start()
            time.sleep(0.3)
            assert results == [], "it did not wait"
            open_one.commit()
            thread.join(20)
        assert results[0].sqlstate == "ES015"


def test_a_smaller_position_that_commits_later_is_noticed_and_one_that_does_not_is_in_nobodys_way(database, session):
    for ending in ("commit", "rollback"):
        with database.connect(autocommit=False) as open_one:
            append(open_one, f"order-{ending}", tags=["order:1"])
            append(session, "order-2", tags=["order:2", "both"])
            conditions = [take(session, of_tags("order:1")), take(session, of_tags("order:2", "order:1"))]
            assert [condition["seen"]["count"] for condition in conditions] == [0, 1]
            getattr(open_one, ending)()
        for condition in conditions:
            if ending == "commit":
                error = refused(decide, session, condition, placed("order-3"))
                assert error.sqlstate == "ES015" and detail(error)["matches"] == detail(error)["seen"] + 1
            else:
                decide(session, condition, placed("order-3"))


def test_an_append_that_stays_open_elsewhere_causes_no_conflict(database, session):
    with database.connect(autocommit=False) as open_one:
        append(open_one, "other-1", "Other", ["elsewhere"])
        began = time.monotonic()
        for number in range(20):
            for query in (of_tags("order:1"), of_tags("order:2", "order:1")):
                condition = take(session, query)
                decide(session, condition, placed("order-1", tags=["order:1", "order:2"]))
                assert condition["seen"]["count"] >= number
        assert time.monotonic() - began < 10
        open_one.commit()


def test_an_event_is_counted_once_and_all_are_found_that_plain_sql_finds(database, session):
    """Under an open append nothing is settled, so that all of it is compared."""
    draw = random.Random(SEED)
    database.make_partitions_small()
    with database.connect() as writer, database.connect(autocommit=False) as open_one:
        append(open_one, "other-1")
        tags, types = [f"n:{n}" for n in range(5)], ["A", "B", "C"]
        for number in range(240):
            if number in (60, 120, 180):
                near_edge(writer, 3, 2**24 + 1024 * (number // 60 - 1))
            append(writer, f"order-{number % 7}", draw.choice(types), draw.sample(tags, draw.choice((0, 1, 2, 3))) or None)
        assert len(partitions(writer)) == 4
        for _ in range(100):
            items = []
            for _ in range(draw.choice((1, 1, 2, 4))):
                item = {"tags": draw.sample(tags, draw.choice((1, 2)))} if draw.random() < 0.8 else {}
                if not item or draw.random() < 0.4:
                    item["event_types"] = draw.sample(types, draw.choice((1, 2)))
                items.append(item)
            found = take(session, {"items": items})["seen"]["count"]
            plain = " or ".join("(" + " and ".join(
                [f"coalesce(tags, '{{}}') @> array[{', '.join(repr(tag) for tag in item['tags'])}]" for _ in "1" if "tags" in item]
                + [f"event_type in ({', '.join(repr(name) for name in item['event_types'])})" for _ in "1" if "event_types" in item]
            ) + ")" for item in items)  # fmt: skip
            assert found == value(session, f"select count(*) from _eventstream.events where tenant_id = 1 and ({plain})"), (SEED, items)
        # Items in another order, and twice, are the same set.
        one, two = take(session, of_tags("n:1", "n:2")), take(session, of_tags("n:2", "n:1", "n:2"))
        assert one["seen"] == two["seen"]
        open_one.rollback()


def test_an_event_that_was_exchanged_for_another_is_noticed(database, session):
    """As a lost tail leaves it whose positions are used again: as many events, at the same positions."""
    with database.connect(autocommit=False) as open_one:
        append(open_one, "other-1")
        append(session, "order-1", tags=["order:1"])
        condition = take(session, of_tags("order:1"))
        open_one.commit()
    decide(session, condition, placed("order-2"))
    with forced(session):
        session.execute("update _eventstream.events set chain_hash = sha256('another') where tags is not null")
    error = refused(decide, session, condition, placed("order-2"))
    assert error.sqlstate == "ES015" and "its query matches 1 event" in str(error) and "and others were seen" in str(error)


def test_a_condition_of_elsewhere_or_a_forged_one_does_not_hold(database, session):
    session.execute("select es_create_tenant('acme')")
    session.execute("set eventstream.tenant = 'default'")
    with database.connect(autocommit=False) as open_one:
        open_one.execute("set local eventstream.tenant = 'default'")
        append(open_one, "other-1")
        append(session, "order-1", tags=["order:1"])
        condition = take(session, of_tags("order:1"))
        seen = condition["seen"]
        for change, words in (
            ({"seen": seen | {"count": 2}}, "2 were seen"), ({"seen": seen | {"count": 0}}, "none was seen"),
            ({"seen": seen | {"digest": "0" * 64}}, "others were seen"), ({"after": 10**12}, "the last position of this log is"),
            ({"log": condition["log"] | {"id": str(uuid.uuid4())}}, "it was taken of the log"), ({"log": condition["log"] | {"timeline": 7}}, "on timeline 7"),
            ({"log": condition["log"] | {"place": "1/2"}}, "it was taken in 1/2"), ({"log": condition["log"] | {"tenant": "x"}}, "it was taken of the tenant"),
        ):  # fmt: skip
            error = refused(decide, session, condition | change, placed("order-1"))
            assert error.sqlstate == "ES015" and words in str(error), (change, str(error))
        open_one.rollback()
    session.execute("set eventstream.tenant = 'acme'")
    assert refused(decide, session, condition, placed("order-1")).sqlstate == "ES015"
    session.execute("set eventstream.tenant = 'default'")
    decide(session, condition, placed("order-1"))


@pytest.mark.parametrize("form", ["dump", "template"])
def test_a_copy_of_the_log_takes_none_of_the_originals(database, session, form):
    append(session, "order-1", tags=["order:1"])
    condition = take(session, of_tags("order:1"))
    copy = Database(database.server, f"copy_{uuid.uuid4().hex[:8]}")
    if form == "dump":
        copy.create(extension=False)
        run_psql(copy, run("pg_dump", env=database.server.address(database.name)))
    else:
        session.close()
        with database.server.connect("postgres") as admin:
            wait_until(lambda: value(admin, "select count(*) from pg_stat_activity where datname = %s", database.name) == 0 or admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (database.name,)) is None)
            admin.execute(f'create database "{copy.name}" template "{database.name}"')
    try:
        with copy.connect() as restored:
            error = refused(decide, restored, condition, placed("order-1"))
            assert error.sqlstate == "ES015" and "this copy of the log is in" in str(error)
            decide(restored, take(restored, of_tags("order:1")), placed("order-1"))
    finally:
        copy.drop()


def test_a_plain_condition_holds_where_nothing_matches_after_its_position(session):
    append(session, "order-1", tags=["order:1"])
    plain = {"query": of_tags("order:1"), "after": value(session, "select es_horizon()")}
    decide(session, plain, placed("order-2"))
    decide(session, plain, placed("order-1", tags=["order:1"]))
    error = refused(decide, session, plain, placed("order-2"))
    assert error.sqlstate == "ES015" and "events that its query matches came after position" in str(error) and detail(error)["seen"] is None
    assert refused(decide, session, plain | {"after": 0}, placed("order-2")).sqlstate == "ES015"
    never = {"query": of_tags("never"), "after": 0}
    decide(session, never, placed("order-2", tags=["never"]))
    assert refused(decide, session, never, placed("order-2", tags=["never"])).sqlstate == "ES015"


def test_who_reads_up_to_the_horizon_hands_over_what_was_seen_up_to_there(database, session):
    """es_read_all does not show what lies above an append that is still open, and the condition has seen it."""
    with database.connect(autocommit=False) as open_one:
        append(open_one, "other-1", tags=["other"])
        append(session, "order-1", tags=["order:1"])
        condition = take(session, of_tags("order:1"))
        plain = {key: value for key, value in condition.items() if key != "seen"}
        assert rows(session, "select 1 from es_read_all(tags => '{order:1}', up_to => %s)", condition["after"]) == []
        assert refused(decide, session, plain, placed("order-2")).sqlstate == "ES015"
        decide(session, condition, placed("order-2"))
        open_one.commit()
    plain = {key: value for key, value in take(session, of_tags("order:1")).items() if key != "seen"}
    decide(session, plain, placed("order-2"))


def test_a_retry_is_recognised_before_its_condition(session):
    condition, event_id = take(session, of_tags("order:1")), uuid.uuid4()
    call = (condition, placed("order-1", tags=["order:1"], event_id=event_id))
    first = decide(session, *call)
    append(session, "order-2", tags=["order:1"])
    assert decide(session, *call) == first and value(session, "select replayed from es_last_append()")
    assert refused(decide, session, condition, placed("order-1", tags=["order:1"], event_id=uuid.uuid4())).sqlstate == "ES015"


def test_what_the_transaction_appends_itself_counts_as_any_other(session):
    """Whoever goes on deciding in it takes the next condition after its own append."""
    query = of_tags("order:1")
    with session.transaction():
        condition = take(session, query)
        with session.transaction(force_rollback=True):
            decide(session, condition, placed("order-1", tags=["order:1"]))
        decide(session, condition, placed("order-1", tags=["order:1"]))
        with pytest.raises(psycopg.Error) as error, session.transaction():
            decide(session, condition, placed("order-1", tags=["order:1"]))
        assert error.value.sqlstate == "ES015"
        again = take(session, query)
        assert again["seen"]["count"] == 1
        decide(session, again, placed("order-1", tags=["order:1"]))
    assert value(session, "select es_stream_version('order-1')") == 2


def test_checks_alone_can_stand_under_a_condition(session):
    condition = take(session, of_tags("order:1"))
    check = {"stream": "order-1", "expected_version": 0, "events": []}
    assert decide(session, condition, check) == [(0, [])]
    append(session, "order-2", tags=["order:1"])
    assert refused(decide, session, condition, check).sqlstate == "ES015"
    # Of two things that are wrong the stream's version is said.
    append(session, "order-1")
    assert refused(decide, session, condition, check).sqlstate == "ES001"


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_snapshot_that_does_not_show_what_matches_takes_no_condition(database, session, level):
    """What it read afterwards would not be what the condition had seen."""
    append(session, "order-1", tags=["order:1"])
    with database.connect(autocommit=False) as old:
        old.execute(f"set transaction isolation level {level}")
        assert take(old, of_tags("order:1"))["seen"]["count"] == 0
        append(session, "order-2", tags=["order:2"])
        condition = take(old, of_tags("order:1"))
        append(session, "order-1", tags=["order:1"])
        for query in (of_tags("order:1"), {"all": True}):
            with pytest.raises(psycopg.Error) as error, old.transaction():
                take(old, query)
            assert error.value.sqlstate == "40001" and "does not show all events that the query matches" in str(error.value)
        take(old, of_tags("order:3"))
        assert refused(decide, old, condition, placed("order-3")).sqlstate == "ES015"


def test_types_match_by_the_names_of_readers(session):
    session.execute("create function to_ordered(p jsonb, m jsonb) returns jsonb immutable language sql return p")
    session.execute("select es_register_upcaster('Placed', 1, 'to_ordered(jsonb, jsonb)', to_event_type => 'Ordered')")
    for query in ({"items": [{"event_types": ["Ordered"]}]}, {"items": [{"event_types": ["Ordered"], "tags": ["a"]}]}):
        condition = take(session, query)
        append(session, "order-1", "Placed", ["a"])
        assert refused(decide, session, condition, placed("order-2", "Other")).sqlstate == "ES015"
        decide(session, take(session, query), placed("order-2", "Other"))


def test_conditions_need_append_and_of_everything_where_they_keep_everything(database, session):
    name = f"writer_{database.name[-6:]}".lower()
    writer = database.role(name)
    with database.connect(user=writer) as connection:
        assert refused(take, connection, of_tags("order:1")).sqlstate == "42501"
        session.execute("select es_grant(%s, 'append', category => 'order')", (writer,))
        condition = take(connection, of_tags("order:1"))
        for query in ({"items": [{"event_types": ["Placed"]}]}, {"all": True}, {"items": [{"tags": ["a"]}, {"event_types": ["Placed"]}]}):
            assert refused(take, connection, query).sqlstate == "42501"
            assert refused(decide, connection, {"query": query, "after": 0}, placed("order-1")).sqlstate == "42501"
        # It holds no better because somebody sees less; and it tells no more.
        append(session, "secret-1", tags=["order:1", "secret"])
        error = refused(decide, connection, condition, placed("order-1"))
        assert error.sqlstate == "ES015" and detail(error)["first"] is None and "secret" not in f"{error}{error.diag.message_detail}"
        session.execute("select es_grant(%s, 'read', category => 'secret')", (writer,))
        assert detail(refused(decide, connection, condition, placed("order-1")))["first"]["tags"] == ["order:1", "secret"]
        session.execute("select es_grant(%s, 'append')", (writer,))
        decide(connection, take(connection, {"all": True}), placed("order-1"))


def seats_taken(session):
    return value(session, "select count(*) from es_read_backward(tags => '{course:1}', max_count => 100000)")


def test_fifty_racers_for_twenty_seats_take_twenty(database, session):
    query = of_tags("course:1")

    def work(number):
        with database.connect() as racer:
            while True:
                condition = take(racer, query)
                if seats_taken(racer) >= 20:
                    return "full"
                try:
                    decide(racer, condition, placed(f"student-{number}", "Enrolled", ["course:1", f"student:{number}"]))
                    return "enrolled"
                except psycopg.Error as error:
                    assert error.sqlstate == "ES015", error

    results = all_at_once(50, work, 120)
    assert raised(results) == [] and results.count("enrolled") == 20 == seats_taken(session)
    assert verify(session) == []


def test_of_fifty_who_hold_the_same_condition_one_goes_through(database, session):
    for query in (of_tags("a"), {"items": [{"tags": ["b", "a"]}, {"tags": ["a"]}]}):
        condition = take(session, query)

        def work(number):
            with database.connect() as racer:
                decide(racer, condition, placed(f"order-{uuid.uuid4()}", tags=["a", "b"]))

        failed = raised(all_at_once(50, work, 120))
        assert len(failed) == 49 and {error.sqlstate for error in failed} == {"ES015"}


def test_sixty_four_clients_decide_on_everything_one_after_the_other(new_server):
    database = Database(new_server("everything", max_connections=120), "books").create()

    def work(number):
        with database.connect() as racer:
            while True:
                condition = take(racer, {"all": True})
                last = value(racer, "select coalesce(max(global_position), 0) from es_read_backward(max_count => 1)")
                try:
                    decide(racer, condition, {"stream": f"order-{number}", "events": [{"type": "Placed", "payload": {"after": last}}]})
                    return
                except psycopg.Error as error:
                    assert error.sqlstate in ("ES015", "55P03"), error

    assert raised(all_at_once(64, work, 200)) == []
    # Each was decided on the one before it.
    with database.connect() as session:
        found = rows(session, "select global_position, (payload->>'after')::bigint from _eventstream.events where tenant_id > 0 order by 1")
    assert len(found) == 64 and [after for _, after in found] == [0, *(position for position, _ in found[:-1])]


@pytest.mark.parametrize("level", LEVELS[:2])
def test_decisions_on_other_tags_never_conflict(database, session, level):
    def work(number):
        with database.connect(autocommit=False) as racer:
            for _ in range(30):
                condition = take(racer, of_tags(f"order:{number}"))
                racer.commit()
                racer.execute(f"set transaction isolation level {level}")
                decide(racer, condition, placed(f"order-{number}", tags=[f"order:{number}"]))
                racer.commit()

    assert raised(all_at_once(8, work)) == []


def test_the_judge_notes_no_dependencies_of_other_tags(database, session):
    append(session, "order-0", tags=["order:0"])
    condition = take(session, of_tags("order:1"))
    with database.connect(autocommit=False) as serializable:
        serializable.execute("set transaction isolation level serializable")
        decide(serializable, condition, placed("order-1", tags=["order:1"]))
        noted = {table for (table,) in rows(serializable, "select relation::regclass::text from pg_locks where mode = 'SIReadLock'")}
        assert not [table for table in noted if "tag" in table]


def test_twenty_thousand_tags_of_one_transaction_leave_room_for_others(database, session):
    with database.connect(autocommit=False) as writer:
        decide(writer, take(writer, of_tags(*(f"order:{n}" for n in range(100)))), placed("order-0", tags=["order:0"]))
        writer.execute("select count(es_append('order-' || n % 50, 'Placed', '{}', tags => array['order:' || n])) from generate_series(1, 20000) n")
        locks = value(writer, "select count(*) from pg_locks where pid = pg_backend_pid()")
        assert 1000 < locks < 1024 + 200
        with database.connect() as other:
            assert value(other, "select count(*) from eventstream.streams") == 0
        writer.commit()
    assert verify(session) == []


def test_a_call_with_many_tags_takes_one_lock_and_still_meets_conditions(database, session):
    events = [{"type": "Placed", "payload": 1, "tags": [f"order:{n}"]} for n in range(500)]
    with database.connect(autocommit=False) as writer, database.connect(autocommit=False) as other, database.connect() as decider:
        condition = take(decider, of_tags("order:77"))
        writer.execute("select es_append_events('order-0', %s)", (Jsonb(events),))
        assert value(writer, "select count(*) from pg_locks where pid = pg_backend_pid()") < 150
        # Its own kind is not in its way, and conditions on what it does not bear wait all the same.
        other.execute("select es_append_events('order-1', %s)", (Jsonb(events),))
        other.rollback()
        decider.execute("set lock_timeout = '300ms'")
        for tag in ("order:77", "else:1"):
            with pytest.raises(psycopg.Error) as error:
                decide(decider, take(decider, of_tags(tag)), placed("order-2", tags=[tag]))
            assert error.value.sqlstate == "55P03"
        writer.commit()
        decider.execute("set lock_timeout = 0")
        with pytest.raises(psycopg.Error) as error:
            decide(decider, condition, placed("order-2", tags=["order:77"]))
        assert error.value.sqlstate == "ES015"
        # A condition that is kept is in its way.
        decider.execute("begin")
        decide(decider, take(decider, of_tags("order:78")), placed("order-2", tags=["order:78"]))
        other.execute("set lock_timeout = '300ms'")
        with pytest.raises(psycopg.Error) as error:
            other.execute("select es_append_events('order-1', %s)", (Jsonb(events),))
        assert error.value.sqlstate == "55P03"
        decider.execute("rollback")
        other.rollback()


@pytest.mark.parametrize("how", ["restart", "kill -9"])
def test_a_condition_ends_with_the_run_of_the_server(new_server, how):
    """What it has seen may be lost with it: a commit that was not flushed, files that were put back."""
    database = Database(new_server("condition_runs"), "log").create()
    with database.connect() as session:
        append(session, "order-1", tags=["order:1"])
        condition = take(session, of_tags("order:1"))
    if how == "restart":
        database.server.stop()
    else:
        database.server.kill_everything()
    database.server.start()
    with database.connect() as session:
        with pytest.raises(psycopg.Error) as error:
            decide(session, condition, placed("order-2", tags=["order:1"]))
        assert error.value.sqlstate == "ES015" and "run of the server" in error.value.diag.message_primary
        decide(session, take(session, of_tags("order:1")), placed("order-2", tags=["order:1"]))


def test_two_who_have_appended_and_then_want_everything_do_not_wait_for_ever(database, session):
    with database.connect(autocommit=False) as one, database.connect(autocommit=False) as two:
        for number, connection in enumerate((one, two)):
            connection.execute("set local eventstream.gate_timeout = '1500ms'")
            append(connection, f"order-{number}")
        conditions = [take(connection, {"all": True}) for connection in (one, two)]

        def work(number):
            connection = (one, two)[number]
            decide(connection, conditions[number], placed(f"order-{number}"))

        failed = raised(all_at_once(2, work))
        assert failed and {error.sqlstate for error in failed} <= {"55P03", "ES015", "40P01"}, failed
        one.rollback(), two.rollback()
        decide(one, take(one, {"all": True}), placed("order-1"))
        one.commit()


def test_an_upgrade_of_the_gate_by_one_who_has_appended_is_had_when_others_end(database, session):
    with database.connect(autocommit=False) as one:
        append(one, "order-1")
        decide(one, take(one, {"all": True}), placed("order-1"))
        append(one, "order-1")
        one.commit()
    assert value(session, "select es_stream_version('order-1')") == 3


def test_one_bucket_for_all_tags_is_as_right_as_many(new_server):
    server = new_server("one_bucket", **{"eventstream.tag_buckets": 1})
    database = Database(server, "books").create()
    with database.connect() as session:
        assert value(session, "show eventstream.tag_buckets") == "1"
        assert refused(session.execute, "set eventstream.tag_buckets = 2").sqlstate == "55P02"
    test_decisions_on_other_tags_never_conflict(database, None, "read committed")
    with database.connect() as session:
        test_a_condition_holds_until_an_event_comes_that_matches(session)


def test_without_preload_a_plain_condition_is_judged_and_none_is_taken(new_server):
    database = Database(new_server("unloaded_conditions", preload=False), "books").create()
    with database.connect() as session:
        assert refused(take, session, of_tags("a")).sqlstate == "ES008"
        plain = {"query": of_tags("a"), "after": 0}
        decide(session, plain, placed("order-1", tags=["a"]))
        assert refused(decide, session, plain, placed("order-1", tags=["a"])).sqlstate == "ES015"
        assert value(session, "show eventstream.tag_buckets") == "1024"


def test_after_a_failover_the_old_primarys_conditions_do_not_hold(new_server):
    primary = new_server("before", wal_level="replica", max_wal_senders=4)
    database = Database(primary, "books").create()
    with database.connect() as session:
        append(session, "order-1", tags=["order:1"])
        condition = take(session, of_tags("order:1"))
        standby = new_server.adopt(primary.make_standby("after"))
        there = Database(standby, "books")
        target = value(session, "select pg_current_wal_flush_lsn()")
    with there.connect() as session:
        wait_until(lambda: value(session, "select pg_last_wal_replay_lsn() >= %s", target), 30, "the standby to catch up")
        assert len(rows(session, "select * from es_read_backward(tags => '{order:1}')")) == 1
        assert refused(take, session, of_tags("order:1")).sqlstate == "ES009"
    primary.stop("immediate")
    standby.promote()
    with there.connect() as session:
        error = refused(decide, session, condition, placed("order-1"))
        assert error.sqlstate == "ES015" and "it was taken on timeline 1, and the server is on 2 now" in str(error)
        decide(session, take(session, of_tags("order:1")), placed("order-1"))


def test_a_read_only_transaction_takes_a_condition_and_uses_none(session):
    condition = take(session, of_tags("a"))
    with session.transaction():
        session.execute("set transaction read only")
        assert take(session, of_tags("a"))["seen"]["count"] == 0
    with pytest.raises(psycopg.Error) as error, session.transaction():
        session.execute("set transaction read only")
        decide(session, condition, placed("order-1"))
    assert error.value.sqlstate == "25006"
