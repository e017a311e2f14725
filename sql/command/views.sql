-- What is declared, for people.
create view eventstream.event_types with (security_barrier) as
select
    e.event_type,
    e.schema_version,
    e.appendable,
    e.json_schema,
    e.description,
    e.example,
    e.created_at,
    t.name as tenant
from _eventstream.event_types e
join _eventstream.tenants t on t.id = e.tenant_id
where e.tenant_id = (select _eventstream.readable_tenant('read'));
comment on view eventstream.event_types is
'The declared schema versions of event types of the current tenant: what a payload of each must look like, and whether it may still be appended.';
