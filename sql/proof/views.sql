-- What proves the log to whoever may not read what it says.
create function _eventstream.content_digest(salt bytea, payload jsonb, metadata jsonb) returns bytea
language c immutable parallel safe as 'MODULE_PATHNAME', 'eventstream_content_digest';
comment on function _eventstream.content_digest(bytea, jsonb, jsonb) is
'The content digest of an event, which its chain hash covers (docs/chain-hash.md); NULL where something of it is NULL.';

create view eventstream.proof with (security_barrier) as
with reader as materialized (select w.tenant_id, w.administered_id from _eventstream.readable('audit') w)
select
    e.global_position,
    s.name as stream,
    e.version,
    e.event_id,
    e.event_type,
    e.schema_version,
    e.subject,
    e.tags,
    e.occurred_at,
    e.recorded_at,
    e.recorded_by,
    _eventstream.content_digest(e.salt, e.payload, e.metadata) as content_digest,
    e.chain_hash,
    t.name as tenant,
    coalesce(t.uuid, (select i.log_id from _eventstream.log_identities i order by i.has_begun desc, i.created_at limit 1)) as tenant_uuid
from _eventstream.events e
join _eventstream.streams s on s.id = e.stream_id
join _eventstream.tenants t on t.id = (select w.tenant_id from reader w)
where s.tenant_id = (select w.tenant_id from reader w)
  and e.tenant_id = s.tenant_id
union all
select
    e.global_position,
    s.name as stream,
    e.version,
    e.event_id,
    e.event_type,
    e.schema_version,
    e.subject,
    e.tags,
    e.occurred_at,
    e.recorded_at,
    e.recorded_by,
    _eventstream.content_digest(e.salt, e.payload, e.metadata) as content_digest,
    e.chain_hash,
    t.name as tenant,
    coalesce(t.uuid, (select i.log_id from _eventstream.log_identities i order by i.has_begun desc, i.created_at limit 1)) as tenant_uuid
from _eventstream.events e
join _eventstream.streams s on s.id = e.stream_id
join _eventstream.tenants t on t.id = (select w.tenant_id from reader w)
where s.tenant_id = (select w.administered_id from reader w)
  and e.tenant_id = s.tenant_id;
comment on view eventstream.proof is
'Every event of the current tenant, acts of administration too, with all that its chain hash covers, and the digest of its content in place of that: what tools/verify.py needs to prove the chains without showing a payload. The digest is over a random salt that is not shown where a field is protected, so nothing is found by trying. Privilege audit.';
