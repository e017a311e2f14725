-- What keeps the log from being lost or rewritten by a common command.
-- The tables that say what the log is, and whose rights count: a row trigger meets logical replication too.
do $$
declare
    register text;
begin
    foreach register in array array[
        'log_identities', 'first_appends', 'tenants', 'grants', 'token_keys', 'page_keys', 'streams', 'stream_segments', 'tag_partitions', 'operations', 'event_counts', 'event_count_progress', 'folds', 'upcasters',
        'event_types', 'protections', 'category_rules', 'periods', 'deciders', 'invariants', 'command_answers', 'scheduled_commands', 'activations', 'projections', 'subscriptions'
    ] loop
        execute pg_catalog.format('create trigger refuse_foreign before insert or update or delete on _eventstream.%I '
                                  'for each row execute function _eventstream.refuse_foreign()', register);
        execute pg_catalog.format('comment on trigger refuse_foreign on _eventstream.%I is %L', register,
                                  'written by eventstream''s own functions only (ES050)');
        execute pg_catalog.format('alter table _eventstream.%I enable always trigger refuse_foreign', register);
        execute pg_catalog.format('create trigger refuse_truncate before truncate on _eventstream.%I '
                                  'for each statement execute function _eventstream.refuse_foreign()', register);
        execute pg_catalog.format('comment on trigger refuse_truncate on _eventstream.%I is %L', register,
                                  'never emptied (ES050)');
        execute pg_catalog.format('alter table _eventstream.%I enable always trigger refuse_truncate', register);
    end loop;
end
$$;

create function _eventstream.guard() returns event_trigger
language c as 'MODULE_PATHNAME', 'eventstream_guard';
comment on function _eventstream.guard() is
'Loads the library before any DDL, also where it is not preloaded: its hook refuses with ES051 what would drop or alter a log with events.';
create event trigger eventstream_guard on ddl_command_start execute function _eventstream.guard();
comment on event trigger eventstream_guard is 'keeps a log with events from being dropped or altered (ES051)';
alter event trigger eventstream_guard enable always;

create function _eventstream.enabling_guards() returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $text$
    select $block$do $$
declare
    guard record;
begin
    for guard in select t.tgrelid::regclass as guarded, t.tgname
                 from pg_trigger t join pg_class c on c.oid = t.tgrelid
                 where c.relnamespace = '_eventstream'::regnamespace and not t.tgisinternal
    loop
        execute format('alter table only %s enable always trigger %I', guard.guarded, guard.tgname);
    end loop;
end
$$$block$
$text$;
comment on function _eventstream.enabling_guards() is
'The statement that enables every trigger which keeps the log.';

