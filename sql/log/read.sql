-- Reading streams and the log.
create function es_read(
    stream text,
    from_version bigint default null,
    max_count bigint default null,
    backward bool default false,
    until timestamptz default null,
    raw bool default false,
    to_version bigint default null,
    event_types text[] default null
) returns setof eventstream.event
language c stable parallel unsafe rows 100 as 'MODULE_PATHNAME', 'eventstream_read';
comment on function es_read(text, bigint, bigint, bool, timestamptz, bool, bigint, text[]) is
$$The events of one stream from from_version on (NULL = the first), in order; at most max_count (NULL = all). backward: from from_version down (NULL = the newest). until: only events with occurred_at <= until. raw: without upcasting. to_version: the last version to be read (backward: the smallest). event_types: only these. A stream that does not exist gives no rows.
Errors: ES004, ES005, 42501.
Example: select version, event_type, payload from es_read('account-1000');$$;

create function es_read_all(
    after_position bigint default 0,
    max_count bigint default 1000,
    categories text[] default null,
    event_types text[] default null,
    up_to bigint default null,
    log_id uuid default null,
    timeline int default null,
    tags text[] default null
) returns setof eventstream.event
language c volatile parallel unsafe rows 1000 as 'MODULE_PATHNAME', 'eventstream_read_all';
comment on function es_read_all(bigint, bigint, text[], text[], bigint, uuid, int, text[]) is
$$The log in order after after_position, up to the horizon (and up_to): safe to tail, nothing is ever skipped. At most max_count events (1 to 100000). tags: only events that bear all of these.
A filtered consumer takes up_to => es_horizon() first; fewer rows than max_count then means: its checkpoint is that. log_id, timeline: of es_log_info(), as they were stored beside the position: where both are this log's, a position beyond its end gives no rows instead of ES025.
Errors: ES025 after_position beyond the log (restored copy?), ES008 not preloaded, ES009 on a standby, 42501.
Example: select global_position, stream, event_type from es_read_all(after_position => 0, max_count => 10);$$;

create function es_read_backward(
    before_position bigint default null,
    max_count bigint default 1000,
    categories text[] default null,
    event_types text[] default null,
    tags text[] default null
) returns setof eventstream.event
language c stable parallel unsafe rows 1000 as 'MODULE_PATHNAME', 'eventstream_read_backward';
comment on function es_read_backward(bigint, bigint, text[], text[], text[]) is
$$The log newest first, from before before_position (NULL = from the end); at most max_count events (1 to 100000). tags: only events that bear all of these. All that is committed is shown, also above the horizon: what a decision under a condition reads (es_condition).
Example: select stream, event_type from es_read_backward(max_count => 5);$$;

create function es_read_subject(subject text, after_position bigint default 0, max_count bigint default 1000)
returns setof eventstream.event
language c stable parallel unsafe rows 100 as 'MODULE_PATHNAME', 'eventstream_read_subject';
comment on function es_read_subject(text, bigint, bigint) is
$$All events about one person (subject), in the order of the log, after after_position; at most max_count (1 to 100000).
Example: select stream, event_type, payload from es_read_subject('customer-7');$$;

create function es_query(criteria jsonb, max_count int default 100, page text default null, skip bigint default 0)
returns table (page text, event eventstream.event)
language c volatile parallel unsafe rows 100 as 'MODULE_PATHNAME', 'eventstream_query';
comment on function es_query(jsonb, int, text, bigint) is
$$The events that meet all criteria, in the order of the log, up to the horizon: at most max_count (1 to 100000), without the first skip of them. criteria, an object of any of: streams, stream_prefix, categories, event_types, items (as in es_condition: any of them), tags (all of them), subjects, occurred and recorded ({"from", "until", "before"}), metadata (contained), correlation_id, payload ({"/amount": {"at_least": 100.00}}), order (forward or backward). What the role may not read is not found; payloads are compared as they are shown.
page: of a row that the same query gave before; goes on after that row. On a standby what is there is found, and what is committed later at a smaller position may be passed over.
Errors: ES004, ES005, ES032 no page of this query, ES025 the page lies beyond the log (restored copy?), ES008 not preloaded, 42501.
Example: select page, (event).stream, (event).event_type from es_query('{"categories": ["account"], "payload": {"/amount": {"at_least": 100.00}}}');$$;

create function es_event(event_id uuid) returns setof eventstream.event
language c stable parallel unsafe rows 1 as 'MODULE_PATHNAME', 'eventstream_event';
comment on function es_event(uuid) is
$$The event with this id; no row where there is none (ids are unique within a stream, so rarely more than one).
Example: select * from es_event('01890a5d-ac96-774b-bcce-b302099a8057');$$;

create function es_stream_version(stream text) returns bigint
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_stream_version';
comment on function es_stream_version(text) is
$$The stream's version: how many events it has; 0 where there is none.
Example: select es_stream_version('account-1000');$$;

create function es_stream(stream text) returns eventstream.stream_info
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_stream';
comment on function es_stream(text) is
$$One stream at a glance (eventstream.stream_info). Reads the whole stream to count its bytes. ES002 where there is none.
Example: select * from es_stream('account-1000');$$;

create function es_horizon() returns bigint
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_horizon';
comment on function es_horizon() is
$$The position up to which the log is settled: no transaction can still commit anything at or below it. Never steps back.
Errors: ES008 not preloaded, ES009 on a standby.
Example: select es_horizon();$$;

create function es_log_info(
    out log_id uuid, out system_identifier bigint, out timeline int,
    out last_position bigint, out horizon bigint, out settled_until timestamptz, out tenant_uuid uuid, out incarnation bigint
) returns record
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_log_info';
comment on function es_log_info() is
$$What a consumer stores beside its checkpoint to notice a restored copy: the log's id (kept by dump and restore), this server's system identifier and timeline, the last position handed out, the horizon, the time up to which every known_at is final, the current tenant's uuid, which chain hashes cover, and how often the log was made the original anew (es_activate): tokens name it behind the log's id. horizon and settled_until are NULL on a standby and without preload. A copy on the same server agrees in all of it: store the oid of the database as well.
Example: select log_id, timeline from es_log_info();$$;

create function es_settled_until() returns timestamptz
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_settled_until';
comment on function es_settled_until() is
$$The time up to which every known_at is final: no event will be recorded at or before it, whatever the clock does. Durable at once (one flush of the WAL).
Errors: ES008 not preloaded, ES009 on a standby.
Example: select es_settled_until() > now() - interval '1 minute';$$;

create function es_ulid(id uuid) returns text
language c immutable parallel safe as 'MODULE_PATHNAME', 'eventstream_ulid';
comment on function es_ulid(uuid) is
$$An event id in ULID's own text form (26 characters of Crockford base 32).
Example: select es_ulid('01890a5d-ac96-774b-bcce-b302099a8057');$$;

create function es_ulid_to_uuid(ulid text) returns uuid
language c immutable parallel safe as 'MODULE_PATHNAME', 'eventstream_ulid_to_uuid';
comment on function es_ulid_to_uuid(text) is
$$The uuid that holds a ULID given in its text form. ES005 where it is none.
Example: select es_ulid_to_uuid('01H455VB4PEX5VSKNK084SN02Q');$$;

create function es_stream_name(category text, id text) returns text
language c immutable parallel safe as 'MODULE_PATHNAME', 'eventstream_stream_name';
comment on function es_stream_name(text, text) is
$$category-id, checked: both parts non-empty, no - in the category, 512 bytes at most (ES004).
Example: select es_stream_name('account', '1000');$$;
