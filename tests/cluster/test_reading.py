"""A stream is read the same way however the caller takes it: at once in FROM, row by row in a target list, through a cursor,
in a loop that appends meanwhile, and over partitions that others make in between."""

import itertools

import psycopg
import pytest
from database import Database, near_edge, rows, value

EVENTS = 2_600


@pytest.fixture(scope="module")
def long_stream(shared_server):
    """One stream over three partitions, more than one page of it in each, with every tenth event late in valid time."""
    database = Database(shared_server, "reading").create()
    database.make_partitions_small()
    with database.connect() as session:
        near_edge(session, 900)
        session.execute(
            "select es_append_events('account-1', (select jsonb_agg(jsonb_build_object('type', 'Moved', 'payload', n,"
            " 'occurred_at', '2024-01-01T00:00:00Z'::timestamptz + (case when n %% 10 = 0 then n - 500 else n end) * interval '1 hour')"
            " order by n) from generate_series(1, %s) n))",
            (EVENTS,),
        )
        assert value(session, "select count(distinct tableoid) from _eventstream.events") == 3
    yield database
    database.drop()


@pytest.fixture
def session(long_stream):
    with long_stream.connect() as connection:
        connection.notices = []
        connection.add_notice_handler(lambda notice: connection.notices.append((notice.severity, notice.message_primary)))
        yield connection
        assert connection.notices == []


def expected(from_version, max_count, backward, until) -> list[int]:
    """The rule of es_read, written down once more without a database."""
    versions = range(1, EVENTS + 1)
    if backward:
        start = EVENTS if from_version is None else from_version
        chosen = [version for version in reversed(versions) if version <= start]
    else:
        chosen = [version for version in versions if version >= (from_version or 1)]
    if until is not None:
        chosen = [version for version in chosen if (version - 500 if version % 10 == 0 else version) <= until]
    return chosen[:max_count]


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("until", [None, 1300, -1000])
def test_every_way_to_take_a_stream_gives_the_same_events(session, backward, until):
    for from_version, max_count in itertools.product(
        (None, 1, 2, 899, 900, 901, 1924, EVENTS, EVENTS + 1), (None, 0, 1, 7, 1000, 1500)
    ):
        arguments = (from_version, max_count, backward, until)
        call = "es_read('account-1', %s, %s, %s, '2024-01-01T00:00:00Z'::timestamptz + %s * interval '1 hour')"
        wanted = expected(*arguments)
        try:
            in_from = [version for (version,) in rows(session, f"select version from {call}", *arguments)]
        except psycopg.Error as error:
            # Where a bound is refused, it is refused in both forms.
            with pytest.raises(psycopg.Error) as again:
                rows(session, f"select ({call}).version", *arguments)
            assert (error.sqlstate, again.value.sqlstate) == ("ES005", "ES005")
            continue
        in_targets = [version for (version,) in rows(session, f"select ({call}).version", *arguments)]
        assert in_from == wanted, arguments
        assert in_targets == wanted, arguments


def test_a_limit_outside_gives_the_first_rows_and_leaves_nothing_behind(session):
    for limit in (0, 1, 2, 500, 1001, EVENTS + 5):
        for form in ("select (es_read('account-1')).version limit %s", "select version from es_read('account-1') limit %s"):
            assert rows(session, form, limit) == [(version,) for version in range(1, min(limit, EVENTS) + 1)]
    for _ in range(300):
        assert value(session, "select (es_read('account-1', backward => true)).version limit 1") == EVENTS
    assert (
        value(
            session,
            "select count(*) from pg_locks where pid = pg_backend_pid() and relation::regclass::text like '\\_eventstream%'",
        )
        == 0
    )


def test_a_cursor_shows_the_stream_as_it_was_when_it_was_opened(database):
    database.make_partitions_small()
    with database.connect() as other, database.connect(autocommit=False) as reader:
        near_edge(other, 1500)
        other.execute(
            "select es_append_events('account-1', (select jsonb_agg(jsonb_build_object('type', 'Moved', 'payload', n))"
            " from generate_series(1, 1490) n))"
        )
        for form in ("select (es_read('account-1')).version", "select version from es_read('account-1')"):
            reader.execute(f"declare reading cursor for {form}")
            assert len(rows(reader, "fetch 10 from reading")) == 10
            before = value(other, "select es_stream_version('account-1')")
            # The stream goes on, into a new partition, from outside and from inside.
            for _ in range(12):
                other.execute("select es_append('account-1', 'Moved', '1')")
            reader.execute("select es_append('account-2', 'Moved', '1')")
            assert [version for (version,) in rows(reader, "fetch all from reading")] == list(range(11, before + 1))
            reader.execute("close reading")
            reader.commit()


def test_a_loop_that_appends_to_the_stream_it_reads_comes_to_an_end(database):
    with database.connect() as session:
        for _ in range(5):
            session.execute("select es_append('account-1', 'Moved', '1')")
        for turn, form in enumerate(("select (es_read('account-1')).version", "select version from es_read('account-1')")):
            session.execute(
                f"do $$ declare v bigint; begin for v in {form} loop"
                " perform es_append('account-1', 'Echo', to_jsonb(v)); end loop; end $$"
            )
            assert value(session, "select es_stream_version('account-1')") == 5 * 2 ** (turn + 1)


def test_an_error_in_the_middle_of_a_read_leaves_the_session_usable(session):
    for form in ("select (es_read('account-1')).version as v", "select version as v from es_read('account-1')"):
        for _ in range(5):
            with pytest.raises(psycopg.errors.DivisionByZero):
                rows(session, f"select 1 / (1200 - v) from ({form}) e")
            with session.transaction():
                with pytest.raises(psycopg.errors.DivisionByZero), session.transaction():
                    rows(session, f"select 1 / (1200 - v) from ({form}) e")
                assert value(session, "select current_user") == "postgres"
                assert value(session, f"select count(*) from ({form}) e") == EVENTS


def test_two_reads_of_one_statement_do_not_disturb_each_other(session):
    assert rows(
        session,
        "select (es_read('account-1')).version, (es_read('account-1', backward => true)).version as backward limit 1500",
    ) == [(version, EVENTS + 1 - version) for version in range(1, 1501)]
    assert (
        value(
            session,
            "select count(*) from generate_series(1, 3) n, lateral (select (es_read('account-1', n * 100, 50)).version offset 0) e",
        )
        == 150
    )
