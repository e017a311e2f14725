"""What eventstream.stats counts, and for whom."""

import psycopg
import pytest
from database import Database, rows, value
from states import append, count, register


def test_counts_are_the_whole_databases_and_of_no_other(shared_server, database):
    another = Database(shared_server, "counted_apart").create()
    try:
        with database.connect() as left, database.connect() as right, another.connect() as apart:
            register(left)
            append(left, "account-1", 25)
            append(right, "account-1", 5)
            with pytest.raises(psycopg.Error):
                right.execute("select es_append('account-1', 'Added', '{}', expected_version => 1)")
            assert (count(left, "appends"), count(left, "events_appended"), count(left, "conflicts")) == (2, 30, 1)
            assert count(right, "events_appended") == 30
            assert count(apart, "events_appended") == 0
            assert value(left, "select es_state('account-1')") == {"sum": 30}
            assert count(left, "cache_entries") == 1 and count(left, "cache_bytes") > 0
            assert count(right, "cache_entries") == 0
            assert count(right, "events_folded") == 30 and count(right, "cache_misses") == 1
    finally:
        another.drop()


def test_counts_go_on_from_zero_after_a_crash(new_server):
    server = new_server("crashing")
    database = Database(server, "books").create()
    with database.connect() as session:
        append(session, "account-1", 3)
        assert count(session, "events_appended") == 3
    server.kill_everything()
    server.start()
    with database.connect() as session:
        assert count(session, "events_appended") == 0
        append(session, "account-1", 2)
        assert count(session, "events_appended") == 2
