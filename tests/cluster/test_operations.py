"""Operations outside of the database, once a key: one executes at a time, what was done is told to all, and an attempt that was superseded finishes nothing.

Asked of the kinds: isolation (each level, an older snapshot, a begin in an open transaction, committed and rolled back), transaction (savepoint, PREPARE, read only), session
(date styles, time zones), role (without command, narrowed, by the token of another tenant), size (long keys and results), time (leases that end, a clock that goes back), text (keys
that look alike), death (kill -9 between begin and end), load (50 racers, two that finish at once, opposite orders), copies (dump and restore before es_activate), verification
(rows written by hand)."""

import threading
import uuid

import psycopg
import pytest
from database import Database, all_at_once, raised, rows, value
from operating import check, run_psql
from psycopg.types.json import Jsonb
from server import run, wait_until
from test_clock import ticking  # noqa: F401 - a fixture


@pytest.fixture
def session(database):
    with database.connect() as connection:
        yield connection


def begin(session, key="k-1", request=None, operation="charge", **more):
    names = "".join(f", {name} => %s" for name in more)
    return value(session, f"select es_begin_command(%s, %s, %s{names})", operation, key, Jsonb({"amount": 1} if request is None else request), *more.values())


def complete(session, begun, result=None):
    token = begun["attempt_token"] if isinstance(begun, dict) else begun
    return value(session, "select es_complete_command(%s, %s)", token, Jsonb({"done": True} if result is None else result))


def fail(session, begun, error=None, retryable=True):
    return value(session, "select es_fail_command(%s, %s, %s)", begun["attempt_token"], Jsonb({"why": "no"} if error is None else error), retryable)


def refused(call, *args, **more):
    with pytest.raises(psycopg.Error) as error:
        call(*args, **more)
    return error.value.diag


def test_it_is_executed_once_and_told_ever_after(session):
    begun = begin(session)
    assert (begun["outcome"], begun["attempt"], begun["result"], begun["error"]) == ("execute", 1, None, None)
    assert begun["lease_until"].endswith("+00:00") and uuid.UUID(begun["attempt_token"]).version == 4
    under_way = begin(session)
    assert (under_way["outcome"], under_way["attempt"], under_way["attempt_token"]) == ("in_progress", 1, None)
    assert under_way["lease_until"] == begun["lease_until"]
    assert complete(session, begun, {"id": 7, "fee": "0.10"}) == 1
    again = begin(session)
    assert (again["outcome"], again["attempt"], again["attempt_token"], again["result"]) == ("replay", 1, None, {"id": 7, "fee": "0.10"})
    # Others are others, also where key and operation would be the same if they were glued.
    for operation, key in (("charge", "k-2"), ("charg", "ek-1"), ("chargek", "-1"), ("refund", "k-1"), ("charge", "K-1"), ("charge", "k-1'")):
        assert begin(session, key, operation=operation)["outcome"] == "execute"
    assert rows(session, "select stage, attempt, is_under_way, begun_by from eventstream.commands where operation = 'charge' and command_key = 'k-1'") == [
        ("completed", 1, False, "postgres")
    ]


def test_numbers_keep_their_digits(session):
    token = begin(session)["attempt_token"]
    session.execute("select es_complete_command(%s, '{\"fee\": 1.50, \"n\": 12345678901234567890.123}')", (token,))
    assert value(session, "select (es_begin_command('charge', 'k-1', '{\"amount\": 1}') -> 'result')::text") == '{"n": 12345678901234567890.123, "fee": 1.50}'
    assert refused(session.execute, "select es_begin_command('charge', 'k-1', '{\"amount\": 1.0}')").sqlstate == "ES030"


