"""es_maintain takes the due snapshots and removes what need not stay: in bounded steps, beside others, and whatever fails."""

import pytest
from database import all_at_once, forced, raised, rows, value
from states import HANDLER, answered, append, maintain, maintain_until_done, problems, register, snapshots, warnings_of


@pytest.fixture
def database(quiet):
    """Without workers: their upkeep would come in between."""
    return quiet


def test_es_maintain_takes_exactly_the_due_snapshots(database):
    with database.connect() as session:
        register(session)
        for stream, events in (("account-1", 35), ("account-2", 9), ("account-3", 10), ("other-1", 50)):
            append(session, stream, events)
        assert maintain(session)["snapshots taken"] == 4
        assert snapshots(session) == {"account-1": [10, 20, 30], "account-3": [10]}
        assert maintain(session)["snapshots taken"] == 0
        append(session, "account-2", 11)
        append(session, "account-1", 4)
        assert maintain(session)["snapshots taken"] == 2
        assert snapshots(session) == {"account-1": [10, 20, 30], "account-2": [10, 20], "account-3": [10]}
        assert problems(session, thorough=True) == []


def test_a_fold_that_is_registered_later_or_changed_gets_the_snapshots_of_all_events(database):
    with database.connect() as session:
        register(session)
        append(session, "account-1", 45)
        maintain(session)
        register(session, "second", every=20, is_default=False)
        assert maintain(session)["snapshots taken"] == 2
        assert snapshots(session, "second") == {"account-1": [20, 40]}
        register(session, every=15)
        assert maintain(session)["snapshots taken"] == 2, "30 is there already, and of the same definition"
        assert snapshots(session) == {"account-1": [10, 15, 20, 30, 40, 45]}
        session.execute("select es_unregister_fold('total')")
        register(session, category="other", every=5)
        append(session, "other-1", 5)
        assert maintain(session) == {
            "partitions made ahead": 0,
            "tables analyzed": 0,
            "events counted": 5,
            "answers forgotten": 0,
            "snapshots taken": 1,
            "snapshots failed": 0,
            "snapshots removed": 0,
        }
        assert snapshots(session) == {"other-1": [5]}


def test_one_call_takes_a_bounded_number_of_snapshots_and_the_next_goes_on(database):
    with database.connect() as session:
        register(session, every=1)
        append(session, "account-1", 2500)
        first = maintain(session)["snapshots taken"]
        assert 1 <= first <= 1000
        assert snapshots(session)["account-1"] == list(range(1, first + 1))
        assert first + maintain_until_done(session) == 2500
        assert answered(database, "account-1", 2490) == (2490, [], 0)


def test_one_call_passes_a_bounded_number_of_events_and_ends_soon(database):
    with database.connect() as session:
        register(session, every=150_000)
        for _ in range(16):
            append(session, "account-1", 10_000)
        session.execute("set statement_timeout = '20s'")
        assert maintain(session)["snapshots taken"] == 0, "100,000 events, none of them due"
        assert maintain(session)["snapshots taken"] == 1
        assert snapshots(session) == {"account-1": [150_000]}


def test_what_an_open_transaction_commits_later_is_not_passed_over(database):
    with database.connect() as session, database.connect(autocommit=False) as slow:
        register(session)
        append(slow, "account-1", 10)
        append(session, "account-2", 10)
        assert maintain(session)["snapshots taken"] == 0, "everything lies behind the open transaction"
        slow.commit()
        assert maintain(session)["snapshots taken"] == 2


def test_a_fold_or_stream_that_fails_stops_no_other(database):
    with database.connect() as session:
        register(session, "broken", is_default=False)
        session.execute("revoke execute on function broken_of from public")
        role = database.role("registrant_of_broken")
        with forced(session):
            session.execute(f"update _eventstream.folds set registrant = '{role}', registrant_oid = '{role}'::regrole where name = 'broken'")
        register(session)
        append(session, "account-1", 5)
        session.execute("select es_append('account-1', 'Added', '{\"refuse\": true}')")
        append(session, "account-1", 30)
        append(session, "account-2", 20)
        texts = warnings_of(session)
        assert maintain(session) == {
            "partitions made ahead": 1,
            "tables analyzed": 0,
            "events counted": 56,
            "answers forgotten": 0,
            "snapshots taken": 2,
            "snapshots failed": 2,
            "snapshots removed": 0,
        }
        assert [text for text in texts if '"total"' in text] == [
            'fold "total" takes no snapshot of stream "account-1" at version 10: refused at 6'
        ]
        assert len([text for text in texts if text.startswith('fold "broken" takes no snapshots: ')]) == 1
        assert snapshots(session) == {"account-2": [10, 20]}
        del texts[:]
        assert maintain(session)["snapshots failed"] == 1, "the broken fold only: the stream is not tried for ever"
        session.execute("set eventstream.allow_drop = on; drop function broken_of(jsonb, eventstream.event)")
        # Mended, it begins again from the first event.
        session.execute(HANDLER.format(name="total_of", factor=1).replace("'refuse'", "'never'").replace("(event.payload ->> 'n')", "coalesce(event.payload ->> 'n', '0')"))
        assert maintain(session)["snapshots taken"] == 5
        assert snapshots(session) == {"account-1": [10, 20, 30], "account-2": [10, 20]}


