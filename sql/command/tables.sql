-- What may be recorded: event types, and how many events of each there are; rules of categories; closed periods; operations outside. What decides, what was answered, and what is to be executed later. Only src/command writes them.
create table _eventstream.event_types (
    tenant_id bigint not null,
    event_type text collate "C" not null,
    schema_version int not null,
    json_schema jsonb,
    description text collate "C",
    example jsonb,
    appendable bool not null,
    created_at timestamptz not null default pg_catalog.clock_timestamp(),
    constraint event_types_pkey primary key (tenant_id, event_type, schema_version)
);
comment on table _eventstream.event_types is
'The schema versions of event types that are declared: what a payload of each must look like, and whether it may still be appended.';
comment on column _eventstream.event_types.json_schema is 'JSON Schema 2020-12; NULL = any payload';
comment on column _eventstream.event_types.example is 'a payload that satisfies the schema';
comment on column _eventstream.event_types.appendable is 'false: what is stored stays readable, and nothing more is appended';
comment on index _eventstream.event_types_pkey is 'a schema version of an event type';

-- How many events there are of each, kept by upkeep up to a settled position; a restored log counts anew. Both are written together.
create table _eventstream.event_counts (
    tenant_id bigint not null,
    event_type text collate "C" not null,
    schema_version int not null,
    category text collate "C" not null,
    events bigint not null,
    bytes bigint not null,
    last_recorded_at timestamptz not null,
    constraint event_counts_pkey primary key (tenant_id, event_type, schema_version, category)
) with (fillfactor = 50);
comment on table _eventstream.event_counts is
'How many events of each type and schema version a category has, up to the position in event_count_progress. No dump carries it; what is missing is counted again.';
comment on column _eventstream.event_counts.events is 'at or below that position';
comment on column _eventstream.event_counts.bytes is 'of their payload and metadata, as they are stored';
comment on column _eventstream.event_counts.last_recorded_at is 'when the newest of them was recorded';
comment on index _eventstream.event_counts_pkey is 'the counts of a schema version of an event type, by category';

create table _eventstream.event_count_progress (
    tenant_id bigint not null,
    global_position bigint not null,
    counted_at timestamptz not null default pg_catalog.clock_timestamp(),
    constraint event_count_progress_pkey primary key (tenant_id)
) with (fillfactor = 50);
comment on table _eventstream.event_count_progress is
'Up to which position a tenant''s events are in event_counts. No dump carries it.';
comment on column _eventstream.event_count_progress.global_position is 'every event up to here is counted, and none behind it';
comment on column _eventstream.event_count_progress.counted_at is 'when';
comment on index _eventstream.event_count_progress_pkey is 'one row a tenant';

create table _eventstream.protections (
    tenant_id bigint not null,
    kind text collate "C" not null,
    event_type text collate "C" not null,
    schema_version int not null,
    pointers text[] collate "C",
    clear_pointers text[] collate "C",
    metadata_pointers text[] collate "C" not null,
    created_at timestamptz not null default pg_catalog.clock_timestamp(),
    constraint protections_pkey primary key (tenant_id, kind, event_type, schema_version),
    constraint protections_kind check (kind in ('event', 'command')),
    constraint protections_form check ((pointers is null) <> (clear_pointers is null))
);
comment on table _eventstream.protections is
'Which values of payloads and metadata are not shown, by event type (or command) and schema version, as es_protect was told.';
comment on column _eventstream.protections.event_type is 'or the type of a command, or the name of an operation outside';
comment on column _eventstream.protections.pointers is 'what is protected of payloads; NULL: all but the clear ones';
comment on column _eventstream.protections.clear_pointers is 'what of payloads is shown; NULL: all but those that are listed';
comment on column _eventstream.protections.metadata_pointers is 'what is protected of metadata';
comment on index _eventstream.protections_pkey is 'one rule a schema version';
comment on constraint protections_kind on _eventstream.protections is 'events, or commands';
comment on constraint protections_form on _eventstream.protections is 'one of the two forms';

create table _eventstream.category_rules (
    tenant_id bigint not null,
    category text collate "C" not null,
    settings jsonb not null,
    constraint category_rules_pkey primary key (tenant_id, category)
);
comment on table _eventstream.category_rules is
'What categories ask of whatever is appended to them, as es_alter_category has set it.';
comment on column _eventstream.category_rules.settings is 'what is no default; {} = nothing is asked any more';
comment on index _eventstream.category_rules_pkey is 'the rules of a category';

