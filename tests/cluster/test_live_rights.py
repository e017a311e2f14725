"""A projection can do what the role that created it can, and no more: by a worker, by a superuser's es_run_projection, and inline in a superuser's append.

Each attack runs on all three ways. `escalated` is a table that only the superuser may write to: a row in it is a hole.
"""

import concurrent.futures
import contextlib
import re

import psycopg
import pytest

import server as servers
from database import Database, passed, rows, value
from server import wait_until

WAYS = ("worker", "session", "inline")
DISASTERS = re.compile(r"PANIC|panicked|was terminated by signal|TRAP:")
COLUMNS = '[{"name": "n", "type": "numeric", "path": "/n"}]'
SETUP = """
create table public.escalated (who text, session text);
create function public.escalate() returns int language plpgsql as $$
begin insert into public.escalated values (current_user, session_user); return 1; end $$;
grant select on public.escalated to public;
"""


@contextlib.contextmanager
def raised(*sqlstates: str):
    with pytest.raises(psycopg.Error) as error:
        yield error
    assert error.value.sqlstate in sqlstates, error.value


def no_disaster(server) -> None:
    assert not [line for line in server.log.read_text(errors="replace").splitlines() if DISASTERS.search(line)]


@pytest.fixture(scope="module")
def busy_server():
    server = servers.Server("busy", **{"eventstream.retry_pause": "1ms", "max_worker_processes": 12}).create()
    yield server
    no_disaster(server)
    server.destroy()


@pytest.fixture(scope="module")
def quiet_server():
    settings = {"eventstream.max_workers": 0, "eventstream.retry_pause": "1ms", "max_prepared_transactions": 4}
    server = servers.Server("quiet", **settings).create()
    yield server
    no_disaster(server)
    server.destroy()


class World:
    """A database with a superuser's session, and a weak role that may manage and read and owns a schema."""

    def __init__(self, server, name):
        self.database = Database(server, name[:40].lower()).create()
        self.session = self.database.connect()
        self.session.execute(SETUP)
        self.weak = self.role("weak", "manage", "read", "append")
        self.weaks = self.connect(self.weak)

    def role(self, name: str, *privileges: str) -> str:
        role = self.database.role(f"{name}_{self.database.name}"[:60])
        self.session.execute(f'create schema "{role}" authorization "{role}"')
        for privilege in privileges:
            self.session.execute("select es_grant(%s, %s)", (role, privilege))
        return role

    def connect(self, role: str):
        session = self.database.connect(role)
        session.execute(f'set search_path = "{role}", public')
        return session

    def handler(self, name: str, body: str, session=None) -> str:
        session = session or self.weaks
        session.execute(f"create function {name}(event eventstream.event) returns void language plpgsql as $body$ begin {body} end $body$")
        return f"{name}(eventstream.event)"

    def status(self, name: str) -> tuple:
        return rows(
            self.session,
            "select status, error_sqlstate, error_message, global_position, attempts from eventstream.projections where name = %s",
            name,
        )[0]

    def close(self):
        self.weaks.close()
        self.session.close()
        self.database.drop()


@pytest.fixture
def make_world(busy_server, quiet_server, request):
    made = []

    def make(way="session"):
        name = f"r{abs(hash(request.node.name)) % 10**8}"
        made.append(World(busy_server if way == "worker" else quiet_server, name))
        return made[-1]

    yield make
    for world in made:
        world.close()


def outcome(world: World, way: str, name: str, handler: str, category: str) -> str | None:
    """What the projection fails with when an event of the category comes; None: it was applied."""
    world.weaks.execute(
        "select es_create_projection(%s, %s, categories => array[%s], max_retries => 0, mode => %s)",
        (name, handler, category, "inline" if way == "inline" else "async"),
    )
    try:
        world.session.execute("select es_append(%s, 'Happened', '{\"n\": 1}')", (f"{category}-1",))
    except psycopg.Error as error:
        assert way == "inline", error
        return error.sqlstate
    if way == "session":
        world.session.execute("select es_run_projection(%s)", (name,))
    if way == "worker":
        last = value(world.session, "select es_horizon()")
        wait_until(lambda: world.status(name)[0] == "stopped" or world.status(name)[3] >= last, 20, f"{name} to do or fail")
    status, sqlstate, *_ = world.status(name)
    return sqlstate if status == "stopped" else None


