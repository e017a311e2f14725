"""What a superuser forces past the triggers is found and named: stream and version, by es_verify and es_verify_stream; what
leaves a consistent chain behind (a cut tail, a stream gone, a chain rehashed) by heads that were kept outside."""

import psycopg
import pytest
from database import assert_immutable, forced, near_edge, partitions, rows, value, verify
from outside import HEADS_AS_CSV, check_outside, copied, events_of, verifier
from psycopg.types.json import Jsonb

EVENTS = 8


@pytest.fixture
def session(database):
    """Three streams over three partitions, in two categories; an intact log."""
    database.make_partitions_small()
    with database.connect() as connection:
        for number in range(EVENTS):
            if number in (3, 6):
                near_edge(connection, 3, 2**24 + (1024 if number == 6 else 0))
            for stream in ("account-1", "account-2", "order-1"):
                connection.execute(
                    "select es_append(%s, 'Moved', %s, metadata => %s, subject => 'customer-7', occurred_at => %s)",
                    (stream, Jsonb({"n": number, "amount": 10}), Jsonb({"actor": "ann"}), f"2024-01-{10 + number}"),
                )
        assert len(partitions(connection)) == 3
        assert verify(connection) == []
        yield connection


WHO = "stream_id = (select id from _eventstream.streams where name = '{stream}')"


def event(stream: str, version: int) -> str:
    return f"{WHO.format(stream=stream)} and version = {version}"


def change(assignment: str):
    return lambda session, version: session.execute(
        f"update _eventstream.events set {assignment} where {event('account-1', version)}"
    )


def delete(session, version):
    session.execute(f"delete from _eventstream.events where {event('account-1', version)}")


def swap_contents(session, version):
    """Two neighbours change places; each keeps the hash it had, and the numbers."""
    session.execute(
        f"""
        update _eventstream.events e set payload = o.payload, metadata = o.metadata, event_id = o.event_id, salt = o.salt,
            occurred_at = o.occurred_at, recorded_at = o.recorded_at, event_type = o.event_type
        from (select * from _eventstream.events where {WHO.format(stream="account-1")}) o
        where e.{WHO.format(stream="account-1")} and e.version in ({version}, {version + 1})
          and o.version = {2 * version + 1} - e.version
        """
    )


def swap_versions(session, version):
    """Two neighbours change numbers, hashes and all."""
    for left, right in ((version, -1), (version + 1, version), (-1, version + 1)):
        session.execute(f"update _eventstream.events set version = {right} where {event('account-1', left)}")


def insert_copy(session, version):
    """A made-up event behind the newest: no hash of a chain, but everything else."""
    session.execute(
        f"""
        insert into _eventstream.events
        select (e).* from (
            select jsonb_populate_record(e, jsonb_build_object('version', {EVENTS + 1}, 'event_id', gen_random_uuid(),
                'global_position', nextval('_eventstream.positions'))) as e
            from _eventstream.events e where {event("account-1", version)}) made
        """
    )


def insert_duplicate(session, version):
    """The same version again, in another partition, where no unique index can see it."""
    session.execute(
        f"""
        insert into _eventstream.events
        select (e).* from (
            select jsonb_populate_record(e, jsonb_build_object('payload', '"made up"'::jsonb,
                'global_position', nextval('_eventstream.positions'))) as e
            from _eventstream.events e where {event("account-1", version)}) made
        """
    )


def rehash_one(session, version):
    """One hash is made to fit the changed event; the next event no longer follows from it."""
    session.execute(
        f"update _eventstream.events set payload = '\"changed\"', chain_hash = sha256('made up') where {event('account-1', version)}"
    )


