"""The lock on a stream's row is that of SELECT … FOR NO KEY UPDATE, though no statement takes it: who waits for it, how a wait ends, what is seen
after it, and what gives it back, at every isolation level."""

import threading
import time

import psycopg
import pytest
from database import raised, rows, value

LEVELS = ["read committed", "repeatable read", "serializable"]
APPEND = "select es_append('account-1', 'Paid', '1')"


@pytest.fixture
def pair(database):
    with database.connect() as setup:
        setup.execute(APPEND)
        setup.execute("select es_append('account-2', 'Paid', '1')")
    with database.connect(autocommit=False) as one, database.connect(autocommit=False) as other:
        yield one, other


def waiting(work, connection):
    """work(connection) in a thread that is seen to wait for a lock; call the answer to get its result."""
    result = []

    def run():
        try:
            result.append(work(connection))
        except psycopg.Error as error:
            result.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    with psycopg.connect(connection.info.dsn, user=connection.info.user, autocommit=True) as watcher:
        until = time.monotonic() + 20
        while not value(watcher, "select count(*) from pg_stat_activity where pid = %s and wait_event_type = 'Lock'", connection.info.backend_pid):
            assert thread.is_alive() and time.monotonic() < until, f"it does not wait: {result}"
            time.sleep(0.01)

    def finish():
        thread.join(30)
        assert not thread.is_alive(), "it still waits"
        return result[0]

    return finish


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_who_waited_builds_on_the_newest_event_at_every_level(pair, level, ends):
    one, other = pair
    other.execute(f"set transaction isolation level {level}")
    value(other, "select 1")
    assert value(one, APPEND) == 2
    finish = waiting(lambda session: value(session, APPEND), other)
    one.execute(ends)
    assert finish() == (3 if ends == "commit" else 2)
    other.commit()
    assert value(one, "select es_stream_version('account-1')") == (3 if ends == "commit" else 2)


@pytest.mark.parametrize("level", LEVELS)
def test_an_exact_version_that_was_right_before_the_wait_is_a_conflict_after_it(pair, level):
    one, other = pair
    other.execute(f"set transaction isolation level {level}")
    value(other, "select 1")
    value(one, APPEND)
    finish = waiting(lambda session: value(session, "select es_append('account-1', 'Paid', '1', 1)"), other)
    one.commit()
    assert finish().sqlstate == "ES001"


def test_a_savepoint_that_is_rolled_back_gives_the_lock_back(pair):
    one, other = pair
    one.execute("savepoint here")
    value(one, APPEND)
    finish = waiting(lambda session: value(session, APPEND), other)
    one.execute("rollback to savepoint here")
    assert finish() == 2
    other.commit()
    assert value(one, APPEND) == 3


def test_two_that_lock_each_others_streams_are_told_of_the_deadlock(pair):
    one, other = pair
    value(one, APPEND)
    value(other, "select es_append('account-2', 'Paid', '1')")
    finish = waiting(lambda session: value(session, APPEND), other)
    try:
        answers = [value(one, "select es_append('account-2', 'Paid', '1')")]
        one.commit()
    except psycopg.Error as error:
        answers = [error]
        one.rollback()
    answers.append(finish())
    assert [error.sqlstate for error in raised(answers)] == ["40P01"]


@pytest.mark.parametrize(("setting", "sqlstate"), [("lock_timeout", "55P03"), ("statement_timeout", "57014")])
def test_a_wait_ends_as_the_session_says(pair, setting, sqlstate):
    one, other = pair
    value(one, APPEND)
    other.execute(f"set local {setting} = '150ms'")
    with pytest.raises(psycopg.Error) as ended:
        value(other, APPEND)
    assert ended.value.sqlstate == sqlstate
    other.rollback()
    one.commit()
    assert value(other, APPEND) == 3


def test_a_lock_of_a_reference_keeps_nobody_out_and_a_stronger_one_does(pair):
    one, other = pair
    one.execute("select from _eventstream.streams for key share")
    assert value(other, APPEND) == 2
    other.commit()
    one.rollback()
    one.execute("select from _eventstream.streams for share")
    finish = waiting(lambda session: value(session, APPEND), other)
    one.rollback()
    assert finish() == 3


@pytest.mark.parametrize("level", LEVELS)
def test_a_row_that_was_changed_by_force_meanwhile_is_found_again(pair, level):
    one, other = pair
    other.execute(f"set transaction isolation level {level}")
    value(other, "select 1")
    # No trigger of ours, now or later, stands in the way of a superuser who switches it off.
    one.execute("set local eventstream.allow_drop = on")
    one.execute("alter table _eventstream.streams disable trigger user")
    one.execute("update _eventstream.streams set first_position = first_position")
    one.execute("alter table _eventstream.streams enable trigger user")
    finish = waiting(lambda session: value(session, APPEND), other)
    one.commit()
    assert finish() == 2
    other.commit()
    assert rows(one, "select version from es_read('account-1')") == [(1,), (2,)]


def test_the_lock_needs_a_transaction_that_may_write(pair):
    one, _ = pair
    one.execute("""select es_register_fold('balance', 'account', rules => '{"on": {"Paid": [{"increment": "/n"}]}}')""")
    one.commit()
    for call in ("select version from es_load('account-1', for_update => true)", APPEND):
        one.execute("set transaction read only")
        with pytest.raises(psycopg.Error) as refused:
            value(one, call)
        assert refused.value.sqlstate == "25006"
        one.rollback()
    assert value(one, "select version from es_load('account-1', for_update => true)") == 1
