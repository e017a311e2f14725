-- Temporal views: typed columns over the states of a category, at the session's moment or at a given one.
create function eventstream.check_temporal_view(category text, fold text) returns bool
language c stable parallel restricted as 'MODULE_PATHNAME', 'eventstream_check_temporal_view';
comment on function eventstream.check_temporal_view(text, text) is
'Part of es_create_temporal_view: true where the role may manage and there is such a fold; 42501, ES005, ES010 otherwise.';

-- Rows and cost of the next two: how many streams a category has is said to the planner by src/pg/query/estimate.rs. Where the library is not loaded yet,
-- it may take a whole category for one row, and would ask the second of two views that are joined once for each row of the first. Said to give
-- a thousand rows, each as dear as a fold is, they are asked once for each stream, whatever is known of the streams.
create function eventstream.temporal_state(stream text, fold text, columns text default null, tenant text default null) returns table (version bigint, state jsonb, problem text)
language c stable parallel unsafe cost 1000 rows 1000 as 'MODULE_PATHNAME', 'eventstream_temporal_state';
comment on function eventstream.temporal_state(text, text, text, text) is
'Part of temporal views: the state of a stream at the moment of eventstream.as_of and eventstream.known_at; no row where no event counts. columns: as es_create_temporal_view was given them; ES013 where the state does not fit them. tenant: in which the stream was found; ES040 where the current one is another by now.';

create function eventstream.temporal_state_at(stream text, fold text, as_of text, known_at text, on_error text, columns text default null, tenant text default null)
returns table (version bigint, state jsonb, problem text)
language c stable parallel unsafe cost 1000 rows 1000 as 'MODULE_PATHNAME', 'eventstream_temporal_state_at';
comment on function eventstream.temporal_state_at(text, text, text, text, text, text, text) is
'Part of the functions beside temporal views: the state of a stream at a moment; no row where no event counts. on_error: as in es_category_state, also where the state does not fit the columns. tenant: as in temporal_state.';

-- coalesce is what `is null or … = any (…)` is, too, but a planner takes that for one row in two hundred.
create view eventstream.stream_names with (security_barrier) as
with reader as materialized (select w.tenant_id, w.categories, w.tenant from _eventstream.readable('read') w)
select s.name as stream, s.category, (select w.tenant from reader w) as tenant
from _eventstream.streams s
where s.tenant_id = (select w.tenant_id from reader w)
  and coalesce(s.category = any ((select w.categories from reader w)::text[]), true);
comment on view eventstream.stream_names is
'The names of the streams of the current tenant that the role may read: what temporal views look streams up in.';

create function eventstream.read_columns(columns jsonb, of_view bool)
returns table (place int, name text, type_name text, path text, steps text[])
language c stable parallel safe rows 10 as 'MODULE_PATHNAME', 'eventstream_read_columns';
comment on function eventstream.read_columns(jsonb, bool) is
'Part of es_create_temporal_view and es_create_state_table: the columns asked for, of a view or a table, in order from 0, with the steps of their paths; ES005 for what is no such list. Types are not looked at.';

create function eventstream.is_of_this_session(type_oid oid) returns bool
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    with recursive made_of (oid) as (
        select type_oid
        union
        select b.oid from made_of m join pg_type t on t.oid = m.oid
        cross join lateral (
            select t.typbasetype union select t.typelem
            union select r.rngsubtype from pg_range r where t.oid in (r.rngtypid, r.rngmultitypid)
            union select a.atttypid from pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
        ) b (oid)
    )
    select exists (select from made_of m join pg_type t on t.oid = m.oid join pg_namespace n on n.oid = t.typnamespace where n.nspname ~ '^pg_(toast_)?temp_')
$$;
comment on function eventstream.is_of_this_session(oid) is
'Part of es_create_temporal_view and es_create_state_table: whether a type, or one that it is made of, is temporary. It goes when its session ends, and takes a column with it.';

create function eventstream.column_expressions(columns jsonb, of_view bool default false)
returns table (place int, name text, type_name text, expression text, steps text[])
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
    col record;
    type_oid oid;
