-- What was granted in the current tenant.
create view eventstream.grants with (security_barrier) as
with reader as materialized (select w.tenant_id from _eventstream.readable('audit') w)
select
    coalesce(r.rolname::text, g.role) as role,
    g.privilege,
    t.name as tenant,
    g.category,
    r.oid is not null or g.role_oid = 0 and g.role_oid is not null as role_exists,
    g.granted_by,
    g.granted_at
from _eventstream.grants g
join _eventstream.tenants t on t.id = g.tenant_id
left join pg_catalog.pg_roles r on r.oid = _eventstream.role_of(g.role, g.role_oid, (select _eventstream.is_home()))
where g.tenant_id = (select w.tenant_id from reader w)
union all
select
    coalesce(r.rolname::text, g.role),
    g.privilege,
    '*',
    g.category,
    r.oid is not null,
    g.granted_by,
    g.granted_at
from _eventstream.grants g
left join pg_catalog.pg_roles r on r.oid = _eventstream.role_of(g.role, g.role_oid, (select _eventstream.is_home()))
where g.tenant_id = 0 and (select w.tenant_id from reader w) is not null;
comment on view eventstream.grants is
'What es_grant allowed in the current tenant, and in every one (tenant *); privilege token: that the role needs one (es_require_token). category NULL = all. role_exists: false where the role is gone, and the grant with it, also where another role has its name by now. Privilege audit.';
