"""What the tests of subscriptions say to them."""

import psycopg
import pytest
from database import rows, value

FETCH = (
    "select lease_id, attempt, (event).global_position, (event).stream, (event).version, lease_until from"
    " es_fetch(%s, %s, max_count => %s, lease => %s, wait => %s)"
)


def fetch(session, consumer="one", most=100, lease="30s", wait="0", subscription="orders"):
    return rows(session, FETCH, subscription, consumer, most, lease, wait)


def ack(session, lease_id, up_to=None):
    return value(session, "select es_ack(%s, %s)", lease_id, up_to)


def fill(session, streams, events, category="order"):
    """`events` events in each of so many streams, the streams by turns."""
    for _ in range(events):
        session.execute(
            "select count(es_append(%s || '-' || n, 'Moved', to_jsonb(n))) from generate_series(1, %s) n", (category, streams)
        )


def refused(sqlstate, session, statement, *parameters):
    with pytest.raises(psycopg.Error) as error:
        session.execute(statement, parameters or None)
    assert error.value.sqlstate == sqlstate, f"{error.value.sqlstate}: {error.value}"
    return error.value


def expire(session, lease_id):
    """As if the lease's time were over."""
    for table in ("slots", "leases"):
        session.execute(
            f"update _eventstream.subscription_{table} set lease_until = clock_timestamp() - interval '1 ms' where lease_id = %s",
            (lease_id,),
        )


@pytest.fixture
def orders(database):
    with database.connect() as session:
        session.execute("select es_create_subscription('orders')")
    return database
