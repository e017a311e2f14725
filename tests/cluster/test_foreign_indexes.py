"""An operator may add indexes to the log's tables, of any kind, order and condition; REINDEX CONCURRENTLY puts ours behind them in the list of
indexes. What appends, reads, states and pages answer is the same as without."""

import psycopg
import pytest
from database import rows, value

FOREIGN = {
    "streams": [
        "using brin (tenant_id, name)",
        "(tenant_id, name desc)",
        "(tenant_id desc, name)",
        "(tenant_id, name text_pattern_ops)",
        '(tenant_id, name collate "POSIX")',
        '(tenant_id, name collate "default")',
        "(tenant_id, name) where name > 'no'",
        "(tenant_id, (name || ''))",
        "using hash (tenant_id)",
    ],
    "stream_segments": [
        "using brin (stream_id, partition)",
        "(stream_id, partition desc)",
        "(stream_id desc, partition)",
        "(stream_id, partition) where partition < 0",
    ],
    "snapshots": [
        "using brin (stream_id, fold, version)",
        "(stream_id, fold, version desc)",
        "(stream_id, fold text_pattern_ops, version)",
        "(stream_id, fold, version) where version < 0",
    ],
    "events_1": [
        "using brin (stream_id, version)",
        "(stream_id, version desc)",
        "(stream_id desc, version)",
        "(stream_id, version) where version < 2",
        "(event_id)",
        "(event_id, tenant_id desc)",
        "using hash (event_id)",
        "using brin (event_id, tenant_id)",
        "(event_id, tenant_id) where version < 0",
        "using brin (tenant_id, global_position)",
        "(tenant_id, global_position desc)",
        "(tenant_id, global_position) where version < 0",
        "using brin (tenant_id, category, global_position)",
        "(tenant_id, category desc, global_position)",
        "(tenant_id, category, global_position desc)",
        "(tenant_id, category text_pattern_ops, global_position)",
        "(stream_id, version, occurred_at)",
        "(stream_id, version, occurred_at) where occurred_at > max_occurred_at",
        "(stream_id, version, occurred_at) where max_occurred_at < occurred_at",
        "(stream_id, version, occurred_at) where occurred_at < max_occurred_at and version < 0",
        "(stream_id, version desc, occurred_at) where occurred_at < max_occurred_at",
        "(event_type, (metadata ->> 'actor'))",
    ],
}
RULES = """{"on": {"Paid": [{"increment": "/n"}]}}"""
DAYS = ("2024-01-03", "2024-01-01", "2024-01-02")


def place_foreign(session, table):
    """All kinds of indexes of others, and ours behind them."""
    ours = [name for (name,) in rows(session, "select indexname from pg_indexes where schemaname = '_eventstream' and tablename = %s", table)]
    for shape in FOREIGN[table]:
        on = shape if shape.startswith("using") else f"using btree {shape}"
        session.execute(f"create index on _eventstream.{table} {on}")
    for name in ours:
        session.execute(f'reindex index concurrently _eventstream."{name}"')


def append(session, stream, version, event_id):
    return value(
        session,
        "select es_append(%s, 'Paid', '{\"n\": 1}', occurred_at => %s, event_id => %s)",
        stream,
        f"{DAYS[(version - 1) % 3]} 00:00:00+00",
        event_id,
    )


def answers(session):
    asked = []
    for stream in ("account-1", "account-2", "note-1", "zebra-1"):
        asked.append(rows(session, "select version, event_id, occurred_at from es_read(%s)", stream))
        asked.append(rows(session, "select version from es_read(%s, from_version => 2)", stream))
        asked.append(value(session, "select es_stream_version(%s)", stream))
    for day in (*DAYS, "2024-01-09"):
        asked.append(value(session, "select es_state_at('account-1', %s::text::timestamptz)", f"{day} 12:00:00+00"))
    asked.append(value(session, "select es_state('account-1')"))
    asked.append(rows(session, "select stream, version from es_read_all()"))
    asked.append(rows(session, "select stream, version from es_read_all(categories => array['account', 'zebra'])"))
    asked.append(rows(session, "select stream, version from es_read_backward(max_count => 4)"))
    for direction in ("asc", "desc"):
        asked.append(rows(session, f"select stream, version from eventstream.events order by global_position {direction} limit 5"))
    return asked


@pytest.mark.parametrize("table", FOREIGN)
def test_answers_are_the_same_beside_indexes_of_others(database, table):
    with database.connect() as session:
        value(session, "select es_register_fold('balance', 'account', rules => %s, snapshot_every => 2)", RULES)
        number = 0
        for version in (1, 2, 3):
            for stream in ("account-1", "note-1", "zebra-1"):
                number += 1
                assert append(session, stream, version, f"00000000-0000-4000-8000-{number:012}") == version
        before = answers(session)
        place_foreign(session, table)
    with database.connect() as session:
        assert answers(session) == before
        for version in (4, 5, 6):
            for stream in ("account-1", "note-1", "zebra-1"):
                number += 1
                event_id = f"00000000-0000-4000-8000-{number:012}"
                assert append(session, stream, version, event_id) == version
                # The same event again is the same event.
                assert append(session, stream, version, event_id) == version
        assert append(session, "account-2", 1, "00000000-0000-4000-8000-00000000beef") == 1
        assert value(session, "select es_stream_version('account-1')") == 6
        assert [version for (version,) in rows(session, "select version from es_read('zebra-1')")] == [1, 2, 3, 4, 5, 6]
        assert value(session, "select es_state('account-1')") == {"n": 6}
        changed = answers(session)
        # Without the indexes of others, the same.
        others = rows(
            session,
            "select c.oid::regclass::text from pg_class c join pg_index i on i.indexrelid = c.oid"
            " where i.indrelid = %s::regclass and obj_description(c.oid, 'pg_class') is null",
            f"_eventstream.{table}",
        )
        assert len(others) == len(FOREIGN[table])
        session.execute("set eventstream.allow_drop = on")
        for (name,) in others:
            session.execute(f"drop index {name}")
    with database.connect() as session:
        assert answers(session) == changed


def test_a_deferrable_constraint_that_would_not_hold_stops_appends_and_says_so(quiet):
    """Only a superuser gets past the guard to add one; what it asks is looked at by triggers, which an append does not fire."""
    with quiet.connect() as session:
        add = "alter table _eventstream.events_1 add constraint once unique (event_type, global_position) deferrable initially deferred"
        session.execute("select es_append('a-1', 'A', '{}')")
        with pytest.raises(psycopg.Error) as guarded:
            session.execute(add)
        assert guarded.value.sqlstate == "ES051"
        session.execute("set eventstream.allow_drop = on")
        session.execute(add)
        with pytest.raises(psycopg.Error) as refused:
            session.execute("select es_append('a-1', 'A', '{}')")
        assert refused.value.sqlstate == "0A000" and "deferrable constraint once of _eventstream.events_1" in refused.value.diag.message_primary
        assert "eventstream.allow_drop" in refused.value.diag.message_hint
        session.execute("alter table _eventstream.events_1 drop constraint once")
        session.execute("select es_append('a-1', 'A', '{}')")
        assert value(session, "select count(*) from es_verify()") == 0
