-- What may be recorded: event types, rules of categories, closed periods. Operations that are executed outside. Commands, and what decides on them.
create function es_create_event_type(
    event_type text,
    schema_version int default 1,
    json_schema jsonb default null,
    description text default null,
    example jsonb default null,
    appendable bool default true,
    if_not_exists bool default false
) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_create_event_type';
comment on function es_create_event_type(text, int, jsonb, text, jsonb, bool, bool) is
$$Declares a schema version of an event type. From now on an append of the type without schema_version means the newest version that is appendable, and one of a version that is not declared, or not appendable, is ES016. json_schema: a JSON Schema 2020-12 that every payload must satisfy, else ES016 says where and by which rule; it refers to nothing outside, and numbers are compared as decimals; NULL = any payload. example: a payload that satisfies it. Upcasters, registered before, lead from the nearest declared version below to this one, and from this one to the nearest above; what they make of an example satisfies the schemas of all declared versions that it becomes. appendable => false: a version that is only read. if_not_exists: one that is there as it is asked for is left alone, with a NOTICE; else ES005 says what differs. Returns the event type. What is stored already is not looked at. Needs the privilege manage for all categories.
Example: select es_create_event_type('AccountOpened', json_schema => '{"type": "object", "required": ["owner"]}', example => '{"owner": "customer-1"}');$$;

create function es_alter_event_type(event_type text, schema_version int, settings jsonb) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_alter_event_type';
comment on function es_alter_event_type(text, int, jsonb) is
$$Changes a declared schema version of an event type: an object with any of json_schema, description, example (null takes one away) and appendable, as in es_create_event_type. Appends that begin after its commit are judged by it; what is stored already is not looked at. Returns the event type. Needs the privilege manage for all categories.
Example: select es_alter_event_type('AccountOpened', 1, '{"appendable": false}');$$;

create function es_drop_event_type(event_type text, schema_version int default null) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_drop_event_type';
comment on function es_drop_event_type(text, int) is
$$Takes back the declaration of a schema version of an event type; NULL = of all. What is stored stays, and is read as before; a type without any declared version is appended like one that never had one. To go on reading a version and append it no more, set appendable to false instead. Returns the event type. Needs the privilege manage for all categories.
Example: select es_drop_event_type('AccountOpened', 1);$$;

create function es_check_event_types(
    thorough bool default false,
    out event_type text, out schema_version int, out problem text, out events bigint, out last_recorded_at timestamptz,
    out stream text, out version bigint, out global_position bigint, out value text, out rule text
) returns setof record
language c stable parallel restricted rows 10 as 'MODULE_PATHNAME', 'eventstream_check_event_types';
comment on function es_check_event_types(bool) is
$$Compares what is stored with what is declared: no rows = each schema version of an event type of which there are events is declared, and upcasters turn it into the newest declared one. A row names the event type and schema version, what does not fit, how many such events there are and when the newest was recorded. It reads the counts of eventstream.event_types, and not the log; where more events came since than are counted at once, a row without an event type says from which position on nothing was looked at. thorough => true: reads every event, in bounded memory, and judges each whose schema version is declared with a JSON Schema: a row for each that breaks it, with stream, version and position, the JSON Pointers of the value and of the rule, and never what stands there. Only categories that the role may read. Privilege read.
Example: select * from es_check_event_types();$$;

