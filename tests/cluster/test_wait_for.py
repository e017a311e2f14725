"""What es_append returned is enough to read one's own writes, from any session: through a pool, the next statement may run in another one, in
which somebody else appended last.
"""

import psycopg
import pytest
from database import value
from workers import make_projection

APPEND = "select es_append(%s, 'Opened', '{}')"


def position(session, stream: str, version: int) -> int:
    return value(session, "select global_position from es_read(%s, %s, 1)", stream, version)


def test_another_session_waits_for_an_event_by_what_its_append_returned(database):
    make_projection(database, body="perform pg_sleep(0.02);")
    with database.connect() as one, database.connect() as other:
        # The pool's other session appended first, and has been waited for.
        value(other, APPEND, "account-0")
        other.execute("select es_wait_for('seen')")
        for _ in range(30):
            version = value(one, APPEND, "account-1")
            reached = value(other, "select es_wait_for('seen', 'account-1', version => %s)", version)
            expected = position(other, "account-1", version)
            assert reached >= expected
            assert value(other, "select exists (select from seen where position = %s)", expected)
        # The stream's newest, and everything.
        value(one, APPEND, "account-2")
        assert value(other, "select es_wait_for('seen', 'account-2')") >= position(other, "account-2", 1)
        value(one, APPEND, "account-3")
        assert value(other, "select es_wait_for('seen')") >= position(other, "account-3", 1)
        assert value(other, "select es_wait_for('seen', up_to => 1)") >= 1


def test_what_is_not_committed_is_not_waited_for(database):
    make_projection(database)
    with database.connect() as session, database.connect() as open_one:
        value(session, APPEND, "account-1")
        open_one.autocommit = False
        value(open_one, APPEND, "account-2")
        assert value(session, "select es_wait_for('seen')") >= 1
        with pytest.raises(psycopg.Error) as caught:
            session.execute("select es_wait_for('seen', 'account-2')")
        assert caught.value.sqlstate == "ES002"
        open_one.rollback()


@pytest.mark.parametrize(
    ("arguments", "sqlstate", "says"),
    [
        ("'account-9'", "ES002", "account-9"),
        ("'account-1', 2", "ES005", "1 to 1"),
        ("'account-1', 0", "ES005", "1 to 1"),
        ("'account-1', -9223372036854775808", "ES005", "1 to 1"),
        ("version => 1", "ES005", "stream"),
        ("stream => 'account-1', up_to => 1", "ES005", "up_to"),
        ("up_to => 4711", "ES025", "4711"),
        ("'nonsense'", "ES004", "nonsense"),
        ("timeout => '-1 s'", "ES005", "timeout"),
    ],
)
def test_what_cannot_be_waited_for_is_refused(quiet, arguments, sqlstate, says):
    make_projection(quiet)
    with quiet.connect() as session:
        value(session, APPEND, "account-1")
        with pytest.raises(psycopg.Error) as caught:
            session.execute(f"select es_wait_for('seen', {arguments})")
        assert caught.value.sqlstate == sqlstate and says in str(caught.value)


def test_a_stream_may_be_waited_for_by_who_may_read_its_category(quiet):
    make_projection(quiet)
    reader = quiet.role("reader of accounts")
    with quiet.connect() as session:
        session.execute("select es_grant(%s, 'read', category => 'account')", (reader,))
        session.execute("select es_append('account-1', 'Opened', '{}'), es_append('order-1', 'Opened', '{}')")
        session.execute("select es_run_projection('seen')")
    with quiet.connect(reader) as session:
        assert value(session, "select es_wait_for('seen', 'account-1', 1)") >= 1
        with pytest.raises(psycopg.Error) as caught:
            session.execute("select es_wait_for('seen', 'order-1', 1)")
        assert caught.value.sqlstate == "42501"
