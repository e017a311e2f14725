-- The types that es_* functions return.
create type eventstream.event as (
    global_position bigint,
    stream text,
    version bigint,
    event_id uuid,
    event_type text,
    schema_version int,
    payload jsonb,
    metadata jsonb,
    subject text,
    occurred_at timestamptz,
    recorded_at timestamptz,
    category text,
    tenant text,
    recorded_by text,
    salt bytea,
    chain_hash bytea,
    tags text[]
);
comment on type eventstream.event is
'One event. version counts 1, 2, 3 … within its stream; global_position is its unique place in the log; occurred_at is valid time (the caller''s), recorded_at is transaction time (the database''s).';
comment on column eventstream.event.global_position is 'place in the log of this database: unique, increasing, may have gaps';
comment on column eventstream.event.stream is 'category-id, e.g. account-1000';
comment on column eventstream.event.version is '1, 2, 3 … within the stream, without gaps';
comment on column eventstream.event.event_id is 'unique within the stream; a ULID held in a uuid unless the caller gave another';
comment on column eventstream.event.event_type is 'what happened, in the past tense, e.g. AccountCredited';
comment on column eventstream.event.schema_version is 'version of the payload''s shape, from 1';
comment on column eventstream.event.payload is 'the event''s data; numbers keep value and scale';
comment on column eventstream.event.metadata is 'about the event: correlation_id, causation_id, actor, traceparent and whatever the caller adds';
comment on column eventstream.event.subject is 'the person the event is about (a pseudonym), if any';
comment on column eventstream.event.occurred_at is 'when it happened, as the caller says (valid time)';
comment on column eventstream.event.recorded_at is 'when the database recorded it (transaction time); never falls along a stream';
comment on column eventstream.event.category is 'the stream''s name before its first -';
comment on column eventstream.event.tenant is 'the tenant the stream belongs to';
comment on column eventstream.event.recorded_by is 'the session user that appended it';
comment on column eventstream.event.salt is '16 random bytes that go into the content digest';
comment on column eventstream.event.chain_hash is 'SHA-256 over the event and its predecessor''s chain hash';
comment on column eventstream.event.tags is 'what the event is about beside its stream, e.g. order:42: a set in the order of the bytes; NULL: none';

create type eventstream.command as (
    command_type text,
    payload jsonb,
    metadata jsonb,
    stream text,
    version bigint,
    versions jsonb,
    subject text,
    occurred_at timestamptz,
    decided_at timestamptz,
    command_key text,
    tenant text,
    role text,
    actor text
);
comment on type eventstream.command is
'A command as its decider sees it: what is wanted of which stream, by whom, and at which versions the streams of the decision are. es_make_command makes one for tests.';
comment on column eventstream.command.command_type is 'what is wanted, in the imperative, e.g. Withdraw';
comment on column eventstream.command.payload is 'the command''s data; numbers keep value and scale';
comment on column eventstream.command.metadata is 'what its events will have: as the caller gave it, with the session''s defaults';
comment on column eventstream.command.stream is 'the stream that it was sent to: category-id, e.g. account-1000';
comment on column eventstream.command.version is 'of that stream, behind its lock; 0: it has no events; NULL for a boundary, which comes before';
comment on column eventstream.command.versions is 'of all streams of the boundary, by their names; NULL for a boundary';
comment on column eventstream.command.subject is 'the person that it is about (a pseudonym), if any';
comment on column eventstream.command.occurred_at is 'when it happened, as the caller says; else decided_at';
comment on column eventstream.command.decided_at is 'now, by the server''s clock';
comment on column eventstream.command.command_key is 'the client''s name for this intention, if it gave one';
comment on column eventstream.command.tenant is 'whose it is';
comment on column eventstream.command.role is 'whose rights were checked';
comment on column eventstream.command.actor is 'who acts, as the metadata say';

create type eventstream.stream_info as (
    stream text,
    version bigint,
    first_position bigint,
    last_position bigint,
    first_occurred_at timestamptz,
    last_occurred_at timestamptz,
    first_recorded_at timestamptz,
    last_recorded_at timestamptz,
    events bigint,
    bytes bigint,
    snapshots bigint,
    closed bool
);
comment on type eventstream.stream_info is
'One stream at a glance: its version, the positions and times of its first and last event, how many events and bytes it holds, how many snapshots, and whether it is closed.';
comment on column eventstream.stream_info.stream is 'category-id, e.g. account-1000';
comment on column eventstream.stream_info.version is 'of the newest event';
comment on column eventstream.stream_info.first_position is 'global position of version 1';
comment on column eventstream.stream_info.last_position is 'global position of the newest event';
comment on column eventstream.stream_info.first_occurred_at is 'when the event of version 1 happened, by its own word';
comment on column eventstream.stream_info.last_occurred_at is 'when the newest event happened, by its own word';
comment on column eventstream.stream_info.first_recorded_at is 'when the event of version 1 was recorded';
comment on column eventstream.stream_info.last_recorded_at is 'when the newest event was recorded';
comment on column eventstream.stream_info.events is 'how many there are';
comment on column eventstream.stream_info.bytes is 'of the stored rows';
comment on column eventstream.stream_info.snapshots is 'how many there are, of all folds';
comment on column eventstream.stream_info.closed is 'whether es_close_stream ended it: no more appends';

create type eventstream.delivery as (
    lease_id uuid,
    attempt bigint,
    lease_until timestamptz,
    event eventstream.event
);
comment on type eventstream.delivery is
'An event as es_fetch gives it to a consumer: to be acknowledged with its lease before lease_until, or it is delivered again.';
comment on column eventstream.delivery.lease_id is 'for es_ack, es_nack and es_extend_lease';
comment on column eventstream.delivery.attempt is '1 the first time; more where a lease with it ended, or it was nacked';
comment on column eventstream.delivery.lease_until is 'until then nobody else gets the event';
comment on column eventstream.delivery.event is 'at its newest schema version';
