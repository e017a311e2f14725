"""Snapshots make answers quicker and never other, and everything that is wrong with one is noticed."""

import hashlib
import struct

import psycopg
import pytest
from database import Database, rows, value
from server import wait_until
from states import HANDLER, answered, append, count, maintain, problems, register, snapshots, warnings_of


@pytest.fixture
def database(quiet):
    """Without workers: their upkeep would come in between."""
    return quiet


@pytest.fixture
def ledger(database):
    """A stream of 250 events with snapshots at 100 and 200."""
    with database.connect() as session:
        register(session, every=100)
        append(session, "account-1", 250)
        maintain(session)
        assert snapshots(session) == {"account-1": [100, 200]}
    assert answered(database, "account-1") == (250, [], 50)
    return database


@pytest.mark.parametrize(
    ("damage", "at", "problem"),
    [
        ("state = '{\"sum\": 7}'", 200, "its checksum is wrong"),
        ("state = '{\"sum\": 200.0}'", 200, "its checksum is wrong"),
        ("checksum = sha256('x')", 200, "its checksum is wrong"),
        ("checksum = '\\x00'", 200, "its checksum is wrong"),
        ("version = 201", 201, "its checksum is wrong"),
        ("chain_hash = sha256('x')", 200, "its checksum is wrong"),
        ("chain_hash = '\\x00'", 200, "its chain hash or its fingerprint is not 32 bytes long"),
        ("fingerprint = sha256('x')", 200, "its checksum is wrong"),
        ("fingerprint = '\\x00'", 200, "its chain hash or its fingerprint is not 32 bytes long"),
    ],
)
def test_a_damaged_snapshot_is_named_and_changes_no_answer(ledger, damage, at, problem):
    with ledger.connect() as session:
        session.execute(f"update _eventstream.snapshots set {damage} where version = 200")
        state, texts, folded = answered(ledger, "account-1")
        assert (state, folded) == (250, 150), "from the snapshot before"
        assert texts == [
            f'snapshot of stream "account-1" at version {at} by fold "total" is not used: {problem}; '
            "the events are folded instead"
        ]
        assert problems(session) == [("account-1", "total", at, problem)]
        assert count(session, "snapshots_invalid") > 0
        with pytest.raises(psycopg.Error) as refused:
            value(session, "select es_snapshot_state('account-1', %s)", at)
        assert refused.value.sqlstate == "ES012" and problem in str(refused.value)
        texts = warnings_of(session)
        assert value(session, "select es_snapshot_state('account-1')") == {"sum": 100} and len(texts) == 1


def test_a_snapshot_of_a_version_that_the_stream_does_not_have_is_named(ledger):
    with ledger.connect() as session:
        session.execute("update _eventstream.snapshots set version = 1000 where version = 200")
        assert problems(session) == [("account-1", "total", 1000, "its checksum is wrong")]
        assert answered(ledger, "account-1") == (250, [], 150)


def frame(content: bytes) -> bytes:
    return b"\x01" + struct.pack(">Q", len(content)) + content


def checksum(tenant_uuid, stream, fold, version, chain_hash, fingerprint, state) -> bytes:
    """As docs/reference.md has it, without the product's code."""
    texts = (frame(text.encode()) for text in (stream, fold))
    fields = frame(tenant_uuid.bytes) + b"".join(texts) + frame(struct.pack(">q", version)) + frame(chain_hash) + frame(fingerprint)
    return hashlib.sha256(b"eventstream/snapshot/1\0" + fields + frame(state.encode())).digest()


def forge(session, version: int, state: str, chain_hash: bytes | None = None) -> None:
    """Another state with the right checksum, as somebody who knows the format could leave."""
    found = rows(
        session, "select chain_hash, fingerprint, checksum, state::text from _eventstream.snapshots where version = %s", version
    )[0]
    tenant_uuid = value(session, "select tenant_uuid from es_log_info()")
    assert checksum(tenant_uuid, "account-1", "total", version, *map(bytes, found[:2]), found[3]) == found[2]
    chain_hash = chain_hash or bytes(found[0])
    session.execute(
        "update _eventstream.snapshots set state = %s, chain_hash = %s, checksum = %s where version = %s",
        (state, chain_hash, checksum(tenant_uuid, "account-1", "total", version, chain_hash, bytes(found[1]), state), version),
    )


def test_a_snapshot_of_another_event_is_named_and_changes_no_answer(ledger):
    with ledger.connect() as session:
        forge(session, 200, '{"sum": 200}', hashlib.sha256(b"x").digest())
        state, texts, folded = answered(ledger, "account-1")
        assert (state, folded, len(texts)) == (250, 150, 1)
        assert "its event has another chain hash" in texts[0]
        assert problems(session) == [("account-1", "total", 200, "its event has another chain hash")]


def test_a_forged_state_is_found_by_a_thorough_verification_only(ledger):
    with ledger.connect() as session:
        forge(session, 100, '{"sum": 7}')
        assert problems(session) == []
        assert problems(session, thorough=True) == [("account-1", "total", 100, "the events give another state")]


def test_a_handler_that_depends_on_more_than_its_arguments_is_found(ledger):
    with ledger.connect() as session:
        session.execute("create table factors (factor int); insert into factors values (1)")
        session.execute(HANDLER.format(name="total_of", factor="(select factor from factors)"))
        maintain(session)
        assert problems(session, thorough=True) == []
        session.execute("update factors set factor = 2")
        assert problems(session, thorough=True) == [
            ("account-1", "total", version, "the events give another state") for version in (100, 200)
        ]
        session.execute("drop table factors")
        found = problems(session, thorough=True)
        assert [version for _, _, version, _ in found] == [100, 200]
        assert all("cannot be folded again: relation" in problem for *_, problem in found)