@pytest.mark.parametrize("stage", ["executing", "completed", "failed for good", "failed", "left"])
def test_another_request_under_the_key_is_refused_and_no_request_is_kept(session, stage):
    begun = begin(session, request={"card": "4111111111111111"}, lease="1 ms" if stage == "left" else "5 min")
    if stage == "completed":
        complete(session, begun)
    elif stage != "executing" and stage != "left":
        fail(session, begun, retryable=stage == "failed")
    diag = refused(begin, session, request={"card": "4111111111111112"})
    assert diag.sqlstate == "ES030" and '"k-1"' in diag.message_primary and 'operation "charge"' in diag.message_primary
    assert "4111" not in f"{diag.message_primary}{diag.message_detail}{diag.message_hint}"
    assert "4111" not in str(rows(session, "select o::text from _eventstream.operations o"))


def test_a_failure_is_executed_again_where_it_may_be(session):
    first = begin(session)
    assert fail(session, first, {"code": 503}) == 1
    second = begin(session)
    assert (second["outcome"], second["attempt"]) == ("execute", 2) and second["attempt_token"] != first["attempt_token"]
    assert fail(session, second, {"code": "declined"}, retryable=False) == 2
    for _ in range(2):
        told = begin(session)
        assert (told["outcome"], told["attempt"], told["result"], told["error"]) == ("replay", 2, None, {"code": "declined"})


def test_who_comes_after_the_lease_takes_over_and_the_one_before_finishes_nothing(session):
    first = begin(session, lease="1 ms")
    wait_until(lambda: begin(session, lease="1 h", key="k-1")["outcome"] == "execute", 5, "the end of the lease")
    second = rows(session, "select attempt_token::text, attempt from _eventstream.operations")
    assert second[0][1] == 2
    for call in (complete, fail):
        diag = refused(call, session, first)
        assert diag.sqlstate == "ES031" and "superseded" in diag.message_primary
    assert refused(session.execute, "select es_extend_command(%s, '1 h')", (first["attempt_token"],)).sqlstate == "ES031"
    assert refused(session.execute, "select es_command_event_id(%s, 1)", (first["attempt_token"],)).sqlstate == "ES031"
    assert complete(session, second[0][0]) == 2


def test_a_lease_that_is_over_may_be_completed_by_its_owner_where_nobody_took_over(session):
    begun = begin(session, lease="1 ms")
    wait_until(lambda: value(session, "select not is_under_way from eventstream.commands"), 5, "the end of the lease")
    assert complete(session, begun) == 1


def test_an_end_that_is_said_again_is_answered_as_the_first_time(session):
    begun = begin(session)
    assert complete(session, begun, {"id": 7}) == 1 == complete(session, begun, {"id": 7})
    for call in (lambda: complete(session, begun, {"id": 8}), lambda: fail(session, begun, {"id": 7})):
        diag = refused(call)
        assert diag.sqlstate == "ES031" and "completed already" in diag.message_primary
    assert refused(session.execute, "select es_extend_command(%s, '1 h')", (begun["attempt_token"],)).sqlstate == "ES031"
    other = begin(session, "k-2")
    assert fail(session, other, retryable=False) == 1 == fail(session, other, retryable=False)
    assert refused(fail, session, other, retryable=True).sqlstate == "ES031"
    assert refused(complete, session, str(uuid.uuid4())).sqlstate == "ES031"


def test_a_lease_is_made_longer_and_never_shorter(session):
    begun = begin(session, lease="1 min")
    longer = value(session, "select es_extend_command(%s, '1 h')", begun["attempt_token"])
    assert value(session, "select %s - clock_timestamp() > interval '59 min'", longer)
    assert value(session, "select es_extend_command(%s, '1 s')", begun["attempt_token"]) == longer


def test_ids_of_events_are_the_same_for_every_attempt(session):
    ids = []
    for _ in range(2):
        begun = begin(session)
        ids.append([value(session, "select es_command_event_id(%s, %s)", begun["attempt_token"], n) for n in (1, 2, 3)])
        session.execute("select es_append('charge-1', 'Charged', '1', event_id => %s)", (ids[-1][0],))
        fail(session, begun)
    assert ids[0] == ids[1] and len(set(ids[0])) == 3
    assert value(session, "select es_stream_version('charge-1')") == 1
    begun = begin(session, "k-2")
    assert value(session, "select es_command_event_id(%s, 1)", begun["attempt_token"]) not in ids[0]


