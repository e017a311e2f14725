"""An append is a part of the caller's transaction, whatever shape that has, and leaves the session as it found it."""

import psycopg
import pytest
from database import gaps, near_edge, rows, value, verify


@pytest.fixture
def session(database):
    with database.connect() as connection:
        connection.execute("create table own (id int primary key, n int)")
        yield connection


def settled(session):
    return value(session, "select horizon = last_position from es_log_info()")


def intact(session):
    assert settled(session)
    assert gaps(session) == []
    assert verify(session) == []


def test_events_and_the_callers_rows_commit_or_roll_back_as_one(session):
    for number, fate in enumerate(("commit", "rollback", "commit")):
        session.execute("begin")
        session.execute("insert into own values (%s)", (number,))
        session.execute("select es_append('account-1', 'Moved', %s)", (str(number),))
        session.execute(fate)
    session.execute("begin")
    session.execute("insert into own values (7)")
    with pytest.raises(psycopg.Error):
        session.execute("select es_append('account-1', 'Moved', '1', expected_version => 99)")
    session.execute("rollback")
    assert rows(session, "select id from own order by id") == [(0,), (2,)]
    assert rows(session, "select payload::int from es_read('account-1')") == [(0,), (2,)]
    intact(session)


def test_a_procedure_that_commits_in_a_loop_keeps_each_part_and_undoes_the_others(database, session):
    session.execute(
        """
        create procedure post() language plpgsql as $$
        begin
            for n in 1..20 loop
                perform es_append('account-1', 'Moved', to_jsonb(n));
                if n % 5 = 0 then
                    rollback;
                else
                    perform es_append('account-' || (2 + n % 2), 'Moved', to_jsonb(n));
                    commit;
                end if;
                if not (select l.horizon = l.last_position from es_log_info() l) then
                    raise exception 'the horizon stays behind after round %', n;
                end if;
            end loop;
        end $$
        """
    )
    session.execute("call post()")
    assert value(session, "select es_stream_version('account-1')") == 16
    with database.connect() as other:
        assert value(other, "select count(*) from es_read_all()") == 32
    intact(session)


def test_commit_and_chain_begins_a_transaction_that_holds_nobody_back(session):
    session.execute("begin")
    session.execute("select es_append('account-1', 'Moved', '1')")
    session.execute("commit and chain")
    assert settled(session)
    session.execute("select es_append('account-1', 'Moved', '2')")
    assert not settled(session)
    session.execute("rollback and chain")
    assert settled(session)
    session.execute("commit")
    assert value(session, "select es_stream_version('account-1')") == 1


def test_thousands_of_subtransactions_that_fail_leave_no_gap_and_no_entry(session):
    session.execute(
        """
        do $$
        begin
            for n in 1..3000 loop
                begin
                    perform es_append('account-1', 'Moved', to_jsonb(n));
                    if n % 3 = 0 then
                        raise exception 'undone';
                    end if;
                exception when raise_exception then null;
                end;
            end loop;
        end $$
        """
    )
    assert value(session, "select es_stream_version('account-1')") == 2000
    intact(session)


def test_errors_of_every_kind_in_savepoints_leave_the_rest_of_the_transaction_as_it_was(session):
    session.execute("begin")
    for turn in range(3):
        assert value(session, "select es_append('account-1', 'Moved', '1')") == turn + 1
        for statement, sqlstate in (
            ("select es_append('account-1', 'Moved', '1', expected_version => 77)", "ES001"),
            ("select es_append('nodash', 'Moved', '1')", "ES004"),
            ("select es_append('account-1', null, '1')", "ES005"),
            (
                """select es_append_events('account-1', '[{"type": "Moved", "payload": 1}, {"type": "", "payload": 1}]')""",
                "ES005",
            ),
            ("select es_close_stream('account-9', 'x')", "ES002"),
            ("select es_append('account-1', 'Moved', '1') / 0", "22012"),
        ):
            session.execute("savepoint before")
            with pytest.raises(psycopg.Error) as error:
                session.execute(statement)
            assert error.value.sqlstate == sqlstate, statement
            session.execute("rollback to before")
            # The last one had appended before it failed; that it was this session's last append is undone with it.
            assert value(session, "select version from es_last_append()") == (turn + 1 if sqlstate != "22012" else None)
    session.execute("commit")
    assert value(session, "select es_stream_version('account-1')") == 3
    intact(session)


