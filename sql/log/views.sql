-- What people read: the current tenant, and no more than the role was granted. Every table of ours is asked for the tenant, or for a row of the
-- tenant's, by a condition that an index serves: src/pg/query/own_rows.rs leaves no other way to read it, so that no plan counts the rows of others.
-- The category is the stream's.

-- What an event says is shown by the door (src/present/door.rs), a document at a time.
create function _eventstream.shown_payload(tenant_id bigint, event_type text, schema_version int, payload jsonb) returns jsonb
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_shown_payload';
comment on function _eventstream.shown_payload(bigint, text, int, jsonb) is
'The payload of an event of that type and schema version as the views show it: as it is stored, without what is protected.';

create function _eventstream.shown_metadata(tenant_id bigint, event_type text, schema_version int, metadata jsonb) returns jsonb
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_shown_metadata';
comment on function _eventstream.shown_metadata(bigint, text, int, jsonb) is
'The metadata of an event of that type and schema version as the views show them: as they are stored, without what is protected.';

create function _eventstream.shown_salt(tenant_id bigint, event_type text, schema_version int, payload jsonb, metadata jsonb, salt bytea) returns bytea
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_shown_salt';
comment on function _eventstream.shown_salt(bigint, text, int, jsonb, jsonb, bytea) is
'The salt of an event as the views show it: not where something of the event is protected, because a value that is short is found by trying where salt and hash are known.';

create view eventstream.events with (security_barrier) as
with reader as materialized (select w.tenant_id, w.categories from _eventstream.readable('read') w)
select
    e.global_position,
    s.name as stream,
    e.version,
    e.event_id,
    e.event_type,
    e.schema_version,
    _eventstream.shown_payload(e.tenant_id, e.event_type, e.schema_version, e.payload) as payload,
    _eventstream.shown_metadata(e.tenant_id, e.event_type, e.schema_version, e.metadata) as metadata,
    e.subject,
    e.occurred_at,
    e.recorded_at,
    s.category,
    t.name as tenant,
    e.recorded_by,
    _eventstream.shown_salt(e.tenant_id, e.event_type, e.schema_version, e.payload, e.metadata, e.salt) as salt,
    e.chain_hash,
    e.tags
from _eventstream.events e
join _eventstream.streams s on s.id = e.stream_id
join _eventstream.tenants t on t.id = s.tenant_id
where s.tenant_id = (select w.tenant_id from reader w)
  and e.tenant_id = s.tenant_id
  and ((select w.categories from reader w) is null
       or s.category = any ((select w.categories from reader w)::text[]));
comment on view eventstream.events is
'Every event of the current tenant that the role may read, with payloads as stored, without what is protected. The columns of type eventstream.event.';

create view eventstream.streams with (security_barrier) as
with reader as materialized (select w.tenant_id, w.categories from _eventstream.readable('read') w)
select
    s.name as stream,
    s.category,
    h.version,
    s.first_position,
    h.global_position as last_position,
    h.occurred_at as last_occurred_at,
    h.recorded_at as last_recorded_at,
    h.event_type = 'StreamClosed' as closed,
    t.name as tenant
from _eventstream.streams s
join _eventstream.tenants t on t.id = s.tenant_id
cross join lateral (
    select coalesce(max(g.partition), s.first_position) as lower_bound
    from _eventstream.stream_segments g
    where g.stream_id = s.id
) n
cross join lateral (
    select e.version, e.global_position, e.occurred_at, e.recorded_at, e.event_type
    from _eventstream.events e
    where e.stream_id = s.id and e.global_position >= n.lower_bound
    order by e.version desc
    limit 1
) h
where s.tenant_id = (select w.tenant_id from reader w)
  and ((select w.categories from reader w) is null
       or s.category = any ((select w.categories from reader w)::text[]));
comment on view eventstream.streams is
'Every stream of the current tenant that the role may read: version, first and last position, last times, closed or not.';

create view eventstream.audit with (security_barrier) as
with reader as materialized (select w.tenant_id from _eventstream.readable('audit') w)
select
    e.global_position,
    s.name as stream,
    e.version,
    e.event_type,
    e.event_id,
    e.occurred_at,
    e.recorded_at,
    e.recorded_by,
    e.recorded_from,
    _eventstream.shown_metadata(e.tenant_id, e.event_type, e.schema_version, e.metadata) ->> 'actor' as actor,
    _eventstream.shown_metadata(e.tenant_id, e.event_type, e.schema_version, e.metadata) ->> 'correlation_id' as correlation_id,
    _eventstream.shown_metadata(e.tenant_id, e.event_type, e.schema_version, e.metadata) ->> 'causation_id' as causation_id,
    _eventstream.shown_metadata(e.tenant_id, e.event_type, e.schema_version, e.metadata) ->> 'traceparent' as traceparent,
    e.subject,
    e.tags,
    t.name as tenant