create function es_protect(
    event_type text,
    schema_version int default 1,
    pointers text[] default null,
    clear_pointers text[] default null,
    metadata_pointers text[] default '{}',
    kind text default 'event'
) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_protect';
comment on function es_protect(text, int, text[], text[], text[], text) is
$$Protects fields of a schema version of an event type: from its commit on nobody is shown them, by whatever function, view, state, projection, error or statistic; each is null instead, in what is stored already, too. pointers: JSON Pointers of what is protected of payloads (* is any element of an array; the outermost counts); or clear_pointers: all but these. One of the two; pointers => '{}' protects nothing, of a version that has nothing to protect. metadata_pointers: of metadata, but not of actor, causation_id, correlation_id, command and traceparent. It fails closed: an event that has a value of another kind in the way of a pointer is refused (ES016), and so is one of a schema version that no rule names; versions are named from 1 on, without a gap. Keys, lengths of arrays, and what is not there, stay visible. kind => 'command': the same of a type of commands, or the name of an operation outside: what is kept of them, and shown to whoever asks, is shown without it (requests, results, failures; of es_simulate_command the refusal, too); what es_command itself raises is told to its caller as the decider says it. Cursors and loops that have shown events or commands before, and would give more rows, are 40001. Refused (ES005) where upcasters do not take null in the place of what is protected (each version that has an upcaster needs an example, es_create_event_type), and where a rule of a fold reads it, or may by a key that the event names; a fold by a function that fails on null, as the example shows, is a WARNING. States and state tables of folds that such a type says something to are folded anew; read models of handlers keep what they have until es_rebuild_projection. A value in clear stays in the table until it is erased: this hides it. Again with other pointers: these count. Waits for the tenant's open appends, at most eventstream.gate_timeout (55P03). 0A000 in a REPEATABLE READ or SERIALIZABLE transaction. Returns the event type. Needs the privilege admin.
Example: select es_protect('CustomerNamed', pointers => '{/name,/addresses/*/street}');$$;

create function es_unprotect(event_type text, kind text default 'event') returns bigint
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_unprotect';
comment on function es_unprotect(text, text) is
$$Takes back what es_protect said of an event type, in all its schema versions, or (kind => 'command') of a command: what is stored in clear is shown to everybody again who may read the event, from the commit on, and to no code before. State tables are filled again by workers then; an inline one shows it in a row after the next event of its stream, and in all after es_rebuild_projection. Returns how many rules that were. A type that has none is ES005. Waits for the tenant's open appends as es_protect does (55P03; 0A000). Needs the privilege admin.
Example: select es_unprotect('CustomerNamed');$$;

create function es_alter_category(category text, settings jsonb) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_alter_category';
comment on function es_alter_category(text, jsonb) is
$$Sets what a category asks of whatever is appended to it, whoever appends it; what breaks a rule is ES017. An object with any of event_types (any, declared: no event of a type that is not declared), expected_version, actor, event_id (optional, required: each append says its expected_version, names an actor in its metadata, gives each event its id), id_pattern (uuid, ulid, or a regular expression that all of a new stream's name after its category must match), foldable (optional, required: what the category's default fold cannot take is not recorded), max_future (an interval such as 24 hours: how far ahead of the clock an event may have occurred) and personal_data (any, refused: no name of a new stream, event type or tag that looks like an e-mail address, a telephone number or the number of a payment card). A key that is left out stays as it is; null takes it back to its default, which asks nothing. Appends that begin after its commit are judged by it; what is stored already is not looked at, and a retry is recognised as ever. Returns the category. Needs the privilege manage for it.
Example: select es_alter_category('account', '{"event_types": "declared", "expected_version": "required", "max_future": "24 hours"}');$$;

create function es_close_period(categories text[], closed_until timestamptz, reason text default null, tag text default null) returns timestamptz
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_close_period';
comment on function es_close_period(text[], timestamptz, text, text) is
$$Closes a period: once this transaction has committed, and until it is reopened, no event of these categories that says it occurred at or before closed_until can be appended (ES018). closed_until: a moment that has passed, the last one of the period (es_day_end). reason: a reference of at most 64 bytes, such as the number of a ticket, kept for ever. tag: only for events that bear this tag, such as company:1; NULL = all. Returns the known_at to quote as "as reported": all that was recorded of these categories until the closing is known at it, and nothing is recorded at or before it any more, whatever the clock does. Closing up to the same moment again returns what it returned the first time, with a NOTICE; closing up to an earlier one is ES005. Waits for the tenant's open appends, at most eventstream.gate_timeout (55P03), and no other append of the tenant begins before this transaction ends: commit at once. Needs the privilege manage for these categories.
Example: select es_close_period('{account}', es_day_end('2024-12-31', 'Europe/Vienna'), 'CLOSE-2024-12');$$;

