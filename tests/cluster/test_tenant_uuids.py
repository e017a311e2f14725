"""What hashes cover of a tenant is its uuid: its name may change, and no event of one log is an event of another."""

import uuid

import psycopg
import pytest
from consuming import slot_of
from database import Database, forced, rows, value, verify
from outside import EVENTS_AS_CSV, HEADS_AS_CSV, check_outside, copied, judge
from server import SUPERUSER, WORK, run
from states import append, register

TENANT_UUID = "select tenant_uuid from es_log_info()"


@pytest.fixture
def other(database):
    other = Database(database.server, f"{database.name[:50]}_other").create()
    yield other
    other.drop()


def uuid_of(session) -> str:
    return str(value(session, TENANT_UUID))


def restored(database: Database, into: Database) -> Database:
    folder = WORK / f"dump-{uuid.uuid4().hex}"
    run("pg_dump", "-h", database.server.socket, "-U", SUPERUSER, "-Fd", "-f", folder, database.name)
    into.drop()
    into.create(extension=False)
    run("pg_restore", "-h", database.server.socket, "-U", SUPERUSER, "--exit-on-error", "-d", into.name, folder)
    return into


def test_the_same_events_of_two_logs_have_other_hashes(database, other):
    """Every database has a tenant `default`: what is copied from one into another by force is named there."""
    tables = ("events_1", "streams")
    with database.connect() as session, other.connect() as foreign:
        append(session, "account-1", 3)
        assert uuid_of(session) != uuid_of(foreign)
        with forced(foreign):
            for table in tables:
                with foreign.cursor() as cursor, cursor.copy(f"copy _eventstream.{table} from stdin") as into:
                    into.write(copied(session, f"copy _eventstream.{table} to stdout"))
            foreign.execute("select setval('_eventstream.positions', 3)")
        assert rows(session, "select * from eventstream.events") == rows(foreign, "select * from eventstream.events")
        assert verify(session) == []
        found = verify(foreign)
        assert [(stream, version) for stream, version, _ in found] == [("account-1", version) for version in (1, 2, 3)]
        assert all("or the tenant's uuid" in problem for *_, problem in found)
        assert check_outside(session)[0] == 0
        status, said = check_outside(foreign)
        assert status == 1 and "or the tenant's uuid" in said


def test_another_name_of_a_tenant_changes_nothing_that_is_proved(database, tmp_path):
    """By force, so that `default` gets one, too."""
    with database.connect() as session:
        session.execute("select es_create_tenant('acme')")
        for tenant in ("default", "acme"):
            session.execute("select set_config('eventstream.tenant', %s, false)", (tenant,))
            register(session)
            append(session, "account-1", 3)
            session.execute("select es_snapshot('account-1')")
            of_tenant = HEADS_AS_CSV.replace("es_chain_heads()", f"es_chain_heads() where tenant = '{tenant}'")
            (tmp_path / f"{tenant} AG").write_bytes(copied(session, of_tenant))
            with forced(session):
                session.execute("update _eventstream.tenants set name = name || ' AG' where name = %s", (tenant,))
    for tenant in ("default AG", "acme AG"):
        with database.connect() as session:
            session.execute("select set_config('eventstream.tenant', %s, false)", (tenant,))
            assert verify(session) == []
            assert rows(session, "select * from es_verify_snapshots(thorough => true)") == []
            append(session, "account-1", 1)
            assert verify(session) == []
            assert check_outside(session, tmp_path / tenant)[0] == 0


def test_a_tenants_uuid_is_changed_by_nobody_and_named_where_it_was_forced(database):
    with database.connect() as session:
        session.execute("select es_create_tenant('acme')")
        session.execute("set eventstream.tenant = 'acme'")
        append(session, "account-1", 2)
        before = uuid_of(session)
        for change in ("_eventstream.tenants set uuid = gen_random_uuid()", "_eventstream.log_identities set log_id = gen_random_uuid()"):
            with pytest.raises(psycopg.Error) as refused:
                session.execute(f"update {change}")
            assert refused.value.sqlstate == "ES050"
        with forced(session):
            session.execute("update _eventstream.tenants set uuid = gen_random_uuid() where name = 'acme'")
    with database.connect() as session:
        session.execute("set eventstream.tenant = 'acme'")
        assert uuid_of(session) != before
        assert ["or the tenant's uuid" in problem for stream, _, problem in verify(session) if stream == "account-1"] == [True, True]
        # So are the acts of the tenant.
        acts = f"$audit-{before}"
        assert ["or the tenant's uuid" in problem for stream, _, problem in verify(session) if stream != "account-1"] == [True]
        # The other one is as intact as it was.
        session.execute("set eventstream.tenant = 'default'")
        append(session, "order-1", 1)
        assert {stream for stream, *_ in verify(session)} == {"account-1", acts}
        assert check_outside(session)[0] == 0


