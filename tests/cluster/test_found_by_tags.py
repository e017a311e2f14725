"""Events that bear tags: what is read by them is what plain SQL over the events finds, in every order, page and partition, and whoever asks; nothing of
it is lost by what happens to transactions, partitions and copies; and es_verify tells what was forced on it.

Asked of the kinds: isolation (SERIALIZABLE with other tags, REPEATABLE READ), transaction (savepoints, rollbacks), session (extension made anew), role, tenant,
size (partitions, 20,000 tagged appends; what reading costs is in test_reading_costs), text, DDL and upkeep, copies (dump, replication; parts of dumps are in
test_partial_dumps), death (an event and its tags are of one transaction), load, verification. EVENTSTREAM_SEED=<number> draws the same events again."""

import os
import random

import psycopg
import pytest
from database import Database, all_at_once, forced, near_edge, partitions, raised, rows, value, verify
from operating import run_psql
from psycopg.types.json import Jsonb
from server import run

SEED = int(os.environ.get("EVENTSTREAM_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
SIZE = 1024
TAGS = [f"order:{number}" for number in range(5)] + ["all", "Z", "ž:1"]


@pytest.fixture
def session(database):
    with database.connect() as connection:
        yield connection


def append(session, stream, event_type="Placed", tags=None, **payload):
    return value(session, "select es_append(%s, %s, %s, tags => %s)", stream, event_type, Jsonb(payload), tags)


def read(session, *tags, function="es_read_all", columns="global_position", **more):
    named = "".join(f", {name} => %s" for name in more)
    return rows(session, f"select {columns} from {function}(tags => %s{named})", list(tags), *more.values())


def refused(call, *args, **more):
    with pytest.raises(psycopg.Error) as error:
        call(*args, **more)
    return error.value


def test_events_are_found_by_all_of_the_tags_that_are_asked_for(session):
    append(session, "order-1", tags=["order:1", "customer:7"])
    append(session, "order-2", tags=["order:2", "customer:7"])
    append(session, "order-2", "Paid", tags=["customer:7", "order:2", "paid"])
    append(session, "order-3")
    names = "stream, version, event_type, tags"
    assert read(session, "customer:7", columns=names) == [
        ("order-1", 1, "Placed", ["customer:7", "order:1"]),
        ("order-2", 1, "Placed", ["customer:7", "order:2"]),
        ("order-2", 2, "Paid", ["customer:7", "order:2", "paid"]),
    ]
    assert read(session, "order:2", "customer:7", "order:2", columns=names) == read(session, "order:2", columns=names)
    assert read(session, "order:1", "order:2") == [] == read(session, "order:4") == read(session, "ORDER:1")
    assert [version for _, version, *_ in read(session, "order:2", columns=names, event_types=["Paid"])] == [2]
    assert read(session, "order:2", categories=["other"]) == [] == read(session, "order:2", event_types=["Other"])
    assert len(read(session, "order:2", categories=["other", "order"])) == 2
    # Of no tags every event bears all.
    assert len(read(session)) == 4
    assert [row[0] for row in read(session, "customer:7", function="es_read_backward", columns="stream")] == ["order-2", "order-2", "order-1"]


def test_what_can_be_no_tag_is_refused(session):
    for function in ("es_read_all", "es_read_backward"):
        for wrong, words in ((["a", ""], "tags[1] must not be empty"), (["x" * 256], "tags[0] must have at most 255 bytes"), ([" a"], "tags[0] must"),
                             ([f"n:{n}" for n in range(33)], "tags must have at most 32 tags, not 33")):  # fmt: skip
            error = refused(read, session, *wrong, function=function)
            assert error.sqlstate == "ES005" and str(error).startswith(words), error
        assert refused(rows, session, f"select * from {function}(tags => array[null])").sqlstate == "ES005"


def test_names_that_upcasters_turn_into_a_type_are_found_under_it(session):
    append(session, "order-1", "Placed", tags=["order:1"], old=1)
    session.execute("create function to_ordered(p jsonb, m jsonb) returns jsonb immutable language sql return p")
    session.execute("select es_register_upcaster('Placed', 1, 'to_ordered(jsonb, jsonb)', to_event_type => 'Ordered')")
    assert read(session, "order:1", columns="event_type", event_types=["Ordered"]) == [("Ordered",)]
    # Also under the name that it is stored with, as readers without tags find it.
    assert len(read(session, "order:1", event_types=["Placed"], function="es_read_backward")) == 1


def fill(database: Database, session) -> random.Random:
    """Some hundreds of events over four partitions: of several streams and categories, with tags that are everywhere, in some partitions, or nowhere."""
    draw = random.Random(SEED)
    database.make_partitions_small(SIZE)
    with database.connect() as writer:
        for part in range(4):
            if part:
                near_edge(writer, 20, 2**24 + (part - 1) * SIZE)
            for _ in range(100):
                known = TAGS[: 5 if part == 2 else 8]
                tags = draw.sample(known, draw.choice((0, 0, 1, 1, 2, 3, 4)))
                append(writer, f"{draw.choice(('order', 'bill', 'note'))}-{draw.randrange(9)}", draw.choice(("Placed", "Paid")), tags or None)
        assert len(partitions(writer)) == 4
    return draw


def test_every_page_in_both_directions_is_what_plain_sql_finds(database, session):
    draw = fill(database, session)
    plain = """select global_position from _eventstream.events where tenant_id = 1 and coalesce(tags, '{{}}') @> %s
               and (%s::text[] is null or category = any (%s)) and (%s::text[] is null or event_type = any (%s)) and global_position {} %s
               order by global_position {} limit %s"""
    last = value(session, "select max(global_position) from _eventstream.events")
    for _ in range(300):
        tags = draw.sample(TAGS, draw.choice((1, 1, 2, 2, 3, 5)))
        categories = draw.choice((None, None, ["order"], ["order", "bill"], ["none"], []))
        types = draw.choice((None, None, ["Paid"], ["Paid", "Placed"]))
        count, at = draw.choice((1, 3, 1000)), draw.choice((0, 50, 2**24, draw.randrange(last), last))
        asked = (tags, categories, categories, types, types, at, count)
        more = {"categories": categories, "event_types": types, "max_count": count}
        assert read(session, *tags, after_position=at, **more) == rows(session, plain.format(">", ""), *asked), (SEED, asked)
        assert read(session, *tags, function="es_read_backward", before_position=at, **more) == rows(session, plain.format("<", "desc"), *asked), (SEED, asked)
    assert read(session, "all", up_to=2**24 + 10) == rows(session, plain.format("<=", ""), ["all"], None, None, None, None, 2**24 + 10, 1000)
    assert verify(session) == []


def test_what_lies_beyond_the_horizon_is_read_later_forward_and_at_once_backward(database, session):
    with database.connect(autocommit=False) as open_one:
        append(open_one, "order-1", tags=["order:1"])
        append(session, "order-2", tags=["order:1"])
        assert read(session, "order:1") == []
        assert read(session, "order:1", function="es_read_backward", columns="stream") == [("order-2",)]
        open_one.commit()
    assert read(session, "order:1", columns="stream") == [("order-1",), ("order-2",)]


def test_a_snapshot_that_is_kept_shows_what_it_shows(database, session):
    append(session, "order-1", tags=["order:1"])
    with database.connect(autocommit=False) as old:
        old.execute("set transaction isolation level repeatable read")
        assert len(read(old, "order:1", function="es_read_backward")) == 1
        near_edge(session, 2)
        for _ in range(5):
            append(session, "order-2", tags=["order:1", "order:2"])
        assert len(partitions(session)) == 2
        assert len(read(old, "order:1", function="es_read_backward")) == 1
        assert read(old, "order:2", function="es_read_backward") == []
        # As es_read_all does without tags.
        assert len(read(old, "order:1")) == 6


def test_a_tag_whose_first_append_was_rolled_back_is_found_when_it_comes_again(database, session):
    """What a session remembers of its own rows goes with them."""
    near_edge(session, 10)
    for _ in range(12):
        append(session, "order-0", tags=["order:0"])
    with session.transaction(force_rollback=True):
        append(session, "order-1", tags=["order:1"])
    append(session, "order-1", tags=["order:1"])
    with session.transaction():
        with session.transaction(force_rollback=True):
            append(session, "order-2", tags=["order:2"])
        append(session, "order-2", tags=["order:2"])
    assert len(partitions(session)) == 2
    assert len(read(session, "order:1")) == len(read(session, "order:2")) == 1
    assert verify(session) == []


def test_sessions_that_bring_a_tag_at_once_wait_for_nobody(database, session):
    def work(number):
        with database.connect(autocommit=False) as racer:
            for stream in range(10):
                append(racer, f"order-{number}_{stream}", tags=["order:1", f"order:{number}"])
            racer.commit()

    with database.connect(autocommit=False) as open_one:
        append(open_one, "order-open", tags=["order:1"])
        assert raised(all_at_once(8, work)) == []
        open_one.rollback()
    assert len(read(session, "order:1")) == 80 and len(read(session, "order:3")) == 10
    assert verify(session) == []


def test_serializable_appends_depend_on_no_others_by_their_tags(database, session):
    """An index notes what is not there by the page: of disjoint tags, too."""
    append(session, "order-0", tags=["order:0"])
    with database.connect(autocommit=False) as serializable:
        serializable.execute("set transaction isolation level serializable")
        append(serializable, "order-1", tags=["order:0", "order:1"])
        noted = {table for (table,) in rows(serializable, "select relation::regclass::text from pg_locks where mode = 'SIReadLock'")}
        assert noted and not [table for table in noted if "tag" in table]


def test_an_append_without_tags_touches_nothing_of_them(database):
    with database.connect(autocommit=False) as session:
        append(session, "order-1")
        touched = "select relation::regclass::text from pg_locks where pid = pg_backend_pid() and relation::regclass::text ~ 'tag' group by 1 order by 1"
        assert rows(session, touched) == []
        append(session, "order-1", tags=["order:1"])
        assert ("_eventstream.event_tags_1",) in rows(session, touched)


def test_twenty_thousand_tagged_appends_of_one_transaction_fit(database, session):
    session.execute(
        "select count(es_append('order-' || n, 'Placed', '{}', tags => array['order:' || n, 'day:' || n % 7])) from generate_series(1, 20000) n"
    )
    assert len(read(session, "day:3", max_count=100_000)) == 2857 and len(read(session, "order:19999")) == 1
    assert verify(session) == []


def test_a_reader_sees_the_categories_and_the_tenant_that_it_may(database, session):
    for stream in ("order-1", "secret-1"):
        append(session, stream, tags=["order:1"])
    session.execute("select es_create_tenant('acme')")
    session.execute("set eventstream.tenant = 'acme'")
    append(session, "order-9", tags=["order:1"])
    reader = database.role(f"reader_{database.name[-6:]}".lower())
    session.execute("set eventstream.tenant = 'default'")
    session.execute("select es_grant(%s, 'read', category => 'order')", (reader,))
    with database.connect(user=reader) as connection:
        for function in ("es_read_all", "es_read_backward"):
            assert read(connection, "order:1", function=function, columns="stream, tenant") == [("order-1", "default")]
        for table in ("event_tags", "event_tags_1", "tag_partitions"):
            assert refused(rows, connection, f"select * from _eventstream.{table}").sqlstate == "42501"
    session.execute("set eventstream.tenant = 'acme'")
    assert read(session, "order:1", columns="stream") == [("order-9",)]
    assert read(session, "order:1", columns="stream", categories=["$audit"]) == []


def test_a_session_goes_on_when_the_extension_is_made_anew(database, session):
    append(session, "order-1", tags=["order:1"])
    with database.connect() as other:
        other.execute("set eventstream.allow_drop = on; drop extension eventstream cascade; create extension eventstream")
    assert read(session, "order:1") == []
    append(session, "order-1", tags=["order:1"])
    assert read(session, "order:1", columns="stream") == [("order-1",)] and verify(session) == []


#: What is forced on the tags of order-1's second event, in the second partition; what es_verify says of it.
POSITION = "(select global_position from _eventstream.events where version = 2 and stream_id = (select id from _eventstream.streams where name = 'order-1'))"
FORCED = {
    "one deleted": (f"delete from _eventstream.event_tags where tag = 'order:1' and global_position = {POSITION}", "1 tag is not found where tags are looked for"),
    "all deleted": ("delete from _eventstream.event_tags", "2 tags are not found where tags are looked for"),
    "changed": (f"update _eventstream.event_tags set tag = 'order:9' where tag = 'order:1' and global_position = {POSITION}", "where no event bears them"),
    "moved": (f"update _eventstream.event_tags set global_position = global_position + 100 where tag = 'order:1' and global_position = {POSITION}", "where no event bears them"),
    "of another tenant": (f"update _eventstream.event_tags set tenant_id = 2 where tag = 'order:1' and global_position = {POSITION}", "not found where tags"),
    "made up": (f"insert into _eventstream.event_tags select 1, 'made up', {POSITION}", "1 tag is looked for at this position, where no event bears them"),
    "hidden": ("delete from _eventstream.tag_partitions where partition > 1", "a tag is not found in this partition"),
    "hidden in another": ("update _eventstream.tag_partitions set partition = 1", "a tag is not found in this partition"),
    "taken from the event": (f"update _eventstream.events set tags = array['all'] where global_position = {POSITION}", "where no event bears them"),
    "given to the event": (f"update _eventstream.events set tags = array['all', 'order:1', 'z'] where global_position = {POSITION}", "1 tag is not found where tags"),
    "detached": ("alter table _eventstream.event_tags detach partition _eventstream.event_tags_16777216", "no table holds the tags of the positions from 16777216 to"),
    "dropped": ("drop table _eventstream.event_tags_16777216", "no table holds the tags of the positions from 16777216 to"),
}  # fmt: skip


@pytest.mark.parametrize("what", FORCED)
def test_what_is_forced_on_tags_is_found(database, what):
    database.make_partitions_small(SIZE)
    statement, words = FORCED[what]
    with database.connect() as session:
        append(session, "order-1", tags=["order:1", "all"])
        append(session, "order-2")
        near_edge(session, 1)
        append(session, "order-2")
        for _ in range(3):
            append(session, "order-1", tags=["order:1", "all"])
        assert len(partitions(session)) == 2 and verify(session) == []
        with forced(session):
            session.execute(statement)
        found = verify(session)
        assert any(words in problem for *_, problem in found), found
        assert not any("order:" in problem or "made up" in problem for *_, problem in found), found
        if what in ("one deleted", "all deleted", "changed"):
            assert any(words in problem or "not found" in problem for (problem,) in rows(session, "select problem from es_verify_stream('order-1')"))
        health = rows(session, "select status, detail from eventstream.health where name = 'log'")[0]
        if what not in ("made up", "hidden in another", "taken from the event", "given to the event"):
            assert health[0] == "critical", health


def test_a_range_and_another_tenant_are_verified_by_themselves(database, session):
    for number in range(6):
        append(session, f"order-{number}", tags=["order:1"])
    session.execute("select es_create_tenant('acme')")
    session.execute("set eventstream.tenant = 'acme'")
    append(session, "order-1", tags=["order:1"])
    auditor = database.role(f"auditor_{database.name[-6:]}".lower())
    session.execute("select es_grant(%s, 'audit', 'acme')", (auditor,))
    positions = [position for (position,) in rows(session, "select global_position from _eventstream.event_tags where tenant_id = 1 order by 1")]
    with forced(session):
        session.execute("delete from _eventstream.event_tags where global_position = %s", (positions[3],))
    assert rows(session, "select * from es_verify(to_position => %s)", positions[2]) == []
    assert rows(session, "select * from es_verify(%s)", positions[4]) == []
    assert [row[2] for row in rows(session, "select * from es_verify(%s, %s)", positions[3], positions[3])] == [positions[3]]
    with database.connect(user=auditor) as connection:
        assert verify(connection) == []


@pytest.mark.parametrize("form", ["plain", "directory"])
def test_a_restored_copy_finds_what_the_original_does(database, session, form):
    fill(database, session)
    reads = [read(session, *tags, columns="global_position, chain_hash", max_count=1000) for tags in (["all"], ["order:1", "Z"], ["ž:1"])]
    copy = Database(database.server, f"{database.name[:50]}_copy").create(extension=False)
    folder = database.server.home / f"dump-{database.name}"
    try:
        if form == "plain":
            run_psql(copy, run("pg_dump", env=database.server.address(database.name)))
        else:
            run("pg_dump", "-F", "directory", "-j", 2, "-f", folder, env=database.server.address(database.name))
            run("pg_restore", "-j", 2, "-e", "-d", copy.name, folder, env=database.server.address(copy.name))
        with copy.connect() as restored:
            restored.execute("select es_activate()")
            for tags, found in zip((["all"], ["order:1", "Z"], ["ž:1"]), reads):
                assert read(restored, *tags, columns="global_position, chain_hash", max_count=1000) == found
            assert verify(restored) == []
            append(restored, "order-new", tags=["all", "new"])
            assert len(read(restored, "all", max_count=1000)) == len(reads[0]) + 1 and len(read(restored, "new")) == 1
            assert rows(restored, "select status from eventstream.health where name in ('log', 'guards')") == [("ok",), ("ok",)]
    finally:
        copy.drop()


def test_upkeep_of_the_tables_of_tags_is_let_through(database, session):
    append(session, "order-1", tags=["order:1"])
    for statement in ("vacuum full _eventstream.event_tags_1", "reindex table concurrently _eventstream.event_tags_1", "analyze _eventstream.event_tags",
                      "reindex table _eventstream.tag_partitions", "vacuum _eventstream.tag_partitions"):  # fmt: skip
        session.execute(statement)
    append(session, "order-1", tags=["order:1"])
    assert len(read(session, "order:1")) == 2
    for statement in ("alter extension eventstream drop table _eventstream.event_tags_1", "truncate _eventstream.event_tags", "alter table _eventstream.event_tags add x int",
                      "alter table _eventstream.event_tags detach partition _eventstream.event_tags_1", "drop index _eventstream.event_tags_1_key_idx",
                      "delete from _eventstream.tag_partitions", "insert into _eventstream.event_tags values (1, 'x', 1)"):  # fmt: skip
        assert refused(session.execute, statement).sqlstate in ("ES050", "ES051"), statement