create function es_reopen_period(categories text[], closed_until timestamptz, reason text default null, tag text default null) returns bigint
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_reopen_period';
comment on function es_reopen_period(text[], timestamptz, text, text) is
$$Opens what es_close_period closed after closed_until, which stays closed; NULL = nothing does. tag as in es_close_period: what was closed for a tag is opened by the tag. reason: a reference of at most 64 bytes, kept for ever. Returns how many closings that took back. A category that is not closed after closed_until is ES005. Waits for the tenant's open appends as es_close_period does (55P03). Needs the privilege admin.
Example: select es_reopen_period('{account}', es_day_end('2024-11-30', 'Europe/Vienna'), 'CHG-4711');$$;

create function es_begin_command(
    operation text,
    command_key text,
    request jsonb,
    lease interval default '5 min',
    wait interval default '0',
    keep interval default null,
    subject text default null
) returns jsonb
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_begin_command';
comment on function es_begin_command(text, text, jsonb, interval, interval, interval, text) is
$$Says whether an operation outside of the database, such as a payment at a bank, is to be executed: once a key, however often and by whomever it is asked. operation: what it is called; command_key: the client's name for this one intention, 1 to 1,024 bytes; request: what is asked, kept as a salted digest only. Returns an object: outcome execute (it is yours: attempt_token finishes it by es_complete_command or es_fail_command, and nobody else executes it before lease_until), replay (it was done: result; or it failed for good: error), or in_progress (another attempt is under way, until lease_until where that is known); attempt counts from 1. After lease_until another call takes over, as after a failure that is retryable. The same key with another request is ES030. lease: 1 millisecond to 1 day. wait: how long to wait for the end of an attempt that is under way, at most 1 minute. keep: how long the answer is kept after the end, 1 second to 1,000 years; after that the key is as a new one; NULL = for ever. subject: whose data the answer is. In a transaction that is rolled back nothing was begun. In a copy of a log it is ES026 before es_activate. Needs the privilege command, of any category.
Example: select es_begin_command('charge', 'order-4711', '{"amount": 12.50}');$$;

create function es_complete_command(attempt_token uuid, result jsonb) returns int
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_complete_command';
comment on function es_complete_command(uuid, jsonb) is
$$Ends the attempt that es_begin_command gave that token: the operation was executed, and result is what every later call with its key is given. Appends that belong to it stand in the same transaction, or take their ids from es_command_event_id. An attempt that was superseded is ES031; the same said again is answered as the first time. Returns the attempt's number. Needs the privilege command, of any category.
Example: select es_complete_command((es_begin_command('ship', 'order-4711', '{}') ->> 'attempt_token')::uuid, '{"parcel": "P-1"}');$$;

create function es_fail_command(attempt_token uuid, error jsonb, retryable bool default true) returns int
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_fail_command';
comment on function es_fail_command(uuid, jsonb, bool) is
$$Ends the attempt that es_begin_command gave that token: it came to nothing. retryable: the next call with the key executes the operation again; false: it failed for good, and every later call is given error. An attempt that was superseded is ES031; the same said again is answered as the first time. Returns the attempt's number. Needs the privilege command, of any category.
Example: select es_fail_command((es_begin_command('ship', 'order-4712', '{}') ->> 'attempt_token')::uuid, '{"code": "no_such_address"}', retryable => false);$$;

create function es_extend_command(attempt_token uuid, by interval) returns timestamptz
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_extend_command';
comment on function es_extend_command(uuid, interval) is
$$Has the lease of an attempt end no sooner than that long from now, at most 1 day. Returns when it ends. An attempt that was superseded, or has ended, is ES031. Needs the privilege command, of any category.
Example: select es_extend_command((es_begin_command('ship', 'order-4713', '{}') ->> 'attempt_token')::uuid, '10 min') > now() as longer;$$;

create function es_command_event_id(attempt_token uuid, n bigint) returns uuid
language c volatile parallel restricted as 'MODULE_PATHNAME', 'eventstream_command_event_id';
comment on function es_command_event_id(uuid, bigint) is
$$The id for the n-th event (from 1) that belongs to an operation outside: the same for every attempt, so that events appended in a transaction of their own are recorded once. An attempt that was superseded is ES031. Needs the privilege command, of any category.
Example: select es_command_event_id((es_begin_command('ship', 'order-4714', '{}') ->> 'attempt_token')::uuid, 1) is not null as given;$$;