ATTACKS = {
    "alter role": "execute format('alter role %I superuser', current_user);",
    "set role": "execute 'set role postgres'; perform public.escalate();",
    "set role none": "execute 'set role none'; perform public.escalate();",
    "reset role": "execute 'reset role'; perform public.escalate();",
    "set local role": "execute 'set local role postgres'; perform public.escalate();",
    "config role": "perform set_config('role', 'postgres', false); perform public.escalate();",
    "session authorization": "execute 'set session authorization postgres'; perform public.escalate();",
    "session authorization default": "execute 'set session authorization default'; perform public.escalate();",
    "config session authorization": "perform set_config('session_authorization', 'postgres', false); perform public.escalate();",
    "replica": "perform set_config('session_replication_role', 'replica', false);",
    "durability": "perform set_config('eventstream.durability', 'relaxed', false);",
    "temp table": "execute 'create temp table t (n int)';",
    "temp view": "execute 'create temp view v as select 1';",
    "temp schema": "execute 'create table pg_temp.t (n int)';",
    "hold cursor": "execute 'declare c cursor with hold for select public.escalate()';",
    "deferred trigger": "insert into deferred values (1);",
    "listen": "execute 'listen x';",
    "prepare": "execute 'prepare p as select public.escalate()';",
    "other's table": "insert into public.escalated values ('me', 'me');",
    "log": "perform count(*) from _eventstream.events;",
    "progress": "update _eventstream.projection_progress set global_position = 0;",
    "file": "perform pg_read_file('PG_VERSION');",
    "program": "copy (select 1) to program 'true';",
    "load": "execute 'load ''plpgsql''';",
    "signal": "perform pg_terminate_backend(pid) from pg_stat_activity where usename = 'postgres' and pid <> pg_backend_pid();",
    "own backend": "perform pg_cancel_backend(pg_backend_pid());",
    "grant": "perform es_create_tenant('mine');",
    "activate": "perform es_activate();",
    "analyze": "execute 'create index on traps (public.escalate())';",
}
# What no error stops must not have done anything.
HARMLESS = {"own backend", "activate"}


@pytest.mark.parametrize("way", WAYS)
def test_a_weak_roles_handler_can_do_no_more_than_the_role(make_world, way):
    world = make_world(way)
    world.weaks.execute("create table deferred (n int); create table traps (n int)")
    world.weaks.execute(
        "create function fires() returns trigger language plpgsql as $$ begin perform public.escalate(); return null; end $$;"
        "create constraint trigger fires after insert on deferred deferrable initially deferred for each row execute function fires()"
    )
    found = {}
    for number, (name, attack) in enumerate(ATTACKS.items()):
        if name in HARMLESS and way != "inline":
            continue
        handler = world.handler(f"attack_{number}", attack)
        found[name] = outcome(world, way, f"attack {number}", handler, f"c{number}")
        world.session.execute("select es_drop_projection(%s)", (f"attack {number}",))
    assert rows(world.session, "select * from public.escalated") == []
    assert value(world.session, "select count(*) from pg_roles where rolsuper and rolname like 'weak%%'") == 0
    refused = {"42501", "0A000", "22023", "55P02", "42P16", "42P17"}
    assert {name: state for name, state in found.items() if state not in refused and name not in HARMLESS} == {}
    # The session is as it was.
    assert value(world.session, "select current_user::text || session_user || current_setting('session_replication_role')") == "postgrespostgresorigin"


@pytest.mark.parametrize("way", WAYS)
def test_what_a_handler_sets_ends_with_it(make_world, way):
    world = make_world(way)
    before = rows(world.session, "select name, setting from pg_settings where name in ('search_path', 'TimeZone', 'work_mem', 'eventstream.tenant')")
    world.weaks.execute("create table seen (path text, zone text, who text)")
    # An operator and a function of the weak role's that stand in the way of pg_catalog's.
    world.weaks.execute("create function mine(text, text) returns bool language plpgsql as $$ begin perform public.escalate(); return true; end $$")
    world.weaks.execute("create operator = (leftarg = text, rightarg = text, function = mine)")
    world.weaks.execute("create function now() returns timestamptz language plpgsql as $$ begin perform public.escalate(); return null; end $$")
    handler = world.handler(
        "sets",
        "insert into seen values (current_setting('search_path'), current_setting('TimeZone'), current_user);"
        f" perform set_config('search_path', '\"{world.weak}\", pg_catalog, pg_temp', false), set_config('TimeZone', 'Asia/Tokyo', false),"
        "  set_config('work_mem', '64kB', false), set_config('eventstream.tenant', 'nobody', false), pg_advisory_lock(4711);"
        " execute 'set plan_cache_mode = force_custom_plan';",
    )
    for number in range(3):
        assert outcome(world, way, f"sets {number}", handler, f"c{number}") is None
        world.session.execute("select es_append(%s, 'Happened', '{\"n\": 1}')", (f"d{number}-1",))
    assert rows(world.session, f'select distinct path, zone, who from "{world.weak}".seen') == [
        (f"{world.weak}, public, pg_temp, eventstream_pinned", "UTC", world.weak)
    ]
    assert value(world.session, "select count(*) from public.escalated") == 0
    assert before == rows(
        world.session, "select name, setting from pg_settings where name in ('search_path', 'TimeZone', 'work_mem', 'eventstream.tenant')"
    )
    if way == "worker":
        assert value(world.session, "select count(*) from pg_locks where locktype = 'advisory' and objid = 4711") == 0


