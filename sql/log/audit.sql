-- Acts of administration: what changes a definition is noted by a trigger of its table, whatever wrote it, and becomes an event when the
-- transaction commits (src/log/audit.rs).
create function _eventstream.definition_of(definition jsonb) returns jsonb
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
set transform_null_equals = off
set array_nulls = on
as $$ select definition - '{id,tenant_id,created_at,granted_at,registered_at,activated_at,added_at}'::text[] $$;
comment on function _eventstream.definition_of(jsonb) is
'What counts of a row of tenants, grants, folds, upcasters, event_types, protections, category_rules, periods, deciders, invariants, projections, subscriptions, token_keys or activations: without ids and times that are no definition.';

create function _eventstream.definition_key(kind text, definition jsonb) returns jsonb
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
set transform_null_equals = off
set array_nulls = on
as $$
    select jsonb_object_agg(k.key, definition -> k.key)
    from unnest(case kind
                    when 'tenant' then '{uuid}'
                    when 'grant' then '{role,role_oid,privilege,category}'
                    when 'token_role' then '{role,role_oid,privilege,category}'
                    when 'token_key' then '{kid}'
                    when 'upcaster' then '{event_type,from_schema_version}'
                    when 'event_type' then '{event_type,schema_version}'
                    when 'protection' then '{kind,event_type,schema_version}'
                    when 'category_rule' then '{category}'
                    when 'period' then '{period_id}'
                    when 'activation' then '{log_id,system_identifier,database_oid}'
                    else '{name}'
                end::text[]) as k (key)
$$;
comment on function _eventstream.definition_key(text, jsonb) is 'The members of a definition that say which one of its kind and tenant it is.';

create function _eventstream.home_of_log() returns jsonb
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
set transform_null_equals = off
set array_nulls = on
as $$ select to_jsonb(l) - '{created_at,has_begun}'::text[] from _eventstream.this_log() l $$;
comment on function _eventstream.home_of_log() is
'Where this log was made, as the row says that counts. Nothing changes it, es_activate neither: every act keeps what it was then.';

create function _eventstream.note_act(kind text, tenant_id bigint, before jsonb, after jsonb) returns void
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_note_act';
comment on function _eventstream.note_act(text, bigint, jsonb, jsonb) is
'Notes that one of our own statements changed a definition. What somebody else writes is no act: es_verify_audit finds it.';

create function _eventstream.note_definition() returns trigger
language plpgsql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
set transform_null_equals = off
set array_nulls = on
set timezone = 'UTC'
set plpgsql.extra_errors = none
as $$
#variable_conflict error
declare
    was jsonb;
    is_now jsonb;
    any_of_them jsonb;
    kind text := substr(tg_table_name, 1, length(tg_table_name) - 1);
    tenant bigint := 1;
begin
    if tg_op <> 'INSERT' then
        was := to_jsonb(old);
    end if;
    if tg_op <> 'DELETE' then
        is_now := to_jsonb(new);
    end if;
    any_of_them := coalesce(is_now, was);
    if tg_table_name = 'tenants' then
        tenant := any_of_them ->> 'id';
    elsif tg_table_name <> 'activations' then
        tenant := any_of_them ->> 'tenant_id';
    end if;
    -- What is demanded of a role, or granted to it, in every tenant is told in the first one.
    if tenant = 0 then
        kind := 'token_role';
        tenant := 1;
    end if;
    was := _eventstream.definition_of(was);
    is_now := _eventstream.definition_of(is_now);
    -- As text: a number of another scale is another definition, though the same number.
    if was::text is not distinct from is_now::text then
        return null;
    end if;
    if _eventstream.definition_key(kind, was) <> _eventstream.definition_key(kind, is_now) then
        perform _eventstream.note_act(kind, tenant, was, null);
        was := null;
    end if;
    perform _eventstream.note_act(kind, tenant, was, is_now);
    return null;
end
$$;
comment on function _eventstream.note_definition() is 'Notes what became of a row: src/log/audit.rs makes an event of it at the commit.';

do $$
declare
    register text;