begin
    for col in select c.place, c.name, c.type_name, c.steps from eventstream.read_columns(columns, of_view) c order by c.place loop
        type_oid := null;
        -- What a type's name can be made of: no comment hides in it.
        if col.type_name ~ '^[[:alnum:]_ ".,()\[\]]+$' then
            begin
                type_oid := to_regtype(col.type_name);
            exception when others then
                type_oid := null;
            end;
        end if;
        if type_oid is null or (select t.typtype = 'p' from pg_type t where t.oid = type_oid) then
            perform eventstream.refuse('columns', format('must have types that exist, and %s has %s', quote_ident(col.name),
                                                         quote_literal(left(col.type_name, 100))),
                                       'Types outside of pg_catalog are named with their schema.');
        end if;
        if eventstream.is_of_this_session(type_oid) then
            perform eventstream.refuse('columns', format('must have types that other sessions find too, and %s has %s, which is temporary',
                                                         quote_ident(col.name), quote_literal(left(col.type_name, 100))),
                                       'Make the type in a schema that stays.');
        end if;
        place := col.place;
        name := col.name;
        type_name := col.type_name;
        steps := col.steps;
        expression := format(
            case type_oid when 'text'::regtype then 't.state #>> %1$L::pg_catalog.text[]'
                          when 'jsonb'::regtype then 't.state #> %1$L::pg_catalog.text[]'
                          else 'cast(t.state #>> %1$L::pg_catalog.text[] as %2$s)' end,
            steps, type_name);
        return next;
    end loop;
end
$$;
comment on function eventstream.column_expressions(jsonb, bool) is
'Part of es_create_temporal_view and es_create_state_table: the columns asked for, whose types there are, each with the expression that takes it from t.state, and the way to it.';

create function eventstream.misfit(
    columns jsonb, state jsonb, out column_name text, out type_name text, out value_kind text, out error_state text, out error_message text
)
language plpgsql stable parallel unsafe
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
set transform_null_equals = off
set array_nulls = on
set plpgsql.extra_errors = none
as $$
#variable_conflict error
declare
    col record;