@pytest.mark.parametrize("way", WAYS)
def test_a_state_tables_triggers_checks_and_defaults_run_as_its_registrant(make_world, way):
    world = make_world(way)
    weaks = world.weaks
    weaks.execute("create table ran (what text, who text)")
    weaks.execute("create function note(what text) returns int language plpgsql as $$ begin insert into ran values (what, current_user); return 1; end $$")
    weaks.execute("create function is_fine(n numeric) returns bool language plpgsql as $$ begin perform note('check'); return true; end $$")
    weaks.execute(
        "create function fires() returns trigger language plpgsql as $$ begin perform note(tg_when); perform es_append('forged-1', 'Forged', '{}');"
        " begin perform public.escalate(); exception when insufficient_privilege then end;"
        " begin perform set_config('role', 'postgres', false); perform public.escalate(); exception when others then end; return new; end $$"
    )
    weaks.execute("select es_register_fold('f', 'thing', initial_state => '{\"n\": 0}', rules => '{\"on\": {\"Happened\": [{\"add\": {\"/n\": \"/n\"}}]}}')")
    mode = "inline" if way == "inline" else "async"
    weaks.execute("select es_create_state_table('things', 'thing', %s, mode => %s)", (COLUMNS, mode))
    weaks.execute("alter table things add extra int default note('default'), add check (is_fine(n))")
    weaks.execute("create trigger fires before insert or update on things for each row execute function fires()")
    weaks.execute("create trigger fires_too after insert or update on things for each row execute function fires()")
    world.session.execute("select es_append('thing-1', 'Happened', '{\"n\": 5}')")
    if way == "session":
        world.session.execute("select es_run_projection('things')")
    if way == "worker":
        wait_until(lambda: value(world.session, f'select count(*) from "{world.weak}".things') == 1, 20, "the row")
    assert rows(weaks, "select distinct who from ran") == [(world.weak,)]
    assert {what for (what,) in rows(weaks, "select what from ran")} == {"check", "default", "BEFORE", "AFTER"}
    assert value(world.session, "select count(*) from public.escalated") == 0
    assert rows(world.session, "select distinct recorded_by, metadata ->> 'actor' from eventstream.events where stream = 'forged-1'") == [
        (world.weak, "projection things")
    ]


def may_drop(world):
    """What a superuser may allow: to drop a table that a projection writes."""
    world.session.execute(f'grant set on parameter eventstream.allow_drop to "{world.weak}"')
    world.weaks.execute("set eventstream.allow_drop = on")
    world.session.execute(f'revoke set on parameter eventstream.allow_drop from "{world.weak}"')


def test_the_table_of_a_projection_must_be_the_creators_own(make_world):
    world = make_world()
    world.session.execute("create table public.precious (stream text)")
    world.weaks.execute("select es_register_fold('f', 'thing', rules => '{\"on\": {}}')")
    for table in ("public.precious", "precious", "public.precious; drop table public.precious; --", "x; alter role y superuser; --", "", "nowhere.at_all", "public.escalated"):
        with raised("ES005", "42602", "3F000", "22023"):
            world.weaks.execute("select eventstream.create_table_projection('p', 'thing', '[]', 'f', 'async', %s)", (table,))
    # One that becomes another's later is neither written to nor dropped.
    world.weaks.execute(f"select es_create_state_table('mine', 'thing', '{COLUMNS}')")
    may_drop(world)
    world.weaks.execute("drop table mine")
    world.session.execute(f'create table "{world.weak}".mine (stream text, version bigint, n numeric)')
    with raised("ES005") as error:
        world.session.execute("select es_drop_projection('mine', true)")
    assert "drop_table must be false" in str(error.value)
    assert value(world.session, "select to_regclass(%s)::text", f"{world.weak}.mine") is not None
    world.session.execute("select es_drop_projection('mine')")
    # And one's own goes.
    world.weaks.execute(f"select es_create_state_table('ours', 'thing', '{COLUMNS}')")
    world.session.execute("select es_drop_projection('ours', true)")
    assert value(world.session, "select to_regclass(%s)", f"{world.weak}.ours") is None


@pytest.mark.parametrize("way", WAYS)
def test_a_superuser_writes_to_no_table_that_another_role_put_in_the_place_of_his(make_world, way):
    world = make_world(way)
    world.session.execute("select es_register_fold('f', 'thing', initial_state => '{\"n\": 0}', rules => '{\"on\": {\"Happened\": [{\"add\": {\"/n\": \"/n\"}}]}}')")
    mode = "inline" if way == "inline" else "async"
    world.session.execute("select es_create_state_table(%s, 'thing', %s, mode => %s)", (f"{world.weak}.things", COLUMNS, mode))
    # Whoever owns the schema may drop what is in it.
    may_drop(world)
    world.weaks.execute("drop table things")
    world.weaks.execute("create table things (stream text primary key, version bigint, n numeric)")
    world.weaks.execute("create function fires() returns trigger language plpgsql as $$ begin perform public.escalate(); return new; end $$")
    world.weaks.execute("create trigger fires before insert or update or delete on things for each row execute function fires()")
    failed = contextlib.nullcontext() if way != "inline" else raised("55000")
    with failed:
        world.session.execute("select es_append('thing-1', 'Happened', '{\"n\": 5}')")
    if way == "session":
        world.session.execute("select es_run_projection()")
    if way == "worker":
        wait_until(lambda: world.status(f"{world.weak}.things")[4] > 0, 20, "the failure")
    assert value(world.session, "select count(*) from public.escalated") == 0
    if way != "inline":
        assert world.status(f"{world.weak}.things")[1] == "55000"
        assert "is not a table of role" in world.status(f"{world.weak}.things")[2]


