"""Whoever owns a database, or the schema that the extension goes to, cannot make the superuser who installs the extension, nor those who use it
afterwards, run code of theirs: nothing of ours is bound to what stands outside of pg_catalog and our own schemas.

Kinds: code of others (functions and operators that fit better than pg_catalog's own), session (the path of whoever asks), role (owner of
the database without superuser). PostgreSQL prefers the better match over the earlier schema, so every type of argument is planted.
"""

import re

import psycopg
import pytest

from database import Database, rows, value
from server import ROOT, SUPERUSER
from test_roles import argument, functions, views

#: Types that our SQL meets; pairs of them without an operator of pg_catalog's own are where a planted one would be taken.
TYPES = (
    "int2 int4 int8 numeric float8 text name varchar oid regclass bool jsonb uuid bytea timestamptz timestamp date interval"
    " text[] int8[] name[] anyelement anyarray"
).split()
OPERATORS = "= <> < > <= >= + - * / % || -> ->> #> #>> #- @> <@ && ~ !~ ~~ !~~ ? ^ & | # << >> *= *<>".split()
#: Of longer lists of arguments, these.
PAIRS = "int4 int8 numeric float8 text name oid regclass bool jsonb timestamptz timestamp date interval text[] anyelement".split()
TRIPLES = "int8 text name oid bool anyelement".split()

PLANT = """
create sequence {schema}.trapped;
create function {schema}.trap(what text) returns void language plpgsql as $$
begin
    perform pg_catalog.nextval('{schema}.trapped');
    raise warning 'trapped: % as %', what, current_user;
end
$$;
-- Whoever uses them is to be trapped, not refused.
grant usage on schema {schema} to public;
grant all on sequence {schema}.trapped to public;
set check_function_bodies = off;
create function pg_temp.plant(name text, arguments text, result text) returns void language plpgsql as $$
begin
    execute format('create function {schema}.%I(%s) returns %s language plpgsql as %L', name, arguments, result,
                   format('declare answer %s; begin perform {schema}.trap(%L); return answer; end', result, name || '(' || arguments || ')'));
exception when others then
    null; -- no such signature: a polymorphic result without an argument that says what it is
end
$$;
"""

PLANT_OPERATORS = """
do $$
declare
    types text[] := '{types}';
    names text[] := '{operators}';
    l text; r text; o text; result text;
begin
    foreach l in array types || 'none'::text loop
        foreach r in array types loop
            foreach o in array names loop
                continue when exists (
                    select from pg_operator where oprname = o and oprright = r::regtype
                    and oprleft = case l when 'none' then 0 else l::regtype end);
                result := case when o in ('=', '<>', '<', '>', '<=', '>=', '@>', '<@', '&&', '~', '!~', '~~', '!~~', '?', '*=', '*<>') then 'bool'
                               when o in ('->>', '#>>') then 'text' when l = 'none' then r else l end;
                begin
                    perform pg_temp.plant('operator ' || o, case l when 'none' then r else l || ', ' || r end, result);
                    execute format('create operator {schema}.%s (%s rightarg = %s, function = {schema}.%I)', o,
                                   case l when 'none' then '' else 'leftarg = ' || l || ',' end, r, 'operator ' || o);
                exception when others then
                    null; -- no prefix operator of that name
                end;
            end loop;
        end loop;
    end loop;
end
$$;
"""

PLANT_FUNCTIONS = """
do $$
declare
    f record; a text; b text; c text; n int;
begin
    for f in select p.proname::text as name, max(case when t.typtype = 'p' or p.proretset then 'text' else format_type(t.oid, null) end) as result
             from pg_proc p join pg_type t on t.oid = p.prorettype
             where p.pronamespace = 'pg_catalog'::regnamespace and p.proname = any ('{names}') group by 1 loop
        perform pg_temp.plant(f.name, '', f.result);
        foreach a in array '{types}'::text[] loop
            perform pg_temp.plant(f.name, a, f.result);
        end loop;
        foreach a in array '{pairs}'::text[] loop
            foreach b in array '{pairs}'::text[] loop
                perform pg_temp.plant(f.name, a || ', ' || b, f.result);
            end loop;
        end loop;
        foreach b in array '{triples}'::text[] loop
            foreach c in array '{triples}'::text[] loop
                perform pg_temp.plant(f.name, format('text, %s, %s', b, c), f.result);
            end loop;
        end loop;
        for n in 4..7 loop
            perform pg_temp.plant(f.name, concat_ws(', ', variadic array_fill('text'::text, array[n])), f.result);
        end loop;
    end loop;
end
$$;
"""


