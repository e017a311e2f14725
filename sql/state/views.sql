-- Folds, upcasters and snapshots of the current tenant.
create view eventstream.folds with (security_barrier) as
with reader as materialized (select w.tenant_id, w.categories from _eventstream.readable('read') w)
select
    f.name,
    nullif(f.category, '') as category,
    f.handler,
    f.rules,
    f.initial_state,
    f.snapshot_every,
    f.fold_order,
    f.is_default,
    coalesce(r.rolname::text, f.registrant) as registrant,
    f.search_path,
    f.registered_at,
    t.name as tenant
from _eventstream.folds f
join _eventstream.tenants t on t.id = f.tenant_id
left join pg_catalog.pg_roles r on r.oid = _eventstream.role_of(f.registrant, f.registrant_oid, (select _eventstream.is_home()))
where f.tenant_id = (select w.tenant_id from reader w)
  and ((select w.categories from reader w) is null
       or f.category = any ((select w.categories from reader w)::text[]));
comment on view eventstream.folds is
'The folds of the current tenant, for categories that the role may read: handler or rules, and whose rights and search path a handler runs with.';

create view eventstream.upcasters with (security_barrier) as
with reader as materialized (select w.tenant_id from _eventstream.readable('read') w)
select
    u.event_type,
    u.from_schema_version,
    u.to_event_type,
    u.handler,
    coalesce(r.rolname::text, u.registrant) as registrant,
    u.search_path,
    u.registered_at,
    t.name as tenant
from _eventstream.upcasters u
join _eventstream.tenants t on t.id = u.tenant_id
left join pg_catalog.pg_roles r on r.oid = _eventstream.role_of(u.registrant, u.registrant_oid, (select _eventstream.is_home()))
where u.tenant_id = (select w.tenant_id from reader w);
comment on view eventstream.upcasters is
'The upcasters of the current tenant: from which schema version of an event type to the next, by which function.';

create function _eventstream.fold_fingerprint(tenant_id bigint, fold text) returns bytea
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_fold_fingerprint';
comment on function _eventstream.fold_fingerprint(bigint, text) is
'The fingerprint of a fold of that tenant as it is now, which its snapshots must have to be used; NULL where there is no such fold. Privilege read. ES040 where the current tenant is another by now.';

create view eventstream.snapshots with (security_barrier) as
with reader as materialized (select w.tenant_id, w.categories from _eventstream.readable('read') w)
select
    s.name as stream,
    n.fold,
    n.version,
    n.taken_at,
    pg_catalog.pg_column_size(n.state)::pg_catalog.int8 as bytes,
    coalesce(n.fingerprint = f.fingerprint, false) as is_current,
    t.name as tenant
from _eventstream.streams s
join _eventstream.tenants t on t.id = s.tenant_id
cross join lateral (
    select k.fold, k.version, k.taken_at, k.state, k.fingerprint
    from _eventstream.snapshots k
    where k.stream_id = s.id
    offset 0
) n
left join (
    select d.name, d.category, _eventstream.fold_fingerprint(d.tenant_id, d.name) as fingerprint
    from _eventstream.folds d
    where d.tenant_id = (select w.tenant_id from reader w)
    offset 0
) f on f.name = n.fold and f.category = s.category
where s.tenant_id = (select w.tenant_id from reader w)
  and ((select w.categories from reader w) is null
       or s.category = any ((select w.categories from reader w)::text[]));
comment on view eventstream.snapshots is
'The stored snapshots of streams that the role may read, without their states: bytes as stored, and whether each is of its fold''s definition as it is now (is_current; others are never used, and es_maintain removes them).';
