-- How the state of a stream came to be, and what it would be.
create function es_history(
    stream text,
    from_version bigint default 1,
    max_count bigint default null,
    fold text default null
) returns table (
    version bigint,
    event_type text,
    occurred_at timestamptz,
    recorded_at timestamptz,
    state jsonb,
    changes jsonb
)
language c stable parallel unsafe rows 100 as 'MODULE_PATHNAME', 'eventstream_history';
comment on function es_history(text, bigint, bigint, text) is
$$The state of a stream after each version from from_version on (at most max_count, NULL = all), as es_state_at_version gives it, and what that event changed. event_type is shown as the fold saw it (upcast).
changes: a member for each place that changed, by its JSON Pointer, with what was there and what is: {"/balance": {"from": 1.00, "to": 3.50}}; no from where it is new, no to where it is gone. Objects are compared member by member; of an array that only grew, the new elements are shown ("/tags/1"), else the whole array. 1.0 and 1.00 are not the same; {} = nothing changed. Where more than 1000 places changed, or beyond 64 levels, the whole is shown (the pointer of the whole state is "").
Errors: ES002 no such stream, ES005, ES010 no such fold, ES013 the fold met something it cannot use, and whatever a handler raises; 42501.
Example: select version, event_type, state, changes from es_history('account-1000');$$;

create function es_timeline(
    stream text,
    known_at timestamptz default null,
    fold text default null,
    from_moment timestamptz default null,
    to_moment timestamptz default null
) returns table (valid_from timestamptz, valid_to timestamptz, version bigint, state jsonb)
language c stable parallel unsafe rows 100 as 'MODULE_PATHNAME', 'eventstream_timeline';
comment on function es_timeline(text, timestamptz, text, timestamptz, timestamptz) is
$$The states of a stream in valid time, late events in their place: a row for each moment at which something occurred, in order, as known at a moment in transaction time (recorded_at <= known_at, NULL or infinity = now). state is that of es_state_at(stream, valid_from, known_at), and holds until valid_to, the next row's valid_from: tstzrange(valid_from, valid_to). valid_to is NULL in the last row: until further notice. version: the newest version of the events that count. from_moment and to_moment (NULL = no bound): only the rows that hold at some moment from from_moment on and before to_moment, each with its own valid_from and valid_to. The cost grows with the events, however late they were recorded, where the fold's order is occurred_at, and for rules that add, subtract, increment or set and read nothing of the state; else each row asked for folds anew the late events that the earlier versions have not caught up with.
Errors: ES002 no such stream, ES010 no such fold, ES013 the fold met something it cannot use, and whatever a handler raises; 42501.
Example: select valid_from, valid_to, state from es_timeline('account-1000', from_moment => '2024-03-01 00:00+00', to_moment => '2024-04-01 00:00+00');$$;

create function es_explain_state(
    stream text,
    as_of timestamptz default null,
    known_at timestamptz default null,
    fold text default null
) returns jsonb
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_explain_state';
comment on function es_explain_state(text, timestamptz, timestamptz, text) is
$$How the answer of es_state_at(stream, as_of, known_at, fold) comes about (NULL = no bound), for a person with a balance that looks wrong. A JSON object:
stream, stream_version (its newest); fold (name, kind, handler, order, fingerprint); asked (as_of, known_at); version (the newest that counts); counted (events; all_up_to_version: all count up to there; late_ones_behind: later versions that count because they occurred early enough); left_out (occurred_later, recorded_later: how many, and the first); started_from (initial_state, snapshot or cache, and its version); folded (events; late_ones_put_in_place: where the fold's order is occurred_at; upcast: steps made, and for how many events); snapshot_problems; milliseconds (to_look_up, to_fold); state. Lists hold the first 20.
Errors: ES002 no such stream, ES010 no such fold, ES013 the fold met something it cannot use, and whatever a handler raises; 42501.
Example: select jsonb_pretty(es_explain_state('account-1000', as_of => '2024-10-15 12:00+00'));$$;

create function es_simulate(stream text, events jsonb, fold text default null) returns jsonb
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_simulate';
comment on function es_simulate(text, jsonb, text) is
$$The state that a stream would have if these events (as es_append_events takes them) were appended: what if. Writes nothing, takes no position, needs only the privilege read, and works on a standby and in a read-only transaction. A stream without events counts as a new one. The events are checked as an append checks them, and folded as what it would make of them: versions behind the newest, recorded now, late ones in their place where the fold's order is occurred_at; global_position, salt and chain_hash are NULL. Events that were appended before (same event_id and content) change nothing.
Errors: ES003 the stream is closed, ES004, ES005, ES006, ES007 as es_append_events; ES010 no such fold, ES013 the fold met something it cannot use, and whatever a handler raises; 42501.
Example: select es_simulate('account-1000', '[{"type": "AccountDebited", "payload": {"amount": 5.00}}]');$$;
