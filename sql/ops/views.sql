-- What an operator looks at: projections and subscriptions first.
create view eventstream.projections with (security_barrier) as
with operator as materialized (select w.tenant_id, w.categories, w.shown_categories from _eventstream.operated() w)
select
    p.name,
    p.kind,
    p.mode,
    l.status,
    l.global_position,
    l.lag,
    l.lag_seconds,
    case when g.moved_at > pg_catalog.clock_timestamp() - interval '30 seconds' then g.rate else 0 end as events_per_second,
    g.applied as events_applied,
    g.moved_at,
    g.attempts::pg_catalog.int8 as attempts,
    g.failed_position,
    g.failed_at,
    g.error_sqlstate,
    case when x.shows_errors then _eventstream.shown_text(p.tenant_id, g.error_message) end as error_message,
    case when x.shows_errors then _eventstream.shown_text(p.tenant_id, g.error_detail) end as error_detail,
    g.retry_at,
    (select pg_catalog.count(*) from _eventstream.dead_letters d where d.projection_id = p.id) as dead_letters,
    p.handler,
    p.table_name,
    p.fold,
    p.categories,
    p.event_types,
    p.batch_size,
    p.on_error,
    p.max_retries,
    p.reset,
    coalesce(r.rolname::text, p.registrant) as registrant,
    p.search_path,
    p.created_at,
    t.name as tenant
from _eventstream.projections p
join _eventstream.tenants t on t.id = p.tenant_id
cross join lateral (
    select i.*
    from _eventstream.projection_progress i
    where i.projection_id = p.id
    offset 0
) g
left join pg_catalog.pg_roles r on r.oid = _eventstream.role_of(p.registrant, p.registrant_oid, (select _eventstream.is_home()))
left join _eventstream.projection_states((select w.tenant_id from operator w)) l on l.projection_id = p.id
cross join lateral (
    select (select w.shown_categories from operator w) is null
           or coalesce(p.categories <@ (select w.shown_categories from operator w), false) as shows_errors
) x
where p.tenant_id = (select w.tenant_id from operator w)
  and ((select w.categories from operator w) is null or p.categories <@ (select w.categories from operator w));
comment on view eventstream.projections is
'The projections of the current tenant, for superusers, roles with manage and members of pg_monitor. kind: event, batch (what the handler takes) or table (a state table). mode: async or inline. status: running, rebuilding, retrying (after a failure, until retry_at), waiting for activation, paused, stopped. global_position: the checkpoint. lag: settled positions behind it (0 where none of them is an event for this projection); lag_seconds: since the first event that was not processed was recorded, 0 where there is none. events_per_second: of the last 5 seconds or more in which it moved, 0 where it has not moved for 30. failed_position, failed_at, error_sqlstate, error_message, error_detail: the last failure, which is past where attempts is 0; message and detail only for roles that may read what it is shown, because payloads stand in them. A role whose manage is narrowed sees what concerns its categories only.';

create view eventstream.subscriptions with (security_barrier) as
with operator as materialized (select w.tenant_id, w.categories from _eventstream.operated() w)
select
    s.name,
    l.global_position,
    l.newest_position,
    l.lag,
    l.lag_seconds,
    l.consumers,
    l.events_leased,
    l.parked,
    l.redeliveries,
    l.dead_letters,
    s.categories,
    s.event_types,
    s.max_deliveries,
    s.created_by,
    s.created_at,
    t.name as tenant
from _eventstream.subscriptions s
join _eventstream.tenants t on t.id = s.tenant_id
left join _eventstream.subscription_states((select w.tenant_id from operator w)) l on l.subscription_id = s.id
where s.tenant_id = (select w.tenant_id from operator w)
  and ((select w.categories from operator w) is null or s.categories <@ (select w.categories from operator w));
comment on view eventstream.subscriptions is
'The subscriptions of the current tenant, for superusers, roles with manage and members of pg_monitor. global_position: everything up to here is acknowledged, dead or parked; newest_position: the same of the part of its streams that is furthest. lag: settled positions behind global_position (0 where none of them is an event for it); lag_seconds: since the first event that is not acknowledged was recorded. consumers: how many were seen lately; events_leased: delivered and neither acknowledged nor given back yet; parked: streams that wait for another try; redeliveries: how often the next events were delivered in vain, where that was most often.';

create view eventstream.dead_letters with (security_barrier) as
with operator as materialized (select w.tenant_id, w.categories, w.shown_categories from _eventstream.operated() w)
select
    d.id,
    p.name as projection,
    s.name as subscription,
    c.command_key,
    c.command_type,
    d.global_position,
    d.stream,
    d.version,
    d.event_type,
    d.attempts::pg_catalog.int8 as attempts,
    case when x.shows_errors and d.scheduled_id is null then _eventstream.shown_text(d.tenant_id, d.reason)
         when x.shows_errors then _eventstream.shown_command_text(d.tenant_id, c.command_type, d.reason) else d.outline end as reason,
    d.error_sqlstate,
    case when x.shows_errors and d.scheduled_id is null then _eventstream.shown_text(d.tenant_id, d.error_detail)
         when x.shows_errors then _eventstream.shown_command_text(d.tenant_id, c.command_type, d.error_detail) end as error_detail,
    d.died_at,
    t.name as tenant
