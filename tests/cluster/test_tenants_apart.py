"""No tenant, and no stream, waits for or is hidden by what is none of its business: what an append locks, and in which order; the gate of a
tenant; the horizon of a tenant. Asked with paused transactions, savepoints, racers, kills, and one tenant beside another."""

import random

import pytest
from database import all_at_once, gaps, raised, rows, value, verify
from psycopg.types.json import Jsonb


@pytest.mark.parametrize("count", [1, 3, 100])
def test_racers_that_begin_the_same_streams_begin_each_once_and_leave_no_gap(quiet, count):
    """More than 64 names are not kept: there the unique index decides."""
    sessions = 6

    def race(number):
        order = random.Random(number)
        with quiet.connect() as session:
            for turn in range(10):
                streams = [f"account-{turn}-{stream}" for stream in range(count)]
                order.shuffle(streams)
                appends = [{"stream": stream, "events": [{"type": "Begun", "payload": number}]} for stream in streams]
                session.execute("select * from es_append_streams(%s)", (Jsonb(appends),))

    assert raised(all_at_once(sessions, race)) == []
    with quiet.connect() as session:
        assert (gaps(session), verify(session)) == ([], [])
        assert value(session, "select count(*) from eventstream.streams where version = %s", sessions) == 10 * count
        last, events = rows(session, "select last_position, (select count(*) from _eventstream.events) from es_log_info()")[0]
        assert last == events or count > 64
