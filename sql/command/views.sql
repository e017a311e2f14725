-- What is declared, for people, and how much of it there is.
create function _eventstream.event_counts(
    tenant_id bigint, out event_type text, out schema_version int, out events bigint, out last_recorded_at timestamptz, out counted_to bigint
) returns setof record
language c stable parallel restricted rows 100 as 'MODULE_PATHNAME', 'eventstream_event_counts';
comment on function _eventstream.event_counts(bigint) is
'How many events of each type and schema version there are in the categories of that tenant, the current one, that the current role may read, and when the newest was recorded; last a row without a type, with the position up to which they are counted (NULL: all are). None where no event type is declared. Privilege read. ES040 where the current tenant is another by now.';

create view eventstream.event_types with (security_barrier) as
with reader as materialized (select w.tenant_id from _eventstream.readable('read') w),
counted as materialized (
    select c.event_type, c.schema_version, c.events, c.last_recorded_at, c.counted_to
    from _eventstream.event_counts((select w.tenant_id from reader w)) c
)
select
    e.event_type,
    e.schema_version,
    e.appendable,
    e.json_schema,
    e.description,
    e.example,
    e.created_at,
    coalesce(n.events, 0) as events,
    n.last_recorded_at,
    (select pg_catalog.max(c.counted_to) from counted c) as counted_to,
    t.name as tenant
from _eventstream.event_types e
join _eventstream.tenants t on t.id = e.tenant_id
left join (
    -- Grouped, so that who asks for no counts has none made.
    select c.event_type, c.schema_version, pg_catalog.max(c.events) as events, pg_catalog.max(c.last_recorded_at) as last_recorded_at
    from counted c
    group by c.event_type, c.schema_version
) n on n.event_type = e.event_type and n.schema_version = e.schema_version
where e.tenant_id = (select w.tenant_id from reader w);
comment on view eventstream.event_types is
'The declared schema versions of event types of the current tenant: what a payload of each must look like, whether it may still be appended, how many events of it there are in the categories that the role may read, and when the newest was recorded. Upkeep keeps the counts; what came since is counted when the view is read, 100,000 events at most: counted_to is the position up to which the counts go, NULL where they are complete.';

create function _eventstream.category_settings(tenant_id bigint, out category text, out settings jsonb) returns setof record
language c stable parallel restricted rows 100 as 'MODULE_PATHNAME', 'eventstream_category_settings';
comment on function _eventstream.category_settings(bigint) is
'The categories of that tenant, the current one, that the current role may read, those with streams and those with rules, and what was set of each; NULL: nothing. It goes from one category to the next, however many streams each has. Privilege read. ES040 where the current tenant is another by now.';

create view eventstream.categories with (security_barrier) as
with reader as materialized (select w.tenant_id from _eventstream.readable('read') w)
select
    c.category,
    coalesce(c.settings ->> 'event_types', 'any') as event_types,
    coalesce(c.settings ->> 'expected_version', 'optional') as expected_version,
    coalesce(c.settings ->> 'actor', 'optional') as actor,
    coalesce(c.settings ->> 'event_id', 'optional') as event_id,
    c.settings ->> 'id_pattern' as id_pattern,
    coalesce(c.settings ->> 'foldable', 'optional') as foldable,
    (c.settings ->> 'max_future')::pg_catalog.interval as max_future,
    coalesce(c.settings ->> 'personal_data', 'any') as personal_data,
    t.name as tenant
from _eventstream.category_settings((select w.tenant_id from reader w)) c
join _eventstream.tenants t on t.id = (select w.tenant_id from reader w);
comment on view eventstream.categories is
'The categories of the current tenant that the role may read: those that have streams, and those that have rules. What each asks of whatever is appended to it, as es_alter_category sets it; any, optional and NULL ask nothing.';