#: What is forced on version 4 of account-1, and the versions that may be named as the first bad one.
TAMPERINGS = {
    "payload changed": (change("""payload = '{"n": 4, "amount": 1000}'"""), {4}),
    "payload changed in scale only": (change("""payload = '{"n": 3, "amount": 10.0}'"""), {4}),
    "payload removed": (change("payload = null"), {4}),
    "metadata changed": (change("""metadata = '{"actor": "bob"}'"""), {4}),
    "occurred_at changed": (change("occurred_at = occurred_at + interval '1 microsecond'"), {4}),
    "recorded_at changed": (change("recorded_at = recorded_at - interval '1 microsecond'"), {4}),
    "recorded_by changed": (change("recorded_by = 'somebody else'"), {4}),
    "event_type changed": (change("event_type = 'Paid'"), {4}),
    "event_id changed": (change("event_id = gen_random_uuid()"), {4}),
    "schema_version changed": (change("schema_version = 7"), {4}),
    "subject changed": (change("subject = 'customer-8'"), {4}),
    "subject removed": (change("subject = null"), {4}),
    "salt changed": (change("salt = decode('00112233445566778899aabbccddeeff', 'hex')"), {4}),
    "chain_hash changed": (change("chain_hash = sha256('x')"), {4}),
    "category changed": (change("category = 'order'"), {4}),
    "max_occurred_at changed": (change("max_occurred_at = max_occurred_at + interval '1 day'"), {4, 5}),
    "max_occurred_at lowered": (change("max_occurred_at = '2024-01-01'"), {4, 5}),
    "deleted in the middle": (delete, {4, 5}),
    "two rows swapped, hashes kept": (swap_contents, {4}),
    "two rows swapped whole": (swap_versions, {4, 5}),
    "a row inserted at the end": (insert_copy, {EVENTS + 1}),
    "a version twice in two partitions": (insert_duplicate, {4}),
    "one hash recomputed": (rehash_one, {4}),
    "version changed": (change("version = 100"), {4, 5, 100}),
}


def first_named(found: list[tuple]) -> list[tuple]:
    return sorted((stream, version) for stream, version, *_ in found)[:1]


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_tampering_is_named_by_stream_and_version(session, tampering):
    force, versions = TAMPERINGS[tampering]
    with forced(session):
        force(session, 4)
    by_log = rows(session, "select stream, version, problem from es_verify()")
    by_stream = rows(session, "select version, problem from es_verify_stream('account-1')")
    assert {stream for stream, *_ in by_log} == {"account-1"}, by_log
    assert by_log and {version for _, version, _ in by_log} & versions, by_log
    assert by_stream and by_stream[0][0] in versions, by_stream
    assert all(problem for *_, problem in by_log + by_stream)
    # The others are as intact as they were.
    for stream in ("account-2", "order-1"):
        assert rows(session, "select * from es_verify_stream(%s)", stream) == []


@pytest.mark.parametrize("version", [1, 2, EVENTS - 1])
def test_a_changed_first_second_or_late_event_is_named_too(session, version):
    with forced(session):
        change("payload = '\"changed\"'")(session, version)
    assert [(stream, at) for stream, at, _ in verify(session)] == [("account-1", version)]
    assert [at for at, _ in rows(session, "select version, problem from es_verify_stream('account-1')")] == [version]


def test_the_newest_event_changed_is_named(session):
    with forced(session):
        change("payload = '\"changed\"'")(session, EVENTS)
    assert [(stream, at) for stream, at, _ in verify(session)] == [("account-1", EVENTS)]


def test_an_event_moved_to_another_stream_is_named(session):
    """account-1 loses its newest event to account-2, which it fits by number."""
    with forced(session):
        session.execute(f"delete from _eventstream.events where {event('account-2', EVENTS)}")
        session.execute(
            f"update _eventstream.events set stream_id = (select id from _eventstream.streams where name = 'account-2')"
            f" where {event('account-1', EVENTS)}"
        )
    assert ("account-2", EVENTS) in {(stream, version) for stream, version, _ in verify(session)}
    assert {at for at, _ in rows(session, "select version, problem from es_verify_stream('account-2')")} == {EVENTS}


def test_a_stream_renamed_is_named(session):
    with forced(session):
        session.execute("update _eventstream.streams set name = 'account-3' where name = 'account-1'")
    assert first_named(verify(session)) == [("account-3", 1)]
    assert rows(session, "select version from es_verify_stream('account-3')")[0] == (1,)


def test_events_without_their_stream_are_named(session):
    with forced(session):
        session.execute("delete from _eventstream.streams where name = 'account-1'")
    found = rows(session, "select version, global_position, problem from es_verify()")
    assert found, "orphans went unnoticed"
    assert found[0][0] == 1


def test_several_streams_tampered_with_are_each_named(session):
    with forced(session):
        for stream, version in (("account-1", 3), ("account-2", 6), ("order-1", 2)):
            session.execute(f"update _eventstream.events set payload = '0' where {event(stream, version)}")
    assert sorted((stream, version) for stream, version, _ in verify(session)) == [
        ("account-1", 3),
        ("account-2", 6),
        ("order-1", 2),
    ]


