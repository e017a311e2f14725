"""Tenant and categories that a view shows are of one moment: what a statement sets while it reads (a tenant, a role) opens to it no row that it would not be shown before or after, in any view.
PostgreSQL evaluates what a view asks of the role when it is first needed, so a condition that finds nothing at first leaves time in between."""

import re

import psycopg
import pytest

from database import Database, rows, value
from server import Server

RULES = '{"on": {"Moved": [{"add": {"/n": "/n"}}]}}'
#: They change while the test looks.
MOVING = {"lag_seconds", "events_per_second", "eta", "percent", "detail", "counted_at", "value"}
#: What a view may ask besides: nothing that depends on the tenant that is the current one.
TENANTLESS = {"is_home", "role_of", "content_digest", "tasks", "health", "stats", "horizon_holders"}


def fill(session, tenant):
    rows(session, f"select set_config('eventstream.tenant', '{tenant}', false)")
    for category in ("stock", "secret"):
        name = f"{tenant}{category}"
        # One name that both tenants have, one of its own.
        for stream, n in ((f"{category}-1", 1), (f"{category}-{tenant}", 2)):
            session.execute("select es_append(%s, 'Moved', jsonb_build_object('n', %s::int, 'of', %s::text), tags => array['a:b'])", (stream, n, name))
        for fold in (category, name):
            session.execute("select es_register_fold(%s, category => %s, rules => %s, is_default => false)", (fold, category, RULES))
        session.execute("select es_snapshot(%s, fold => %s)", (f"{category}-1", category))
        session.execute("select es_register_upcaster(%s, 1, 'public.same(jsonb, jsonb)')", (f"{name}Type",))
        for event_type in ("Moved", f"{name}Type"):
            session.execute("select es_create_event_type(%s, if_not_exists => true)", (event_type,))
        session.execute("select es_alter_category(%s, '{\"actor\": \"optional\", \"foldable\": \"optional\"}')", (category,))
        session.execute("select es_register_decider(%s, %s, 'public.decide(jsonb, eventstream.command)')", (name, category))
        session.execute("select es_register_invariant(%s, array[%s], require => '{\"/n\": {\"at_least\": 0}}', fold => %s)", (name, category, category))
        session.execute("select es_schedule_command(%s, 'Do', jsonb_build_object('of', %s::text), '2100-01-01Z', %s)", (f"{category}-1", name, name))
        session.execute("select es_begin_command(%s, %s, '{}')", (f"{name}operation", name))
        session.execute("select es_close_period(array[%s], '2020-01-01Z', 'x', tag => %s)", (category, f"{tenant}:{category}"))
        session.execute("select es_protect(%s, pointers => '{/a}')", (f"{name}Hidden",))
        session.execute("select es_create_projection(%s, 'handle(eventstream.event)', categories => array[%s])", (name, category))
        session.execute("select es_create_subscription(%s, categories => array[%s])", (name, category))
        session.execute(
            "insert into _eventstream.dead_letters (tenant_id, projection_id, global_position, stream, version, event_type, attempts, reason, error_detail)"
            " select p.tenant_id, p.id, p.id, %s, 1, 'x', 1, %s, 'detail' from _eventstream.projections p where p.name = %s",
            (f"{category}-1", name, name),
        )
        session.execute(
            "update _eventstream.projection_progress g set error_message = %s, status = 'rebuilding', rebuild_to = 100, rebuild_began = now()"
            " from _eventstream.projections p where p.id = g.projection_id and p.name = %s",
            (name, name),
        )


@pytest.fixture(scope="module")
def two():
    server = Server("moments", **{"eventstream.max_workers": 0, "autovacuum": "off"}).create()
    database = Database(server, "moments").create()
    for role in ("narrow", "of_acme", "of_bank"):
        database.role(role)
    database.role("both", "login noinherit", "of_acme", "of_bank")
    with database.connect() as session:
        session.execute("set eventstream.durability = 'session'; set check_function_bodies = off; grant create on schema public to public")
        session.execute("create function same(payload jsonb, metadata jsonb) returns jsonb immutable language sql as 'select $1'")
        session.execute("create function handle(e eventstream.event) returns void language sql as ''")
        session.execute("create function decide(state jsonb, command eventstream.command) returns jsonb stable language sql as 'select null::jsonb'")
        session.execute("create function chosen(name text, value text) returns text language plpgsql as 'begin perform set_config(name, value, false); return ''''; end'")
        for tenant in ("acme", "bank"):
            session.execute("select es_create_tenant(%s)", (tenant,))
            fill(session, tenant)
        for role, tenant in (("narrow", "acme"), ("narrow", "bank"), ("of_acme", "acme"), ("of_bank", "bank")):
            is_narrowed = tenant == "acme"
            for privilege in ("read", "manage"):
                session.execute("select es_grant(%s, %s, tenant => %s, category => %s)", (role, privilege, tenant, "stock" if is_narrowed else None))
            session.execute("select es_grant(%s, 'audit', tenant => %s)", (role, tenant))
    yield database
    server.destroy()


def views(session):
    """Each with its columns that stand still, and those by which rows can be asked for."""
    found = {}
    for view, column, of_text in rows(session, """select c.relname, a.attname, a.atttypid = 'text'::regtype from pg_class c join pg_attribute a on a.attrelid = c.oid
            where c.relnamespace = 'eventstream'::regnamespace and c.relkind = 'v' and a.attnum > 0 order by c.relname, a.attnum"""):
        still, keys = found.setdefault(view, ([], []))
        if column not in MOVING:
            still.append(column)
            if of_text:
                keys.append(column)
    return found


