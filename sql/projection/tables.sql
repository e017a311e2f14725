-- Projections. Only src/projection writes them.
create sequence _eventstream.projection_ids as bigint;
comment on sequence _eventstream.projection_ids is 'ids of projections';

create table _eventstream.projections (
    id bigint not null default nextval('_eventstream.projection_ids'),
    tenant_id bigint not null,
    name text collate "C" not null,
    kind text collate "C" not null,
    mode text collate "C" not null,
    handler text collate "C",
    categories text[] collate "C",
    event_types text[] collate "C",
    batch_size bigint not null,
    on_error text collate "C" not null,
    max_retries bigint not null,
    reset text collate "C",
    start_position bigint not null,
    table_name text collate "C",
    columns jsonb,
    fold text collate "C",
    registrant text collate "C" not null,
    registrant_oid oid,
    search_path text collate "C" not null,
    created_at timestamptz not null default pg_catalog.clock_timestamp(),
    constraint projections_pkey primary key (id),
    constraint projections_name_key unique (tenant_id, name),
    constraint projections_kind_check check (kind in ('event', 'batch', 'table')),
    constraint projections_mode_check check (mode in ('async', 'inline')),
    constraint projections_on_error_check check (on_error in ('stop', 'skip')),
    constraint projections_handler_or_table check ((kind = 'table') = (handler is null) and (kind = 'table') = (table_name is not null))
);
comment on table _eventstream.projections is
'Read models that follow the log: by a handler (schema-qualified function, called as the registrant), or as a state table by a fold.';
comment on column _eventstream.projections.kind is 'event: handler(event); batch: handler(event[]); table: a state table';
comment on column _eventstream.projections.categories is 'only events of these; NULL = all';
comment on column _eventstream.projections.event_types is 'only events of these; NULL = all';
comment on column _eventstream.projections.reset is 'function that empties the read model before a rebuild';
comment on column _eventstream.projections.start_position is 'events up to here are never shown to it';
comment on column _eventstream.projections.table_name is 'schema-qualified and quoted';
comment on column _eventstream.projections.columns is 'of the state table: [{"name", "type", "path"}]';
comment on column _eventstream.projections.fold is 'of the state table; NULL = the category''s default one';
comment on column _eventstream.projections.registrant_oid is 'as grants.role_oid; NULL = that role is gone';
comment on column _eventstream.projections.search_path is 'of the registrant at creation: the handler always runs with it';
comment on index _eventstream.projections_pkey is 'a projection by id';
comment on index _eventstream.projections_name_key is 'a projection by tenant and name';
comment on constraint projections_kind_check on _eventstream.projections is 'what is called for the events';
comment on constraint projections_mode_check on _eventstream.projections is 'by a worker, or in the append''s transaction';
comment on constraint projections_on_error_check on _eventstream.projections is 'what comes after the last retry';
comment on constraint projections_handler_or_table on _eventstream.projections is 'exactly one of the two';

create table _eventstream.projection_progress (
    projection_id bigint not null,
    status text collate "C" not null,
    global_position bigint not null,
    moved_at timestamptz not null default pg_catalog.clock_timestamp(),
    applied bigint not null default 0,
    window_applied bigint not null default 0,
    window_began timestamptz not null default pg_catalog.clock_timestamp(),
    rate float8 not null default 0,
    attempts int not null default 0,
    next_batch int,
    failed_position bigint,
    failed_at timestamptz,
    retry_at timestamptz,
    error_sqlstate text collate "C",
    error_message text collate "C",
    error_detail text collate "C",
    fingerprint bytea,
    rebuild_to bigint,
    rebuild_stream bigint,
    rebuild_done bigint,
    rebuild_total bigint,
    rebuild_began timestamptz,
    constraint projection_progress_pkey primary key (projection_id),
    constraint projection_progress_status_check check (status in ('running', 'paused', 'stopped', 'rebuilding'))
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
-- Statistics would hold values.
alter table _eventstream.projection_progress alter column error_message set statistics 0, alter column error_detail set statistics 0;
comment on table _eventstream.projection_progress is
'How far each projection is: its checkpoint, which is committed together with its effects, its last failure, and its rebuild. Its row is locked while the projection is advanced.';
comment on column _eventstream.projection_progress.global_position is 'every event up to here is in the read model, or in the dead letters; of an inline one: where it was paused';
comment on column _eventstream.projection_progress.applied is 'events applied so far, dead letters included';
comment on column _eventstream.projection_progress.window_began is 'since when rate is being measured anew';
comment on column _eventstream.projection_progress.rate is 'events a second in the last whole window';
comment on column _eventstream.projection_progress.attempts is 'failed attempts at failed_position in a row';
comment on column _eventstream.projection_progress.next_batch is 'the most events of the next batch after a failure that could not be told to be of one event; NULL = batch_size';
comment on column _eventstream.projection_progress.failed_position is 'the event that fails, where it is known';
comment on column _eventstream.projection_progress.fingerprint is 'of the fold by which a state table was filled; NULL where its rows are not all of one';
comment on column _eventstream.projection_progress.rebuild_to is 'position up to which a rebuild fills the read model';
comment on column _eventstream.projection_progress.rebuild_stream is 'id of the last stream that the rebuild of a state table has folded';
comment on column _eventstream.projection_progress.rebuild_done is 'streams of a state table that are done; a handler''s rebuild is as far as its global_position';
comment on index _eventstream.projection_progress_pkey is 'one row a projection';
comment on constraint projection_progress_status_check on _eventstream.projection_progress is 'what a worker does with it';

create table _eventstream.rebuilt_states (
    projection_id bigint not null,
    stream text collate "C" not null,
    version bigint not null,
    state jsonb not null,
    constraint rebuilt_states_pkey primary key (projection_id, stream)
);
-- Statistics would hold values.
alter table _eventstream.rebuilt_states alter column state set statistics 0;
comment on table _eventstream.rebuilt_states is
'What a rebuild of a state table has folded so far: it becomes visible in the table when it is complete, in one transaction.';
comment on index _eventstream.rebuilt_states_pkey is 'one row a stream, in the order in which they are written';