def test_positions_out_of_order_within_a_stream_are_named(session):
    """The chain does not cover the position; its order within the stream is checked all the same."""
    with forced(session):
        session.execute(
            "update _eventstream.events set global_position = global_position + 100"
            f" where {event('account-1', 1)} and global_position < 1000"
        )
    assert first_named(verify(session))[0][0] == "account-1"


def test_tampering_is_found_in_every_partition_and_by_a_range_that_covers_it(session):
    positions = dict(rows(session, "select version, global_position from es_read('account-1')"))
    with forced(session):
        for version in (2, 5, 8):
            change("payload = '0'")(session, version)
    for version in (2, 5, 8):
        found = rows(
            session,
            "select stream, version from es_verify(%s, %s)",
            positions[version] - 1,
            positions[version] + 1,
        )
        assert found == [("account-1", version)]
    assert rows(session, "select * from es_verify(%s, %s)", positions[3], positions[4]) == []


def test_a_run_of_events_gone_at_the_end_or_whole_is_named_by_what_the_tables_promise(session):
    """No event is left that would follow the gap: only the counts of streams and segments tell."""
    with forced(session):
        session.execute(f"delete from _eventstream.events where {WHO.format(stream='account-1')} and version > 7")
    assert [(found[0], found[1]) for found in verify(session)] == [("account-1", 8)]
    assert rows(session, "select version from es_verify_stream('account-1')") == [(8,)]
    assert rows(session, "select * from es_verify_stream('account-2')") == []
    with forced(session):
        session.execute(f"delete from _eventstream.events where {WHO.format(stream='account-1')}")
    assert {(found[0], found[1]) for found in verify(session)} == {("account-1", version) for version in (1, 5, 8)}
    assert rows(session, "select version from es_verify_stream('account-1') order by 1") == [(1,), (5,), (8,)]


def test_what_is_missing_is_named_though_the_counts_were_made_to_fit(session):
    """One stream's last events go, and another one's segment in that partition: as many entered it as there are segments."""
    with forced(session):
        session.execute(f"delete from _eventstream.events where {WHO.format(stream='account-1')} and version > 7")
        session.execute(
            f"delete from _eventstream.stream_segments where {WHO.format(stream='account-2')} and first_version = 8"
        )
    assert {(found[0], found[1]) for found in verify(session)} == {("account-1", 8), ("account-2", 8)}


def test_triggers_that_were_switched_off_are_noticed_by_whoever_tries(session):
    """The helper of this file puts the guards back as they were."""
    with forced(session):
        pass
    assert_immutable(session)


# -- what should exist, and does not ---------------------------------------------------------------------------------


def problems(session) -> str:
    return "\n".join(problem for *_, problem in verify(session))


def test_the_only_partition_detached_is_named_with_every_stream(database):
    with database.connect() as session:
        for number in range(3):
            session.execute("select es_append(%s, 'Moved', '{}')", (f"account-{number}",))
        with forced(session):
            session.execute("alter table _eventstream.events detach partition _eventstream.events_1")
        found = verify(session)
        assert {(stream, version) for stream, version, _ in found if stream} == {(f"account-{n}", 1) for n in range(3)}
        assert "no partition of the log holds the positions from 1 on" in problems(session)
        assert rows(session, "select version from es_verify_stream('account-1')") == [(1,)]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("how", ["detach", "drop"])
def test_a_partition_that_is_gone_is_named_with_its_streams(session, place, how):
    gone = partitions(session)[place]
    with forced(session):
        session.execute(f"alter table _eventstream.events detach partition _eventstream.{gone}")
        if how == "drop" and place > 0:
            session.execute(f"drop table _eventstream.{gone}")
    found = verify(session)
    assert {"account-1", "account-2", "order-1"} <= {stream for stream, *_ in found}
    assert "no partition of the log holds the positions from " + gone.removeprefix("events_") in problems(session)
    assert rows(session, "select version from es_verify_stream('order-1')")
    # A range names what is missing in it, and nothing else.
    missing = rows(session, "select global_position from es_verify() where stream is not null and problem like '%no partition of the log%' order by 1")
    assert len(missing) > 1
    for (position,) in missing:
        found = "select global_position from es_verify(%s, %s) where stream is not null and problem like '%%no partition of the log%%'"
        assert rows(session, found, position, position) == [(position,)]