#: How a session comes from acme to bank: who it is, how it begins, and what is said between two rows.
WAYS = {
    "set_config": ("narrow", "set eventstream.tenant = '{}'", {"acme": "set_config('eventstream.tenant', 'acme', false)", "bank": "set_config('eventstream.tenant', 'bank', false)"}),
    "a function": ("narrow", "set eventstream.tenant = '{}'", {"acme": "chosen('eventstream.tenant', 'acme')", "bank": "chosen('eventstream.tenant', 'bank')"}),
    "set role": ("both", "set role of_{}", {"acme": "set_config('role', 'of_acme', false)", "bank": "set_config('role', 'of_bank', false)"}),
}


def shown(session, statement):
    """None: it is refused."""
    try:
        return {row for (row,) in rows(session, statement)}
    except psycopg.errors.InsufficientPrivilege:
        return None
    except psycopg.Error as error:
        # The tenant is another one by now, and what is asked of a row would be of that.
        assert error.sqlstate == "ES040", (statement, error)
        return set()


@pytest.mark.parametrize("way", WAYS)
def test_what_a_statement_sets_while_it_reads_opens_no_view(two, way):
    user, begin, sets = WAYS[way]
    with two.connect() as session:
        all_views, values = views(session), {}
        for tenant in sets:
            rows(session, f"select set_config('eventstream.tenant', '{tenant}', false)")
            for view, (_, keys) in all_views.items():
                for key in keys:
                    values.setdefault((view, key), set()).update(found for (found,) in rows(session, f"select distinct {key} from eventstream.{view} where {key} is not null limit 20"))
    assert len(all_views) >= 27
    wrong, seen, refused = [], set(), set()
    with two.connect(user=user) as session:
        for view, (still, keys) in all_views.items():
            columns, allowed = f"row({', '.join(f'v.{column}' for column in still)})::text", set()
            for tenant in sets:
                session.execute(begin.format(tenant))
                found = shown(session, f"select {columns} from eventstream.{view} v")
                refused |= {view} if found is None else set()
                allowed |= found or set()
            for key in keys:
                for wanted in values[view, key]:
                    for first, then in (("acme", "bank"), ("bank", "acme")):
                        for nobody in ("nobody-1", wanted):
                            session.execute(begin.format(first))
                            asked = f"""select {columns} from (select case i when 1 then %s else %s || left({sets[then]}, 0) end x from generate_series(1, 2) i offset 0) g,
                                lateral (select * from eventstream.{view} v where v.{key} = g.x offset 0) v"""
                            found = shown(session, psycopg.ClientCursor(session).mogrify(asked, (nobody, wanted))) or set()
                            seen |= {view} if found else set()
                            wrong += [(view, key, first, row) for row in found - allowed]
    assert wrong == [], f"{len(wrong)}: {wrong[:5]}"
    assert {"horizon_holders", "stats"} <= refused <= {"horizon_holders", "stats", "health", "progress", "tenants"}
    assert seen >= set(all_views) - refused - {"health", "commands", "access_log"}


def test_each_view_asks_once_who_reads_it(two):
    """What else it asks of the role names the tenant that it was told."""
    with two.connect() as session:
        of_tenant = {name for (name,) in rows(session, "select proname from pg_proc where pronamespace = '_eventstream'::regnamespace and pronargs > 0 and proargnames[1] = 'tenant_id'")}
        definitions = dict(rows(session, "select viewname, definition from pg_views where schemaname = 'eventstream'"))
        every = {name for (name,) in rows(session, "select proname from pg_proc where pronamespace = '_eventstream'::regnamespace")}
    assert {"readable", "operated", "operated_tenants"} <= every - of_tenant - TENANTLESS
    for view, definition in definitions.items():
        asked = [name for name in re.findall(r"_eventstream\.(\w+)\(", definition) if name not in of_tenant | TENANTLESS]
        assert len(asked) <= 1, (view, asked)


def test_a_row_of_a_temporal_view_is_of_one_tenant(two):
    """The names of its streams, and their states."""
    with two.connect() as session:
        for tenant in ("acme", "bank"):
            rows(session, f"select set_config('eventstream.tenant', '{tenant}', false)")
            session.execute("select es_append('wall-1', 'Moved', jsonb_build_object('n', %s::int))", (1 if tenant == "acme" else 2,))
            session.execute("select es_register_fold('walls', category => 'wall', rules => %s)", (RULES,))
            session.execute("select es_grant('of_bank', 'read', category => 'wall')")
        rows(session, "select set_config('eventstream.tenant', 'acme', false)")
        session.execute("select es_create_temporal_view('walls', 'wall', '[{\"name\": \"n\", \"type\": \"int\", \"path\": \"/n\"}]')")
        session.execute("grant select on walls to public; grant execute on all functions in schema public to public")
    between = "(select s.* from eventstream.stream_names s where s.category = 'wall' and length({}) >= 0 offset 0) s"
    with two.connect(user="of_bank") as session:
        session.execute("set eventstream.tenant = 'acme'")
        assert rows(session, "select stream, n from walls") == [("wall-1", 1)]
        definition = value(session, "select pg_get_viewdef('walls'::regclass)")
        session.execute("set eventstream.tenant = 'acme'")
        for sets in ("set_config('eventstream.tenant', 'bank', false)", "chosen('eventstream.tenant', 'bank')"):
            mixed = definition.replace("eventstream.stream_names s", between.format(sets)).rstrip(";")
            assert mixed != definition.rstrip(";")
            session.execute("set eventstream.tenant = 'acme'")
            with pytest.raises(psycopg.Error) as caught:
                rows(session, mixed)
            assert caught.value.sqlstate == "ES040"
