-- The log: who it is, streams, events, and those that readers went past. Only src/log writes them. Text of ours is compared byte by byte (collate "C"),
-- in every table: the order of another collation changes with the operating system's libraries, and a unique index that was built by the old order would
-- let a name in twice.
create table _eventstream.log_identities (
    log_id uuid not null,
    system_identifier bigint not null,
    database_oid oid not null,
    created_at timestamptz not null,
    has_begun boolean not null default false
);
comment on table _eventstream.log_identities is
'Who this log is: this_log() has the row that counts, which survives dump and restore. CREATE EXTENSION adds a row of its own, which is how a restored copy is told from the original.';
comment on column _eventstream.log_identities.has_begun is
'the row that counted when the log''s first event was appended, written again: from then on it counts whatever clocks say';

insert into _eventstream.log_identities
select pg_catalog.gen_random_uuid(), c.system_identifier, d.oid, pg_catalog.clock_timestamp()
from pg_catalog.pg_control_system() c, pg_catalog.pg_database d
where d.datname = pg_catalog.current_database();

-- What was restored is older than what CREATE EXTENSION made here, unless a clock was wrong: asked until the log has begun.
-- No view: a session may have forbidden views of extensions to itself (restrict_nonsystem_relation_kind).
create function _eventstream.this_log() returns setof _eventstream.log_identities
language sql stable parallel safe rows 1
begin atomic
    select i.log_id, i.system_identifier, i.database_oid, i.created_at, i.has_begun
    from _eventstream.log_identities i
    order by i.has_begun desc, i.created_at
    limit 1;
end;
comment on function _eventstream.this_log() is 'Who this log is: the one row of log_identities that counts.';

create table _eventstream.first_appends (
    appended_at timestamptz not null default pg_catalog.clock_timestamp()
);
comment on table _eventstream.first_appends is
'A row as soon as this database has appended. No dump carries it: until there is one, a restore may bring rows into the tables.';

create sequence _eventstream.stream_ids as bigint;
comment on sequence _eventstream.stream_ids is 'ids of streams';

create table _eventstream.streams (
    id bigint not null,
    tenant_id bigint not null,
    first_position bigint not null,
    name text collate "C" not null,
    category text collate "C" not null,
    slot smallint not null,
    constraint streams_pkey primary key (id),
    constraint streams_name_key unique (tenant_id, name)
);
comment on table _eventstream.streams is
'One row a stream, never changed. An append locks it (FOR NO KEY UPDATE); the head is read from the newest event.';
comment on column _eventstream.streams.first_position is 'position of version 1';
comment on column _eventstream.streams.slot is 'in which of a subscription''s slots it is: a hash of its tenant''s uuid and its name';
comment on index _eventstream.streams_pkey is 'a stream by id';
comment on index _eventstream.streams_name_key is 'a stream by tenant and name';
create index streams_category_idx on _eventstream.streams (tenant_id, category, id);
comment on index _eventstream.streams_category_idx is 'the streams of a category, in the order they began';
create index streams_first_position_idx on _eventstream.streams (first_position);
comment on index _eventstream.streams_first_position_idx is 'the streams that begin in a range of the log: for verification';

create table _eventstream.stream_segments (
    stream_id bigint not null,
    partition bigint not null,
    first_version bigint not null,
    first_position bigint not null,
    constraint stream_segments_pkey primary key (stream_id, partition)
);
comment on table _eventstream.stream_segments is
'Where a stream that crossed partitions goes on: one row for each partition after its first. Appends and reads go straight to the partitions that hold the versions asked for.';
comment on column _eventstream.stream_segments.partition is 'lower bound of the partition';
comment on column _eventstream.stream_segments.first_version is 'the stream''s first version in it';
comment on column _eventstream.stream_segments.first_position is 'position of that version: positions that were moved differ from it';
comment on index _eventstream.stream_segments_pkey is 'the segments of a stream in order';

create sequence _eventstream.positions as bigint cache 1;
comment on sequence _eventstream.positions is 'global positions, handed out one by one (CACHE 1: the horizon depends on it)';

create sequence _eventstream.recorded_floor as bigint minvalue -9223372036854775807 start 1;
comment on sequence _eventstream.recorded_floor is
'The database-wide floor of recorded_at in microseconds since 2000-01-01 UTC: raised by es_settled_until, durable at once, outside of transactions. No later event is recorded below it.';
select pg_catalog.setval('_eventstream.recorded_floor', -9223372036854775807);

