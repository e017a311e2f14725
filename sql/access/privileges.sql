-- Who may touch what. Default privileges of the installing role may have granted anything to anybody: all of it goes first.
do $$
declare
    given record;
begin
    for given in
        select format('schema %I', n.nspname) as object, a.grantee
        from pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a
        where n.nspname in ('eventstream', '_eventstream', 'eventstream_pinned') and a.grantee <> n.nspowner
        union
        select format('%s %I.%I', case c.relkind when 'S' then 'sequence' else 'table' end, n.nspname, c.relname), a.grantee
        from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        cross join pg_catalog.aclexplode(c.relacl) a
        where n.nspname in ('eventstream', '_eventstream') and a.grantee <> c.relowner
        union
        select format('function %s', p.oid::pg_catalog.regprocedure), a.grantee
        from pg_catalog.pg_proc p
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        cross join pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
        where n.nspname = '_eventstream' and a.grantee <> p.proowner
    loop
        execute format('revoke all on %s from %s', given.object,
                       case when given.grantee = 0 then 'public' else quote_ident(pg_catalog.pg_get_userbyid(given.grantee)) end);
    end loop;
end
$$;

grant usage on schema eventstream, eventstream_pinned to public;
-- Views check the role that reads them.
grant execute on function _eventstream.readable(text) to public;
-- What they show of an event that it lets through.
grant execute on function _eventstream.shown_payload(bigint, text, int, jsonb), _eventstream.shown_metadata(bigint, text, int, jsonb),
    _eventstream.shown_salt(bigint, text, int, jsonb, jsonb, bytea),
    _eventstream.shown_command(bigint, text, jsonb), _eventstream.shown_command_metadata(bigint, jsonb),
    _eventstream.shown_command_text(bigint, text, text), _eventstream.shown_error(bigint, text, jsonb),
    _eventstream.shown_answer(bigint, text, jsonb, timestamptz), _eventstream.shown_text(bigint, text) to public;
grant execute on function _eventstream.content_digest(bytea, jsonb, jsonb) to public;
grant select on eventstream.proof to public;
grant execute on function _eventstream.is_home(), _eventstream.role_of(text, oid, bool) to public;
grant select on eventstream.events, eventstream.streams, eventstream.stream_names, eventstream.audit, eventstream.administration, eventstream.access_log, eventstream.grants to public;
grant execute on function _eventstream.fold_fingerprint(bigint, text), _eventstream.event_counts(bigint), _eventstream.category_settings(bigint) to public;
grant select on eventstream.folds, eventstream.upcasters, eventstream.snapshots, eventstream.event_types, eventstream.categories, eventstream.protections, eventstream.periods, eventstream.commands, eventstream.deciders, eventstream.scheduled_commands, eventstream.invariants to public;
-- These check for manage or pg_monitor themselves.
grant execute on function _eventstream.operated(), _eventstream.operated_tenants(), _eventstream.listed_tenants(), _eventstream.projection_states(bigint),
    _eventstream.subscription_states(bigint) to public;
grant execute on function _eventstream.tasks(), _eventstream.health() to public;
grant select on eventstream.tenants, eventstream.projections, eventstream.subscriptions, eventstream.dead_letters, eventstream.progress, eventstream.health to public;
grant execute on function _eventstream.stats() to pg_monitor;
grant select on eventstream.stats to pg_monitor;
grant execute on function _eventstream.horizon_holders() to pg_monitor;
grant select on eventstream.horizon_holders to pg_monitor;

-- What people call goes to the schema chosen at CREATE EXTENSION. A function of the same name and arguments there is an error.
do $$
declare
    called regprocedure;
begin
    for called in
        select p.oid from pg_catalog.pg_proc p
        where p.pronamespace = 'eventstream'::pg_catalog.regnamespace and p.proname like 'es\_%'
        order by p.oid
    loop
        execute 'alter function ' || called::text || ' set schema @extschema@';
    end loop;
end
$$;
