"""What the tests of subscriptions say to them."""

import hashlib
import struct
import uuid

import psycopg
import pytest
from database import forced, rows, value

FETCH = (
    "select lease_id, attempt, (event).global_position, (event).stream, (event).version, lease_until from"
    " es_fetch(%s, %s, max_count => %s, lease => %s, wait => %s)"
)


#: A log in which the streams order-1 to order-20 are in 20 slots, and account-0 to account-9 in ten.
LOG_ID = "6c3f2a51-90b7-4e0d-8a34-00000000003c"


def pin_slots(session):
    """Streams are in the same slots in every run. Before the first append."""
    with forced(session):
        session.execute("update _eventstream.log_identities set log_id = %s", (LOG_ID,))


def slot_of(tenant_uuid: str, stream: str) -> int:
    """As docs/internals/subscriptions.md has it."""
    framed = b"\1" + struct.pack(">Q", len(stream.encode())) + stream.encode()
    digest = hashlib.sha256(b"eventstream/slot/1\0" + uuid.UUID(tenant_uuid).bytes + framed).digest()
    return int.from_bytes(digest[:8], "big") % 64


def in_slot_of(stream: str) -> str:
    """Another stream in the same slot, where they are pinned."""
    others = (f"order-{number}" for number in range(1000, 10000))
    return next(other for other in others if slot_of(LOG_ID, other) == slot_of(LOG_ID, stream))


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
        pin_slots(session)
        session.execute("select es_create_subscription('orders')")
    return database