def called(session) -> list[str]:
    """The functions of pg_catalog whose names stand before an opening bracket anywhere in our SQL or Rust, whether qualified or not."""
    text = "".join(path.read_text() for folder, kind in (("sql", "*.sql"), ("src", "*.rs")) for path in (ROOT / folder).rglob(kind))
    words = sorted(set(re.findall(r"\b([a-z_][a-z0-9_]*)\s*\(", text)))
    found = "select distinct proname::text from pg_proc where pronamespace = 'pg_catalog'::regnamespace and proname = any (%s)"
    return [name for (name,) in rows(session, found, words)]


def plant(session, schema: str, names: list[str]) -> None:
    def array(words):
        return "{" + ",".join(f'"{word}"' for word in words) + "}"

    session.execute(PLANT.format(schema=schema))
    session.execute(PLANT_OPERATORS.format(schema=schema, types=array(TYPES), operators=array(OPERATORS)))
    session.execute(
        PLANT_FUNCTIONS.format(names=array(names), types=array(TYPES), pairs=array(PAIRS), triples=array(TRIPLES))
    )


#: What must exist for the functions to do something. Nothing here can be caught by a trap itself.
SETTING_UP = """
create function counted(state jsonb, event eventstream.event) returns jsonb immutable language sql
    begin atomic select pg_catalog.jsonb_build_object('n', event.version); end;
create function upgraded(payload jsonb, metadata jsonb) returns jsonb immutable language sql begin atomic select payload; end;
create function handled(event eventstream.event) returns void language sql begin atomic select null::void; end;
create function emptied() returns void language sql begin atomic select null::void; end;
select es_register_fold('balance', 'account', rules => '{"on": {"AccountCredited": [{"add": {"/balance": "/amount"}}]}}', initial_state => '{"balance": 0}');
select es_register_fold('counted', 'account', 'counted(jsonb, eventstream.event)', snapshot_every => 1, is_default => false);
select es_register_upcaster('AccountCredited', 1, 'upgraded(jsonb, jsonb)');
select es_append('account-1000', 'AccountCredited', '{"amount": 12.50}', subject => 'customer-7', metadata => '{"actor": "a"}');
select es_append_events('account-1000', '[{"type": "AccountCredited", "payload": {"amount": 1}}, {"type": "AccountCredited", "payload": {"amount": 2}}]');
select es_append('order-1', 'Placed', '{}');
select es_create_projection('turnover', 'handled(eventstream.event)', reset => 'emptied()');
select es_create_projection('inlined', 'handled(eventstream.event)', mode => 'inline');
select es_create_state_table('kept', 'account', '[{"name": "balance", "type": "numeric", "path": "/balance"}, {"name": "t", "type": "text", "path": "/b~1c"}]');
select es_create_state_table('kept_inline', 'account', '[{"name": "balance", "type": "numeric", "path": "/balance"}]', mode => 'inline');
select es_create_temporal_view('balances_then', 'account', '[{"name": "balance", "type": "numeric", "path": "/balance"}]');
select es_create_subscription('mailing');
select es_append('account-1001', 'AccountCredited', '{"amount": 12.50}');
select es_run_projection();
select * from es_fetch('mailing', 'c');
select * from es_maintain();
select * from balances_then;
select * from balances_then_at('infinity');
select * from es_verify_snapshots(thorough => true);
select es_rebuild_projection('kept');
select es_rebuild_projection('turnover');
select es_run_projection();
select es_pause_projection('kept'); select es_resume_projection('kept');
"""


def attempt(session, statement: str, *parameters) -> str | None:
    try:
        session.execute(statement, parameters or None)
    except psycopg.Error as error:
        return error.sqlstate
    return None


def use_everything(session, every: list, views: list) -> None:
    """Fills every table, calls every function, and reads every view."""
    for statement in SETTING_UP.replace("\n    ", " ").strip().splitlines():
        session.execute(statement)
    for name, arguments in every:
        given = ", ".join(f"{argument_name} => %s::pg_catalog.{kind}" for argument_name, kind in arguments)
        # Some fail for want of what they name; they are called all the same.
        attempt(session, f"select t::pg_catalog.text from {name}({given}) t", *(argument(n, k, "default") for n, k in arguments))
    for view in views:
        session.execute(f"select * from {view}")


