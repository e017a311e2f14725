"""A log with events is not lost by a common command, by whatever route and whoever asks (ES051); the tables that say what the log is are
written by our own functions only (ES050); functions that folds, upcasters and projections call stay (2BP01). Upkeep and restores work."""

import time

import psycopg
import pytest
from database import REGISTERS, Database, contents, forced, near_edge, partitions, rows, unguarded, value, verify
from server import ROOT, run

HANDLER = (
    "create function {}(state jsonb, event eventstream.event) returns jsonb immutable language sql as $$ select state || event.payload $$"
)


def fill(database: Database) -> Database:
    """Three events in two partitions, the second one no member of the extension."""
    database.make_partitions_small()
    with database.connect() as session:
        session.execute("select es_append('account-1', 'Opened', '{}')")
        near_edge(session, 1)
        session.execute("select es_append('account-1', 'Moved', '{}') from generate_series(1, 2)")
        assert len(partitions(session)) == 2
    return database


@pytest.fixture
def log(database):
    return fill(database)


@pytest.fixture(scope="module")
def unloaded():
    """A log on a server that does not preload the library."""
    from server import Server

    server = Server("unloaded", preload=False).create()
    yield fill(Database(server, "books").create())
    server.destroy()


def refused(session, statement: str) -> psycopg.Error:
    with pytest.raises(psycopg.Error) as error:
        session.execute(statement)
    return error.value


SECOND = "_eventstream.events_16777216"

#: What would take the log away, or a part of it.
REMOVALS = [
    "drop schema public cascade",
    "drop schema _eventstream cascade",
    "drop schema eventstream cascade",
    "drop extension eventstream",
    "drop extension eventstream cascade",
    "drop table _eventstream.events cascade",
    f"drop table {SECOND}",
    f"drop table {SECOND} cascade",
    f"alter table _eventstream.events detach partition {SECOND}",
    f"alter table _eventstream.events detach partition {SECOND} concurrently",
    "alter table _eventstream.events detach partition _eventstream.events_1",
    f"alter table {SECOND} set schema public",
    f"alter table {SECOND} rename to mine",
    "alter schema _eventstream rename to theirs",
    "alter extension eventstream drop table _eventstream.events_1",
    "alter extension eventstream drop function es_verify(bigint, bigint)",
    "do $$ begin execute 'drop schema public cascade'; end $$",
]

#: What would change what keeps it as it is.
CHANGES = [
    f"alter table {SECOND} disable trigger all",
    "alter table _eventstream.events disable trigger refuse_change",
    "alter table _eventstream.streams disable trigger refuse_foreign",
    f"drop trigger refuse_change on {SECOND}",
    f"alter trigger refuse_change on {SECOND} rename to harmless",
    f"create trigger t before insert on {SECOND} for each row execute function _eventstream.refuse_change()",
    f"create rule r as on insert to {SECOND} do instead nothing",
    f"create policy p on {SECOND}",
    "alter table _eventstream.events add column more int",
    "alter table _eventstream.log_identities alter column database_oid type int8",
    "alter table _eventstream.streams drop column category",
    f"alter table {SECOND} add constraint c check (false) not valid",
    f"drop index {SECOND}_version_idx",
    "alter sequence _eventstream.positions cache 100",
    "alter sequence _eventstream.positions restart",
    "alter sequence _eventstream.positions increment 2",
    f"alter table {SECOND} owner to somebody",
    "create or replace function _eventstream.refuse_change() returns trigger language plpgsql as 'begin return new; end'",
    "alter view eventstream.streams set (security_barrier = false)",
    "alter table eventstream.streams set (security_barrier = false)",
    "alter table eventstream.events set (security_barrier = false)",
    "alter table eventstream.events reset (security_barrier)",
    "alter type eventstream.event alter attribute version type text cascade",
    "alter type eventstream.event add attribute more int cascade",
    "alter type eventstream.event drop attribute payload cascade",
    "alter type eventstream.event rename attribute payload to body",
    "alter schema eventstream_pinned rename to free",
    "alter sequence _eventstream.positions set unlogged",
    "alter sequence _eventstream.stream_ids set unlogged",
    "alter table _eventstream.streams enable row level security",
    f"alter table {SECOND} force row level security",
    f"alter table {SECOND} alter column version set default 1",
    "alter table _eventstream.streams alter column category set default 'x'",
    "alter table _eventstream.streams set unlogged",
    "alter table eventstream.streams alter column stream set default 'x'",
    "alter event trigger eventstream_guard disable",
    "alter extension eventstream add table plain",
    "create table forged partition of _eventstream.events for values from (30000000) to (30000001)",
    "create table heir () inherits (_eventstream.streams)",
]