begin
    for col in select c.name, c.type_name, c.expression, c.steps from eventstream.column_expressions(columns) c order by c.place loop
        begin
            execute format('select %s from (select $1) t (state)', col.expression) using state;
        exception when others then
            get stacked diagnostics error_state = returned_sqlstate, error_message = message_text;
            column_name := col.name;
            type_name := col.type_name;
            value_kind := case jsonb_typeof(state #> col.steps) when 'string' then 'a string' when 'number' then 'a number' when 'array' then 'an array'
                                                               when 'object' then 'an object' when 'boolean' then 'a boolean' else 'NULL' end;
            return;
        end;
    end loop;
end
$$;
comment on function eventstream.misfit(jsonb, jsonb) is
'Part of state tables and temporal views: the first of the columns that cannot take what the state has for it, with the kind of that value, and the error; NULL: all can.';

create function eventstream.comment_columns(target text, columns jsonb) returns void
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
    col record;
begin
    execute format('comment on column %s.stream is %L', target, 'the stream whose state it is');
    execute format('comment on column %s.version is %L', target, 'how many of its events are in it');
    for col in select c.name, c.path from eventstream.read_columns(columns, false) c order by c.place loop
        execute format('comment on column %s.%I is %L', target, col.name,
                       case when col.path = '' then 'the whole state' else 'of the state: ' || col.path end);
    end loop;
end
$$;
comment on function eventstream.comment_columns(text, jsonb) is
'Part of es_create_temporal_view and es_create_state_table: says of each column where it comes from, which reporting tools show.';

create function eventstream.relation_asked_for(
    argument text, given text, most_bytes int, schemas name[], category text, columns jsonb, fold text
) returns text[]
language plpgsql stable parallel unsafe
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
set transform_null_equals = off
set array_nulls = on
set plpgsql.extra_errors = none
as $$
#variable_conflict error
declare
    parts text[];
begin
    -- Rights come first.
    perform eventstream.check_temporal_view(category, fold);
    if given is null or columns is null then
        perform eventstream.refuse(case when given is null then argument else 'columns' end, 'must not be NULL', null);
    end if;
    begin
        parts := parse_ident(given);
    exception when invalid_parameter_value then
        parts := '{}';
    end;
    if cardinality(parts) not between 1 and 2 then
        perform eventstream.refuse(argument, format('must be a name, or schema.name, not %s', quote_literal(left(given, 100))),
                                   'Quote what is no plain name: ''reporting."Balances 2024"''.');
    end if;
    if cardinality(parts) = 1 then
        if schemas[1] is null then
            perform eventstream.refuse(argument, 'must name a schema, because the search_path names none', null);
        end if;
        parts := array[schemas[1]::text, parts[1]];
    end if;
    if octet_length(parts[2]) not between 1 and most_bytes then
        perform eventstream.refuse(argument, format('must have 1 to %s bytes, not %s', most_bytes, octet_length(parts[2])), null);
    end if;
    return parts;
end
$$;
comment on function eventstream.relation_asked_for(text, text, int, name[], text, jsonb, text) is
'Part of es_create_temporal_view and es_create_state_table: schema and name of what is to be made, {schema, name}, for roles that may manage the category and read nothing else; the schema is the first of schemas where given names none.';

create function eventstream.differing_parts(view regclass, schema name, query text) returns text
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
    probe text := format('%I.%I', schema, 'eventstream_asked_' || md5(random()::text));
    listed constant text := ', E?''\[([^'']|'''')*\]''::text, s\.tenant\)';
    there text[];
    asked text[];
begin
    begin
        -- The same under a name that nobody has, and gone again: what PostgreSQL prints tells whether two are one.
        execute format('create view %s as %s', probe, query);
        asked := regexp_match(pg_get_viewdef(probe::regclass), E'^(.*)\n   FROM (.*)\n  WHERE (.*)$');
        raise exception using errcode = 'triggered_action_exception';
    exception when triggered_action_exception then
        there := regexp_match(pg_get_viewdef(view), E'^(.*)\n   FROM (.*)\n  WHERE (.*)$');
    end;
    -- The columns stand in the list of columns, too.
    there[2] := regexp_replace(there[2], listed, ')');
    asked[2] := regexp_replace(asked[2], listed, ')');
    if there = asked then
        return null;
    end if;
    return coalesce(nullif(concat_ws(', ', case when there[3] <> asked[3] then 'category' end, case when there[2] <> asked[2] then 'fold' end,
                                     case when there[1] <> asked[1] then 'list of columns' end), ''), 'definition');
end
$$;
comment on function eventstream.differing_parts(regclass, name, text) is
'Part of es_create_temporal_view: which parts of a view are not what a query says; NULL: none.';

create function eventstream.temporal_view_queries(category text, columns jsonb, fold text, out of_view text, out of_function text)
language plpgsql stable parallel unsafe
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
set transform_null_equals = off
set array_nulls = on
set plpgsql.extra_errors = none
as $$
#variable_conflict error
declare
    expressions text;
    source text;
begin
    select string_agg(format(E',\n    %s as %I', c.expression, c.name), '' order by c.place) into expressions
    from eventstream.column_expressions(columns, true) c;
    source := format(
        E'select s.stream, t.version%s,\n    t.problem\nfrom eventstream.stream_names s\ncross join lateral eventstream.%%s t\nwhere s.category = %L',
        replace(expressions, '%', '%%'), replace(category, '%', '%%'));
    of_view := format(source, format('temporal_state(s.stream, %L::pg_catalog.text, %L::pg_catalog.text, s.tenant)', fold, columns::text));
    of_function := format(source, format('temporal_state_at(s.stream, %L::pg_catalog.text, $1, $2, $4, %L::pg_catalog.text, s.tenant)', fold, columns::text));
end
$$;
comment on function eventstream.temporal_view_queries(text, jsonb, text) is
'Part of es_create_temporal_view: what the view selects, and what its function does, whose arguments are a moment, a stream and on_error.';

create function eventstream.temporal_view_is_there(target text, function_target text, schema name, query text, if_not_exists bool) returns bool
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
    there regclass := to_regclass(target);
    has_function bool := to_regprocedure(function_target) is not null;
    mends text := 'Choose another name.';
    differing text;
begin
    if there is null then
        if has_function then
            perform eventstream.refuse('view_name', format('must leave the name of its function free: there is a function %s', function_target), mends);
        end if;
        return false;
    end if;
    if has_function and (select c.relkind = 'v' from pg_class c where c.oid = there) then
        mends := format('To drop it: drop function %s; drop view %s;', function_target, target);
    end if;
    if if_not_exists is not true or not has_function then
        perform eventstream.refuse('view_name', format('must be new: there is a relation %s', target), mends);
    end if;
    differing := eventstream.differing_parts(there, schema, query);
    if differing is not null then
        perform eventstream.refuse('view_name', format('must be new, or of the same definition: there is a relation %s with another %s',
                                                       target, differing), mends);
    end if;
    raise notice 'temporal view % is there already, as it was asked for', target;
    return true;
end
$$;
comment on function eventstream.temporal_view_is_there(text, text, name, text, bool) is
'Part of es_create_temporal_view: true where the view is there as it is asked for; ES005 where its name or that of its function is taken.';

create function eventstream.make_temporal_view(view_name text, category text, columns jsonb, fold text, if_not_exists bool, schemas name[])
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
    -- The name of its function has three bytes more.
    parts text[] := eventstream.relation_asked_for('view_name', view_name, 60, schemas, category, columns, fold);
    target text := format('%I.%I', parts[1], parts[2]);
    function_name text := format('%I.%I', parts[1], parts[2] || '_at');
    queries record;
begin
    select q.of_view, q.of_function into queries from eventstream.temporal_view_queries(category, columns, fold) q;
    if eventstream.temporal_view_is_there(target, function_name || '(text, text, text, text)', parts[1], queries.of_view, if_not_exists) then
        return target;
    end if;
    execute format('create view %s as %s', target, queries.of_view);
    perform eventstream.comment_columns(target, columns);
    execute format('comment on column %s.problem is %L', target, 'why the stream has no state; only of the function with on_error => report');
    execute format('comment on view %s is %L', target,
                   format('The states of category %s%s at the moment of eventstream.as_of and eventstream.known_at; made by es_create_temporal_view.',
                          category, coalesce(' by fold ' || fold, '')));
    -- Two branches, so that a stream that is given is looked up by its name also in a plan that serves every call.
    execute format(
        'create function %s(as_of pg_catalog.text, known_at pg_catalog.text default null, stream pg_catalog.text default null, '
        'on_error pg_catalog.text default ''fail'') '
        'returns setof %s language sql stable parallel unsafe begin atomic %s and $3 is null union all %s and s.stream = $3; end',
        function_name, target, queries.of_function, queries.of_function);
    execute format('comment on function %s is %L', function_name,
                   format('The rows of %s as of a moment in valid time (NULL = no bound), as known at a moment in transaction time (NULL = now), of one stream (NULL = all). Moments have a date, a time and a zone, as in eventstream.as_of. on_error: fail, or report, which tells in the column problem why a stream has no state.', target));
    return target;
end
$$;
comment on function eventstream.make_temporal_view(text, text, jsonb, text, bool, name[]) is
'Part of es_create_temporal_view: makes the view and its function with the rights of the caller, in the schema that view_name names, else in the first of schemas.';

create function eventstream.refuse(argument text, reason text, hint text) returns void
language c stable parallel safe as 'MODULE_PATHNAME', 'eventstream_refuse';
comment on function eventstream.refuse(text, text, text) is
'Part of es_create_temporal_view and es_create_state_table: raises ES005 for an argument.';

create function es_create_temporal_view(
    view_name text, category text, columns jsonb, fold text default null, if_not_exists bool default false
) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_create_temporal_view';
comment on function es_create_temporal_view(text, text, jsonb, text, bool) is
$$Makes a view over the states of a category: stream, version, and the columns asked for, [{"name", "type", "path"}] in order, path being a JSON Pointer into the state. Only streams with an event that counts. The last column, problem, is NULL. It follows eventstream.as_of and eventstream.known_at of the session. Beside it a function <view_name>_at(as_of, known_at = NULL, stream = NULL, on_error = fail) gives the rows of a moment, for tools behind poolers; with on_error => report a stream that cannot be folded, or whose state does not fit the columns, has a row in which problem says why, where the view fails (ES013) and says how many of the category there are. Both belong to the caller; who reads them needs SELECT, and the privilege read. fold: NULL = the category's default one whenever the view is read. if_not_exists: one that is there already is left alone, with a NOTICE, where it is of the same definition; else ES005 says what differs. Returns the view's name. Needs the privilege manage, and CREATE in the schema.
Errors: ES005, ES010, 42501.
Example: select es_create_temporal_view('balances', 'account', '[{"name": "balance", "type": "numeric", "path": "/balance"}]');$$;