from _eventstream.events e
join _eventstream.streams s on s.id = e.stream_id
join _eventstream.tenants t on t.id = s.tenant_id
where s.tenant_id = (select w.tenant_id from reader w)
  and e.tenant_id = s.tenant_id;
comment on view eventstream.audit is
'Who recorded what, when, from where and on whose behalf; no payloads. Privilege audit.';

create view eventstream.administration with (security_barrier) as
with reader as materialized (select w.tenant_id, w.administered_id from _eventstream.readable('audit') w)
select
    e.global_position,
    s.name as stream,
    e.version,
    e.event_id,
    e.event_type,
    e.schema_version,
    _eventstream.shown_payload(e.tenant_id, e.event_type, e.schema_version, e.payload) as payload,
    _eventstream.shown_metadata(e.tenant_id, e.event_type, e.schema_version, e.metadata) as metadata,
    e.subject,
    e.occurred_at,
    e.recorded_at,
    s.category,
    t.name as tenant,
    e.recorded_by,
    e.salt,
    e.chain_hash,
    e.tags
from _eventstream.events e
join _eventstream.streams s on s.id = e.stream_id
join _eventstream.tenants t on t.id = (select w.tenant_id from reader w)
where s.tenant_id = (select w.administered_id from reader w)
  and e.tenant_id = s.tenant_id
  and s.category = '$audit';
comment on view eventstream.administration is
'Every act of administration of the current tenant: who granted, registered, created, altered, paused or dropped what, with what it was before and is after. The columns of eventstream.events. Privilege audit.';

create view eventstream.access_log with (security_barrier) as
with reader as materialized (select w.tenant_id, w.administered_id from _eventstream.readable('audit') w)
select
    e.global_position,
    e.recorded_at,
    e.recorded_by,
    _eventstream.shown_payload(e.tenant_id, e.event_type, e.schema_version, e.payload) ->> 'role' as role,
    _eventstream.shown_metadata(e.tenant_id, e.event_type, e.schema_version, e.metadata) ->> 'actor' as actor,
    _eventstream.shown_payload(e.tenant_id, e.event_type, e.schema_version, e.payload) ->> 'function' as function,
    _eventstream.shown_payload(e.tenant_id, e.event_type, e.schema_version, e.payload) ->> 'stream' as stream,
    (_eventstream.shown_payload(e.tenant_id, e.event_type, e.schema_version, e.payload) ->> 'from_version')::pg_catalog.int8 as from_version,
    (_eventstream.shown_payload(e.tenant_id, e.event_type, e.schema_version, e.payload) ->> 'to_version')::pg_catalog.int8 as to_version,
    (_eventstream.shown_payload(e.tenant_id, e.event_type, e.schema_version, e.payload) ->> 'events')::pg_catalog.int8 as events,
    _eventstream.shown_payload(e.tenant_id, e.event_type, e.schema_version, e.payload) ->> 'reason' as reason,
    t.name as tenant
from _eventstream.events e
join _eventstream.streams s on s.id = e.stream_id
join _eventstream.tenants t on t.id = (select w.tenant_id from reader w)
where s.tenant_id = (select w.administered_id from reader w)
  and e.tenant_id = s.tenant_id
  and s.category = '$access';
comment on view eventstream.access_log is
'Who was shown events of the current tenant in clear (es_reveal), a row a page: when, the session''s user (recorded_by), the role whose rights were asked, the actor that the session''s metadata name, which versions of which stream, how many events, and the reason; no values. Events of the tenant''s stream $access-<its uuid>. Privilege audit.';

create function _eventstream.horizon_holders(
    out pid int, out since timestamptz, out global_position bigint, out tenant_id bigint
) returns setof record
language c volatile parallel unsafe rows 10 as 'MODULE_PATHNAME', 'eventstream_horizon_holders';
comment on function _eventstream.horizon_holders() is
'The open transactions of this database that have appended, a row for each tenant; NULL: all others.';

create view eventstream.horizon_holders with (security_barrier) as
select h.pid, h.since, h.global_position, t.name as tenant
from _eventstream.horizon_holders() h
left join _eventstream.tenants t on t.id = h.tenant_id;
comment on view eventstream.horizon_holders is
'Open transactions that have appended and so hold the consumers of a tenant back: process id, since when, the position they hold, and whose (NULL: of all tenants that have no row of theirs). For superusers and members of pg_monitor. ES008 not preloaded, ES009 on a standby.';