create function es_condition(query jsonb) returns jsonb
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_condition';
comment on function es_condition(jsonb) is
$$How far the events that match a query are seen from now on, for es_append_streams(condition). Take it in a statement of its own, before reading; read in later ones, by what shows all that is committed, such as es_read_backward(tags) and es_read: es_read_all ends at the horizon.
query: {"items": [{"event_types": [...]?, "tags": [...]?}, ...]}: an event matches that is of one of the types and bears all of the tags of one of up to 100 items; {"all": true}: every event. It matches in all categories of the tenant, whatever the caller may read; events of reserved streams never match.
Privilege append; for items without tags, and for all, of every category. Errors: ES005 query, ES008 not preloaded, ES009 on a standby, 40001 where a transaction above READ COMMITTED has a snapshot that does not show all that matches.
Example: select es_condition('{"items": [{"tags": ["course:1"]}, {"event_types": ["StudentRegistered"], "tags": ["student:7"]}]}');$$;

create function es_register_decider(
    name text,
    category text,
    handler regprocedure,
    commands jsonb default null,
    fold text default null,
    boundary regprocedure default null,
    is_default bool default true
) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_register_decider';
comment on function es_register_decider(text, text, regprocedure, jsonb, text, regprocedure, bool) is
$$Registers what decides on the commands of a category (es_command): handler (state jsonb, command eventstream.command) returns jsonb, STABLE or IMMUTABLE. It answers an array of events (es_make_event), each for the command's stream or for the one that it names; [] = nothing happens; or an object {"events", "result", "schedule", "unschedule"}, whose result the caller is given. schedule: commands for later, [{"stream", "command_type", "payload", "run_at", "command_key", "metadata", "decider", "subject"}, …] as es_schedule_command takes them, of which only command_type, payload and run_at must be given, and a key that was scheduled before must be pending for the same time (else ES030); unschedule: [{"command_key", "category", "reason"}, …] or only the keys, of commands of the command's category where it says no other. It says no by es_require (ES033). It runs with the rights of the role that registers it, and with its search_path; it may read, es_* functions included, and write nothing. commands: {"Withdraw": {"schema": …, "example": …, "description": …}, …}: those that it takes, each with a JSON Schema of its payload; NULL = any. fold: of this category, whose state it is given, NULL = the default one; or of no category, for items. boundary: (command eventstream.command) returns jsonb, {"streams": […], "writes": […], "items": […]}: what else the decision depends on; then the state is an object of the states of the command's stream and of streams, by their names, each by its category's default fold; writes are locked only; items are those of a query over tags (es_condition), each with tags: the state of what they match, by fold, is "query", and no other event that matches comes before the commit. Its registrant must be allowed to read all of it. is_default: for commands that name no decider. A name that is registered already is replaced. Returns the name. Needs the privileges manage and read for the category.
Example: select es_register_decider('cashier', 'account', 'decide(jsonb, eventstream.command)');$$;

create function es_unregister_decider(name text) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_unregister_decider';
comment on function es_unregister_decider(text) is
$$Forgets a decider. What was decided stays, and so do the answers of its commands. Returns the name. Errors: ES036. Needs the privilege manage for its category.
Example: select es_unregister_decider('cashier');$$;

create function es_register_invariant(
    name text,
    categories text[],
    handler regprocedure default null,
    fold text default null,
    require jsonb default null,
    event_types text[] default null
) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_register_invariant';
comment on function es_register_invariant(text, text[], regprocedure, text, jsonb, text[]) is
$$Registers what must hold of whatever is appended to these categories, however it is appended; what breaks it is ES019, and nothing is recorded. Either require: conditions on a stream's state, in the language of rules with pointers into the state ({"/available": {"at_least": 0}}), that must hold after each append, by fold (NULL = each category's default one). Or handler (events eventstream.event[]) returns text, STABLE or IMMUTABLE: it is given all events of these categories that the transaction appended, in order, at its commit, however many calls that were, and answers NULL, or why not. It runs with the rights and the search path of the role that registers it, may only read, at most eventstream.handler_timeout. event_types: only events of these types count, by the names that readers see; NULL = all. What was appended before stays as it is. Registering again replaces. Waits for the tenant's open appends as es_close_period does (55P03). Returns the name. Errors: ES005, ES010 no such fold, ES011 what require says, 42501. Needs the privileges manage and read for the categories.
Example: select es_register_invariant('never overdrawn', '{account}', require => '{"/balance": {"at_least": 0}}');$$;