def test_a_deleted_snapshot_changes_no_answer(ledger):
    with ledger.connect() as session:
        session.execute("delete from _eventstream.snapshots where version = 200")
        assert answered(ledger, "account-1") == (250, [], 150)
        session.execute("truncate _eventstream.snapshots")
        assert answered(ledger, "account-1") == (250, [], 250)


DEFINITIONS = {
    "the fold is registered again": "select es_register_fold('total', 'account', 'twice(jsonb, eventstream.event)', initial_state => '{\"sum\": 0}', snapshot_every => 100)",
    "its handler is replaced": HANDLER.format(name="total_of", factor=2),
    "its initial state is another": "select es_register_fold('total', 'account', 'total_of(jsonb, eventstream.event)', initial_state => '{\"sum\": 250}', snapshot_every => 100)",
    "an upcaster is registered": "select es_register_upcaster('Added', 1, 'doubled(jsonb, jsonb)')",
}


@pytest.mark.parametrize("change", DEFINITIONS)
def test_a_snapshot_of_an_earlier_definition_is_never_used(ledger, change):
    with ledger.connect() as session, ledger.connect() as open_before:
        session.execute(HANDLER.format(name="twice", factor=2))
        session.execute(
            "create function doubled(payload jsonb, metadata jsonb) returns jsonb immutable language sql as"
            " $$ select jsonb_build_object('n', 2 * (payload ->> 'n')::numeric) $$"
        )
        assert value(open_before, "select es_state('account-1')") == {"sum": 250}
        session.execute(DEFINITIONS[change])
        expected = 500
        assert value(open_before, "select es_state('account-1')") == {"sum": expected}
        assert answered(ledger, "account-1") == (expected, [], 250)
        assert rows(session, "select version, is_current from eventstream.snapshots order by 1") == [(100, False), (200, False)]
        assert problems(session, thorough=True) == [], "old is not wrong"
        for call in ("es_snapshot_state('account-1')", "es_snapshot_state('account-1', 100)"):
            with pytest.raises(psycopg.Error) as refused:
                value(session, f"select {call}")
            assert refused.value.sqlstate == "ES012"
        assert maintain(session)["snapshots taken"] == 2
        assert rows(session, "select version, is_current from eventstream.snapshots order by 1") == [(100, True), (200, True)]
        assert answered(ledger, "account-1") == (expected, [], 50)
        # One that no due one replaces goes, too.
        value(session, "select es_snapshot('account-1')")
        session.execute(HANDLER.format(name="total_of", factor=3))
        session.execute(HANDLER.format(name="twice", factor=3))
        assert maintain(session)["snapshots removed"] == 1
        assert snapshots(session) == {"account-1": [100, 200]}


def test_a_fold_that_cannot_be_used_keeps_its_snapshots(ledger):
    with ledger.connect() as session:
        session.execute("set eventstream.allow_drop = on; drop function total_of(jsonb, eventstream.event)")
        assert maintain(session)["snapshots failed"] == 1
        assert value(session, "select es_prune_snapshots(2)") == 0
        assert value(session, "select es_prune_snapshots(1)") == 1
        session.execute(HANDLER.format(name="total_of", factor=1))
        assert maintain(session)["snapshots taken"] == 0
        assert answered(ledger, "account-1") == (250, [], 50)


def test_a_snapshot_is_rolled_back_with_its_events(ledger):
    with ledger.connect() as session:
        with session.transaction(force_rollback=True):
            append(session, "account-1", 10)
            assert value(session, "select es_snapshot('account-1')") == 260
        append(session, "account-1", 20)
        assert snapshots(session) == {"account-1": [100, 200]}
        assert answered(ledger, "account-1") == (270, [], 70)


def test_a_standby_answers_from_snapshots(new_server):
    primary = new_server("primary")
    database = Database(primary, "books").create()
    with database.connect() as session:
        register(session, every=100)
        append(session, "account-1", 250)
        maintain(session)
        standby = new_server.adopt(primary.make_standby("standby"))
        behind = "select pg_last_wal_replay_lsn() < %s::pg_lsn"
        lsn = value(session, "select pg_current_wal_flush_lsn()")
    with standby.connect("books") as reader:
        wait_until(lambda: not value(reader, behind, lsn), 30, "the standby to catch up")
        assert value(reader, "select es_state('account-1')") == {"sum": 250}
        assert count(reader, "snapshot_hits") == 1 and count(reader, "events_folded") == 50
        assert value(reader, "select es_snapshot_state('account-1', 100)") == {"sum": 100}
        assert problems(reader, thorough=True) == []
        for statement in ("select es_snapshot('account-1')", "select es_prune_snapshots()", "select es_maintain()"):
            with pytest.raises(psycopg.Error) as refused:
                reader.execute(statement)
            assert refused.value.sqlstate == "ES009", statement


def test_without_preload_snapshots_are_taken_and_counts_are_the_sessions(new_server):
    server = new_server("bare", preload=False)
    database = Database(server, "books").create()
    with database.connect() as session, database.connect() as other:
        register(session, every=10)
        append(session, "account-1", 25)
        assert maintain(session)["snapshots taken"] == 2
        assert value(other, "select es_state('account-1')") == {"sum": 25}
        assert count(session, "snapshots_taken") == 2 and count(other, "snapshots_taken") == 0
        assert rows(session, "select distinct scope from eventstream.stats") == [("session",)]