create view eventstream.protections with (security_barrier) as
with reader as materialized (select w.tenant_id from _eventstream.readable('read or audit') w)
select
    p.kind,
    p.event_type,
    p.schema_version,
    p.pointers,
    p.clear_pointers,
    p.metadata_pointers,
    p.created_at as protected_at,
    t.name as tenant
from _eventstream.protections p
join _eventstream.tenants t on t.id = p.tenant_id
where p.tenant_id = (select w.tenant_id from reader w);
comment on view eventstream.protections is
'Which fields of the current tenant''s events and commands are protected, as es_protect was told: each is shown as null, to everybody. Privilege read, or audit.';

create view eventstream.periods with (security_barrier) as
with reader as materialized (select w.tenant_id, w.categories from _eventstream.readable('read') w)
select
    p.period_id as id,
    p.category,
    p.tag,
    p.closed_until,
    p.known_at,
    p.closed_at,
    p.closed_by,
    p.reason,
    p.reopened_at,
    p.reopened_by,
    p.reopen_reason,
    t.name as tenant
from _eventstream.periods p
join _eventstream.tenants t on t.id = p.tenant_id
where p.tenant_id = (select w.tenant_id from reader w)
  and ((select w.categories from reader w) is null
       or p.category = any ((select w.categories from reader w)::text[]));
comment on view eventstream.periods is
'What was closed in the current tenant, for categories that the role may read: no event may say that it occurred at or before closed_until, unless it was reopened.';

create function _eventstream.shown_command(tenant_id bigint, command_type text, document jsonb) returns jsonb
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_shown_command';
comment on function _eventstream.shown_command(bigint, text, jsonb) is
'What was asked by a command of that type, as views show it: without what is protected.';

create function _eventstream.shown_command_metadata(tenant_id bigint, metadata jsonb) returns jsonb
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_shown_command_metadata';
comment on function _eventstream.shown_command_metadata(bigint, jsonb) is
'The metadata of a command, as views show them: without what is protected of the metadata of events, which they are going to be.';

create function _eventstream.shown_error(tenant_id bigint, operation text, error jsonb) returns jsonb
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_shown_error';
comment on function _eventstream.shown_error(bigint, text, jsonb) is
'Why an attempt of that operation outside came to nothing, as views show it: withheld where fields of it are protected, but for what clear_pointers name.';

create function _eventstream.shown_command_text(tenant_id bigint, command_type text, said text) returns text
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_shown_command_text';
comment on function _eventstream.shown_command_text(bigint, text, text) is
'A text that a failed command of that type left, as views show it: NULL where fields of such commands are protected, which it may repeat.';

create function _eventstream.shown_answer(tenant_id bigint, command_type text, answer jsonb, executed_at timestamptz) returns jsonb
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_shown_answer';
comment on function _eventstream.shown_answer(bigint, text, jsonb, timestamptz) is
'What was answered to a command of that type, as views show it: its result without what is protected of such commands.';

create view eventstream.commands with (security_barrier) as
with reader as materialized (select w.tenant_id, w.categories from _eventstream.readable('read') w)
select
    o.operation,
    o.command_key,
    o.stage,
    o.attempt,
    o.stage = 'executing' and o.lease_until > pg_catalog.clock_timestamp() as is_under_way,
    o.lease_until,
    o.is_retryable,
    _eventstream.shown_error(o.tenant_id, o.operation, o.last_error) as error,
    o.begun_by,
    o.begun_at,
    o.attempted_at,
    o.finished_at,
    o.forget_at,
    t.name as tenant
from _eventstream.operations o
join _eventstream.tenants t on t.id = o.tenant_id
where o.tenant_id = (select w.tenant_id from reader w) and (select w.categories from reader w) is null;
comment on view eventstream.commands is
'The operations of the current tenant that programs execute outside of the database, once a key: how far each is; for roles that may read all categories. What came of it is given by es_begin_command.';