@pytest.mark.parametrize("loaded", [True, False], ids=["preloaded", "not preloaded"])
def test_nothing_takes_a_log_with_events_away(log, unloaded, loaded):
    database = log if loaded else unloaded
    with database.connect() as session:
        before, tables = contents(session), partitions(session)
    for statement in REMOVALS:
        # Each in a session of its own: without preload it is the statement itself that has to load the library.
        with database.connect() as session:
            error = refused(session, statement)
            # PostgreSQL itself refuses what is named alone and needed by the extension.
            assert error.sqlstate in ("ES051", "2BP01"), (statement, str(error))
            if error.sqlstate == "ES051":
                assert "3 events" in error.diag.message_primary, error.diag.message_primary
                assert "set eventstream.allow_drop = on" in error.diag.message_hint
            assert contents(session) == before, statement
            assert partitions(session) == tables
            assert verify(session) == []


def test_most_of_it_is_refused_by_us_and_not_by_what_depends_on_it(log):
    with log.connect() as session:
        mine = [statement for statement in REMOVALS if refused(session, statement).sqlstate == "ES051"]
    others = {"drop schema _eventstream cascade", "drop schema eventstream cascade", "drop table _eventstream.events cascade"}
    assert set(REMOVALS) - set(mine) == others, "what the extension requires PostgreSQL refuses by itself"


def test_nothing_takes_a_restored_log_away_before_its_first_append_though_it_may_be_altered(log):
    """A restore makes triggers and attaches partitions; what it brought is a log all the same."""
    with log.connect() as session:
        with forced(session):
            session.execute("delete from _eventstream.first_appends")
        before = contents(session)
        for statement in REMOVALS:
            assert refused(session, statement).sqlstate in ("ES051", "2BP01"), statement
        assert contents(session) == before
        session.execute("create table added (like _eventstream.events including defaults including constraints)")
        session.execute("alter table _eventstream.events attach partition added for values from (30000000) to (30000001)")
        session.execute(f"create trigger t before insert on {SECOND} for each row execute function _eventstream.refuse_change()")


def test_nothing_that_guards_the_log_is_altered(log):
    log.role("somebody")
    with log.connect() as session:
        session.execute("create table plain (n int)")
        for statement in CHANGES:
            for role in ("origin", "replica"):
                session.execute(f"set session_replication_role = {role}")
                error = None
                try:
                    session.execute(statement)
                except psycopg.Error as raised:
                    error = raised
                assert error is not None and error.sqlstate in ("ES051", "2BP01"), (statement, str(error))
        assert verify(session) == []


def test_an_owner_of_the_database_without_rights_over_the_log_does_not_delete_it(log):
    owner = log.role("owner_of_database", "login")
    with log.server.connect("postgres") as admin:
        admin.execute(f'alter database "{log.name}" owner to "{owner}"')
    with log.connect(owner) as session:
        assert refused(session, "drop schema public cascade").sqlstate == "ES051"
        assert refused(session, "set eventstream.allow_drop = on").sqlstate == "42501"
        session.execute("drop owned by current_user cascade")
    with log.connect() as session:
        assert len(contents(session)) == 3


@pytest.mark.parametrize(
    "statement",
    [
        "alter table eventstream.events set (security_barrier = false)",
        "alter type eventstream.event alter attribute version type text cascade",
        "alter sequence _eventstream.positions set unlogged",
        "alter table _eventstream.streams force row level security",
    ],
)
def test_where_the_library_is_not_preloaded_the_first_statement_is_judged_too(unloaded, statement):
    with unloaded.connect() as session:
        assert refused(session, statement).sqlstate == "ES051"


def test_who_does_not_own_it_learns_nothing_by_altering_it(log):
    with log.connect(log.role("stranger_to_guard")) as session:
        assert refused(session, "alter table eventstream.events set (security_barrier = false)").sqlstate == "42501"