def test_a_streams_slot_is_that_of_its_tenants_uuid_and_its_name(database):
    with database.connect() as session:
        session.execute("select es_create_tenant('acme')")
        for tenant in ("default", "acme"):
            session.execute("select set_config('eventstream.tenant', %s, false)", (tenant,))
            for stream in ("account-1", "account-2", "sklad-Žižkov-東京 🏦"):
                append(session, stream, 2)
        slots = rows(
            session,
            "select u.uuid::text, s.name, s.slot from _eventstream.streams s join _eventstream.tenant_uuids() u on u.id = s.tenant_id",
        )
        assert len(slots) == 6
        assert [slot for *_, slot in slots] == [slot_of(tenant_uuid, stream) for tenant_uuid, stream, _ in slots]
        assert verify(session) == []
        with forced(session):
            session.execute("update _eventstream.streams set slot = (slot + 1) % 64 where name = 'account-2' and tenant_id = 1")
        assert [(stream, version, "names slot" in problem) for stream, version, problem in verify(session)] == [("account-2", 1, True)]


def test_uuids_come_back_with_a_dump_whatever_clocks_say(database, other):
    """The original's clock was ahead when the log was made: in the copy its identity is not the oldest."""
    with database.connect() as session:
        with forced(session):
            session.execute("update _eventstream.log_identities set created_at = created_at + interval '1 day'")
        session.execute("select es_create_tenant('acme')")
        events = {}
        for tenant in ("default", "acme"):
            session.execute("select set_config('eventstream.tenant', %s, false)", (tenant,))
            append(session, "account-1", 3)
            events[tenant] = copied(session, EVENTS_AS_CSV)
        copy = restored(database, other)
        with copy.connect() as session:
            for tenant in ("default", "acme"):
                session.execute("select set_config('eventstream.tenant', %s, false)", (tenant,))
                assert copied(session, EVENTS_AS_CSV) == events[tenant]
                assert judge(events[tenant])[0] == 0
                append(session, "account-1", 1)
                append(session, "account-2", 1)
            assert verify(session) == []
            session.execute("select es_activate()")
            append(session, "account-3", 1)
            assert verify(session) == []
    # A copy of a copy is a copy of the first.
    again = restored(copy, Database(database.server, f"{database.name[:48]}_again"))
    try:
        with again.connect() as session:
            session.execute("set eventstream.tenant = 'default'")
            append(session, "account-1", 1)
            assert verify(session) == []
    finally:
        again.drop()


@pytest.mark.parametrize("undone", ["rollback", "rollback to savepoint before; commit"])
def test_a_first_append_that_is_undone_is_none(database, undone):
    """The row that says so is gone with it: the session that wrote it must not believe it."""
    with database.connect() as session, database.connect() as other:
        session.execute(f"begin; savepoint before; select es_append('account-1', 'T', '{{}}'); {undone}")
        # A restore may still bring rows: whose log this is comes with them.
        other.execute("insert into _eventstream.grants (role, role_oid, privilege, tenant_id, granted_by) values ('public', 0, 'read', 1, 'me')")
        other.execute("insert into _eventstream.log_identities values (gen_random_uuid(), 1, 1, '2001-01-01')")
        log_id = value(other, "select log_id from _eventstream.this_log()")
        append(session, "account-1", 1)
        assert value(other, "select has_begun from _eventstream.this_log()")
        assert value(session, TENANT_UUID) == log_id
        assert verify(other) == []
        with pytest.raises(psycopg.Error) as error:
            other.execute("delete from _eventstream.grants")
        assert error.value.sqlstate == "ES050"