@pytest.mark.parametrize("is_known", [True, False])
def test_a_table_that_is_replaced_while_a_superuser_comes_to_write_is_not_written_to(make_world, is_known):
    world = make_world()
    session = world.session
    session.execute("select es_register_fold('f', 'thing', initial_state => '{\"n\": 0}', rules => '{\"on\": {\"Happened\": [{\"add\": {\"/n\": \"/n\"}}]}}')")
    session.execute("select es_create_state_table(%s, 'thing', %s)", (f"{world.weak}.things", COLUMNS))
    session.execute("select es_append('thing-1', 'Happened', '{\"n\": 5}')")
    session.execute("select es_run_projection()")
    session.execute("select es_append('thing-1', 'Happened', '{\"n\": 5}')")
    world.weaks.execute("create function fires() returns trigger language plpgsql as $$ begin perform public.escalate(); return new; end $$")
    may_drop(world)
    world.weaks.execute("begin")
    world.weaks.execute("drop table things")
    world.weaks.execute("create table things (stream text primary key, version bigint, n numeric)")
    world.weaks.execute("create trigger fires before insert or update or delete on things for each row execute function fires()")
    with (session if is_known else world.database.connect()) as writer, concurrent.futures.ThreadPoolExecutor(1) as pool, world.database.connect() as watcher:
        running = pool.submit(writer.execute, "select es_run_projection()")
        pid = writer.info.backend_pid
        wait_until(lambda: value(watcher, "select cardinality(pg_blocking_pids(%s)) > 0", pid), 10, "the other session to wait")
        world.weaks.execute("commit")
        running.result(30)
        assert value(watcher, "select count(*) from public.escalated") == 0
        assert rows(watcher, f'select * from "{world.weak}".things') == []
        found = rows(watcher, "select error_sqlstate, error_message from eventstream.projections")[0]
        assert found[0] == "55000" and "is not a table of role" in found[1]


def test_what_needs_which_privilege(make_world):
    world = make_world()
    world.session.execute("create function h(event eventstream.event) returns void language sql as ''")
    world.session.execute("select es_create_projection('p', 'h(eventstream.event)')")
    world.session.execute("select es_register_fold('f', 'thing', rules => '{\"on\": {}}')")
    world.session.execute("select es_append('thing-1', 'Happened', '{}')")
    calls = [
        "es_create_projection('q', 'h(eventstream.event)')",
        f"es_create_state_table('q', 'thing', '{COLUMNS}')",
        "eventstream.create_table_projection('q', 'thing', '[]', null, 'async', 't')",
        "es_alter_projection('p', '{\"batch_size\": 1}')",
        "es_alter_projection('p', '{\"handler\": \"public.h(eventstream.event)\"}')",
        "es_pause_projection('p')",
        "es_resume_projection('p')",
        "es_rebuild_projection('p')",
        "es_run_projection('p')",
        "es_run_projection()",
        "es_skip_event('p', 1, 'because')",
        "es_drop_projection('p', true)",
        "es_retry_dead_letter(1)",
        "es_drop_dead_letter(1, 'because')",
    ]
    for privileges in ((), ("read",), ("append",), ("read", "append")):
        role = world.role("r" + "_".join(privileges), *privileges)
        with world.connect(role) as session:
            for call in calls:
                with raised("42501"):
                    session.execute(f"select {call}")
            with raised("42501"):
                session.execute("select * from eventstream.projections")
            if "read" not in privileges:
                with raised("42501"):
                    session.execute("select es_wait_for('p')")
    # Manage alone does not show events.
    role = world.role("manager", "manage")
    with world.connect(role) as session:
        for call in calls[:2]:
            with raised("42501"):
                session.execute(f"select {call}")
        with raised("42501"):
            session.execute("select es_alter_projection('p', '{\"handler\": \"public.h(eventstream.event)\"}')")
    assert world.status("p")[0] == "running"


def test_another_tenants_projections_are_not_there(make_world):
    world = make_world()
    world.session.execute("select es_create_tenant('other')")
    world.session.execute("set eventstream.tenant = 'default'")
    world.session.execute("create function h(event eventstream.event) returns void language sql as ''")
    world.session.execute("select es_create_projection('p', 'h(eventstream.event)')")
    role = world.role("stranger")
    for privilege in ("manage", "read", "append"):
        world.session.execute("select es_grant(%s, %s, tenant => 'other')", (role, privilege))
    with world.connect(role) as session:
        for call in (
            "es_alter_projection('p', '{}')", "es_pause_projection('p')", "es_resume_projection('p')", "es_rebuild_projection('p')",
            "es_run_projection('p')", "es_skip_event('p', 1, 'x')", "es_drop_projection('p')", "es_wait_for('p')",
        ):  # fmt: skip
            with raised("ES020"):
                session.execute(f"select {call}")
        assert rows(session, "select name from eventstream.projections") == []
        assert value(session, "select es_run_projection()") == 0
        with raised("42501"):
            session.execute("set eventstream.tenant = 'default'; select es_pause_projection('p')")
    assert world.status("p")[0] == "running"