@pytest.mark.parametrize("what", ["alter attribute version type text", "drop attribute salt", "add attribute more int"])
def test_a_row_type_that_a_superuser_altered_is_found_before_events_are_made_of_it(log, what):
    with log.connect() as session, log.connect() as other:
        rows(other, "select * from es_read('account-1')")
        with unguarded(session):
            session.execute(f"alter type eventstream.event {what} cascade")
        for connection in (session, other, log.connect()):
            error = refused(connection, "select * from es_read('account-1')")
            assert error.sqlstate == "0A000" and "eventstream.event has been altered" in str(error)


def test_drop_owned_by_the_logs_owner_is_refused(new_server):
    server = new_server("owned")
    with server.connect("postgres") as admin:
        admin.execute("create role keeper superuser login")
        admin.execute("create database books owner keeper")
    books = Database(server, "books")
    with books.connect("keeper") as session:
        session.execute("create extension eventstream")
        session.execute("select es_append('account-1', 'Opened', '{}')")
        assert refused(session, "drop owned by keeper cascade").sqlstate == "ES051"
        assert refused(session, "reassign owned by keeper to postgres").sqlstate == "ES051"
        assert len(contents(session)) == 1


def test_a_superuser_who_says_so_drops_it_and_says_so_for_one_session_only(log):
    with log.connect() as session, log.connect() as other:
        assert refused(session, "alter system set eventstream.allow_drop = on").sqlstate in ("55P02", "42602", "22023")
        with session.transaction():
            session.execute("set local eventstream.allow_drop = on")
        assert refused(session, "drop extension eventstream").sqlstate == "ES051"
        with unguarded(session):
            assert refused(other, "drop extension eventstream").sqlstate == "ES051"
            session.execute("drop extension eventstream")
        assert value(session, "select count(*) from pg_namespace where nspname ~ 'eventstream'") == 0


@pytest.mark.parametrize("how", ["drop extension eventstream", "drop schema public cascade"])
@pytest.mark.parametrize("used", [False, True], ids=["never used", "rolled back"])
def test_a_log_without_events_drops_freely(database, how, used):
    with database.connect() as session:
        if used:
            with session.transaction(force_rollback=True):
                session.execute("select es_append('account-1', 'Opened', '{}')")
        session.execute(how)
        assert value(session, "select count(*) from pg_extension where extname = 'eventstream'") == 0
        session.execute("create schema if not exists public")
        session.execute("create extension eventstream")
        session.execute("select es_append('account-1', 'Opened', '{}')")


def test_what_is_a_users_own_goes_as_before(log):
    with log.connect() as session:
        session.execute("create view mine as select * from eventstream.events")
        session.execute("create table events_2 (like _eventstream.events including all)")
        session.execute(HANDLER.format("unused"))
        for statement in (
            "drop view mine",
            "drop table events_2",
            "drop function unused",
            "create table events_2 (n serial primary key, check (n > 0))",
            "create rule r as on insert to events_2 do instead nothing",
            "truncate events_2",
            "create schema theirs create table t (n int)",
            "alter schema theirs rename to others",
            "drop schema others cascade",
            "create temp table scratch as select * from eventstream.events",
        ):
            session.execute(statement)


def test_upkeep_goes_on(log):
    with log.connect() as session:
        session.execute("create table counted (n int); insert into counted values (1)")
        for statement in (
            "vacuum full _eventstream.events_1",
            f"vacuum (full, analyze) {SECOND}",
            "vacuum full",
            "analyze",
            f"reindex table concurrently {SECOND}",
            "reindex table _eventstream.streams",
            "reindex schema _eventstream",
            f"cluster {SECOND} using events_16777216_position_idx",
            f"alter table {SECOND} set (autovacuum_enabled = true)",
            f"alter table {SECOND} alter column payload set statistics 10",
            f"alter table {SECOND} set tablespace pg_default",
            f"alter index {SECOND}_position_idx set tablespace pg_default",
            f"alter table {SECOND} replica identity using index events_16777216_version_idx",
            f"create index concurrently extra on {SECOND} (occurred_at)",
            f"grant select on {SECOND} to public; revoke select on {SECOND} from public",
            "create publication p for table _eventstream.events with (publish_via_partition_root = true)",
            "drop publication p",
            "alter extension eventstream update",
        ):
            session.execute(statement)
        rows(session, "select * from es_maintain()")
        assert len(partitions(session)) == 3
        session.execute("select es_append('account-1', 'Moved', '{}')")
        assert verify(session) == []


