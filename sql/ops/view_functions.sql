-- What the operator's views ask. Those of projections and subscriptions check the role that reads the view: privilege manage for the current tenant,
-- or membership in pg_monitor.
create function _eventstream.operated(out tenant_id bigint, out categories text[], out shown_categories text[]) returns record
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_operated';
comment on function _eventstream.operated() is
'The current tenant, where the current role has manage there or is a member of pg_monitor; 42501 otherwise. categories: those that it may manage; NULL = all, also for members of pg_monitor. shown_categories: those that it may read, none where it may not read at all; NULL = all. Texts of errors hold payloads.';

create function _eventstream.shown_text(tenant_id bigint, said text) returns text
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_shown_text';
comment on function _eventstream.shown_text(bigint, text) is
'What a failure said, as views show it: withheld from who reads by a snapshot of before a rule of protected fields, by which the text may have been taken back since.';

create function _eventstream.operated_tenants() returns bigint[]
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_operated_tenants';
comment on function _eventstream.operated_tenants() is
'Ids of all tenants for superusers, the owner and members of pg_monitor; else of the current one, where the role has manage for every category; 42501 otherwise.';

create function _eventstream.listed_tenants() returns bigint[]
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_listed_tenants';
comment on function _eventstream.listed_tenants() is
'As operated_tenants(), and those in which the current role has audit, whichever is chosen.';

create function _eventstream.projection_states(
    tenant_id bigint, out projection_id bigint, out status text, out global_position bigint, out lag bigint, out lag_seconds float8
) returns setof record
language c volatile parallel unsafe rows 20 as 'MODULE_PATHNAME', 'eventstream_projection_states';
comment on function _eventstream.projection_states(bigint) is
'How each projection of that tenant stands; ES040 where the current one is another by now. lag: settled positions that it has not passed, 0 where none of them is an event for it; lag_seconds: since the first event that it has not processed was recorded.';

create function _eventstream.subscription_states(
    tenant_id bigint, out subscription_id bigint, out global_position bigint, out newest_position bigint, out lag bigint, out lag_seconds float8,
    out consumers bigint, out events_leased bigint, out parked bigint, out redeliveries bigint, out dead_letters bigint
) returns setof record
language c volatile parallel unsafe rows 20 as 'MODULE_PATHNAME', 'eventstream_subscription_states';
comment on function _eventstream.subscription_states(bigint) is
'How each subscription of that tenant stands: see the view eventstream.subscriptions; ES040 where the current one is another by now.';

create function _eventstream.tasks(
    out task text, out pid int, out done bigint, out total bigint, out began_at timestamptz
) returns setof record
language c volatile parallel unsafe rows 2 as 'MODULE_PATHNAME', 'eventstream_tasks';
comment on function _eventstream.tasks() is
'Calls of es_verify (task verify) and of es_check_event_types (check) under way in this database; done and total in global positions. None without shared_preload_libraries.';

create function _eventstream.health(
    out name text, out tenant text, out status text, out detail text, out fix text
) returns setof record
language c volatile parallel unsafe rows 20 as 'MODULE_PATHNAME', 'eventstream_health';
comment on function _eventstream.health() is
'One row a check of this database: see the view eventstream.health.';

create function _eventstream.stats(
    out name text, out value bigint, out scope text, out meaning text
) returns setof record
language c volatile parallel restricted rows 40 as 'MODULE_PATHNAME', 'eventstream_stats';
comment on function _eventstream.stats() is
'Counters of this database since the server started, and of this session.';