@pytest.mark.parametrize("way", WAYS)
def test_a_handler_works_in_its_projections_tenant(make_world, way):
    world = make_world(way)
    world.session.execute("select es_create_tenant('other')")
    world.session.execute("set eventstream.tenant = 'default'")
    for privilege in ("manage", "read", "append"):
        world.session.execute("select es_grant(%s, %s, tenant => 'other')", (world.weak, privilege))
    handler = world.handler("echo", "perform es_append('echo-1', 'Echoed', jsonb_build_object('tenant', current_setting('eventstream.tenant')));")
    inline = "inline" if way == "inline" else "async"
    world.weaks.execute("set eventstream.tenant = 'other'")
    world.weaks.execute("select es_create_projection('echo', %s, categories => '{thing}', mode => %s)", (handler, inline))
    world.session.execute("set eventstream.tenant = 'other'")
    world.session.execute("select es_append('thing-1', 'Happened', '{}')")
    if way == "session":
        world.session.execute("select es_run_projection('echo')")
    if way == "worker":
        wait_until(lambda: value(world.session, "select count(*) from eventstream.events where stream = 'echo-1'") or world.status("echo")[4], 20, "the echo")
    assert rows(world.session, "select tenant, payload ->> 'tenant', recorded_by from eventstream.events where stream = 'echo-1'") == [
        ("other", "other", world.weak)
    ]
    assert value(world.session, "show eventstream.tenant") == "other"


@pytest.mark.parametrize("way", WAYS)
def test_no_event_is_shown_that_the_registrant_may_not_read_any_more(make_world, way):
    world = make_world(way)
    session, weak = world.session, world.weak
    session.execute("select es_revoke(%s, 'read')", (weak,))
    for category in ("open", "also"):
        session.execute("select es_grant(%s, 'read', category => %s)", (weak, category))
    world.weaks.execute("create table shown (stream text, who text)")
    handler = world.handler("show", "insert into shown values (event.stream, current_user);")
    mode = "inline" if way == "inline" else "async"
    with raised("42501"):
        world.weaks.execute("select es_create_projection('no', %s, categories => '{secret}')", (handler,))
    with raised("42501"):
        world.weaks.execute("select es_create_projection('no', %s, categories => '{open,secret}')", (handler,))
    world.weaks.execute("select es_create_projection('all', %s, mode => %s, max_retries => 0)", (handler, mode))
    world.weaks.execute("select es_create_projection('both', %s, categories => '{open,also}', mode => %s, max_retries => 0)", (handler, mode))

    def append(*streams):
        for stream in streams:
            session.execute("select es_append(%s, 'Happened', '{}')", (stream,))
        last = value(session, "select es_horizon()")
        if way == "session":
            session.execute("select es_run_projection()")
        if way == "worker":
            wait_until(lambda: all(world.status(p)[0] == "stopped" or world.status(p)[3] >= last for p in ("all", "both")), 20, "both")

    append("open-1", "secret-1", "also-1")
    assert rows(world.weaks, "select stream, count(*) from shown group by 1 order by 1") == [("also-1", 2), ("open-1", 2)]
    session.execute("select es_revoke(%s, 'read', category => 'also')", (weak,))
    if way == "inline":
        with raised("42501"):
            append("also-2")
    else:
        append("also-2", "open-2")
        # What it names must be readable; what it does not name is just not shown.
        assert world.status("both")[:2] == ("stopped", "42501")
        assert 'category "also"' in world.status("both")[2]
        assert world.status("all")[0] == "running"
    session.execute("select es_revoke(%s, 'read', category => 'open')", (weak,))
    if way == "inline":
        with raised("42501"):
            append("open-3")
    else:
        append("open-3")
        assert world.status("all")[:2] == ("stopped", "42501")
    assert [stream for (stream,) in rows(world.weaks, "select stream from shown") if stream not in ("open-1", "also-1", "open-2")] == []