from _eventstream.dead_letters d
join _eventstream.tenants t on t.id = d.tenant_id
left join _eventstream.projections p on p.id = d.projection_id and p.tenant_id = d.tenant_id
left join _eventstream.subscriptions s on s.id = d.subscription_id and s.tenant_id = d.tenant_id
left join _eventstream.scheduled_commands c on c.id = d.scheduled_id and c.tenant_id = d.tenant_id
cross join lateral (
    select (select w.shown_categories from operator w) is null
           or pg_catalog.split_part(d.stream, '-', 1) = any ((select w.shown_categories from operator w)::text[]) as shows_errors
) x
-- Alone it is asked before anything is read: who may not see them is told so also where there is none.
where (select w.tenant_id from operator w) is not null
  and d.tenant_id = (select w.tenant_id from operator w)
  and ((select w.categories from operator w) is null
       or pg_catalog.split_part(d.stream, '-', 1) = any ((select w.categories from operator w)::text[]));
comment on view eventstream.dead_letters is
'Events of the current tenant that a projection, or the consumers of a subscription, could not process and went past, and scheduled commands that could not be executed: es_retry_dead_letter(id) tries one again, es_drop_dead_letter(id, reason) gives it up. reason and error_detail: only for roles that may read the event; to others, reason says of a state table''s stream whether it cannot be folded or which column or constraint refuses its row, without the value. For superusers, roles with manage and members of pg_monitor.';

create view eventstream.progress with (security_barrier) as
with operator as materialized (select _eventstream.operated_tenants() as tenant_ids)
select
    w.task,
    w.name,
    w.tenant,
    w.pid,
    w.done,
    w.total,
    w.unit,
    case when w.total > 0 then pg_catalog.round(least(w.done, w.total) * 100.0 / w.total, 1) end as percent,
    w.began_at,
    case when w.done > 0
         then pg_catalog.clock_timestamp()
              + (pg_catalog.clock_timestamp() - w.began_at) * (greatest(w.total - w.done, 0)::float8 / w.done) end as eta
from (
    select
        'rebuild' as task, p.name, t.name as tenant, null::int as pid, 
        case p.kind when 'table' then coalesce(g.rebuild_done, 0) else g.global_position - p.start_position end as done,
        case p.kind when 'table' then g.rebuild_total else g.rebuild_to - p.start_position end as total,
        case p.kind when 'table' then 'streams' else 'positions' end as unit, g.rebuild_began as began_at
    from _eventstream.projections p
    join _eventstream.tenants t on t.id = p.tenant_id
    cross join lateral (
        select i.status, i.global_position, i.rebuild_to, i.rebuild_done, i.rebuild_total, i.rebuild_began
        from _eventstream.projection_progress i
        where i.projection_id = p.id
        offset 0
    ) g
    where g.status = 'rebuilding'
      and p.tenant_id = any ((select w.tenant_ids from operator w)::pg_catalog.int8[])
      and t.id = any ((select w.tenant_ids from operator w)::pg_catalog.int8[])
    union all
    select v.task, null, null, v.pid, v.done, v.total, 'positions', v.began_at
    from _eventstream.tasks() v
) w;
comment on view eventstream.progress is
'What takes long and is under way: rebuilds of projections (in streams for a state table, else in global positions) and calls of es_verify and es_check_event_types (in global positions, by the process pid). percent: 0 to 100; eta: when it ends if it goes on as it has so far. Superusers, the owner and members of pg_monitor see every tenant''s rebuilds, roles with manage the current tenant''s. Calls are seen only with shared_preload_libraries.';

create view eventstream.health with (security_barrier) as
select h.name, h.tenant, h.status, h.detail, h.fix
from _eventstream.health() h;
comment on view eventstream.health is
'One row a check: name; tenant (NULL = of the database or the server); status ok, warning or critical; detail: what was found, with numbers; fix: the statements that mend it, to be pasted into psql (NULL where there is nothing to mend). Checks: preload, log, guards, clock, activation, workers, horizon, partitions, snapshots, one for each projection and subscription, for each that has dead letters, for each fold that cannot be used, for each that was seen to fail on streams that are in the log (by whoever asked for their states, by upkeep or a state table; the notes are kept until the server restarts), and where grants are of roles that are gone. Superusers, the owner and members of pg_monitor see every tenant''s, roles with manage the current tenant''s, under a token without the server''s and the database''s, which count what every tenant does. The workers report changes in the server log and by NOTIFY eventstream_alert.';

create view eventstream.tenants with (security_barrier) as
select
    t.name as tenant,
    coalesce(t.uuid, (select i.log_id from _eventstream.log_identities i order by i.has_begun desc, i.created_at limit 1)) as uuid,
    case when t.closed_at is null then 'open' else 'closed' end as status,
    t.created_at,
    t.closed_at,
    t.closed_by,
    t.close_reason,
    coalesce(n.events, 0)::pg_catalog.int8 as events,
    coalesce(n.bytes, 0)::pg_catalog.int8 as bytes,
    n.last_recorded_at,
    p.global_position as counted_to,
    p.counted_at
from _eventstream.tenants t
left join _eventstream.event_count_progress p on p.tenant_id = t.id
cross join lateral (
    select sum(c.events) as events, sum(c.bytes) as bytes, max(c.last_recorded_at) as last_recorded_at
    from _eventstream.event_counts c
    where c.tenant_id = t.id
    offset 0
) n
where t.id = any ((select _eventstream.listed_tenants())::pg_catalog.int8[]);
comment on view eventstream.tenants is
'Tenants: since when they are there, whether one was closed (es_close_tenant), by whom and for what reason, and how much was recorded in each. events, bytes and last_recorded_at are exact up to the global position counted_to, at which upkeep was at counted_at; what came since is not in them. Superusers, the owner and members of pg_monitor see every tenant, roles with manage the current one, and roles with audit those in which they have it.';

create view eventstream.stats with (security_barrier) as
select s.name, s.value, s.scope, s.meaning
from _eventstream.stats() s;
comment on view eventstream.stats is
'What is counted: of the whole database since the server started (scope database), or of this session only. Without shared_preload_libraries all of it is of this session. For superusers and members of pg_monitor.';
