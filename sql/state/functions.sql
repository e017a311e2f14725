-- Folds, and the state of streams.
create function es_register_fold(
    name text,
    category text,
    handler regprocedure default null,
    rules jsonb default null,
    initial_state jsonb default '{}',
    snapshot_every bigint default 100,
    fold_order text default 'version',
    is_default bool default true
) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_register_fold';
comment on function es_register_fold(text, text, regprocedure, jsonb, jsonb, bigint, text, bool) is
$$Registers how the events of a category become a state: by a function, handler(state jsonb, event eventstream.event) returns jsonb, which must be IMMUTABLE and is called with the rights of the role that registers it (so it must be its own, a superuser's, or of a role that has its rights), or by rules (docs/rules.md): exactly one of the two. Returns the name. Registering again replaces it (a NOTICE says where it is another one then), and snapshots of the old definition stop counting. A name is the tenant's: of another category it is ES005.
initial_state: before the first event. snapshot_every: es_maintain takes a snapshot every so many events of a stream. fold_order: version folds events as they came; occurred_at puts late events where they belong in valid time. is_default: the fold that is meant where none is named. category NULL: a fold of no category, for what a query over tags matches, whatever streams that is in (es_register_decider), in the order of the log, or with fold_order occurred_at in that of valid time; it is never a default one, and asks for manage and read of all categories. Needs the privileges manage and read for the category.
Errors: ES005, ES011 (what is wrong in the rules, and where), 42501.
Example: select es_register_fold('balance', 'account', rules => '{"on": {"AccountCredited": [{"add": {"/balance": "/amount"}}]}}', initial_state => '{"balance": 0}');$$;

create function es_unregister_fold(name text) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_unregister_fold';
comment on function es_unregister_fold(text) is
$$Forgets a fold and its snapshots; events are not touched. Returns the name. Needs the privileges manage and read: it changes what others read. ES010 where there is none, 2BP01 where a state table is filled by it.
Example: select es_unregister_fold('balance');$$;

create function es_register_upcaster(
    event_type text,
    from_schema_version int,
    handler regprocedure,
    to_event_type text default null
) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_register_upcaster';
comment on function es_register_upcaster(text, int, regprocedure, text) is
$$Registers how the payload of an event type becomes that of its next schema version, from_schema_version + 1, when events are read or folded: handler(payload jsonb, metadata jsonb) returns jsonb, which must be IMMUTABLE and is called with the rights of the role that registers it (so it must be its own, a superuser's, or of a role that has its rights). Steps are chained; what is stored never changes. to_event_type: the type's new name (NULL = the same). Snapshots of the tenant's folds stop counting. Returns event_type. Needs the privileges manage and read, for all categories.
Errors: ES005, 42501.
Example: select es_register_upcaster('AccountCredited', 1, 'ledger.credited_1_to_2(jsonb, jsonb)');$$;

create function es_unregister_upcaster(event_type text, from_schema_version int) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_unregister_upcaster';
comment on function es_unregister_upcaster(text, int) is
$$Forgets the upcaster of an event type from a schema version on. Returns event_type. Needs the privilege manage. ES005 where there is none. ES005 also where a declared version of an event type rests on the step.
Example: select es_unregister_upcaster('AccountCredited', 1);$$;

create function es_state(stream text, fold text default null) returns jsonb
language c stable parallel unsafe as 'MODULE_PATHNAME', 'eventstream_state';
comment on function es_state(text, text) is
$$The state of a stream now, by a fold of its category (NULL = the default one).
Errors: ES002 no such stream, ES010 no such fold, ES013 the fold met something it cannot use, and whatever a handler raises; 42501.
Example: select es_state('account-1000');$$;

create function es_state_at(
    stream text,
    as_of timestamptz,
    known_at timestamptz default null,
    fold text default null
) returns jsonb
language c stable parallel unsafe as 'MODULE_PATHNAME', 'eventstream_state_at';
comment on function es_state_at(text, timestamptz, timestamptz, text) is
$$The state of a stream as of a moment in valid time (events with occurred_at <= as_of), as it was known at a moment in transaction time (recorded_at <= known_at, NULL = now). 'infinity' means no bound. The initial state where no event counts. An answer for a known_at is final up to es_settled_until(). A day ends at es_day_end(day, time_zone), not at the midnight it begins with.
Errors: ES002, ES005, ES010, ES013, 42501.
Example: select es_state_at('account-1000', es_day_end('2024-10-15', 'Europe/Vienna'));$$;

create function es_state_at_version(stream text, version bigint, fold text default null) returns jsonb
language c stable parallel unsafe as 'MODULE_PATHNAME', 'eventstream_state_at_version';
comment on function es_state_at_version(text, bigint, text) is
$$The state of a stream after its event of that version; 0 = the initial state.
Errors: ES002, ES005 a version the stream does not have, ES010, ES013, 42501.
Example: select es_state_at_version('account-1000', 3);$$;

create function es_load(
    stream text,
    fold text default null,
    for_update bool default false,
    out state jsonb,
    out version bigint
) returns record
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_load';
comment on function es_load(text, text, bool) is
$$What a command needs to decide and append: the stream's state now, and its version, which is the next append's expected_version. A stream without events gives the initial state and 0. for_update: lock the stream until the end of the transaction first, so that others queue instead of conflicting (a stream without events cannot be locked: two that begin it conflict), which needs the privilege append, too. At every isolation level it is what is committed by now, as the append sees it.
Errors: ES010, ES013, 42501.
Example: select state, version from es_load('item-17', for_update => true);$$;

create function es_category_state(
    category text,
    as_of timestamptz default null,
    known_at timestamptz default null,
    fold text default null,
    on_error text default 'fail'
) returns table (stream text, version bigint, state jsonb, problem text)
language c stable parallel unsafe rows 1000 as 'MODULE_PATHNAME', 'eventstream_category_state';
comment on function es_category_state(text, timestamptz, timestamptz, text, text) is
$$The state of every stream of a category at a moment (NULL = no bound), as es_state_at: a balance sheet in one query. version is the newest version that counts. Streams of which no event counts are left out. on_error: fail (the call fails where a stream cannot be folded, and says how many there are and which is the first), or report: such a stream has no version and no state, and problem says why; it is NULL for all others. What no event is to blame for (memory, a lock, a missing table) is raised as it is.
Errors: ES005, ES010, ES013, 42501.
Example: select sum((state ->> 'balance')::numeric) from es_category_state('account', as_of => es_day_end('2024-10-15', 'UTC'));$$;

create function es_day_end(day date, time_zone text) returns timestamptz
language c stable parallel safe as 'MODULE_PATHNAME', 'eventstream_day_end';
comment on function es_day_end(date, text) is
$$The last instant of a day in a time zone: what to give as as_of for the books of that day. It is the one before the next date's first, also where clocks go back or forward over midnight. time_zone: a name (Europe/Vienna), or an offset as ISO 8601 writes it (+02:00, east of UTC). NULL where an argument is.
Errors: ES005 no such zone.
Example: select es_day_end('2024-10-31', 'Europe/Vienna');$$;

create function es_set_as_of(day date, time_zone text) returns timestamptz
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_set_as_of';
comment on function es_set_as_of(date, text) is
$$Sets eventstream.as_of to the end of a day in a time zone (es_day_end) until the end of the transaction, and returns it: temporal views show the books of that day. Nothing of it is left to the next client of a pool. Outside of a transaction it has no effect: WARNING 25P01.
Errors: ES005 NULL, no such zone.
Example: begin; select es_set_as_of('2024-10-31', 'Europe/Vienna'); commit;$$;