create view eventstream.deciders with (security_barrier) as
with reader as materialized (select w.tenant_id, w.categories from _eventstream.readable('read') w)
select
    d.name,
    d.category,
    d.handler,
    d.boundary,
    d.fold,
    d.commands,
    d.is_default,
    d.source,
    coalesce(r.rolname::text, d.registrant) as registrant,
    d.search_path,
    d.registered_at,
    t.name as tenant
from _eventstream.deciders d
join _eventstream.tenants t on t.id = d.tenant_id
left join pg_catalog.pg_roles r on r.oid = _eventstream.role_of(d.registrant, d.registrant_oid, (select _eventstream.is_home()))
where d.tenant_id = (select w.tenant_id from reader w)
  and ((select w.categories from reader w) is null
       or d.category = any ((select w.categories from reader w)::text[]));
comment on view eventstream.deciders is
'The deciders of the current tenant, for categories that the role may read: which function decides, on which commands, and whose rights and search path it runs with.';

create view eventstream.invariants with (security_barrier) as
with reader as materialized (select w.tenant_id, w.categories from _eventstream.readable('read') w)
select
    i.name,
    i.categories,
    i.event_types,
    i.handler,
    i.fold,
    i.require,
    i.source,
    coalesce(r.rolname::text, i.registrant) as registrant,
    i.search_path,
    i.registered_at,
    t.name as tenant
from _eventstream.invariants i
join _eventstream.tenants t on t.id = i.tenant_id
left join pg_catalog.pg_roles r on r.oid = _eventstream.role_of(i.registrant, i.registrant_oid, (select _eventstream.is_home()))
where i.tenant_id = (select w.tenant_id from reader w)
  and ((select w.categories from reader w) is null
       or i.categories <@ (select w.categories from reader w)::text[]);
comment on view eventstream.invariants is
'The invariants of the current tenant, those all of whose categories the role may read: what must hold of events at the commit, or of states after each append, and whose rights and search path a function runs with.';

create view eventstream.scheduled_commands with (security_barrier) as
with reader as materialized (select w.tenant_id, w.categories from _eventstream.readable('read') w)
select
    s.command_key,
    s.category,
    s.stream,
    s.command_type,
    _eventstream.shown_command(s.tenant_id, s.command_type, s.payload) as payload,
    _eventstream.shown_command_metadata(s.tenant_id, s.metadata) as metadata,
    s.decider,
    s.subject,
    s.run_at,
    s.stage,
    s.due_at,
    s.attempts::pg_catalog.int8 as attempts,
    s.error_sqlstate,
    _eventstream.shown_command_text(s.tenant_id, s.command_type, s.error_message) as error_message,
    _eventstream.shown_command_text(s.tenant_id, s.command_type, s.error_detail) as error_detail,
    s.reason,
    _eventstream.shown_answer(s.tenant_id, s.command_type, a.answer, a.executed_at) as answer,
    coalesce(r.rolname::text, s.registrant) as scheduled_by,
    s.scheduled_at,
    s.finished_at,
    t.name as tenant
from _eventstream.scheduled_commands s
join _eventstream.tenants t on t.id = s.tenant_id
left join _eventstream.command_answers a
    on s.stage = 'done' and a.tenant_id = s.tenant_id and a.category = s.category and a.command_key = s.command_key
left join pg_catalog.pg_roles r on r.oid = _eventstream.role_of(s.registrant, s.registrant_oid, (select _eventstream.is_home()))
where s.tenant_id = (select w.tenant_id from reader w)
  and ((select w.categories from reader w) is null
       or s.category = any ((select w.categories from reader w)::text[]));
comment on view eventstream.scheduled_commands is
'Commands of the current tenant that are to be executed later, or were, for categories that the role may read. stage: pending; done (answer: as es_command''s); refused by its decider; dead: it failed too often, and es_retry_dead_letter or es_drop_dead_letter decide; unscheduled; dropped. due_at: when it is executed, or tried again.';