@pytest.mark.parametrize("way", WAYS)
def test_a_state_table_is_not_filled_with_what_its_registrant_may_not_read_any_more(make_world, way):
    world = make_world(way)
    session, weak = world.session, world.weak
    fold = "select es_register_fold('f', 'thing', initial_state => '{\"n\": 0}', rules => '{\"on\": {\"Happened\": [{\"%s\": {\"/n\": \"/n\"}}]}}')"
    session.execute(fold % "add")
    mode = "inline" if way == "inline" else "async"
    world.weaks.execute("select es_create_state_table('things', 'thing', %s, mode => %s)", (COLUMNS, mode))
    if way == "worker":
        wait_until(lambda: world.status("things")[0] == "running", 20, "the empty table")
    session.execute("select es_pause_projection('things')")
    session.execute("select es_revoke(%s, 'read')", (weak,))
    session.execute("select es_append('thing-1', 'Happened', '{\"n\": 5}')")
    calls = [lambda: world.weaks.execute("select es_rebuild_projection('things')"), lambda: session.execute("select es_resume_projection('things')")]
    # Whoever registers a fold fills the tables of others.
    calls.append(lambda: session.execute(fold % "subtract"))
    for number, call in enumerate(calls):
        if way == "inline":
            if number == 2:
                session.execute("select es_grant(%s, 'read')", (weak,))
                session.execute("select es_resume_projection('things')")
                session.execute("select es_revoke(%s, 'read')", (weak,))
                world.weaks.execute("delete from things")
            with raised("42501") as error:
                call()
            assert weak in str(error.value)
        else:
            call()
            if way == "session":
                for _ in range(7):
                    with contextlib.suppress(psycopg.Error):
                        session.execute("select es_run_projection('things')")
            wait_until(lambda: world.status("things")[0] == "stopped", 30, "the stop")
            assert world.status("things")[1] == "42501"
        assert rows(world.weaks, "select * from things") == []
    session.execute("select es_grant(%s, 'read')", (weak,))
    if way == "inline":
        session.execute(fold % "subtract")
    else:
        session.execute("select es_resume_projection('things')")
    if way == "session":
        session.execute("select es_run_projection('things')")
    wait_until(lambda: rows(world.weaks, "select stream, n from things") == [("thing-1", -5)], 20, "the row")