def test_a_partition_gone_with_all_rows_that_name_its_streams_leaves_a_hole(session):
    """100 streams lived in the middle partition only."""
    near_edge(session, 200, 2**24 + 2 * 1024)
    for number in range(100):
        session.execute("select es_append(%s, 'Moved', '{}')", (f"short-{number}",))
    near_edge(session, 3, 2**24 + 2 * 1024)
    for number in range(6):
        session.execute("select es_append('long-1', 'Moved', '{}')")
    assert verify(session) == []
    middle = f"events_{2**24 + 1024}"
    with forced(session):
        session.execute(f"delete from _eventstream.streams where name like 'short-%' or name like 'long-%'")
        session.execute("delete from _eventstream.stream_segments")
        session.execute(f"alter table _eventstream.events detach partition _eventstream.{middle}")
        session.execute(f"drop table _eventstream.{middle}")
    assert f"no partition of the log holds the positions from {2**24 + 1024} to {2**24 + 2047}" in problems(session)


def test_a_position_used_twice_is_named(session):
    """As a sequence that was set back would make it: two events of two streams share one."""
    with forced(session):
        session.execute(
            "update _eventstream.events set global_position = (select global_position from _eventstream.events"
            f" where {event('account-1', 2)}) where {event('account-2', 2)}"
        )
    assert "is used twice" in problems(session)
    assert {(stream, version) for stream, version, problem in verify(session) if "used twice" in problem} & {
        ("account-1", 2),
        ("account-2", 2),
    }


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_partitions_positions_moved_are_named(session, place):
    """All of them by as much, so that the order of every stream still holds."""
    moved = partitions(session)[place]
    with forced(session):
        # Within the partition: the last ones before an edge stay.
        session.execute(
            f"update _eventstream.{moved} set global_position = global_position + 100"
            f" where global_position not between {2**24 - 100} and {2**24 - 1} and global_position not between {2**24 + 924} and {2**24 + 1023}"
        )
    found = verify(session)
    assert {"account-1", "account-2", "order-1"} <= {stream for stream, *_ in found}


def test_an_event_that_somebody_computed_and_dated_ahead_is_named(session):
    """Its hash is right: somebody knows the rules, and writes behind the newest event."""
    rules = verifier()
    chained = events_of(session, "account-1")
    previous = rules.GENESIS
    for row in chained:
        previous = rules.chain_hash(previous, rules.Event(*(row[field] for field in rules.Event._fields)))
    with forced(session):
        session.execute(
            "insert into _eventstream.events select (e).* from (select jsonb_populate_record(e, jsonb_build_object("
            f"'version', {EVENTS + 1}, 'event_id', '01890a5d-ac96-774b-bcce-b302099a8099',"
            " 'global_position', nextval('_eventstream.positions'), 'recorded_at', '2030-01-01T00:00:00Z'::timestamptz)) as e"
            f" from _eventstream.events e where {event('account-1', EVENTS)}) made"
        )
        forged = events_of(session, "account-1")[-1]
        hash_ = rules.chain_hash(previous, rules.Event(*(forged[field] for field in rules.Event._fields)))
        session.execute(f"update _eventstream.events set chain_hash = %s where {event('account-1', EVENTS + 1)}", (hash_,))
    assert [(stream, version) for stream, version, _ in verify(session)] == [("account-1", EVENTS + 1)]
    assert "ahead of the clock" in problems(session)
    assert [at for at, _ in rows(session, "select version, problem from es_verify_stream('account-1')")] == [EVENTS + 1]
    # What is honestly appended after it is recorded there too, and is not named for it.
    session.execute("select es_append('account-1', 'Moved', '{}')")
    assert [(stream, version) for stream, version, _ in verify(session)] == [("account-1", EVENTS + 1)]


def test_a_floor_that_was_set_ahead_is_named(session):
    """_eventstream.recorded_floor counts microseconds since 2000."""
    session.execute(
        "select setval('_eventstream.recorded_floor', (extract(epoch from timestamptz '2126-01-01Z' - '2000-01-01Z') * 1000000)::bigint)"
    )
    assert "2126" in problems(session) and "floor" in problems(session)
    assert rows(session, "select * from es_verify(1, 10)") == [], "it is a matter of the whole log"