create sequence _eventstream.period_ids as bigint;
comment on sequence _eventstream.period_ids is 'ids of closed periods';

create table _eventstream.periods (
    tenant_id bigint not null,
    period_id bigint not null,
    category text collate "C" not null,
    tag text collate "C",
    closed_until timestamptz not null,
    known_at timestamptz not null,
    is_whole bool not null,
    closed_position bigint not null,
    reason text collate "C" not null,
    closed_by text collate "C" not null,
    closed_at timestamptz not null default pg_catalog.clock_timestamp(),
    reopened_at timestamptz,
    reopened_position bigint,
    reopened_by text collate "C",
    reopen_reason text collate "C",
    constraint periods_pkey primary key (tenant_id, period_id),
    constraint periods_reopened check ((reopened_at is null) = (reopened_by is null) and (reopened_at is null) = (reopen_reason is null)
                                        and (reopened_at is null) = (reopened_position is null))
);
comment on table _eventstream.periods is
'What was closed: no event of the category may say that it occurred at or before closed_until, from the closing''s commit on and until it is reopened.';
comment on column _eventstream.periods.tag is 'only events that bear it; NULL = all';
comment on column _eventstream.periods.known_at is 'all that was recorded of the category up to the closing was recorded up to here, and nothing was since';
comment on column _eventstream.periods.is_whole is 'false: a clock had run ahead, and something of the category was recorded after known_at';
comment on column _eventstream.periods.closed_position is 'the last position that was handed out before the closing';
comment on column _eventstream.periods.reopened_position is 'the last one before it was reopened';
comment on index _eventstream.periods_pkey is 'a closing of a tenant';
comment on constraint periods_reopened on _eventstream.periods is 'who reopens it says why';
create unique index periods_closed_idx on _eventstream.periods (tenant_id, category, tag, closed_until) nulls not distinct where reopened_at is null;
comment on index _eventstream.periods_closed_idx is 'what is closed now, each moment once';
create index periods_category_idx on _eventstream.periods (tenant_id, category, closed_position) where is_whole;
comment on index _eventstream.periods_category_idx is 'how far a category was looked at, whatever the tag';

-- Operations that are executed outside, once a key. Rows are never deleted: a key is for ever.
create table _eventstream.operations (
    tenant_id bigint not null,
    operation text collate "C" not null,
    command_key text collate "C" not null,
    stage text collate "C" not null,
    attempt int not null,
    attempt_token uuid not null,
    lease_until timestamptz not null,
    salt bytea not null,
    request_digest bytea not null,
    is_retryable bool not null default false,
    result jsonb,
    last_error jsonb,
    keep interval,
    subject text collate "C",
    begun_by text collate "C" not null,
    begun_at timestamptz not null,
    attempted_at timestamptz not null,
    finished_at timestamptz,
    forget_at timestamptz,
    constraint operations_pkey primary key (tenant_id, operation, command_key),
    constraint operations_token_key unique (attempt_token),
    constraint operations_stage_check check (stage in ('executing', 'completed', 'failed', 'forgotten'))
) with (fillfactor = 80);
comment on table _eventstream.operations is
'Operations that programs execute outside of the database, once a key: who is at it, and what came of it.';
comment on column _eventstream.operations.attempt_token is 'of the newest attempt: it alone finishes it';
comment on column _eventstream.operations.salt is 'random: of the request''s digest, and of the ids that events of the operation take';
comment on column _eventstream.operations.request_digest is 'SHA-256 over the salt and the request: it is compared, and cannot be read';
comment on column _eventstream.operations.keep is 'how long the answer is kept after the end; NULL = for ever';
comment on index _eventstream.operations_pkey is 'an operation by its key';
comment on index _eventstream.operations_token_key is 'an operation by its newest attempt';
comment on constraint operations_stage_check on _eventstream.operations is 'the four stages';
create index operations_forget_idx on _eventstream.operations (forget_at) where forget_at is not null;
comment on index _eventstream.operations_forget_idx is 'answers that are to be forgotten, the next one first';
create index operations_lease_idx on _eventstream.operations (lease_until) where stage = 'executing';
comment on index _eventstream.operations_lease_idx is 'attempts that are under way, or were left, the oldest first';