def test_what_was_not_to_be_kept_is_a_new_command_afterwards(session):
    begun = begin(session, keep="1 s", subject="Ada")
    complete(session, begun, {"secret": "x"})
    assert begin(session)["outcome"] == "replay"
    wait_until(lambda: value(session, "select forget_at < clock_timestamp() from eventstream.commands"), 5, "the time to forget")
    # Whether upkeep was there or not, and with another request.
    again = begin(session, request={"amount": 2}, keep="1 s")
    assert (again["outcome"], again["attempt"]) == ("execute", 1)
    complete(session, again, {"secret": "y"})
    wait_until(lambda: value(session, "select forget_at < clock_timestamp() from eventstream.commands"), 5, "the time to forget")
    assert ("answers forgotten", 1) in rows(session, "select * from es_maintain()")
    assert rows(session, "select stage, result, last_error, subject from _eventstream.operations") == [("forgotten", None, None, None)]
    assert begin(session)["outcome"] == "execute"


def test_a_failure_that_is_to_be_tried_again_is_no_answer_and_not_forgotten(session):
    begun = begin(session, keep="1 s")
    first = value(session, "select es_command_event_id(%s, 1)", begun["attempt_token"])
    fail(session, begun)
    session.execute("select pg_sleep(1.1)")
    session.execute("select * from es_maintain()")
    again = begin(session, keep="1 s")
    assert again["attempt"] == 2 and value(session, "select es_command_event_id(%s, 1)", again["attempt_token"]) == first


@pytest.mark.parametrize("end", ["commit", "rollback", "rollback to savepoint"])
def test_in_a_transaction(database, end):
    with database.connect(autocommit=False) as one, database.connect() as other:
        one.execute("savepoint s")
        begun = begin(one)
        one.execute("select es_append('charge-1', 'Charged', '1')")
        complete(one, begun)
        # It cannot be seen yet, and is not executed by others.
        assert begin(other)["outcome"] == "in_progress"
        one.execute("rollback to savepoint s" if "savepoint" in end else end)
        if end == "rollback to savepoint":
            one.execute("commit")
        expected = ("replay", 1) if end == "commit" else ("execute", 0)
        told = begin(other)
        assert told["outcome"] == expected[0]
        assert value(other, "select es_stream_version('charge-1')") == expected[1]


def test_who_waits_is_told_as_soon_as_it_is_known(database):
    with database.connect(autocommit=False) as one, database.connect() as other, database.connect() as watch:
        begun = begin(one)
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(begin(other, wait="30 s")))
        waiting.start()
        wait_until(lambda: rows(watch, "select from pg_locks where not granted and pid = %s", other.info.backend_pid), 5, "the wait for the transaction")
        one.commit()
        waiting.join(0.3)
        assert answers == [] and waiting.is_alive()
        complete(one, begun, {"id": 7})
        one.commit()
        waiting.join(5)
        assert answers[0]["outcome"] == "replay" and answers[0]["result"] == {"id": 7}
        # In vain.
        begin(one, "k-2")
        assert begin(other, "k-2", wait="200 ms")["outcome"] == "in_progress"
        one.rollback()
        # And where the attempt before is rolled back.
        begin(one, "k-3")
        waiting = threading.Thread(target=lambda: answers.append(begin(other, "k-3", wait="30 s")))
        waiting.start()
        wait_until(lambda: rows(watch, "select from pg_locks where not granted and pid = %s", other.info.backend_pid), 5, "the wait for the transaction")
        one.rollback()
        waiting.join(5)
        assert answers[1]["outcome"] == "execute"


def test_two_that_wait_for_each_other_are_a_deadlock_and_not_for_ever(database):
    with database.connect(autocommit=False) as one, database.connect(autocommit=False) as other:
        begin(one, "k-1")
        begin(other, "k-2")
        outcomes = all_at_once(2, lambda n: begin((one, other)[n], ("k-2", "k-1")[n], wait="30 s")["outcome"])
        failed = raised(outcomes)
        assert len(failed) == 1 and failed[0].sqlstate == "40P01"