def test_what_upkeep_evaluates_is_no_way_around(log):
    """A function of an index is called while the table is analyzed: the statement inside it counts."""
    with log.connect() as session:
        session.execute("create table bait (n int); insert into bait select generate_series(1, 10)")
        session.execute(
            "create function trap(n int) returns int immutable language plpgsql as $$ begin"
            " if current_setting('trap.armed', true) = 'yes' then execute 'drop extension eventstream cascade'; end if; return n; end $$"
        )
        session.execute("create index on bait (trap(n))")
        # PL/pgSQL looks at it when the plan is made, not when the index is: another language would not at all.
        session.execute("update pg_proc set provolatile = 'v' where proname = 'trap'")
        session.execute("set trap.armed = 'yes'")
        assert refused(session, "analyze bait").sqlstate == "ES051"
        assert len(contents(session)) == 3


# -- rows -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loaded", [True, False], ids=["preloaded", "not preloaded"])
def test_only_our_own_functions_write_what_says_what_the_log_is(log, unloaded, loaded):
    with (log if loaded else unloaded).connect() as session:
        if loaded:
            session.execute("select es_create_tenant('acme')")
            session.execute("set eventstream.tenant = 'default'")
            session.execute("create role guard_clerk")
            log.roles.append("guard_clerk")
            session.execute("select es_grant('guard_clerk', 'read')")
            session.execute(HANDLER.format("total") + "; " + HANDLER.replace("state jsonb, event eventstream.event", "a jsonb, b jsonb").replace("state || event.payload", "a").format("up"))
            session.execute("select es_register_fold('total', 'account', 'total(jsonb, eventstream.event)'::regprocedure)")
            session.execute("select es_register_upcaster('Placed', 1, 'up(jsonb, jsonb)')")
            session.execute("select es_create_event_type('Declared')")
            session.execute("select es_protect('Hidden', pointers => '{/a}')")
            session.execute(
                "select es_add_token_key('k', '\\xd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a', 'default', 'issuer')"
            )
            session.execute("select es_alter_category('account', '{\"max_future\": \"24 hours\"}')")
            session.execute("select es_close_period('{account}', '2024-01-01Z', 'x')")
            session.execute("create function decide(state jsonb, command eventstream.command) returns jsonb stable language sql as $$ select '[]'::jsonb $$")
            session.execute("select es_register_decider('d', 'account', 'decide(jsonb, eventstream.command)')")
            session.execute("select es_register_invariant('i', '{account}', require => '{\"\": {\"exists\": true}}')")
            session.execute("select es_command('account-2', 'Any', '{}', command_key => 'k')")
            session.execute("select es_schedule_command('account-2', 'Any', '{}', now() + interval '1 day')")
            session.execute("select es_begin_command('charge', 'k', '{}')")
            session.execute("select es_append('account-1', 'Declared', '1')")
            session.execute("select * from es_maintain()")
            session.execute("select es_activate()")
            session.execute("select es_create_subscription('s')")
            session.execute("select es_append('account-1', 'Tagged', '{}', tags => '{a}')")
        seen = 0
        for role in ("origin", "replica"):
            session.execute(f"set session_replication_role = {role}")
            for table in REGISTERS:
                there = value(session, f"select count(*) from _eventstream.{table}")
                column = value(
                    session,
                    "select attname from pg_attribute where attrelid = %s::regclass and attnum = 1",
                    f"_eventstream.{table}",
                )
                # A row that lacks everything is refused before anybody looks at what it lacks.
                statements = [f"truncate _eventstream.{table}", f"truncate _eventstream.{table} cascade", f"insert into _eventstream.{table} default values"]
                if there:
                    seen += 1
                    statements += [
                        f"delete from _eventstream.{table}",
                        f"update _eventstream.{table} set {column} = {column}",
                        f"insert into _eventstream.{table} select * from _eventstream.{table} limit 1",
                    ]
                for statement in statements:
                    error = refused(session, statement)
                    assert error.sqlstate == "ES050", (statement, str(error))
        # No projection here, and es_activate() writes no row where the log was made.
        assert seen == (2 * (len(REGISTERS) - 2) if loaded else 2 * 6)