def test_a_state_that_skips_a_failed_upcaster_is_no_snapshot_and_stops_no_other(database):
    with database.connect() as session:
        register(session)
        session.execute(
            "create function upcast(payload jsonb, metadata jsonb) returns jsonb immutable language plpgsql as"
            " $$ begin if payload ? 'bad' then raise exception 'too bad'; end if; return payload; end $$"
        )
        session.execute("select es_register_upcaster('Added', 1, 'upcast(jsonb, jsonb)')")
        session.execute("select es_append('account-1', 'Added', '{\"n\": 1, \"bad\": true}')")
        append(session, "account-1", 9)
        append(session, "account-2", 10)
        session.execute("set eventstream.on_upcast_error = skip")
        assert value(session, "select es_state('account-1')") == {"sum": 10}
        done = maintain(session)
        assert (done["snapshots taken"], done["snapshots failed"]) == (1, 1)
        assert snapshots(session) == {"account-2": [10]}


def test_several_sessions_maintain_at_once_without_an_error(database):
    with database.connect() as session:
        for fold in ("total", "second", "third"):
            register(session, fold, every=3, is_default=fold == "total")
        for stream in range(40):
            append(session, f"account-{stream}", 60)
        session.execute("set eventstream.snapshot_keep = 0")

        def work(_):
            with database.connect() as own:
                own.execute("set deadlock_timeout = '50ms'")
                return sum(maintain(own)["snapshots taken"] for _ in range(20))

        results = all_at_once(4, work)
        assert raised(results) == []
        assert sum(results) + maintain_until_done(session) == 3 * 40 * 20, "each was taken once"
        for fold in ("total", "second", "third"):
            assert set(map(tuple, snapshots(session, fold).values())) == {tuple(range(3, 61, 3))}


def test_es_maintain_waits_for_nobody(database):
    with database.connect() as session, database.connect(autocommit=False) as other:
        register(session)
        register(session, "second", is_default=False)
        append(session, "account-1", 20)
        session.execute("set lock_timeout = '2s'")
        for statement in (
            "select es_snapshot('account-1')",
            "select es_prune_snapshots(0)",
            "select es_unregister_fold('total')",
        ):
            value(other, statement)
            before = snapshots(session)
            maintain(session)
            assert snapshots(session) == before, "the fold is somebody else's now"
            assert snapshots(session, "second") == {"account-1": [10, 20]}
            other.rollback()
        assert maintain(session)["snapshots taken"] == 2


def test_es_prune_snapshots_keeps_the_newest_and_the_young(database):
    with database.connect() as session:
        register(session)
        append(session, "account-1", 60)
        append(session, "account-2", 20)
        maintain(session)
        session.execute("update _eventstream.snapshots set taken_at = now() - interval '40 days' where version <= 30")
        assert value(session, "select es_prune_snapshots(keep => 2, older_than => interval '30 days')") == 3
        assert snapshots(session) == {"account-1": [40, 50, 60], "account-2": [10, 20]}
        assert value(session, "select es_prune_snapshots(keep => 1, older_than => interval '50 days')") == 0
        assert value(session, "select es_prune_snapshots(keep => 1)") == 3
        assert snapshots(session) == {"account-1": [60], "account-2": [20]}
        assert value(session, "select es_prune_snapshots(keep => 0)") == 2
        assert snapshots(session) == {}
        assert answered(database, "account-1") == (60, [], 60)


def test_es_maintain_keeps_what_the_settings_say(database):
    with database.connect() as session:
        register(session)
        append(session, "account-1", 60)
        session.execute("set eventstream.snapshot_keep = 2")
        assert maintain(session)["snapshots removed"] == 4
        assert snapshots(session) == {"account-1": [50, 60]}
        append(session, "account-1", 40)
        session.execute("set eventstream.snapshot_keep = 0")
        maintain(session)
        assert snapshots(session) == {"account-1": [50, 60, 70, 80, 90, 100]}
        session.execute("update _eventstream.snapshots set taken_at = now() - interval '2 hours' where version in (50, 80)")
        session.execute("set eventstream.snapshot_max_age = '1h'")
        session.execute("set eventstream.snapshot_keep = 4")
        assert maintain(session)["snapshots removed"] == 1, "60 is young, and 80 among the newest four"
        assert snapshots(session) == {"account-1": [60, 70, 80, 90, 100]}
        session.execute("set eventstream.snapshot_keep = 0")
        session.execute("update _eventstream.snapshots set taken_at = now() - interval '2 hours'")
        assert maintain(session)["snapshots removed"] == 4
        assert snapshots(session) == {"account-1": [100]}, "the newest stays however old it is"