def test_two_that_end_one_and_wait_for_the_others_are_a_deadlock_too(database):
    """The rows were committed before: somebody has them in hand."""
    with database.connect(autocommit=False) as one, database.connect(autocommit=False) as other:
        tokens = [begin(one, key)["attempt_token"] for key in ("k-1", "k-2")]
        one.commit()
        complete(one, tokens[0])
        complete(other, tokens[1])
        outcomes = all_at_once(2, lambda n: begin((one, other)[n], ("k-2", "k-1")[n], wait="30 s")["outcome"])
        failed = raised(outcomes)
        assert len(failed) == 1 and failed[0].sqlstate == "40P01"


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_an_older_snapshot_executes_nothing_twice(database, level):
    with database.connect(autocommit=False) as old, database.connect() as other:
        for key, end in (("k-1", "done"), ("k-2", "under way"), ("k-3", "left")):
            old.execute(f"set transaction isolation level {level}")
            value(old, "select 1")
            begun = begin(other, key, lease="1 ms" if end == "left" else "1 h")
            if end == "done":
                complete(other, begun)
            elif end == "left":
                wait_until(lambda: value(other, "select lease_until < clock_timestamp() from eventstream.commands where command_key = 'k-3'"), 5, "the end")
            told = begin(old, key)
            assert told["outcome"] == {"done": "replay", "under way": "in_progress", "left": "execute"}[end]
            old.commit()
        assert begin(other, "k-3")["outcome"] == "in_progress"


def test_fifty_racers_execute_once(database):
    def race(number):
        with database.connect() as session:
            mine = []
            while True:
                told = begin(session, wait="10 s")
                if told["outcome"] == "execute":
                    session.execute("select es_append('charge-1', 'Charged', %s)", (Jsonb(number),))
                    complete(session, told, {"by": number})
                    mine.append(number)
                if told["outcome"] == "replay":
                    return mine, told["result"]["by"]

    outcomes = all_at_once(50, race)
    assert raised(outcomes) == []
    assert sum(len(mine) for mine, _ in outcomes) == 1
    assert len({by for _, by in outcomes}) == 1
    with database.connect() as session:
        assert value(session, "select es_stream_version('charge-1')") == 1


def test_of_two_that_finish_at_once_one_does(database):
    with database.connect() as session:
        begun = begin(session)
    def end(number):
        with database.connect() as session:
            return complete(session, begun, {"by": number})
    outcomes = all_at_once(8, end)
    assert sum(outcome == 1 for outcome in outcomes) == 1
    assert {error.sqlstate for error in raised(outcomes)} == {"ES031"}


def test_racers_take_over_once(database):
    with database.connect() as session:
        first = begin(session, lease="1 ms")
        wait_until(lambda: value(session, "select lease_until < clock_timestamp() from eventstream.commands"), 5, "the end")
    def over(number):
        with database.connect() as session:
            return begin(session)["outcome"]
    outcomes = all_at_once(12, over)
    assert sorted(outcomes) == ["execute"] + ["in_progress"] * 11
    with database.connect() as session:
        assert refused(complete, session, first).sqlstate == "ES031"


def test_a_replay_is_a_read(database):
    with database.connect() as session:
        complete(session, begin(session))
        fail(session, begin(session, "k-2"), retryable=False)
        session.execute("begin read only")
        for key in ("k-1", "k-2"):
            assert begin(session, key)["outcome"] == "replay"
        assert value(session, "select pg_current_xact_id_if_assigned()") is None
        assert refused(begin, session, "k-3").sqlstate == "25006"


def test_a_clock_that_goes_back_hands_out_nothing_twice(ticking):
    clock, database = ticking
    with database.connect() as session:
        begun = begin(session, lease="1 min")
        clock.set("-7200")
        assert begin(session)["outcome"] == "in_progress"
        complete(session, begun)
        assert begin(session)["outcome"] == "replay"