create function es_unregister_invariant(name text) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_unregister_invariant';
comment on function es_unregister_invariant(text) is
$$Takes an invariant back: from its commit on nothing is judged by it. Returns the name. Errors: ES005 where there is none of that name. Needs the privilege manage for its categories.
Example: select es_unregister_invariant('never overdrawn');$$;

create function es_make_command(
    command_type text,
    payload jsonb default '{}',
    stream text default null,
    version bigint default 0,
    metadata jsonb default '{}',
    versions jsonb default null,
    subject text default null,
    occurred_at timestamptz default null,
    decided_at timestamptz default null,
    command_key text default null,
    tenant text default 'default',
    role text default null,
    actor text default null
) returns eventstream.command
language c immutable parallel safe as 'MODULE_PATHNAME', 'eventstream_make_command';
comment on function es_make_command(text, jsonb, text, bigint, jsonb, jsonb, text, timestamptz, timestamptz, text, text, text, text) is
$$A command as a decider is given it, to call the decider by hand, in a test. versions NULL = the stream at version. Of occurred_at and decided_at, one that is NULL is the other.
Example: select decide('{"balance": 5}', es_make_command('Withdraw', '{"amount": 3}', stream => 'account-1', version => 2));$$;

create function es_make_event(
    event_type text,
    payload jsonb,
    stream text default null,
    tags text[] default null,
    subject text default null,
    schema_version int default null
) returns jsonb
language c immutable parallel safe as 'MODULE_PATHNAME', 'eventstream_make_event';
comment on function es_make_event(text, jsonb, text, text[], text, int) is
$$An event of a decider's answer: an object with the keys of es_append_events, and stream. stream NULL = the command's.
Example: select jsonb_build_array(es_make_event('Withdrawn', '{"amount": 3.00}'));$$;

create function es_require(condition bool, code text, message text, detail jsonb default '{}') returns bool
language c volatile parallel safe as 'MODULE_PATHNAME', 'eventstream_require';
comment on function es_require(bool, text, text, jsonb) is
$$True where the condition holds; where it is false or NULL the command is refused: ES033 with that message, and DETAIL with the code and the detail. code: not five of 0-9 and A-Z, as an SQLSTATE is. For deciders and their boundaries, in any language. Nothing of a refused command is recorded, not its key either: it may be sent again.
Example: select es_require(5 >= 3, 'insufficient_funds', 'only 5 are there', '{"available": 5}');$$;

create function es_command(
    stream text,
    command_type text,
    payload jsonb,
    expected_version bigint default null,
    metadata jsonb default '{}',
    command_key text default null,
    occurred_at timestamptz default null,
    decider text default null,
    subject text default null
) returns jsonb
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_command';
comment on function es_command(text, text, jsonb, bigint, jsonb, text, timestamptz, text, text) is
$$Executes a command: locks its stream and what its decider's boundary names, gives the decider their states as they are then, at every isolation level, and appends the events that it answers, all or none, in this transaction. command_key: 1 to 1,024 bytes, the client's name for this intention, within the tenant and category; sent again with the same stream, command_type, payload and occurred_at it is not executed, and answered as the first time (a read); with another one of them ES030; while the first runs it waits. decider NULL = the category's default one. metadata, occurred_at and subject are those of the events that say none of their own; the events' metadata.command says type, key, decider, and at which versions streams were read that were not written. Returns {"stream", "version", "versions", "global_position", "event_ids", "result", "replayed"}. Needs the privilege command for the categories of all streams that it appends to.
Errors: ES001, ES005, ES007, ES010, ES013, ES016, ES030, ES033 refused by the decider, ES034 beyond its boundary, ES035 no such command, ES036 no such decider, ES037 the decider failed; those of es_append; whatever the decider raises.
Example: select es_command('account-1000', 'Withdraw', '{"amount": 20.00}', command_key => 'order-4711');$$;

