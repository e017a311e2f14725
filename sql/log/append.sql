-- es_append and its kin.
create function es_append(
    stream text,
    event_type text,
    payload jsonb,
    expected_version bigint default null,
    metadata jsonb default '{}',
    event_id uuid default null,
    occurred_at timestamptz default null,
    schema_version int default null,
    subject text default null,
    must_exist bool default false,
    tags text[] default null
) returns bigint
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_append';
comment on function es_append(text, text, jsonb, bigint, jsonb, uuid, timestamptz, int, text, bool, text[]) is
$$Appends one event and returns the stream's new version.
expected_version: NULL any, 0 the stream has no events yet, N > 0 exactly N; otherwise ES001 (version_conflict). must_exist: ES002 where the stream has no events yet. tags: up to 32 of 1 to 255 bytes, a set, such as order:42, kept for ever; no personal data.
A retry with the same event_id and content (type, payload, schema_version, subject, tags and, if given, occurred_at) writes nothing and returns the version of the first time; the same id with other content is ES006.
Other errors: ES003 closed, ES004 stream name, ES005 argument, ES007 limit, 42501 privilege.
Example: select es_append('account-1000', 'AccountCredited', '{"amount": 12.50}', expected_version => 0);$$;

create function es_append_events(
    stream text,
    events jsonb,
    expected_version bigint default null,
    must_exist bool default false
) returns bigint
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_append_events';
comment on function es_append_events(text, jsonb, bigint, bool) is
$$Appends a batch to one stream, all or nothing, and returns the stream's new version.
events: an array of 1 to eventstream.max_batch_events objects {"type", "payload", "metadata"?, "event_id"?, "occurred_at"?, "schema_version"?, "subject"?, "tags"?}.
Errors as es_append; a wrong element is named by its place, from 0.
Example: select es_append_events('account-1000', '[{"type": "AccountCredited", "payload": {"amount": 12.50}}]');$$;

create function es_append_streams(
    appends jsonb, must_exist bool default false, condition jsonb default null, out stream text, out version bigint, out positions bigint[]
) returns setof record
language c volatile parallel unsafe rows 10 as 'MODULE_PATHNAME', 'eventstream_append_streams';
comment on function es_append_streams(jsonb, bool, jsonb) is
$$Appends to several streams, all or nothing; returns each stream with its new version and the positions of its events, in the order given.
appends: an array of objects {"stream", "expected_version"?, "events": [… as es_append_events]}, a stream at most once. Streams are locked in sorted order: two such calls never deadlock. must_exist: ES002 where one of the streams that get events has none yet.
An element with "events": [] and expected_version only checks its stream (0: has no events yet), which stays as it is until the end of the transaction; others may check it at the same time. Needs the privilege append on its category; PREPARE TRANSACTION is refused afterwards. It takes no part in recognising a retry.
condition: as es_condition gave it before what was decided on was read. ES015 (condition_failed) where an event that matches its query has come since; a retry is recognised first. Whoever appends an event that matches waits until this transaction ends. A plain {"query", "after"} holds if nothing that matches came after that position; it is safe only if that was an es_horizon() taken before reading.
Errors as es_append; 55P03 where the query has an item without tags, and the tenant's other appends do not come to rest.
Example: select stream, version from es_append_streams('[{"stream": "account-1", "events": [{"type": "Debited", "payload": {"amount": 5}}]}, {"stream": "account-2", "events": [{"type": "Credited", "payload": {"amount": 5}}]}]');$$;

create function es_close_stream(stream text, reason text default null) returns bigint
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_close_stream';
comment on function es_close_stream(text, text) is
$$Appends a last event of type StreamClosed with payload {"reason": …} and returns its version; later appends to the stream are ES003.
Errors: ES002 no such stream, ES003 closed already.
Example: select es_close_stream('account-1000', 'customer left');$$;

create function es_last_append(
    out stream text, out version bigint, out global_position bigint, out positions bigint[], out event_ids uuid[],
    out replayed bool
) returns record
language c volatile parallel restricted as 'MODULE_PATHNAME', 'eventstream_last_append';
comment on function es_last_append() is
$$This session's last append: its stream, version and position, the positions and the ids of its events, and whether it was a retry that wrote nothing (replayed). NULLs where there was none, or where it was rolled back. After es_append_streams: the last element's stream.
Example: select (es_last_append()).event_ids;$$;

create function es_new_event_id() returns uuid
language c volatile parallel restricted as 'MODULE_PATHNAME', 'eventstream_new_event_id';
comment on function es_new_event_id() is
$$A fresh event id: a ULID (48 bits of milliseconds, 80 random bits, increasing within a session) held in a uuid. For clients that want to retry safely.
Example: select es_new_event_id();$$;