#: What an object of ours depends on that is neither pg_catalog's nor the extension's own. pg_catalog's own are pinned: they stand in no dependency.
STRANGERS = """
with ours as (
    select d.classid, d.objid from pg_depend d join pg_extension e on e.oid = d.refobjid and e.extname = 'eventstream' where d.deptype = 'e'
    union
    select 'pg_rewrite'::regclass, r.oid from pg_rewrite r join pg_depend d on d.objid = r.ev_class and d.classid = 'pg_class'::regclass and d.deptype = 'e'
        join pg_extension e on e.oid = d.refobjid and e.extname = 'eventstream'
    union
    select 'pg_attrdef'::regclass, a.oid from pg_attrdef a join pg_depend d on d.objid = a.adrelid and d.classid = 'pg_class'::regclass and d.deptype = 'e'
        join pg_extension e on e.oid = d.refobjid and e.extname = 'eventstream'
    union
    select 'pg_constraint'::regclass, c.oid from pg_constraint c join pg_depend d on d.objid = c.conrelid and d.classid = 'pg_class'::regclass and d.deptype = 'e'
        join pg_extension e on e.oid = d.refobjid and e.extname = 'eventstream'
)
select pg_describe_object(d.classid, d.objid, 0), pg_describe_object(d.refclassid, d.refobjid, 0)
from ours o join pg_depend d on d.classid = o.classid and d.objid = o.objid
where d.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass)
  and d.refobjid >= 16384
  and not exists (select from pg_depend m join pg_extension e on e.oid = m.refobjid and e.extname = 'eventstream'
                  where m.classid = d.refclassid and m.objid = d.refobjid and m.deptype = 'e')
  and not (d.refclassid = 'pg_type'::regclass and exists (
      select from pg_type t join pg_namespace n on n.oid = t.typnamespace where t.oid = d.refobjid and n.nspname in ('eventstream', '_eventstream')))
"""


@pytest.mark.parametrize("schema", ["public", "shop"])
def test_nothing_that_a_databases_owner_planted_runs_as_somebody_else(quiet_server, schema):
    database = Database(quiet_server, f"planted_{schema}").create(extension=False)
    landlord, clerk = database.role("landlord"), database.role("clerk")
    safe = {"options": "-c search_path=pg_catalog"}
    said: list[str] = []

    def listening(user=SUPERUSER):
        session = database.connect(user)
        session.add_notice_handler(lambda notice: said.append(notice.message_primary))
        return session

    try:
        with database.connect(**safe) as session:
            session.execute(f'alter database "{database.name}" owner to {landlord}')
            names = called(session)
        assert {"format", "nextval", "count", "now", "unnest"} <= set(names)
        with database.connect(landlord) as session:
            if schema != "public":
                session.execute(f"create schema {schema}")
            plant(session, schema, names)
            session.execute(f'alter database "{database.name}" set search_path = {schema}, pg_catalog')
        with database.connect(**safe) as session:
            assert value(session, f"select count(*) from pg_operator where oprnamespace = '{schema}'::regnamespace") > 5000
            assert value(session, f"select count(*) from pg_proc where pronamespace = '{schema}'::regnamespace") > 15000
        with listening() as session:
            # They are live: this is what they would do.
            session.execute("select format('%s', 1::int8, 2::int8)")
            assert said.pop().startswith("trapped")
            session.execute(f"create extension eventstream schema {schema}")
            with database.connect(**safe) as other:
                assert rows(other, STRANGERS) == []
                every, readable = functions(other), views(other)
            assert len(every) > 50 and len(readable) > 10
            use_everything(session, [(f"{schema}.{name.split('.')[-1]}", arguments) for name, arguments in every], readable)
            for privilege in ("read", "append", "command", "consume", "manage", "upkeep", "audit"):
                session.execute(f"select {schema}.es_grant('clerk', '{privilege}')")
        with listening(clerk) as session:
            for view in readable:
                attempt(session, f"select * from {view}")
        # Others are our own: es_use_tenant outside of a transaction, a grant for a category without streams.
        assert [text for text in said if text.startswith("trapped")] == []
    finally:
        database.drop()