def test_a_deferred_constraint_that_fails_at_commit_takes_the_events_along(session):
    session.execute("create table child (id int references own deferrable initially deferred)")
    session.execute("begin")
    session.execute("select es_append('account-1', 'Moved', '1')")
    session.execute("insert into child values (1)")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        session.execute("commit")
    assert value(session, "select es_stream_version('account-1')") == 0
    intact(session)


def test_an_append_in_a_deferred_trigger_is_part_of_the_transaction_and_durable_like_any(session):
    session.execute(
        """
        create function note() returns trigger language plpgsql as $$
        begin
            perform es_append('account-1', 'Noted', to_jsonb(new.id));
            return null;
        end $$;
        create constraint trigger late after insert on own deferrable initially deferred for each row execute function note()
        """
    )
    session.execute("insert into own select generate_series(1, 5)")
    assert rows(session, "select payload::int from es_read('account-1')") == [(1,), (2,), (3,), (4,), (5,)]
    intact(session)


def test_a_pooler_that_discards_everything_between_transactions_disturbs_nothing(database, session):
    database.role("app")
    session.execute("select es_grant('app', 'append')")
    for turn in range(5):
        session.execute("set session authorization app" if turn % 2 else "set timezone = 'Asia/Tokyo'")
        assert value(session, "select es_append('account-1', 'Moved', '1')") == turn + 1
        session.execute("reset session authorization")
        session.execute("discard all")
    assert value(session, "select count(*) from es_read('account-1')") == 5
    intact(session)


def test_cursors_over_the_log_survive_appends_and_the_commit(session):
    for _ in range(10):
        session.execute("select es_append('account-1', 'Moved', '1')")
    session.execute("begin")
    session.execute("declare held cursor with hold for select version from es_read('account-1')")
    session.execute("declare tail cursor with hold for select version from es_read_all(max_count => 10)")
    assert rows(session, "fetch 3 from held") == [(1,), (2,), (3,)]
    session.execute("select es_append('account-1', 'Moved', '1')")
    session.execute("commit")
    assert rows(session, "fetch all from held") == [(version,) for version in range(4, 11)]
    assert rows(session, "fetch all from tail") == [(version,) for version in range(1, 11)]


def test_reads_in_the_middle_of_writes_see_the_transactions_own_events(session):
    near_edge(session, 4)
    session.execute("begin")
    for turn in range(1, 9):
        session.execute("select es_append('account-1', 'Moved', %s)", (str(turn),))
        assert value(session, "select es_stream_version('account-1')") == turn
        assert value(session, "select count(*) from es_read('account-1')") == turn
        assert value(session, "select count(*) from eventstream.events") == turn
        # Its own events are not settled yet: nobody tails them before they are committed, not even the writer.
        assert rows(session, "select * from es_read_all()") == []
    session.execute("commit")
    assert value(session, "select count(*) from es_read_all()") == 8
    intact(session)


def test_the_sessions_own_settings_are_as_they_were_after_every_way_out(session):
    shown = ("synchronous_commit", "search_path", "enable_seqscan", "enable_bitmapscan", "jit", "role", "row_security")
    session.execute("set synchronous_commit = off")
    before = [value(session, f"show {name}") for name in shown]
    for statement in (
        "select es_append('account-1', 'Moved', '1')",
        "select es_append('account-1', 'Moved', '1', expected_version => 99)",
        "begin; select es_append('account-1', 'Moved', '1'); rollback",
        "begin; set local synchronous_commit = local; select es_append('account-1', 'Moved', '1'); commit",
        "select * from es_read_all()",
        "select * from es_verify()",
        "select es_append('account-1', 'Moved', '1') / 0",
    ):
        try:
            session.execute(statement)
        except psycopg.Error:
            pass
        assert [value(session, f"show {name}") for name in shown] == before, statement