def test_insert_and_copy_of_events_are_refused_from_the_first_append_on(log):
    with log.connect() as session:
        for table, position in (("_eventstream.events", 9), ("_eventstream.events_1", 9), (SECOND, 2**24 + 9)):
            for role in ("origin", "replica"):
                session.execute(f"set session_replication_role = {role}")
                forged = "select tenant_id, stream_id, 4, global_position + 2, occurred_at, max_occurred_at, recorded_at, gen_random_uuid(),"
                forged += " schema_version, event_type, category, recorded_by, subject, recorded_from, salt, chain_hash, payload, metadata"
                error = refused(session, f"insert into {table} {forged} from {table} order by global_position desc limit 1")
                assert error.sqlstate == "ES050", str(error)
                with pytest.raises(psycopg.Error) as copied, session.cursor() as cursor:
                    with cursor.copy(f"copy {table} (stream_id, version, global_position) from stdin") as copy:
                        copy.write(f"1\t9\t{position}\n")
                assert copied.value.sqlstate == "ES050"
        assert verify(session) == []


def test_a_dump_does_not_go_into_a_database_that_has_a_log_of_its_own(log, new_server):
    """It would lose its events on duplicate keys, with an error that nobody reads."""
    server = new_server("taken")
    own = Database(server, "own").create()
    with own.connect() as session:
        session.execute("select es_append('account-7', 'Opened', '{}')")
        before = contents(session)
    dump = run("pg_dump", "--data-only", env=log.server.address(log.name))
    said = run("psql", "-X", "-q", env=server.address("own"), input=dump, check=False)
    assert "written by eventstream's own functions only" in said
    with own.connect() as session:
        assert contents(session) == before
        assert verify(session) == []


# -- positions ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loaded", [True, False], ids=["preloaded", "not preloaded"])
def test_an_append_refuses_a_position_that_is_not_above_the_highest(new_server, loaded):
    database = Database(new_server("set_back", preload=loaded), "books").create()
    with database.connect() as session, database.connect() as other:
        for number in range(10):
            session.execute("select es_append(%s, 'Moved', '{}')", (f"account-{number}",))
        other.execute("select es_append('account-0', 'Moved', '{}')")
        session.execute("select setval('_eventstream.positions', 4)")
        for connection in (session, other, database.connect()):
            error = refused(connection, "select es_append('account-1', 'Moved', '{}')")
            assert error.sqlstate == "ES052", str(error)
            assert "setval('_eventstream.positions', 11)" in error.diag.message_hint
        assert [problem for *_, problem in verify(session) if "sequence" in problem]
        session.execute("select setval('_eventstream.positions', 11)")
        other.execute("select es_append('account-1', 'Moved', '{}')")
        assert verify(session) == []
        assert value(session, "select count(distinct global_position) from _eventstream.events") == 12


# -- functions in use -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def used(log):
    with log.connect() as session:
        session.execute("create schema ledger")
        session.execute(HANDLER.format("ledger.total"))
        session.execute(
            "create function ledger.up(payload jsonb, metadata jsonb) returns jsonb immutable language sql as 'select payload'"
        )
        session.execute("create function ledger.handle(event eventstream.event) returns void language sql as ''")
        session.execute("create function ledger.batch(events eventstream.event[]) returns void language sql as ''")
        session.execute("create function ledger.empty() returns void language sql as ''")
        session.execute("select es_register_fold('total', 'account', 'ledger.total(jsonb, eventstream.event)'::regprocedure)")
        session.execute("select es_register_upcaster('Moved', 1, 'ledger.up(jsonb, jsonb)')")
        session.execute(
            "select es_create_projection('one', 'ledger.handle(eventstream.event)'::regprocedure, reset => 'ledger.empty()'::regprocedure)"
        )
        session.execute("select es_create_projection('many', 'ledger.batch(eventstream.event[])'::regprocedure)")
    return log


