-- Projections and state tables.
create function es_create_projection(
    name text,
    handler regprocedure,
    mode text default 'async',
    categories text[] default null,
    event_types text[] default null,
    batch_size bigint default 500,
    on_error text default 'stop',
    max_retries bigint default 5,
    reset regprocedure default null,
    after_position bigint default 0,
    if_not_exists bool default false
) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_create_projection';
comment on function es_create_projection(text, regprocedure, text, text[], text[], bigint, text, bigint, regprocedure, bigint, bool) is
$$Makes a read model that follows the log: handler(event eventstream.event), or handler(events eventstream.event[]) for a batch, is called for every event after after_position, in the order of the log, exactly once: its effects and the checkpoint commit together. It runs with the rights and the search_path of the role that creates the projection (so it must be its own, a superuser's, or of a role that has its rights), security-restricted (no temporary tables, no deferred triggers), in UTC. Returns the name.
mode: async (a background worker, soon after the commit) or inline (in the append's own transaction; creation first catches up, and an error fails the append). categories, event_types: only these (NULL = all that the role may read). batch_size: events a batch, 1 to 10000. on_error: after max_retries (0 to 1000) with growing pauses, stop, or skip the failing event to the dead letters; an error that is not the event's own (a missing table, a right, a full disk, a cancel, a deadlock) always stops. Of no effect inline. reset: a function () that empties the read model, for es_rebuild_projection. if_not_exists: one that is there already is left alone, with a NOTICE, where it was created with the same arguments; else ES005 says what differs. Needs the privileges manage and read.
Errors: ES005, ES008, ES009, ES025, 42501.
Example: select es_create_projection('turnover', 'ledger.on_entry(eventstream.event)', categories => '{account}');$$;

create function eventstream.create_table_projection(
    name text,
    category text,
    columns jsonb,
    fold text,
    mode text,
    table_name text
) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_create_table_projection';
comment on function eventstream.create_table_projection(text, text, jsonb, text, text, text) is
'Part of es_create_state_table: the projection that fills the table which was made.';

create function _eventstream.state_table_statements(
    target text, columns jsonb, out upsert text, out prune text, out prune_rest text, out remove text
)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
set transform_null_equals = off
set array_nulls = on
set plpgsql.extra_errors = none
as $$
#variable_conflict error
declare
    names text;
    expressions text;
    assignments text;
    ours text;
    theirs text;
    kept constant text := 'x.stream operator(pg_catalog.=) any (select u.stream from pg_catalog.unnest(%s) u (stream))';
begin
    select string_agg(format(', %I', c.name), '' order by c.place),
           string_agg(format(', %s', c.expression), '' order by c.place),
           string_agg(format(', %1$I = excluded.%1$I', c.name), '' order by c.place),
           string_agg(format(', x.%I', c.name), '' order by c.place),
           string_agg(format(', excluded.%I', c.name), '' order by c.place)
    into names, expressions, assignments, ours, theirs
    from eventstream.column_expressions(columns) c;
    -- A row is written where its image differs: numeric 1.0 and 1.00 are two, and types without an order can be compared.
    upsert := format('insert into %s as x (stream, version%s) select t.stream, t.version%s '
               'from rows from (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) as t (stream, version, state) order by t.stream collate pg_catalog."C" '
               'on conflict (stream) do update set version = excluded.version%s '
               'where x.version operator(pg_catalog.<>) excluded.version '
               'or row(x.version%s)::pg_catalog.record operator(pg_catalog.*<>) row(excluded.version%s)::pg_catalog.record',
               target, names, expressions, assignments, ours, theirs);
    -- Two statements, so that each looks at its range of the primary key and at nothing else; and a subquery that is hashed once,
    -- whatever the planner guesses of a page that it cannot see: a join of two sides that seem to be small would be a loop.
    prune := format('delete from %s x where x.stream operator(pg_catalog.>) $1 and x.stream operator(pg_catalog.<=) $2 and not ', target)
             || format(kept, '$3');
    remove := format('delete from %s x where ', target) || format(kept, '$1');
    prune_rest := format('delete from %s x where x.stream operator(pg_catalog.>) $1 and not ', target) || format(kept, '$2');
end
$$;
comment on function _eventstream.state_table_statements(text, jsonb) is
'What writes a state table: target is the table, found, qualified and quoted; the columns are checked as es_create_state_table checks them. upsert: rows of streams, versions, states. prune: removes the rows of a range of streams that are not among those given; prune_rest: the same of all behind the first of these bounds. remove: removes the rows of the streams given.';

create function eventstream.state_table_is_there(
    name text, table_name text, category text, columns jsonb, fold text, mode text, if_not_exists bool
) returns bool
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_state_table_is_there';
comment on function eventstream.state_table_is_there(text, text, text, jsonb, text, text, bool) is
'Part of es_create_state_table: true where the state table is there as it is asked for; ES005 where its name or its table is taken.';

create function eventstream.make_state_table(name text, category text, columns jsonb, fold text, mode text, if_not_exists bool, schemas name[])
returns text
language plpgsql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
set transform_null_equals = off
set array_nulls = on
set plpgsql.extra_errors = none
as $$
#variable_conflict error
declare
    parts text[] := eventstream.relation_asked_for('name', name, 63, schemas, category, columns, fold);
    target text := format('%I.%I', parts[1], parts[2]);
    definitions text;
begin
    if parts[1] ~ '^pg_temp' then
        perform eventstream.refuse('name', 'must not be in a temporary schema: the workers do not see it', null);
    end if;
    if eventstream.state_table_is_there(name, target, category, columns, fold, mode, if_not_exists) then
        return name;
    end if;
    if to_regclass(target) is not null then
        perform eventstream.refuse('name', format('must be new: there is a relation %s', target), 'Choose another name.');
    end if;
    select string_agg(format(E',\n    %I %s', c.name, c.type_name), '' order by c.place) into definitions
    from eventstream.column_expressions(columns) c;
    execute format(E'create table %s (\n    stream pg_catalog.text collate pg_catalog."C" primary key,\n    version pg_catalog.int8 not null%s\n)',
                   target, definitions);
    perform eventstream.comment_columns(target, columns);
    execute format('comment on table %s is %L', target,
                   format('The states of category %s%s, kept up by projection %s; made by es_create_state_table.',
                          category, coalesce(' by fold ' || fold, ''), name));
    -- The path that triggers and functions of the table's will run with: the caller's; what the statements name is found first.
    perform set_config('search_path', concat_ws(', ', 'pg_catalog', (select string_agg(quote_ident(s.name), ', ') from unnest(schemas) s (name))), true);
    perform eventstream.create_table_projection(name, category, columns, fold, mode, target);
    return name;
end
$$;
comment on function eventstream.make_state_table(text, text, jsonb, text, text, bool, name[]) is
'Part of es_create_state_table: makes the table with the rights of the caller, in the schema that name names, else in the first of schemas.';

create function es_create_state_table(
    name text, category text, columns jsonb, fold text default null, mode text default 'async', if_not_exists bool default false
) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_create_state_table';
comment on function es_create_state_table(text, text, jsonb, text, text, bool) is
$$Makes a read model without code: a table with one row a stream of the category, stream, version, and the columns asked for, [{"name", "type", "path"}] in order, path being a JSON Pointer into the state. It is filled, and follows the log by itself. The table belongs to the caller, who may add indexes, grants, constraints, triggers and views; nobody else may write the rows. fold: NULL = the category's default one. mode: async or inline, as in es_create_projection. When the fold is registered anew, or an upcaster, the table is filled again: by the workers, and readers see the old rows until all new ones are there; an inline one in that transaction, for which appends wait. if_not_exists: one that is there already is left alone, with a NOTICE, where it was created with the same arguments; else ES005 says what differs. Returns the name. Needs the privileges manage and read, and CREATE in the schema.
Errors: ES005, ES008, ES009, ES010, 42501; a table that is gone, or is not as it was made, stops the projection after its retries. A stream that cannot be folded, or whose row cannot be written (a value that does not fit its column's type, a constraint or trigger that refuses it), goes to the dead letters, and the others go on (an inline table fails the append).
Example: select es_create_state_table('balances', 'account', '[{"name": "balance", "type": "numeric", "path": "/balance"}]');$$;

create function es_alter_projection(name text, settings jsonb) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_alter_projection';
comment on function es_alter_projection(text, jsonb) is
$$Changes a projection from its next batch on: an object with any of batch_size, on_error, max_retries, handler, reset, as in es_create_projection. Whoever gives a handler or a reset needs the privilege read, too, and becomes the role that both run as; where that was another role, both have to be given. A migration that creates the projection with if_not_exists has to say what was changed, else it is ES005. Returns the name. Needs the privilege manage.
Errors: ES005, ES020, 42501.
Example: select es_alter_projection('turnover', '{"batch_size": 2000}');$$;

create function es_pause_projection(name text) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_pause_projection';
comment on function es_pause_projection(text) is
$$Stops advancing a projection, after the batch under way; it goes on where it was at es_resume_projection. Returns the name. Needs the privilege manage.
Errors: ES020, 42501.
Example: select es_pause_projection('turnover');$$;

create function es_resume_projection(name text) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_resume_projection';
comment on function es_resume_projection(text) is
$$Lets a paused or stopped projection go on where it was; the failing event gets all its retries again. An inline one first catches up. Returns the name. Needs the privilege manage.
Errors: ES020, 42501.
Example: select es_resume_projection('turnover');$$;

create function eventstream.drop_state_table(target text) returns void
language plpgsql volatile parallel unsafe
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
set transform_null_equals = off
set array_nulls = on
set plpgsql.extra_errors = none
as $$
#variable_conflict error
begin
    execute format('drop table %s', target);
end
$$;
comment on function eventstream.drop_state_table(text) is
'Part of es_drop_projection: drops the state table, qualified and quoted, with the rights of the caller.';

create function es_drop_projection(name text, drop_table bool default false) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_drop_projection';
comment on function es_drop_projection(text, bool) is
$$Forgets a projection, its checkpoint and its dead letters. What it filled stays; drop_table: a state table is dropped too. Returns the name. Needs the privilege manage.
Errors: ES005 where that table is another role's by now, ES020, 42501.
Example: select es_drop_projection('turnover');$$;

create function es_rebuild_projection(name text) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_rebuild_projection';
comment on function es_rebuild_projection(text) is
$$Builds a read model again from the beginning (a handler's: from its after_position); a paused or stopped projection goes on with it. A state table is folded beside the rows that readers see, which become the new ones in one transaction; indexes, grants, constraints and views on it are not touched, and es_wait_for does not wait for it. A handler's is emptied by its reset function now, and fills up again. An inline one is filled within the call, and appends wait until it has committed. eventstream.progress shows how far it is; a rebuild that is interrupted goes on by itself. Returns the name. Needs the privilege manage.
Errors: ES005 a handler without reset, ES008, ES020, ES021 its reset function is gone, ES022 it is being rebuilt already, 42501.
Example: select es_rebuild_projection('balances');$$;

create function es_run_projection(name text default null, max_batches bigint default null) returns bigint
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_run_projection';
comment on function es_run_projection(text, bigint) is
$$Advances a projection (NULL = all asynchronous ones of the tenant) in this transaction, up to the last settled event or for max_batches in all: for servers that run no workers (eventstream.max_workers = 0), and for tests. Returns how many events were applied. A failing event is a WARNING: what was applied before it, and the failure, are committed, and the next call tries it again. The call in which it fails for the last time ends with a WARNING as well; calls after that are ES021 (with NULL: a WARNING). It does not see what this transaction has appended. Needs the privilege manage.
Errors: ES005, ES008, ES009, ES020, ES021 it was stopped before, ES026, 42501; 0A000 in a handler.
Example: select es_run_projection('turnover');$$;

create function es_skip_event(projection text, global_position bigint, reason text default null) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_skip_event';
comment on function es_skip_event(text, bigint, text) is
$$Puts the event that a projection fails on among the dead letters, with a reason, and lets the projection go on behind it. reason: a reference of at most 64 bytes without @, such as a ticket's number; it stands in the log of acts for ever. Returns the projection's name. Needs the privilege manage.
Errors: ES005 where it does not fail on that event, or for the reason, ES020, 42501.
Example: select es_skip_event('turnover', 15, 'CHG-4711');$$;

create function es_wait_for(
    projection text,
    stream text default null,
    version bigint default null,
    up_to bigint default null,
    timeout interval default '10s'
) returns bigint
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_wait_for';
comment on function es_wait_for(text, text, bigint, bigint, interval) is
$$Waits until a projection has passed an event, and returns the global position that it has reached: what the next statement reads contains that event. Which one: that of stream at version (what es_append returned; NULL: the stream's newest), or everything up to a global position (up_to), or, with none of them, everything that is committed now in the current tenant. So it works from any session, through a pool too. Woken by the worker. Where an older append is still open in another session, it waits for that one too, and says whose it is. It does not wait for the rebuild of a state table, whose old rows stay until then. Not in a transaction that has appended, nor above READ COMMITTED (0A000). Needs the privilege read, for the stream's category where one is given.
Errors: ES002 no such stream, ES005 (also for a version that the stream has not), ES008, ES009, ES020, ES021 it is stopped, ES023 not within timeout, ES025, ES026, 42501.
Example: select es_wait_for('balances', 'account-1000', version => 7);$$;