@pytest.mark.parametrize("names", ["its category", "nothing"])
def test_a_dead_letter_is_not_shown_to_a_registrant_that_may_not_read_it_any_more(make_world, names):
    world = make_world()
    session, weak = world.session, world.weak
    session.execute("select es_revoke(%s, 'read')", (weak,))
    for category in ("open", "secret"):
        session.execute("select es_grant(%s, 'read', category => %s)", (weak, category))
    world.weaks.execute("create table shown (stream text); create table broken ()")
    handler = world.handler("show", "perform 1 / (select count(*) - count(*) from broken);")
    categories = ["secret"] if names == "its category" else None
    world.weaks.execute("select es_create_projection('p', %s, categories => %s, on_error => 'skip', max_retries => 0)", (handler, categories))
    session.execute("select es_append('secret-1', 'Happened', '{}')")
    session.execute("select es_run_projection('p')")
    letter = value(session, "select id from eventstream.dead_letters")
    world.weaks.execute("create or replace function show(event eventstream.event) returns void language sql as 'insert into shown values (event.stream)'")
    session.execute("select es_revoke(%s, 'read', category => 'secret')", (weak,))
    for retrying in (session, world.weaks):
        with raised("42501") as error:
            retrying.execute("select es_retry_dead_letter(%s)", (letter,))
        assert 'category "secret"' in str(error.value)
    assert rows(world.weaks, "select * from shown") == []
    session.execute("select es_grant(%s, 'read', category => 'secret')", (weak,))
    world.weaks.execute("select es_retry_dead_letter(%s)", (letter,))
    assert rows(world.weaks, "select * from shown") == [("secret-1",)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("loss", ["execute", "role"])
def test_a_projection_stops_with_a_reason_where_its_registrant_lost_what_it_needs(make_world, way, loss):
    world = make_world(way)
    session = world.session
    session.execute("create function h(event eventstream.event) returns void language sql as ''")
    role = world.role("passing", "manage", "read")
    with world.connect(role) as theirs:
        mode = "inline" if way == "inline" else "async"
        theirs.execute("select es_create_projection('p', 'public.h(eventstream.event)', mode => %s)", (mode,))
    if loss == "execute":
        session.execute("revoke execute on function h(eventstream.event) from public")
        said = "may not execute public.h any more"
    else:
        session.execute(f'drop owned by "{role}"; drop role "{role}"')
        said = f"the role {role} that registered it does not exist any more"
    if way == "inline":
        with raised("ES021") as error:
            session.execute("select es_append('thing-1', 'Happened', '{}')")
        assert said in str(error.value)
        return
    session.execute("select es_append('thing-1', 'Happened', '{}')")
    if way == "session":
        session.execute("select es_run_projection('p')")
    wait_until(lambda: world.status("p")[0] == "stopped", 20, "the stop")
    assert said in world.status("p")[2]
    if loss == "execute":
        session.execute("grant execute on function h(eventstream.event) to public")
        session.execute("select es_resume_projection('p')")
        if way == "session":
            assert value(session, "select es_run_projection('p')") == 1
        wait_until(lambda: passed(session, world.status("p")[3]) == 1, 20, "the event")


def test_a_function_that_another_role_chose_is_not_taken_over(make_world):
    world = make_world()
    trap = world.handler("trap", "perform public.escalate();")
    world.weaks.execute("create function trap_reset() returns void language sql as 'select public.escalate()'")
    world.weaks.execute("select es_create_projection('p', %s, reset => 'trap_reset()')", (trap,))
    session = world.session
    session.execute("create function good(event eventstream.event) returns void language sql as ''; create function fine() returns void language sql as ''")
    for settings in ('{"handler": "good(eventstream.event)"}', '{"reset": "fine()"}'):
        with raised("ES005") as error:
            session.execute("select es_alter_projection('p', %s)", (settings,))
        assert "would run as postgres" in str(error.value)
    session.execute("select es_alter_projection('p', '{\"batch_size\": 7}')")
    assert value(session, "select registrant from eventstream.projections") == world.weak
    session.execute("select es_alter_projection('p', '{\"handler\": \"good(eventstream.event)\", \"reset\": \"fine()\"}')")
    assert value(session, "select registrant from eventstream.projections") == "postgres"
    # The weak role may take it back, with functions that it may execute, and becomes the registrant again.
    world.weaks.execute("select es_alter_projection('p', %s)", ('{"handler": "trap(eventstream.event)", "reset": "trap_reset()"}',))
    session.execute("select es_append('thing-1', 'Happened', '{}')")
    with raised("42501"):
        session.execute("select es_rebuild_projection('p')")
    session.execute("select es_run_projection('p')")
    assert world.status("p")[1] == "42501"
    assert value(session, "select count(*) from public.escalated") == 0


# What a superuser may register, and how what is registered is called afterwards: {f} is the function without its arguments.
REGISTRATIONS = {
    "event": ("(event eventstream.event) returns void", "es_create_projection('p', '{f}(eventstream.event)', max_retries => 0)"),
    "batch": ("(events eventstream.event[]) returns void", "es_create_projection('p', '{f}(eventstream.event[])', max_retries => 0)"),
    "reset": ("() returns void", "es_create_projection('p', 'good(eventstream.event)', reset => '{f}()')"),
    "fold": ("(state jsonb, event eventstream.event) returns jsonb immutable", "es_register_fold('f', 'thing', '{f}(jsonb, eventstream.event)')"),
    "upcaster": ("(payload jsonb, metadata jsonb) returns jsonb immutable", "es_register_upcaster('Happened', 1, '{f}(jsonb, jsonb)')"),
}
USES = {
    "event": "es_run_projection('p')",
    "batch": "es_run_projection('p')",
    "reset": "es_rebuild_projection('p')",
    "fold": "es_state('thing-1')",
    "upcaster": "count(*) from es_read('thing-1')",
}
BODY = "language plpgsql as $$ begin perform public.escalate(); return{result}; end $$"


def function(session, name: str, kind: str) -> None:
    signature = REGISTRATIONS[kind][0]
    session.execute(f"create or replace function {name}{signature} {BODY.format(result=' null' if 'jsonb' in signature else '')}")


@pytest.mark.parametrize("kind", REGISTRATIONS)
def test_a_function_is_not_called_with_the_rights_of_a_role_that_does_not_trust_its_owner(make_world, kind):
    world = make_world()
    session, weak = world.session, world.weak
    session.execute("create function good(event eventstream.event) returns void language sql as ''")
    call = REGISTRATIONS[kind][1]
    # A stranger's function is refused where it is registered …
    function(world.weaks, f'"{weak}".theirs', kind)
    with raised("ES005") as error:
        session.execute(f"select {call.format(f=f'{weak}.theirs')}")
    assert f"is of role {weak}" in str(error.value) and 'owner to "postgres"' in error.value.diag.message_hint
    other = world.role("other", "manage", "read")
    with world.connect(other) as others:
        world.weaks.execute(f'grant usage on schema "{weak}" to "{other}"')
        with raised("ES005"):
            others.execute(f"select {call.format(f=f'{weak}.theirs')}")
        # … but not that of a superuser, nor of a role that has the registrant's rights.
        function(session, "public.ours", kind)
        with contextlib.suppress(psycopg.errors.UndefinedFunction), others.transaction(force_rollback=True):
            others.execute(f"select {call.format(f='public.ours').replace('good(', 'public.good(')}")
        # Being a member of the owner does not do: its other members may replace the function, too.
        session.execute(f'grant "{weak}" to "{other}"')
        with raised("ES005"):
            others.execute(f"select {call.format(f=f'{weak}.theirs')}")
        session.execute(f'revoke "{weak}" from "{other}"; grant "{other}" to "{weak}"')
        with others.transaction(force_rollback=True):
            others.execute(f"select {call.format(f=f'{weak}.theirs').replace('good(', 'public.good(')}")
    # And where one takes the place of the superuser's afterwards, whom it would serve.
    function(session, f'"{weak}".mine', kind)
    session.execute(f"select {call.format(f=f'{weak}.mine')}")
    session.execute("select es_append('thing-1', 'Happened', '{}')")
    arguments = {"event": "(eventstream.event)", "batch": "(eventstream.event[])", "reset": "()", "fold": "(jsonb, eventstream.event)", "upcaster": "(jsonb, jsonb)"}[kind]
    with raised("2BP01"):
        world.weaks.execute(f'drop function "{weak}".mine{arguments}')
    session.execute(f'alter function "{weak}".mine{arguments} owner to "{weak}"')
    function(world.weaks, f'"{weak}".mine', kind)
    use = f"select {USES[kind]}"
    reason = ""
    try:
        session.execute(use)
        reason = world.status("p")[2]
    except psycopg.Error as failure:
        reason = str(failure)
    assert f"is of role {weak} by now" in reason and 'owner to "postgres"' in reason, reason
    assert value(session, "select count(*) from public.escalated") == 0
    # As the reason says.
    session.execute(f'alter function "{weak}".mine{arguments} owner to postgres')
    if kind in ("event", "batch"):
        session.execute("select es_resume_projection('p')")
    with contextlib.suppress(psycopg.Error):
        session.execute(use)
        assert value(session, "select count(*) from public.escalated") == 1 or kind in ("fold", "upcaster")
    # Rights that end while a session knows the function.
    with world.connect(other) as others:
        others.execute("set search_path = public")
        session.execute("select es_drop_projection(name) from eventstream.projections")
        if kind == "upcaster":
            session.execute("select es_unregister_upcaster('Happened', 1)")
        session.execute("create or replace function public.escalate() returns int language sql immutable as 'select 1'")
        others.execute(f"select {call.format(f=f'{weak}.theirs')}")
        with contextlib.suppress(psycopg.Error):
            session.execute(use)
            session.execute("select es_run_projection('p')")
        session.execute(f'revoke "{other}" from "{weak}"')
        session.execute("select es_append('thing-1', 'Happened', '{}')")
        try:
            session.execute(use)
            reason = world.status("p")[2]
        except psycopg.Error as failure:
            reason = str(failure)
        assert f"is of role {weak} by now" in reason and f'owner to "{other}"' in reason, reason


def test_what_a_reset_appends_is_its_registrants(make_world):
    world = make_world()
    handler = world.handler("h", "null;")
    world.weaks.execute("create function resets() returns void language sql as $$ select es_append('forged-1', 'Forged', '{}') $$")
    world.weaks.execute("select es_create_projection('p', %s, reset => 'resets()')", (handler,))
    world.session.execute("select es_rebuild_projection('p')")
    assert rows(world.session, "select recorded_by, metadata ->> 'actor' from eventstream.events") == [(world.weak, "projection p")]


def test_a_state_table_is_made_where_its_creator_may_create(make_world):
    world = make_world()
    other = world.role("other", "manage", "read")
    world.weaks.execute("select es_register_fold('f', 'thing', rules => '{\"on\": {}}')")
    for schema in ("public", other, "pg_catalog", "eventstream", "_eventstream", "information_schema"):
        with raised("42501", "ES005"):
            world.weaks.execute("select es_create_state_table(%s, 'thing', %s)", (f'"{schema}".t', COLUMNS))
    with raised("3F000", "ES005"):
        world.weaks.execute("select es_create_state_table('nowhere.t', 'thing', %s)", (COLUMNS,))
    for schema in ("pg_temp", "pg_toast"):
        with pytest.raises(psycopg.Error):
            world.weaks.execute("select es_create_state_table(%s, 'thing', %s)", (f"{schema}.t", COLUMNS))
    assert rows(world.session, "select name from eventstream.projections") == []


@pytest.mark.parametrize("way", WAYS)
def test_row_security_holds_for_a_handler(make_world, way):
    world = make_world(way)
    session, weak = world.session, world.weak
    session.execute("create table public.guarded (n int, owner text); insert into public.guarded values (1, 'postgres'), (2, 'weak')")
    session.execute("alter table public.guarded enable row level security; create policy own on public.guarded using (owner = 'weak')")
    session.execute(f'grant select, update on public.guarded to "{weak}"')
    world.weaks.execute("create table found (n int)")
    handler = world.handler("look", "insert into found select g.n from public.guarded g; update public.guarded set n = n + 10;")
    assert outcome(world, way, "look", handler, "thing") is None
    assert rows(world.weaks, "select n from found") == [(2,)]
    assert rows(session, "select n from public.guarded order by 1") == [(1,), (12,)]


def test_pg_monitor_sees_and_changes_nothing(make_world):
    world = make_world()
    world.session.execute("create function h(event eventstream.event) returns void language sql as ''")
    world.session.execute("select es_create_projection('p', 'h(eventstream.event)')")
    monitor = world.role("monitor")
    world.session.execute(f'grant pg_monitor to "{monitor}"')
    with world.connect(monitor) as session:
        assert rows(session, "select name from eventstream.projections") == [("p",)]
        for call in ("es_pause_projection('p')", "es_run_projection('p')", "es_drop_projection('p')", "es_drop_projection('p', true)"):
            with raised("42501"):
                session.execute(f"select {call}")
    assert world.status("p")[0] == "running"