@pytest.mark.parametrize(
    ("function", "user"),
    [
        ("total(jsonb, eventstream.event)", "fold total"),
        ("up(jsonb, jsonb)", "upcaster"),
        ("handle(eventstream.event)", "projection one"),
        ("batch(eventstream.event[])", "projection many"),
        ("empty()", "projection one"),
    ],
)
def test_a_function_in_use_is_not_dropped_and_the_refusal_says_by_what(used, function, user):
    with used.connect() as session:
        for statement in (
            f"drop function ledger.{function}",
            f"drop function ledger.{function} cascade",
            "drop schema ledger cascade",
            f"alter function ledger.{function} rename to another",
            f"alter function ledger.{function} set schema public",
            "alter schema ledger rename to books",
        ):
            error = refused(session, statement)
            assert error.sqlstate == "2BP01", (statement, str(error))
            if "schema ledger" not in statement:
                assert user in error.diag.message_primary, error.diag.message_primary
        # Another of that name is nobody's.
        name = function.partition("(")[0]
        session.execute(f"create function ledger.{name}(n point) returns void language sql as ''; drop function ledger.{name}(point)")


@pytest.fixture(params=["async", "inline"])
def kept(request, log):
    """A state table in a schema of its own, with a column and an index that its owner added."""
    with log.connect() as session:
        session.execute("create schema ledger")
        session.execute("select es_register_fold('n', 'account', rules => '{\"on\": {}}')")
        columns = '[{"name": "total", "type": "numeric", "path": "/n"}]'
        session.execute("select es_create_state_table('ledger.totals', 'account', %s, mode => %s)", (columns, request.param))
        session.execute("alter table ledger.totals add note text; create index noted on ledger.totals (note)")
    return log


def test_a_state_table_is_not_dropped_moved_or_robbed_of_columns_while_a_projection_writes_it(kept):
    owner = kept.role("keeper")
    with kept.connect() as session:
        for statement in (
            "drop table ledger.totals",
            "drop table ledger.totals cascade",
            "drop schema ledger cascade",
            "alter table ledger.totals rename to sums",
            "alter table ledger.totals set schema public",
            "alter schema ledger rename to books",
            "alter table ledger.totals drop total",
            "alter table ledger.totals drop column stream cascade",
            "alter table ledger.totals rename total to sum",
            "alter table ledger.totals rename version to at",
            "alter table ledger.totals alter note type varchar(9), alter total type int",
            "alter table ledger.totals alter version type int",
            "alter table ledger.totals drop constraint totals_pkey",
            "alter table if exists ledger.totals drop constraint if exists totals_pkey cascade, add primary key (stream, version)",
        ):
            error = refused(session, statement)
            assert error.sqlstate == "2BP01", (statement, str(error))
            assert 'projection "ledger.totals" of tenant default' in error.diag.message_primary and "es_drop_projection" in error.diag.message_hint
        # What is the owner's own goes; and so does what is no projection's.
        session.execute("alter table ledger.totals alter note type varchar(9), alter total set default 0, alter version set statistics 10")
        session.execute("alter table ledger.totals add constraint mine check (version > 0), add constraint single unique (stream)")
        session.execute("alter table ledger.totals drop constraint mine, drop constraint single")
        session.execute("alter table ledger.totals drop constraint if exists nothing")
        session.execute("alter table ledger.totals rename note to remark; alter table ledger.totals drop remark")
        session.execute("create table ledger.others (total numeric); alter table ledger.others alter total type int; alter table ledger.others drop total; drop table ledger.others")
        session.execute("create table ledger.others (n int primary key); alter table ledger.others drop constraint others_pkey")
        session.execute("create temp table totals (total numeric); alter table totals rename total to sum; drop table totals")
        session.execute(f"alter table ledger.totals owner to {owner}")
    with kept.connect() as session:
        assert refused(session, f"drop owned by {owner} cascade").sqlstate == "2BP01"
        session.execute("begin; set local eventstream.allow_drop = on; alter table ledger.totals rename total to sum; rollback")
        session.execute("alter table ledger.totals owner to current_user")
        session.execute("select es_drop_projection('ledger.totals', drop_table => true)")
        session.execute("drop schema ledger cascade")