def test_after_kill_9_the_lease_decides(new_server):
    server = new_server("operations")
    database = Database(server, "ledger").create()
    with database.connect() as session:
        left, done = begin(session, "left", lease="1 h"), begin(session, "done", lease="1 h")
        complete(session, done, {"id": 7})
        open_one = database.connect(autocommit=False)
        begin(open_one, "open")
    server.kill_everything()
    server.start()
    with database.connect() as session:
        assert begin(session, "left")["outcome"] == "in_progress"
        assert begin(session, "done")["result"] == {"id": 7}
        assert begin(session, "open")["outcome"] == "execute"
        assert complete(session, left) == 1


def test_a_copy_executes_nothing_before_it_is_activated(new_server):
    server = new_server("copied_operations")
    original, copy = Database(server, "original").create(), Database(server, "copy").create(extension=False)
    with original.connect() as session:
        complete(session, begin(session), {"id": 7})
        begin(session, "k-2", lease="1 h")
        session.execute("select es_append('a-1', 'A', '1')")
        before = rows(session, "select * from _eventstream.operations order by command_key")
    run_psql(copy, run("pg_dump", env=server.address("original")))
    with copy.connect() as session:
        assert rows(session, "select * from _eventstream.operations order by command_key") == before
        for key in ("k-1", "k-3"):
            assert refused(begin, session, key).sqlstate == "ES026"
        session.execute("select es_activate()")
        assert begin(session)["result"] == {"id": 7}
        assert begin(session, "k-2")["outcome"] == "in_progress"


def test_roles_and_tenants(database):
    with database.connect() as session:
        session.execute("select es_create_tenant('b')")
        session.execute("set eventstream.tenant = 'default'")
        clerk, narrow, reader = (database.role(f"{database.name}_{name}") for name in ("clerk", "narrow", "reader"))
        for role, privilege, tenant, category in ((clerk, "append", "default", None), (narrow, "command", "default", "account"), (reader, "read", "default", None)):
            session.execute("select es_grant(%s, %s, tenant => %s, category => %s)", (role, privilege, tenant, category))
        with database.connect(user=clerk) as there:
            for statement in (
                "select es_begin_command('charge', 'k', '{}')", "select es_begin_command(null, null, null)", "select es_complete_command(gen_random_uuid(), '{}')",
                "select es_fail_command(gen_random_uuid(), '{}')", "select es_extend_command(gen_random_uuid(), '1 s')",
                "select es_command_event_id(gen_random_uuid(), 1)", "select * from eventstream.commands", "select * from _eventstream.operations",
            ):  # fmt: skip
                assert refused(there.execute, statement).sqlstate == "42501", statement
        with database.connect(user=narrow) as there:
            # Enough for operations, and not to append.
            begun = begin(there)
            assert refused(there.execute, "select es_append('account-1', 'A', '1')").sqlstate == "42501"
            assert refused(there.execute, "select * from eventstream.commands").sqlstate == "42501"
            fail(there, begun, {"why": "payload"})
        with database.connect(user=reader) as there:
            assert rows(there, "select operation, stage, error, begun_by from eventstream.commands") == [("charge", "failed", {"why": "payload"}, narrow)]
        session.execute("select es_revoke(%s, 'read')", (reader,))
        session.execute("select es_grant(%s, 'read', category => 'account')", (reader,))
        with database.connect(user=reader) as there:
            assert rows(there, "select from eventstream.commands") == []
        token = begin(session)["attempt_token"]
        session.execute("set eventstream.tenant = 'b'")
        assert rows(session, "select from eventstream.commands") == []
        assert refused(complete, session, token).sqlstate == "ES031"
        assert begin(session)["outcome"] == "execute"