begin
    foreach register in array array['tenants', 'grants', 'token_keys', 'folds', 'upcasters', 'event_types', 'protections', 'category_rules', 'periods', 'deciders', 'invariants', 'projections', 'subscriptions', 'activations'] loop
        execute pg_catalog.format('create trigger note_definition after insert or update or delete on _eventstream.%I '
                                  'for each row execute function _eventstream.note_definition()', register);
        execute pg_catalog.format('comment on trigger note_definition on _eventstream.%I is %L', register,
                                  'makes an act of administration of what is written');
        execute pg_catalog.format('alter table _eventstream.%I enable always trigger note_definition', register);
    end loop;
end
$$;

-- No view, which a session may have forbidden to itself (restrict_nonsystem_relation_kind).
create function _eventstream.definitions() returns table (tenant_id bigint, kind text, key jsonb, definition jsonb)
language sql stable parallel safe
begin atomic
    select d.tenant_id, d.kind, _eventstream.definition_key(d.kind, d.definition), d.definition
    from (
        -- Times as the trigger has them: a setting of this function would keep it from being planned with what asks for it.
        select t.id as tenant_id, 'tenant' as kind,
               _eventstream.definition_of(pg_catalog.to_jsonb(t) || pg_catalog.jsonb_build_object(
                   'closed_at', (pg_catalog.to_jsonb(t.closed_at at time zone 'UTC') #>> '{}') || '+00:00')) as definition
        from _eventstream.tenants t
        union all
        select case g.tenant_id when 0 then 1 else g.tenant_id end, case g.tenant_id when 0 then 'token_role' else 'grant' end,
               _eventstream.definition_of(pg_catalog.to_jsonb(g))
        from _eventstream.grants g
        union all
        select k.tenant_id, 'token_key', _eventstream.definition_of(pg_catalog.to_jsonb(k)) from _eventstream.token_keys k
        union all
        select f.tenant_id, 'fold', _eventstream.definition_of(pg_catalog.to_jsonb(f)) from _eventstream.folds f
        union all
        select u.tenant_id, 'upcaster', _eventstream.definition_of(pg_catalog.to_jsonb(u)) from _eventstream.upcasters u
        union all
        select e.tenant_id, 'event_type', _eventstream.definition_of(pg_catalog.to_jsonb(e)) from _eventstream.event_types e
        union all
        select p.tenant_id, 'protection', _eventstream.definition_of(pg_catalog.to_jsonb(p)) from _eventstream.protections p
        union all
        select c.tenant_id, 'category_rule', _eventstream.definition_of(pg_catalog.to_jsonb(c)) from _eventstream.category_rules c
        union all
        select p.tenant_id, 'period',
               _eventstream.definition_of(pg_catalog.to_jsonb(p) || pg_catalog.jsonb_build_object(
                   'closed_until', (pg_catalog.to_jsonb(p.closed_until at time zone 'UTC') #>> '{}') || '+00:00',
                   'known_at', (pg_catalog.to_jsonb(p.known_at at time zone 'UTC') #>> '{}') || '+00:00',
                   'closed_at', (pg_catalog.to_jsonb(p.closed_at at time zone 'UTC') #>> '{}') || '+00:00',
                   'reopened_at', (pg_catalog.to_jsonb(p.reopened_at at time zone 'UTC') #>> '{}') || '+00:00'))
        from _eventstream.periods p
        union all
        select d.tenant_id, 'decider', _eventstream.definition_of(pg_catalog.to_jsonb(d)) from _eventstream.deciders d
        union all
        select i.tenant_id, 'invariant', _eventstream.definition_of(pg_catalog.to_jsonb(i)) from _eventstream.invariants i
        union all
        select p.tenant_id, 'projection', _eventstream.definition_of(pg_catalog.to_jsonb(p)) from _eventstream.projections p
        union all
        select s.tenant_id, 'subscription', _eventstream.definition_of(pg_catalog.to_jsonb(s)) from _eventstream.subscriptions s
        union all
        select 1, 'activation', _eventstream.definition_of(pg_catalog.to_jsonb(a)) from _eventstream.activations a
    ) d;
end;
comment on function _eventstream.definitions() is
'Everything that acts of administration define, as it stands: what es_verify_audit compares with the acts.';