-- What of the above, and of log/partitions.sql, is not as it was made. tgtype: the bits of pg_trigger.h (ROW 1, BEFORE 2, INSERT 4, DELETE 8, UPDATE 16, TRUNCATE 32).
-- What a partition has by a trigger of the parent comes and goes with that one. Those that are merely not enabled always need no statement but the last.
create function _eventstream.broken_guards() returns table (place int, what text, statements text[])
language sql stable parallel restricted
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
set transform_null_equals = off
set array_nulls = on
as $query$
    with guarded as (
        select c.oid, c.relname, true as is_log, c.oid = any (l.parents) as is_parent, false as is_defined
        from (select array['_eventstream.events', '_eventstream.event_tags']::regclass[]::oid[]) l (parents), pg_class c
        where c.oid = any (l.parents) or c.oid in (select i.inhrelid from pg_inherits i where i.inhparent = any (l.parents))
        union all
        select c.oid, c.relname, false, true, c.relname not in ('log_identities', 'first_appends', 'page_keys', 'streams', 'stream_segments', 'tag_partitions', 'operations', 'event_counts', 'event_count_progress', 'command_answers', 'scheduled_commands')
        from pg_class c
        where c.relnamespace = '_eventstream'::regnamespace
          and c.relname in ('log_identities', 'first_appends', 'tenants', 'grants', 'token_keys', 'page_keys', 'streams', 'stream_segments', 'tag_partitions', 'operations', 'event_counts', 'event_count_progress', 'folds',
                            'upcasters', 'event_types', 'protections', 'category_rules', 'periods', 'deciders', 'invariants', 'command_answers', 'scheduled_commands', 'activations', 'projections', 'subscriptions')
    ), functions (name, type) as (
        values ('refuse_change', 'trigger'), ('refuse_foreign', 'trigger'), ('guard', 'event_trigger')
    ), wanted (is_log, name, function, kind, moment, is_cloned, is_of_all) as (
        values (true, 'refuse_change_of_row', 'refuse_change', 27, 'before update or delete on %s for each row', true, true),
               (true, 'refuse_insert', 'refuse_foreign', 7, 'before insert on %s for each row', true, true),
               (true, 'refuse_change', 'refuse_change', 58, 'before update or delete or truncate on %s for each statement', false, true),
               (false, 'refuse_foreign', 'refuse_foreign', 31, 'before insert or update or delete on %s for each row', false, true),
               (false, 'refuse_truncate', 'refuse_foreign', 34, 'before truncate on %s for each statement', false, true),
               (false, 'note_definition', 'note_definition', 29, 'after insert or update or delete on %s for each row', false, false)
    ), idle (enabled, words) as (
        values ('D', 'disabled'), ('O', 'enabled, but not under session_replication_role = replica'),
               ('R', 'enabled under session_replication_role = replica only')
    ), triggers as (
        select g.relname, w.name, t.tgenabled, w.is_cloned and not g.is_parent as is_clone,
               case when t.oid is null then 'missing'
                    when t.tgtype <> w.kind or t.tgqual is not null or cardinality(t.tgattr::int2[]) > 0
                         or t.tgfoid is distinct from to_regprocedure('_eventstream.' || w.function || '()')::oid then 'replaced'
                    else i.words end as what,
               format('create or replace trigger %I ' || w.moment || ' execute function _eventstream.%I()',
                      w.name, format('_eventstream.%I', g.relname), w.function) as statement
        from guarded g join wanted w on w.is_log = g.is_log and (w.is_of_all or g.is_defined)
        left join pg_trigger t on t.tgrelid = g.oid and t.tgname = w.name and not t.tgisinternal
        left join idle i on i.enabled = t.tgenabled::text
    )
    select 1, 'function ' || f.name || ' is ' || case when p.oid is null then 'missing' else 'replaced' end,
           array[format('create or replace function _eventstream.%I() returns %s language c as ''$libdir/eventstream'', %L',
                        f.name, f.type, 'eventstream_' || f.name)]
    from functions f left join pg_proc p on p.oid = to_regprocedure('_eventstream.' || f.name || '()')
    where p.oid is null or p.prosrc <> 'eventstream_' || f.name or p.probin <> '$libdir/eventstream'
       or p.prolang <> (select l.oid from pg_language l where l.lanname = 'c')
    union all
    select 2, 'trigger ' || t.name || ' of ' || t.relname || ' is ' || t.what,
           case when t.what in ('missing', 'replaced') and not t.is_clone then array[t.statement] end
    from triggers t where t.what is not null
    union all
    select 3, 'event trigger eventstream_guard is ' || case when e.oid is null then 'missing' else coalesce(i.words, 'replaced') end,
           case when e.oid is not null and e.evtenabled <> 'A' then array['alter event trigger eventstream_guard enable always']
                else array_remove(array[case when d.objid is not null then 'alter extension eventstream drop event trigger eventstream_guard' end,
                                        case when e.oid is not null then 'drop event trigger eventstream_guard' end,
                           'create event trigger eventstream_guard on ddl_command_start execute function _eventstream.guard()',
                           'alter event trigger eventstream_guard enable always',
                           'alter extension eventstream add event trigger eventstream_guard'], null) end
    from (select) as one left join pg_event_trigger e on e.evtname = 'eventstream_guard'
    left join idle i on i.enabled = e.evtenabled::text
    left join pg_depend d on d.classid = 'pg_event_trigger'::regclass and d.objid = e.oid and d.deptype = 'e'
    where e.oid is null or e.evtenabled <> 'A' or e.evtevent <> 'ddl_command_start' or e.evttags is not null
       or e.evtfoid is distinct from to_regprocedure('_eventstream.guard()')::oid
    union all
    select 4, 'rule ' || r.rulename || ' of ' || c.relname || ' is not ours', array[format('drop rule %I on _eventstream.%I', r.rulename, c.relname)]
    from guarded g join pg_class c on c.oid = g.oid join pg_rewrite r on r.ev_class = g.oid
    union all
    select 5, 'trigger ' || t.tgname || ' of ' || g.relname || ' is not ours', array[format('drop trigger %I on _eventstream.%I', t.tgname, g.relname)]
    from guarded g join pg_trigger t on t.tgrelid = g.oid
    where not t.tgisinternal and t.tgparentid = 0 and not exists (select from wanted w where w.is_log = g.is_log and w.name = t.tgname)
    union all
    select 6, null, array[_eventstream.enabling_guards()]
    order by 1, 2
$query$;
comment on function _eventstream.broken_guards() is
'The triggers, functions and rules that do not keep the log as they should, each with the statements that mend it; last (what is NULL) what enables them all.';
