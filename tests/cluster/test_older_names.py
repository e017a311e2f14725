"""A filter by event type finds what upcasters turn into that type, wherever one filters: events that are stored under an older name too, of the
schema version that an upcaster takes and of no other."""

import threading

import pytest
from database import rows, value

#: Stored type and schema version, in order; Old 1 becomes Mid 2 and then New 3, Old 2 has no upcaster, nor has Other.
STORED = [("Old", 1), ("Mid", 2), ("New", 3), ("Old", 2), ("Mid", 1), ("Other", 1), ("New", 1)]
#: The places of those that a filter lets through: stored so, or become so.
WANTED = {
    "New": [0, 1, 2, 6],
    "Mid": [0, 1, 4],
    "Old": [0, 3],
    "Other": [5],
}


@pytest.fixture
def session(quiet):
    with quiet.connect() as session:
        session.execute("create function up(payload jsonb, metadata jsonb) returns jsonb language sql immutable as 'select payload'")
        session.execute("create table seen (filter text, n int)")
        for name in WANTED:
            session.execute(
                f"create function handle_{name}(e eventstream.event) returns void language sql"
                f" as $$ insert into seen values ('{name}', (e.payload ->> 'n')::int) $$"
            )
        yield session


def register(session):
    session.execute("select es_register_upcaster('Old', 1, 'up(jsonb, jsonb)', 'Mid')")
    session.execute("select es_register_upcaster('Mid', 2, 'up(jsonb, jsonb)', 'New')")


def append(session, category="thing"):
    for n, (event_type, schema_version) in enumerate(STORED):
        session.execute(
            "select es_append(%s, %s, jsonb_build_object('n', %s::int), schema_version => %s)",
            (f"{category}-{n % 3}", event_type, n, schema_version),
        )


def numbers(session, query, *parameters):
    return sorted(n for (n,) in rows(session, query, *parameters))


@pytest.mark.parametrize("categories", [None, ["thing"], ["thing", "none"]])
def test_a_filter_by_type_follows_upcasters(session, categories):
    append(session)
    register(session)
    end = value(session, "select es_horizon()")
    for name, wanted in WANTED.items():
        arguments = {"categories": categories, "types": [name]}
        for read in (
            "select (payload ->> 'n')::int from es_read_all(0, 100, %(categories)s, %(types)s)",
            "select (payload ->> 'n')::int from es_read_backward(null, 100, %(categories)s, %(types)s)",
        ):
            assert sorted(n for (n,) in session.execute(read, arguments)) == wanted, f"{name}: {read}"
        session.execute(
            "select es_create_subscription(%(name)s, categories => %(categories)s, event_types => %(types)s)",
            {"name": name, **arguments},
        )
        session.execute(
            "select es_create_projection(%(name)s, %(handler)s, categories => %(categories)s, event_types => %(types)s)",
            {"name": name, "handler": f"handle_{name}(eventstream.event)", **arguments},
        )
        for view in ("subscriptions", "projections"):
            lag = value(session, f"select lag from eventstream.{view} where name = %s", name)
            first = value(session, "select min(global_position) from eventstream.events where (payload ->> 'n')::int = %s", wanted[0])
            assert lag >= end - first + 1, f"{view} of {name}"
        assert numbers(session, "select ((event).payload ->> 'n')::int from es_fetch(%s, 'me', 100)", name) == wanted
        rows(session, "select es_run_projection(%s)", name)
        assert numbers(session, "select n from seen where filter = %s", name) == wanted


def test_a_read_of_a_stream_by_type_follows_upcasters_unless_it_is_raw(session):
    register(session)
    for n, (event_type, schema_version) in enumerate(STORED):
        session.execute(
            "select es_append('thing-1', %s, jsonb_build_object('n', %s::int), schema_version => %s)", (event_type, n, schema_version)
        )
    for name, wanted in WANTED.items():
        for backward in (False, True):
            query = "select (payload ->> 'n')::int from es_read('thing-1', backward => %s, event_types => %s, raw => %s)"
            assert numbers(session, query, backward, [name], False) == wanted
            stored = [n for n, (event_type, _) in enumerate(STORED) if event_type == name]
            assert numbers(session, query, backward, [name], True) == stored


def test_what_is_appended_later_is_found_too_also_inline_and_parked(session):
    register(session)
    session.execute("select es_create_subscription('sub', event_types => '{New}', max_deliveries => 5)")
    session.execute("select es_create_projection('inline', 'handle_New(eventstream.event)', event_types => '{New}', mode => 'inline')")
    append(session)
    assert numbers(session, "select n from seen where filter = 'New'") == WANTED["New"]
    fetch = "select lease_id, ((event).payload ->> 'n')::int, (event).global_position from es_fetch('sub', 'me', 100)"
    given = rows(session, fetch)
    assert sorted(n for _, n, _ in given) == WANTED["New"]
    # A nacked stream goes on by itself: its older names are found there as well.
    for stream in {n % 3: position for _, n, position in given[::-1]}.values():
        session.execute("select es_nack(%s, %s, 'later', interval '0')", (given[0][0], stream))
    again = []
    for _ in range(10):
        batch = rows(session, fetch)
        again += [n for _, n, _ in batch]
        if batch:
            session.execute("select es_ack(%s)", (batch[0][0],))
    assert sorted(again) == WANTED["New"]


def test_a_consumer_that_waits_learns_of_an_upcaster(quiet, session):
    """One that is registered while the call waits counts for what is appended behind it."""
    session.execute("select es_create_subscription('sub', event_types => '{New}')")
    with quiet.connect() as consumer, quiet.connect() as other:
        found = []
        waiting = threading.Thread(
            target=lambda: found.extend(rows(consumer, "select (event).event_type from es_fetch('sub', 'me', 100, wait => '10s')"))
        )
        waiting.start()
        for _ in range(5):
            other.execute("select pg_sleep(0.1)")
            other.execute("select es_append('thing-1', 'Other', '{}')")
        register(other)
        other.execute("select es_append('thing-1', 'Old', '{}', schema_version => 1)")
        waiting.join()
        assert found == [("New",)]