def test_a_sequence_behind_the_newest_event_is_named(session):
    newest = value(session, "select max(global_position) from _eventstream.events")
    session.execute("select setval('_eventstream.positions', %s)", (newest - 5,))
    found = rows(session, "select stream, version, global_position, problem from es_verify()")
    assert [(stream, version, position) for stream, version, position, _ in found] == [(None, None, newest)]
    assert "sequence" in found[0][3]


def test_a_clock_that_was_set_back_is_no_tampering(session):
    """Events recorded before, and a floor set before, lie ahead of the clock by less than a day."""
    session.execute(
        "select setval('_eventstream.recorded_floor',"
        " (extract(epoch from clock_timestamp() + interval '20 hours' - '2000-01-01Z') * 1000000)::bigint)"
    )
    session.execute("select es_append('account-9', 'Moved', '{}')")
    assert verify(session) == []


# -- what leaves a consistent chain behind: only heads kept outside can tell ----------------------------------------

@pytest.fixture
def heads(session, tmp_path):
    """The heads as they were before anybody tampered, kept outside of the database."""
    path = tmp_path / "heads.csv"
    path.write_bytes(copied(session, HEADS_AS_CSV))
    status, said = check_outside(session, path)
    assert status == 0, said
    return path


def rehash(session, stream: str, version: int, payload: str) -> None:
    """Changes one event and recomputes its hash and all that follow it, as somebody would who knows the rules."""
    rules = verifier()
    chained = events_of(session, stream)
    previous = rules.GENESIS
    for row in chained:
        if row["version"] == version:
            session.execute(f"update _eventstream.events set payload = %s::jsonb where {event(stream, version)}", (payload,))
            row["payload"] = payload.encode()
        previous = rules.chain_hash(previous, rules.Event(*(row[field] for field in rules.Event._fields)))
        session.execute(f"update _eventstream.events set chain_hash = %s where {event(stream, row['version'])}", (previous,))


def cut_tail(session):
    """The newest events of a stream go, and its segments are repaired so that the head fits."""
    session.execute(f"delete from _eventstream.events where {WHO.format(stream='account-1')} and version > 6")
    session.execute(f"delete from _eventstream.stream_segments where {WHO.format(stream='account-1')} and first_version > 6")


def delete_stream(session):
    session.execute(f"delete from _eventstream.events where {WHO.format(stream='account-1')}")
    session.execute(f"delete from _eventstream.stream_segments where {WHO.format(stream='account-1')}")
    session.execute("delete from _eventstream.streams where name = 'account-1'")


def rehash_whole(session):
    rehash(session, "account-1", 3, '{"n": 2, "amount": 99999}')


@pytest.mark.parametrize("tamper", [cut_tail, delete_stream, rehash_whole], ids=lambda tamper: tamper.__name__)
def test_what_leaves_consistent_chains_behind_is_found_against_heads_saved_earlier(session, heads, tamper):
    with forced(session):
        tamper(session)
    # Nothing inside tells: that is why heads are kept outside.
    assert verify(session) == []
    status, said = check_outside(session)
    assert status == 0, said
    status, said = check_outside(session, heads)
    assert status == 1, said
    assert f"default/account-1 version {EVENTS}:" in said
    assert "account-2" not in said and "order-1" not in said


def test_the_log_goes_on_after_a_tail_was_cut_and_is_still_found_out(session, heads):
    """New events over the cut reach the old version again, with another hash."""
    with forced(session):
        cut_tail(session)
    for _ in range(4):
        session.execute("select es_append('account-1', 'Moved', '{}')")
    assert verify(session) == []
    status, said = check_outside(session, heads)
    assert status == 1
    assert f"default/account-1 version {EVENTS}:" in said


def test_an_honest_log_that_grew_agrees_with_heads_saved_earlier(session, heads):
    for stream in ("account-1", "account-2", "order-2"):
        session.execute("select es_append(%s, 'Moved', '{}')", (stream,))
    status, said = check_outside(session, heads)
    assert status == 0, said


@pytest.mark.parametrize("tampering", ["payload changed in scale only", "deleted in the middle", "one hash recomputed"])
def test_the_verifier_outside_agrees_with_the_one_inside(session, tampering):
    force, versions = TAMPERINGS[tampering]
    with forced(session):
        force(session, 4)
    status, said = check_outside(session)
    assert status == 1
    assert any(f"default/account-1 version {version}:" in said for version in versions), said
    assert "account-2" not in said