create function es_simulate_command(
    stream text,
    command_type text,
    payload jsonb,
    expected_version bigint default null,
    metadata jsonb default '{}',
    command_key text default null,
    occurred_at timestamptz default null,
    decider text default null,
    subject text default null
) returns jsonb
language c stable parallel unsafe as 'MODULE_PATHNAME', 'eventstream_simulate_command';
comment on function es_simulate_command(text, text, jsonb, bigint, jsonb, text, timestamptz, text, text) is
$$What es_command would come to now, without locking or writing anything, also on a standby: {"boundary", "versions", "states", "events", "result", "schedule", "unschedule", "refusal"}. A refusal is told and not raised: {"code", "message", "detail"}, without its words where fields of the command are protected, NULL where there is none; other errors are raised. Keys that were used do not matter. What the door in would refuse (event types, closed periods) is not asked. Needs the privilege command, and read for the streams whose states it shows.
Example: select es_simulate_command('account-1000', 'Withdraw', '{"amount": 20.00}') -> 'refusal';$$;

create function es_schedule_command(
    stream text,
    command_type text,
    payload jsonb,
    run_at timestamptz,
    command_key text default null,
    metadata jsonb default '{}',
    decider text default null,
    subject text default null
) returns jsonb
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_schedule_command';
comment on function es_schedule_command(text, text, jsonb, timestamptz, text, jsonb, text, text) is
$$Has a command executed later, once, at run_at or soon after it, by a runner, as es_command executes it: with the rights of the role that calls this, as they are then. A run_at that is past is now. It is decided by the state of then. command_key: as es_command's, and the same: one that es_command is given is not executed again; NULL = one is made. Said again with the same stream, command_type and payload it is answered with how it stands, and for when: the first run_at counts; with another one of them ES030. A key that was unscheduled stays used. What a decider refuses is over (stage refused); what fails is tried again after growing pauses, eventstream.command_retries times, and then a row of eventstream.dead_letters; if the role is gone, at once. In a handler of a projection NULL is a key of the projection's name, the event and the place among its calls. Returns {"command_key", "category", "stream", "command_type", "run_at", "stage", "replayed"}. Needs the privilege command for the stream's category.
Errors: ES005, ES007, ES016, ES026 in a copy before es_activate, ES030, ES035, ES036, 0A000 in a handler of a projection that is being rebuilt.
Example: select es_schedule_command('stock-pump', 'Release', '{"reservation": "r-1"}', now() + interval '10 minutes', command_key => 'release-r-1');$$;

create function es_unschedule_command(command_key text, reason text default null, category text default null) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_unschedule_command';
comment on function es_unschedule_command(text, text, text) is
$$Has a scheduled command not executed: its stage afterwards. unscheduled: it was not, and will not be; done or refused: it was executed already; dropped; NULL: there is none of that key. While it is being executed this waits for the end of it, and is answered by that. A dead letter of it is gone. category: whose key it is; NULL = the only one of those that the role may command in. reason: 1 to 1,024 bytes, kept with it. Needs the privilege command for the category.
Errors: ES005, also where the key is scheduled in several categories; 0A000 in a handler of a projection that is being rebuilt.
Example: select es_unschedule_command('release-r-1', 'the order was paid');$$;

create function es_reveal(stream text, reason text default null, from_version bigint default 1, max_count bigint default null) returns setof eventstream.event
language c volatile parallel unsafe rows 100 as 'MODULE_PATHNAME', 'eventstream_reveal';
comment on function es_reveal(text, text, bigint, bigint) is
$$The events of a stream as they are stored, with what is protected in clear, from a version on, for a reason: a reference of at most 64 bytes without @. Before each page goes out, an event of the tenant's stream $access-... says who is shown which events, committed by a worker's own transaction: ROLLBACK takes nothing back, and a read-only transaction may ask (view eventstream.access_log). Where no worker makes the record within 10 s it is ES070, and nothing is shown. Needs reveal, and read, for the category. In FROM at most what fits into work_mem (ES007): in the select list it goes page by page. Not on a standby (ES009).
Example: select (e).version, (e).payload from (select es_reveal('account-1000', 'CASE-4711', max_count => 1) e) r;$$;
