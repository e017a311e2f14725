-- Folds, upcasters and snapshots. Only src/state writes them.
create table _eventstream.folds (
    tenant_id bigint not null,
    name text collate "C" not null,
    category text collate "C" not null,
    handler text collate "C",
    rules jsonb,
    initial_state jsonb not null,
    snapshot_every bigint not null,
    fold_order text collate "C" not null,
    is_default bool not null,
    registrant text collate "C" not null,
    registrant_oid oid,
    search_path text collate "C" not null,
    registered_at timestamptz not null default pg_catalog.clock_timestamp(),
    constraint folds_pkey primary key (tenant_id, name),
    constraint folds_handler_or_rules check ((handler is null) <> (rules is null)),
    constraint folds_order_check check (fold_order in ('version', 'occurred_at'))
);
comment on table _eventstream.folds is
'How the events of a category become a state: by a function (handler, schema-qualified, called as the registrant) or by rules.';
comment on column _eventstream.folds.category is 'empty: of no one category, for what the queries of deciders'' boundaries match';
comment on column _eventstream.folds.search_path is 'of the registrant at registration: the handler always runs with it';
comment on column _eventstream.folds.registrant_oid is 'as grants.role_oid; NULL = that role is gone';
comment on index _eventstream.folds_pkey is 'a fold by tenant and name';
comment on constraint folds_handler_or_rules on _eventstream.folds is 'exactly one of the two';
comment on constraint folds_order_check on _eventstream.folds is 'as the events came, or by their valid time';
create unique index folds_default_idx on _eventstream.folds (tenant_id, category) where is_default;
comment on index _eventstream.folds_default_idx is 'at most one default fold a category';

create table _eventstream.upcasters (
    tenant_id bigint not null,
    event_type text collate "C" not null,
    from_schema_version int not null,
    to_event_type text collate "C" not null,
    handler text collate "C" not null,
    registrant text collate "C" not null,
    registrant_oid oid,
    search_path text collate "C" not null,
    registered_at timestamptz not null default pg_catalog.clock_timestamp(),
    constraint upcasters_pkey primary key (tenant_id, event_type, from_schema_version)
);
comment on table _eventstream.upcasters is
'How the payload of an event type becomes that of its next schema version when it is read; what is stored never changes.';
comment on column _eventstream.upcasters.registrant_oid is 'as grants.role_oid; NULL = that role is gone';
comment on index _eventstream.upcasters_pkey is 'the step from a schema version of an event type';

create table _eventstream.snapshots (
    stream_id bigint not null,
    fold text collate "C" not null,
    version bigint not null,
    chain_hash bytea not null,
    fingerprint bytea not null,
    checksum bytea not null,
    taken_at timestamptz not null default pg_catalog.clock_timestamp(),
    state jsonb not null,
    constraint snapshots_pkey primary key (stream_id, fold, version)
);
-- Statistics would hold values.
alter table _eventstream.snapshots alter column state set statistics 0;
comment on table _eventstream.snapshots is
'States at a version, so that a long stream need not be folded from its first event. Each counts only while its checksum, its event''s chain hash and its fold''s fingerprint are what they were; deleting any of them loses nothing.';
comment on column _eventstream.snapshots.chain_hash is 'of the event at that version';
comment on column _eventstream.snapshots.fingerprint is 'of the fold: its definition, and the upcasters';
comment on column _eventstream.snapshots.checksum is 'SHA-256 over tenant, stream, fold, version, chain hash, fingerprint and state';
comment on index _eventstream.snapshots_pkey is 'the snapshots of a stream and fold in order';

create table _eventstream.snapshot_progress (
    tenant_id bigint not null,
    fold text collate "C" not null,
    fingerprint bytea not null,
    global_position bigint not null,
    reviewed_stream bigint not null,
    advanced_at timestamptz not null default pg_catalog.clock_timestamp(),
    constraint snapshot_progress_pkey primary key (tenant_id, fold)
);
comment on table _eventstream.snapshot_progress is
'Up to which position es_maintain has taken the due snapshots of a fold.';
comment on column _eventstream.snapshot_progress.fingerprint is 'of the fold, with its category and snapshot_every: another one begins again';
comment on column _eventstream.snapshot_progress.global_position is 'due snapshots are taken up to here';
comment on column _eventstream.snapshot_progress.reviewed_stream is 'id of the stream up to which stored snapshots were looked at for retention, from 0 again after the last';
comment on column _eventstream.snapshot_progress.advanced_at is 'the fold that waited longest comes first';
comment on index _eventstream.snapshot_progress_pkey is 'one row a fold';
