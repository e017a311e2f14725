-- Subscriptions, and where their consumers are. Only src/subscription writes them.
create sequence _eventstream.subscription_ids as bigint;
comment on sequence _eventstream.subscription_ids is 'ids of subscriptions';

create table _eventstream.subscriptions (
    id bigint not null default nextval('_eventstream.subscription_ids'),
    tenant_id bigint not null,
    name text collate "C" not null,
    categories text[] collate "C",
    event_types text[] collate "C",
    max_deliveries bigint not null,
    created_by text collate "C" not null,
    created_at timestamptz not null default pg_catalog.clock_timestamp(),
    constraint subscriptions_pkey primary key (id),
    constraint subscriptions_name_key unique (tenant_id, name)
);
comment on table _eventstream.subscriptions is 'Places in the log for consumers outside of the database.';
comment on index _eventstream.subscriptions_pkey is 'a subscription by id';
comment on index _eventstream.subscriptions_name_key is 'a subscription by tenant and name';

create table _eventstream.subscription_slots (
    subscription_id bigint not null,
    slot int not null,
    global_position bigint not null,
    changes bigint not null default 0,
    redeliveries int not null default 0,
    suspect_to bigint not null default 0,
    lease_id uuid,
    consumer text collate "C",
    lease_until timestamptz,
    up_to bigint,
    served_at timestamptz not null default 'epoch',
    constraint subscription_slots_pkey primary key (subscription_id, slot),
    constraint subscription_slots_slot_check check (slot between 0 and 63)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
comment on table _eventstream.subscription_slots is
'The streams of a subscription, spread over 64 slots (streams.slot). A slot is leased to one consumer at a time, and its row is locked only while a lease is given, acknowledged or changed.';
comment on column _eventstream.subscription_slots.global_position is 'every event up to here is acknowledged, dead, or belongs to a parked stream';
comment on column _eventstream.subscription_slots.changes is 'how often the row was written: who read it without a lock sees by it whether that still holds';
comment on column _eventstream.subscription_slots.redeliveries is 'how often the events up to suspect_to were delivered, each time to a lease that ended';
comment on column _eventstream.subscription_slots.suspect_to is 'how far a lease went that ended without acknowledgement';
comment on column _eventstream.subscription_slots.lease_id is 'of the lease that holds the slot, also after it has ended; NULL = free';
comment on column _eventstream.subscription_slots.up_to is 'where global_position moves when the lease is acknowledged';
comment on column _eventstream.subscription_slots.served_at is 'when it was last leased: the slot that waited longest comes first';
comment on index _eventstream.subscription_slots_pkey is 'the slots of a subscription';
comment on constraint subscription_slots_slot_check on _eventstream.subscription_slots is '64 of them';

create table _eventstream.subscription_leases (
    lease_id uuid not null,
    subscription_id bigint not null,
    consumer text collate "C" not null,
    lease_until timestamptz not null,
    positions bigint[] not null,
    stream_ids bigint[] not null,
    of_parked bigint[] not null,
    finished_at timestamptz,
    finished_by text collate "C",
    given_at timestamptz not null default pg_catalog.clock_timestamp(),
    constraint subscription_leases_pkey primary key (lease_id),
    constraint subscription_leases_finished_check check ((finished_at is null) = (finished_by is null))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
comment on table _eventstream.subscription_leases is
'What es_fetch gave to whom. A lease that was acknowledged or has ended stays for a minute, so that whoever comes too late is told why.';
comment on column _eventstream.subscription_leases.positions is 'of the events that it holds, in order: neither acknowledged nor nacked yet';
comment on column _eventstream.subscription_leases.stream_ids is 'of the same events';
comment on column _eventstream.subscription_leases.of_parked is 'positions of those events that it was given of parked streams and single events, not of a slot';
comment on column _eventstream.subscription_leases.lease_until is 'when it ends, or was over';
comment on column _eventstream.subscription_leases.finished_by is 'what ended it, for a message: "it …"';
comment on index _eventstream.subscription_leases_pkey is 'a lease by id';
comment on constraint subscription_leases_finished_check on _eventstream.subscription_leases is 'both or neither';
create index subscription_leases_until_idx on _eventstream.subscription_leases (subscription_id, lease_until);
comment on index _eventstream.subscription_leases_until_idx is 'old ones, to be removed';

create table _eventstream.subscription_consumers (
    subscription_id bigint not null,
    consumer text collate "C" not null,
    seen_until timestamptz not null,
    progressed_at timestamptz
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
comment on table _eventstream.subscription_consumers is
'Who shares a subscription. A name may stand here twice: a unique one would make a consumer wait for an open transaction of another with its name.';
comment on column _eventstream.subscription_consumers.seen_until is 'when its last call ends and the lease that it asked for after it: until then slots are left for it; some minutes later it is forgotten';
comment on column _eventstream.subscription_consumers.progressed_at is 'when it last acknowledged, gave back or extended something: one that never does gets no fair share';
create index subscription_consumers_idx on _eventstream.subscription_consumers (subscription_id, consumer);
comment on index _eventstream.subscription_consumers_idx is 'a consumer of a subscription';
create index subscription_consumers_seen_idx on _eventstream.subscription_consumers (subscription_id, seen_until);
comment on index _eventstream.subscription_consumers_seen_idx is 'those that are there, and old ones, to be removed';

create table _eventstream.subscription_parked (
    subscription_id bigint not null,
    slot int not null,
    stream_id bigint not null,
    from_position bigint not null,
    version bigint not null,
    skipped bigint[] not null default '{}',
    is_single bool not null,
    failed_version bigint,
    attempts int not null,
    retry_at timestamptz not null,
    reason text collate "C",
    parked_at timestamptz not null default pg_catalog.clock_timestamp(),
    constraint subscription_parked_slot_check check (slot between 0 and 63)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
-- Statistics would hold values.
alter table _eventstream.subscription_parked alter column reason set statistics 0;
comment on table _eventstream.subscription_parked is
'Streams that wait by themselves, because an event of theirs was nacked, and single events that were dead letters and are tried again. Written by whoever holds their slot.';
comment on column _eventstream.subscription_parked.from_position is 'the slot gives no events of the stream from here on; of a single event: its position';
comment on column _eventstream.subscription_parked.version is 'every event of the stream up to here is done, as far as this row goes';
comment on column _eventstream.subscription_parked.skipped is 'versions behind it that are done as well';
comment on column _eventstream.subscription_parked.failed_version is 'of the event that attempts, retry_at and reason are about; NULL = none has failed';
comment on column _eventstream.subscription_parked.is_single is 'exactly one event, the next after version; the others of its stream do not wait for it';
comment on column _eventstream.subscription_parked.attempts is 'how often the failed event was delivered';
create unique index subscription_parked_streams_idx on _eventstream.subscription_parked (subscription_id, stream_id) where not is_single;
comment on index _eventstream.subscription_parked_streams_idx is 'a stream is parked once';
create unique index subscription_parked_singles_idx on _eventstream.subscription_parked (subscription_id, from_position) where is_single;
comment on index _eventstream.subscription_parked_singles_idx is 'an event is tried again once';
create index subscription_parked_retry_idx on _eventstream.subscription_parked (subscription_id, retry_at);
comment on index _eventstream.subscription_parked_retry_idx is 'which are due';
comment on constraint subscription_parked_slot_check on _eventstream.subscription_parked is 'one of the 64';