create table _eventstream.deciders (
    tenant_id bigint not null,
    name text collate "C" not null,
    category text collate "C" not null,
    handler text collate "C" not null,
    boundary text collate "C",
    fold text collate "C",
    commands jsonb,
    is_default bool not null,
    source jsonb not null,
    registrant text collate "C" not null,
    registrant_oid oid,
    search_path text collate "C" not null,
    registered_at timestamptz not null default pg_catalog.clock_timestamp(),
    constraint deciders_pkey primary key (tenant_id, name)
);
comment on table _eventstream.deciders is
'What decides on the commands of a category: a function of the state and the command that answers which events follow, called as the registrant.';
comment on column _eventstream.deciders.boundary is 'the function that names the streams of a decision; NULL: the command''s alone';
comment on column _eventstream.deciders.fold is 'of the category; NULL: the default one';
comment on column _eventstream.deciders.commands is 'those that it takes, each with a schema, an example and a description; NULL: any';
comment on column _eventstream.deciders.source is 'the functions as they were at registration: language, body and so on';
comment on column _eventstream.deciders.registrant_oid is 'as grants.role_oid; NULL = that role is gone';
comment on column _eventstream.deciders.search_path is 'of the registrant at registration: the functions always run with it';
comment on index _eventstream.deciders_pkey is 'a decider by tenant and name';
create unique index deciders_default_idx on _eventstream.deciders (tenant_id, category) where is_default;
comment on index _eventstream.deciders_default_idx is 'at most one default decider a category';

create table _eventstream.invariants (
    tenant_id bigint not null,
    name text collate "C" not null,
    categories text[] collate "C" not null,
    event_types text[] collate "C",
    handler text collate "C",
    fold text collate "C",
    require jsonb,
    source jsonb,
    registrant text collate "C" not null,
    registrant_oid oid,
    search_path text collate "C" not null,
    registered_at timestamptz not null default pg_catalog.clock_timestamp(),
    constraint invariants_pkey primary key (tenant_id, name),
    constraint invariants_kind check ((handler is null) = (source is null) and (handler is null) <> (require is null) and (fold is null or handler is null))
);
comment on table _eventstream.invariants is
'What must hold of whatever is appended: of a stream''s state after each append, or of all events of a transaction at its commit, by a function that is called as the registrant.';
comment on column _eventstream.invariants.categories is 'whose events are judged';
comment on column _eventstream.invariants.event_types is 'of these only; NULL: of all';
comment on column _eventstream.invariants.handler is 'the function of a transaction''s events; NULL: the state is judged';
comment on column _eventstream.invariants.fold is 'whose state; NULL: that of each category''s default one';
comment on column _eventstream.invariants.require is 'what the state must be';
comment on column _eventstream.invariants.source is 'the function as it was at registration: language, body and so on';
comment on column _eventstream.invariants.registrant_oid is 'as grants.role_oid; NULL = that role is gone';
comment on column _eventstream.invariants.search_path is 'of the registrant at registration: the function always runs with it';
comment on index _eventstream.invariants_pkey is 'an invariant by tenant and name';
comment on constraint invariants_kind on _eventstream.invariants is 'a function, or what a state must be';

create table _eventstream.command_answers (
    tenant_id bigint not null,
    category text collate "C" not null,
    command_key text collate "C" not null,
    stream text collate "C" not null,
    command_type text collate "C" not null,
    salt bytea not null,
    request_digest bytea not null,
    answer jsonb not null,
    decider text collate "C" not null,
    role text collate "C" not null,
    executed_at timestamptz not null,
    constraint command_answers_pkey primary key (tenant_id, category, command_key)
);
comment on table _eventstream.command_answers is
'The answers of commands that were executed with a key, for ever: who sends one again is given the same.';
comment on column _eventstream.command_answers.command_key is 'the client''s name for one intention, within the tenant and category';
comment on column _eventstream.command_answers.salt is 'random; it goes with the row';
comment on column _eventstream.command_answers.request_digest is 'SHA-256 over salt, stream, command_type, payload and occurred_at: a repetition has the same, and nobody learns the payload';
comment on column _eventstream.command_answers.answer is 'as it was given when it was executed; a repetition is told that it is one';
comment on column _eventstream.command_answers.role is 'whose rights were checked, by the name of then';
comment on index _eventstream.command_answers_pkey is 'what was answered to a key';

create sequence _eventstream.scheduled_command_ids as bigint;
comment on sequence _eventstream.scheduled_command_ids is 'ids of scheduled commands';