@pytest.mark.parametrize(
    "statement",
    [
        "select es_begin_command(null, 'k', '{}')",
        "select es_begin_command('', 'k', '{}')",
        "select es_begin_command(repeat('x', 256), 'k', '{}')",
        "select es_begin_command('o', null, '{}')",
        "select es_begin_command('o', '', '{}')",
        "select es_begin_command('o', repeat('x', 1025), '{}')",
        "select es_begin_command('o', E'k\\n', '{}')",
        "select es_begin_command('o', 'k', null)",
        "select es_begin_command('o', 'k', '{}', lease => null)",
        "select es_begin_command('o', 'k', '{}', lease => '0')",
        "select es_begin_command('o', 'k', '{}', lease => '-1 h')",
        "select es_begin_command('o', 'k', '{}', lease => '25 h')",
        "select es_begin_command('o', 'k', '{}', lease => '100000 years')",
        "select es_begin_command('o', 'k', '{}', wait => null)",
        "select es_begin_command('o', 'k', '{}', wait => '-1 s')",
        "select es_begin_command('o', 'k', '{}', wait => '61 s')",
        "select es_begin_command('o', 'k', '{}', keep => '0')",
        "select es_begin_command('o', 'k', '{}', keep => '-1 year')",
        "select es_begin_command('o', 'k', '{}', subject => '')",
        "select es_complete_command(null, '{}')",
        "select es_complete_command(gen_random_uuid(), null)",
        "select es_fail_command(null, '{}')",
        "select es_fail_command(gen_random_uuid(), null)",
        "select es_fail_command(gen_random_uuid(), 'null')",
        "select es_fail_command(gen_random_uuid(), '{}', null)",
        "select es_extend_command(null, '1 s')",
        "select es_extend_command(gen_random_uuid(), null)",
        "select es_extend_command(gen_random_uuid(), '0')",
        "select es_extend_command(gen_random_uuid(), '2 days')",
        "select es_command_event_id(null, 1)",
        "select es_command_event_id(gen_random_uuid(), null)",
        "select es_command_event_id(gen_random_uuid(), 0)",
    ],
)
def test_bad_input(session, statement):
    assert refused(session.execute, statement).sqlstate == "ES005"
    assert rows(session, "select from _eventstream.operations") == []


def test_documents_have_their_limits(session):
    session.execute("set eventstream.max_payload_bytes = '1kB'")
    assert refused(begin, session, request={"x": "y" * 2000}).sqlstate == "ES007"
    begun = begin(session)
    assert refused(complete, session, begun, {"x": "y" * 2000}).sqlstate == "ES007"
    assert refused(fail, session, begun, {"x": "y" * 2000}).sqlstate == "ES007"
    assert begin(session, "x" * 1024)["outcome"] == "execute"


def test_nothing_is_written_past_the_functions(session):
    complete(session, begin(session))
    session.execute("select es_append('a-1', 'A', '1')")
    for statement in ("update _eventstream.operations set result = '0'", "delete from _eventstream.operations", "truncate _eventstream.operations"):
        assert refused(session.execute, statement).sqlstate == "ES050"


def test_operators_see_what_was_left_and_what_was_repeated(session):
    complete(session, begin(session))
    begin(session)
    refused(begin, session, request={"amount": 2})
    assert check(session, "commands") is None
    begin(session, "k-2", lease="1 ms")
    with session.transaction():
        session.execute("set local session_replication_role = replica")
        session.execute("set local eventstream.allow_drop = on")
        session.execute("alter table _eventstream.operations disable trigger all")
        session.execute("update _eventstream.operations set lease_until = lease_until - interval '2 h' where command_key = 'k-2'")
        session.execute("alter table _eventstream.operations enable always trigger refuse_foreign")
        session.execute("alter table _eventstream.operations enable always trigger refuse_truncate")
    found = check(session, "commands")
    assert found.status == "warning" and '"charge" with the key "k-2"' in found.detail
    assert [key for _, key, *_ in rows(session, found.fix)] == ["k-2"]
    metrics = value(session, "select es_metrics()")
    for line in ("eventstream_commands_replayed_total 1", "eventstream_command_mismatches_total 1", 'eventstream_attempts_left{tenant="default",kind="operation"} 1'):
        assert f"\n{line}\n" in metrics