def test_a_table_that_its_projection_has_left_is_its_owners(kept):
    with kept.connect() as session:
        session.execute("select es_drop_projection('ledger.totals')")
        session.execute("alter table ledger.totals rename total to sum; alter table ledger.totals set schema public; drop table totals")
        session.execute("select es_append('account-1', 'Moved', '{}')")


def test_functions_go_once_nobody_uses_them_and_can_be_replaced_meanwhile(used):
    with used.connect() as session:
        session.execute(
            "create or replace function ledger.total(state jsonb, event eventstream.event) returns jsonb immutable language sql"
            " as $$ select state || event.payload || '{\"n\": 1}' $$"
        )
        assert value(session, "select es_state('account-1')") == {"n": 1}
        session.execute("select es_unregister_fold('total')")
        session.execute("select es_unregister_upcaster('Moved', 1)")
        session.execute("select es_drop_projection('one'), es_drop_projection('many')")
        session.execute("drop schema ledger cascade")


def test_a_schema_with_many_functions_goes_in_little_time(log):
    """Each function is looked up by its oid: all of them were read for each one, which took seconds for a thousand."""
    with log.connect() as session:
        session.execute(HANDLER.format("total"))
        session.execute("select es_register_fold('total', 'account', 'total(jsonb, eventstream.event)'::regprocedure)")

        def dropped() -> float:
            session.execute("create schema many")
            session.execute(
                "do $$ begin for n in 1..1500 loop"
                " execute format('create function many.f%s() returns int language sql as $f$ select 1 $f$', n); end loop; end $$"
            )
            began = time.monotonic()
            session.execute("drop schema many cascade")
            return time.monotonic() - began

        guarded = dropped()
        with unguarded(session):
            free = dropped()
        assert guarded < 10 * free + 0.5, (guarded, free)


# -- look-alikes ----------------------------------------------------------------------------------------------------------------


def test_schemas_that_only_look_like_ours_are_nobodys_business(log):
    """Who may create a schema could make superusers run functions of his, in a database that does not have the extension."""
    plain = Database(log.server, f"{log.name}_plain").create(extension=False)
    intruder = plain.role("intruder_of_guard")
    try:
        with plain.connect() as session:
            session.execute(f'grant create on database "{plain.name}" to "{intruder}"')
            session.execute("create function ff() returns int language sql as 'select 1'; create table bait (n int)")
        with plain.connect(intruder) as session:
            session.execute("create schema _eventstream; create schema eventstream")
            session.execute(
                "create type eventstream.event as (a bigint, b text, c bigint, d uuid, e text, f int, g jsonb, h jsonb, i text, j timestamptz,"
                " k timestamptz, l text, m text, n text, o bytea, p bytea)"
            )
            session.execute(
                "create function _eventstream.trap() returns text language plpgsql as"
                " $$ begin raise exception 'the trap ran as %', session_user; end $$"
            )
            columns = "id bigint, tenant_id bigint, name text, handler text, event_type text, from_schema_version int"
            for table in ("events", "first_appends", "tenants", "folds", "upcasters"):
                session.execute(f"create table _eventstream.{table} ({columns})")
            session.execute("insert into _eventstream.tenants values (1, 1, 'default')")
            session.execute(
                "create view _eventstream.projections as select 'p'::text as name, 1::bigint as tenant_id, 'event'::text as kind,"
                " _eventstream.trap() as handler, _eventstream.trap() as reset"
            )
            session.execute("create view eventstream.events with (security_barrier) as select * from _eventstream.events")
        with plain.connect() as session:
            for statement in (
                "drop function public.ff()",
                "select * from (select * from eventstream.events) e order by id limit 1",
                "alter table _eventstream.events add more int",
                "alter schema _eventstream rename to harmless",
                "drop schema harmless, eventstream cascade",
            ):
                session.execute(statement)
            session.execute("create extension eventstream")
            session.execute("select es_append('account-1', 'Opened', '{}')")
    finally:
        plain.drop()


def test_what_a_superuser_can_still_do_is_said_where_it_is_promised():
    """The docs never say that something cannot happen, only what is blocked and what is found."""
    guide = (ROOT / "docs" / "operate.md").read_text()
    assert "ES051" in guide and "allow_drop" in guide