-- Commands for later, once a key. Rows are never deleted: a key is for ever. finished_at is null: it may still run.
create table _eventstream.scheduled_commands (
    id bigint not null default nextval('_eventstream.scheduled_command_ids'),
    tenant_id bigint not null,
    category text collate "C" not null,
    command_key text collate "C" not null,
    stream text collate "C" not null,
    command_type text collate "C" not null,
    salt bytea not null,
    request_digest bytea not null,
    payload jsonb,
    metadata jsonb,
    decider text collate "C",
    subject text collate "C",
    run_at timestamptz not null,
    stage text collate "C" not null default 'pending',
    due_at timestamptz,
    attempts int not null default 0,
    error_sqlstate text collate "C",
    error_message text collate "C",
    error_detail text collate "C",
    reason text collate "C",
    registrant text collate "C" not null,
    registrant_oid oid,
    recorded_by text collate "C" not null,
    scheduled_at timestamptz not null default pg_catalog.clock_timestamp(),
    finished_at timestamptz,
    constraint scheduled_commands_pkey primary key (tenant_id, command_key, category),
    constraint scheduled_commands_id_key unique (id),
    constraint scheduled_commands_stage_check check (stage in ('pending', 'done', 'refused', 'dead', 'unscheduled', 'dropped')),
    constraint scheduled_commands_finished check ((finished_at is null) = (stage in ('pending', 'dead')) and (due_at is not null) = (stage = 'pending')
                                                  and (payload is null) = (finished_at is not null) and (metadata is null) = (finished_at is not null))
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
-- Statistics would hold values.
alter table _eventstream.scheduled_commands alter column payload set statistics 0, alter column metadata set statistics 0,
    alter column error_message set statistics 0, alter column error_detail set statistics 0, alter column reason set statistics 0;
alter table _eventstream.command_answers alter column answer set statistics 0;
alter table _eventstream.operations alter column result set statistics 0, alter column last_error set statistics 0;
comment on table _eventstream.scheduled_commands is
'Commands that are to be executed later, each once, by runners, with the rights of who scheduled it as they are then. What came of one that is done stands in command_answers.';
comment on column _eventstream.scheduled_commands.command_key is 'the client''s name for one intention, within the tenant and category, as es_command''s';
comment on column _eventstream.scheduled_commands.salt is 'random; it goes with the row';
comment on column _eventstream.scheduled_commands.request_digest is 'SHA-256 over salt, stream, command_type and payload: a repetition has the same';
comment on column _eventstream.scheduled_commands.payload is 'NULL once it is over: nobody needs it any more';
comment on column _eventstream.scheduled_commands.metadata is 'with the defaults of the session that scheduled it; NULL once it is over';
comment on column _eventstream.scheduled_commands.run_at is 'not before';
comment on column _eventstream.scheduled_commands.due_at is 'run_at, or when it is tried again; NULL: not by itself';
comment on column _eventstream.scheduled_commands.attempts is 'that were made, the last one included; from 0 again after es_retry_dead_letter';
comment on column _eventstream.scheduled_commands.error_sqlstate is 'of the refusal, or of the last failure';
comment on column _eventstream.scheduled_commands.reason is 'why it was unscheduled or dropped';
comment on column _eventstream.scheduled_commands.registrant is 'the role that scheduled it, whose rights it is executed with';
comment on column _eventstream.scheduled_commands.registrant_oid is 'as grants.role_oid; NULL = that role is gone';
comment on column _eventstream.scheduled_commands.recorded_by is 'who is said to have recorded its events';
comment on index _eventstream.scheduled_commands_pkey is 'a scheduled command by its key';
comment on index _eventstream.scheduled_commands_id_key is 'a scheduled command by its id';
comment on constraint scheduled_commands_stage_check on _eventstream.scheduled_commands is 'the six stages';
comment on constraint scheduled_commands_finished on _eventstream.scheduled_commands is 'what may still run has what it needs for it, and what is over has not';
create index scheduled_commands_due_idx on _eventstream.scheduled_commands (tenant_id, due_at, id) where finished_at is null;
comment on index _eventstream.scheduled_commands_due_idx is 'those that may still run, of a tenant, the next one first';
create index scheduled_commands_registrant_idx on _eventstream.scheduled_commands (registrant_oid) where finished_at is null;
comment on index _eventstream.scheduled_commands_registrant_idx is 'the roles of those that may still run';
