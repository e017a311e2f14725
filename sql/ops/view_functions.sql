-- What the operator's views ask. Those of projections and subscriptions check the role that reads the view: privilege manage for the current tenant,
-- or membership in pg_monitor.
create function _eventstream.operated_tenant() returns bigint
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_operated_tenant';
comment on function _eventstream.operated_tenant() is
'Id of the current tenant, where the current role has manage there or is a member of pg_monitor; 42501 otherwise.';

create function _eventstream.operated_categories() returns text[]
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_operated_categories';
comment on function _eventstream.operated_categories() is
'The categories of the current tenant that the current role may manage; NULL = all, also for members of pg_monitor.';

create function _eventstream.shown_categories() returns text[]
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_shown_categories';
comment on function _eventstream.shown_categories() is
'The categories of the current tenant that the current role may read, none where it may not read at all; NULL = all. Texts of errors hold payloads.';

create function _eventstream.shown_text(tenant_id bigint, said text) returns text
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_shown_text';
comment on function _eventstream.shown_text(bigint, text) is
'What a failure said, as views show it: withheld from who reads by a snapshot of before a rule of protected fields, by which the text may have been taken back since.';

create function _eventstream.operated_tenants() returns bigint[]
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_operated_tenants';
comment on function _eventstream.operated_tenants() is
'Ids of all tenants for superusers, the owner and members of pg_monitor; else as operated_tenant(), with manage for every category.';

create function _eventstream.listed_tenants() returns bigint[]
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_listed_tenants';
comment on function _eventstream.listed_tenants() is
'As operated_tenants(), and those in which the current role has audit, whichever is chosen.';

create function _eventstream.projection_states(
    out projection_id bigint, out status text, out global_position bigint, out lag bigint, out lag_seconds float8
) returns setof record
language c volatile parallel unsafe rows 20 as 'MODULE_PATHNAME', 'eventstream_projection_states';
comment on function _eventstream.projection_states() is
'How each projection of the current tenant stands. lag: settled positions that it has not passed, 0 where none of them is an event for it; lag_seconds: since the first event that it has not processed was recorded.';

create function _eventstream.subscription_states(
    out subscription_id bigint, out global_position bigint, out newest_position bigint, out lag bigint, out lag_seconds float8,
    out consumers bigint, out events_leased bigint, out parked bigint, out redeliveries bigint, out dead_letters bigint
) returns setof record
language c volatile parallel unsafe rows 20 as 'MODULE_PATHNAME', 'eventstream_subscription_states';
comment on function _eventstream.subscription_states() is
'How each subscription of the current tenant stands: see the view eventstream.subscriptions.';

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