create table _eventstream.events (
    tenant_id bigint not null,
    stream_id bigint not null,
    version bigint not null,
    global_position bigint not null,
    occurred_at timestamptz not null,
    max_occurred_at timestamptz not null,
    recorded_at timestamptz not null,
    event_id uuid not null,
    schema_version int not null,
    event_type text collate "C" not null,
    category text collate "C" not null,
    recorded_by text collate "C" not null,
    subject text collate "C",
    recorded_from inet,
    salt bytea,
    chain_hash bytea not null,
    payload jsonb,
    metadata jsonb,
    tags text[] collate "C"
) partition by range (global_position);
comment on table _eventstream.events is
'The log: every event of every stream, partitioned by range of global_position. Written only by es_append and its kin; never updated, deleted or truncated.';
comment on column _eventstream.events.max_occurred_at is 'the largest occurred_at of the stream up to this version: never falls, so a point in valid time is found by binary search';
comment on column _eventstream.events.tags is 'what the event is about beside its stream: a set in the order of the bytes; NULL: none';
comment on column _eventstream.events.recorded_from is 'the client''s address; NULL for a unix socket. Not covered by the chain hash';

-- Statistics would hold values.
alter table only _eventstream.events alter column payload set statistics 0, alter column metadata set statistics 0;

create table _eventstream.event_tags (
    tenant_id bigint not null,
    tag text collate "C" not null,
    global_position bigint not null
) partition by range (global_position);
comment on table _eventstream.event_tags is
'The tags of the log''s events once more, a row for each, in the order in which they are looked for; partitioned as the events are. Written by the append beside its event, and only where that has tags.';

create table _eventstream.tag_partitions (
    tenant_id bigint not null,
    tag text collate "C" not null,
    partition bigint not null
);
comment on table _eventstream.tag_partitions is
'In which partitions of the log a tag is: whoever looks for one looks nowhere else. Two appends that bring a tag into a partition at once may both say so.';
comment on column _eventstream.tag_partitions.partition is 'lower bound of the partition';
create index tag_partitions_idx on _eventstream.tag_partitions (tenant_id, tag, partition);
comment on index _eventstream.tag_partitions_idx is 'the partitions of a tag in order; not unique, so that nobody who appends waits for another one here';

-- Indexes stand on the partitions only (_eventstream.make_partition): an index of the parent would come back with
-- CREATE EXTENSION in a restore and collide with those that pg_dump recreates on each partition.

create table _eventstream.activations (
    log_id uuid not null,
    system_identifier bigint not null,
    database_oid oid not null,
    activated_by text collate "C" not null,
    activated_at timestamptz not null default pg_catalog.clock_timestamp(),
    constraint activations_pkey primary key (log_id, system_identifier, database_oid)
);
comment on table _eventstream.activations is
'Where es_activate() said that this copy of a log is the original from now on. A log that is where this_log() says needs no row here.';
comment on index _eventstream.activations_pkey is 'one row a place';

create sequence _eventstream.dead_letter_ids as bigint;
comment on sequence _eventstream.dead_letter_ids is 'ids of dead letters';

create table _eventstream.dead_letters (
    id bigint not null default nextval('_eventstream.dead_letter_ids'),
    tenant_id bigint not null,
    projection_id bigint,
    subscription_id bigint,
    scheduled_id bigint,
    global_position bigint,
    stream text collate "C" not null,
    version bigint,
    event_type text collate "C",
    attempts int not null,
    reason text collate "C" not null,
    error_sqlstate text collate "C",
    error_detail text collate "C",
    outline text collate "C",
    died_at timestamptz not null default pg_catalog.clock_timestamp(),
    constraint dead_letters_pkey primary key (tenant_id, id),
    constraint dead_letters_one_source check (pg_catalog.num_nonnulls(projection_id, subscription_id, scheduled_id) = 1),
    constraint dead_letters_event check ((scheduled_id is null) = (global_position is not null) and (scheduled_id is null) = (version is not null)
                                         and (scheduled_id is null) = (event_type is not null))
);
-- Statistics would hold values.
alter table _eventstream.dead_letters alter column reason set statistics 0, alter column error_detail set statistics 0, alter column outline set statistics 0;
comment on table _eventstream.dead_letters is
'Events that a projection or the consumers of a subscription could not process, and that the others went past; scheduled commands that could not be executed.';
comment on column _eventstream.dead_letters.scheduled_id is 'of a scheduled command, whose stream is the command''s';
comment on column _eventstream.dead_letters.outline is 'what of the reason holds nothing of a payload, for those who may not read the event; NULL: nothing';
comment on index _eventstream.dead_letters_pkey is 'a dead letter of a tenant by id';
comment on constraint dead_letters_one_source on _eventstream.dead_letters is 'of a projection, of a subscription, or a scheduled command';
comment on constraint dead_letters_event on _eventstream.dead_letters is 'of an event, unless it is a command';
create unique index dead_letters_projection_idx on _eventstream.dead_letters (projection_id, global_position) where projection_id is not null;
comment on index _eventstream.dead_letters_projection_idx is 'an event is dead once a projection';
create unique index dead_letters_subscription_idx on _eventstream.dead_letters (subscription_id, global_position) where subscription_id is not null;
comment on index _eventstream.dead_letters_subscription_idx is 'an event is dead once a subscription';
create unique index dead_letters_scheduled_idx on _eventstream.dead_letters (scheduled_id) where scheduled_id is not null;
comment on index _eventstream.dead_letters_scheduled_idx is 'a scheduled command is dead once';
