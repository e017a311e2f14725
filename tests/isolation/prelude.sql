-- What every spec leans on; run once in the fresh database that each spec gets.
create extension eventstream;

-- A stream name of this permutation: streams cannot be deleted, so each permutation counts on.
create sequence runs;
-- The position before this permutation's first event.
create sequence base minvalue 0 start 0;

create function next_run() returns void language plpgsql as $$
begin
    perform nextval('runs');
    perform setval('base', (select last_position from es_log_info()));
end $$;

create function acct(which text = 'a') returns text language sql volatile as $$
    select 'account-' || which || (select last_value from runs)
$$;

create function event_id(number int) returns uuid language sql volatile as $$
    select ('00000000-0000-0000-' || lpad((select last_value from runs)::text, 4, '0') || '-' || lpad(number::text, 12, '0'))::uuid
$$;

-- The next position handed out is the last one before the edge of the newest partition.
create function go_to_edge() returns void language sql volatile as $$
    select setval('_eventstream.positions', max(substring(pg_get_expr(c.relpartbound, c.oid) from 'TO \(''?(\d+)''?\)')::bigint) - 2)
    from pg_class c
    join pg_inherits i on i.inhrelid = c.oid
    where i.inhparent = '_eventstream.events'::regclass
$$;

create function partition_count() returns bigint language sql volatile as $$
    select count(*) from pg_inherits where inhparent = '_eventstream.events'::regclass
$$;

-- Elements of batches: a spec's blocks cannot contain a closing brace.
create function ev(type text, payload int = 1, id uuid = null) returns jsonb language sql volatile as $$
    select jsonb_strip_nulls(jsonb_build_object('type', type, 'payload', payload, 'event_id', id))
$$;

create function many(stream text, expected bigint, variadic events jsonb[]) returns jsonb language sql volatile as $$
    select jsonb_strip_nulls(jsonb_build_object('stream', stream, 'expected_version', expected)) || jsonb_build_object('events', to_jsonb(events))
$$;

-- An element without events: the stream is only checked.
create function check_of(stream text, expected bigint) returns jsonb language sql volatile as $$
    select jsonb_build_object('stream', stream, 'expected_version', expected, 'events', '[]'::jsonb)
$$;

-- A fold that adds up payloads, times a factor.
create function handler(factor int) returns void language plpgsql as $$
begin
    execute format('create or replace function total(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as '
                   '$body$ begin return jsonb_build_object(''sum'', (state ->> ''sum'')::numeric + %s * event.payload::numeric); end $body$', factor);
end $$;

create function register_total(initial jsonb = '{"sum": 0}') returns text language sql volatile as $$
    select es_register_fold('total', 'account', ('total(jsonb, eventstream.event)'::text)::regprocedure, initial_state => initial, snapshot_every => 2)
$$;

-- Takes so much where there is enough, and says what is left.
create function reserve(stream text, quantity int) returns text language plpgsql as $$
declare
    now record;
begin
    select * into now from es_load(stream, for_update => true);
    if (now.state ->> 'sum')::numeric < quantity then
        return 'refused: there are ' || (now.state ->> 'sum');
    end if;
    perform es_append(stream, 'Added', to_jsonb(-quantity), expected_version => now.version);
    return 'taken';
end $$;
