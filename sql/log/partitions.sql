-- Immutability and the partitions of the log.
create function _eventstream.refuse_change() returns trigger
language c as 'MODULE_PATHNAME', 'eventstream_refuse_change';
comment on function _eventstream.refuse_change() is
'Refuses UPDATE, DELETE and TRUNCATE of events with ES050, whoever asks.';

-- A row trigger (cloned to every partition) catches writers that fire no statement triggers, such as logical
-- replication; a statement trigger catches TRUNCATE and statements that touch no row.
do $$
declare
    log text;
begin
    foreach log in array array['events', 'event_tags'] loop
        execute pg_catalog.format('create trigger refuse_change_of_row before update or delete on _eventstream.%I '
                                  'for each row execute function _eventstream.refuse_change()', log);
        execute pg_catalog.format('comment on trigger refuse_change_of_row on _eventstream.%I is %L', log, 'events are immutable (ES050)');
        execute pg_catalog.format('create trigger refuse_change before update or delete or truncate on _eventstream.%I '
                                  'for each statement execute function _eventstream.refuse_change()', log);
        execute pg_catalog.format('comment on trigger refuse_change on _eventstream.%I is %L', log, 'events are immutable (ES050)');
        execute pg_catalog.format('alter table _eventstream.%I enable always trigger refuse_change_of_row', log);
        execute pg_catalog.format('alter table _eventstream.%I enable always trigger refuse_change', log);
    end loop;
end
$$;

create function _eventstream.refuse_foreign() returns trigger
language c as 'MODULE_PATHNAME', 'eventstream_refuse_foreign';
comment on function _eventstream.refuse_foreign() is
'Refuses with ES050 what others than eventstream''s own functions write: UPDATE, DELETE and TRUNCATE always, INSERT and COPY from the first append of this database on. Until then rows may come from a dump.';

-- The append's own insert fires no triggers: this one meets INSERT, COPY and logical replication.
do $$
declare
    log text;
begin
    foreach log in array array['events', 'event_tags'] loop
        execute pg_catalog.format('create trigger refuse_insert before insert on _eventstream.%I '
                                  'for each row execute function _eventstream.refuse_foreign()', log);
        execute pg_catalog.format('comment on trigger refuse_insert on _eventstream.%I is %L', log,
                                  'events come by es_append and its kin only (ES050)');
        execute pg_catalog.format('alter table _eventstream.%I enable always trigger refuse_insert', log);
    end loop;
end
$$;

create function _eventstream.make_partition(lower_bound bigint, upper_bound bigint) returns bool
language plpgsql
set search_path = pg_catalog, pg_temp
set client_min_messages = warning
set standard_conforming_strings = on
set quote_all_identifiers = off
set transform_null_equals = off
set array_nulls = on
set plpgsql.extra_errors = none
as $$
#variable_conflict error
declare
    log text;
    name text;
    index record;
    whose record;
begin
    -- CREATE TABLE … PARTITION OF would take ACCESS EXCLUSIVE on the parent and stop every append. ONLY: old partitions
    -- may be under VACUUM or REINDEX CONCURRENTLY.
    lock table only _eventstream.events in share update exclusive mode;
    if to_regclass(format('_eventstream.%I', 'events_' || lower_bound)) is not null then
        return false;
    end if;
    foreach log in array array['event_tags', 'events'] loop
        name := log || '_' || lower_bound;
        execute format('create table _eventstream.%I (like _eventstream.%I including all)', name, log);
        for index in
            select * from (values
                ('event_tags', 'key', 'unique', '(tenant_id, tag, global_position)', '', 'the events of a tag in order'),
                ('events', 'position', '', '(global_position)', '', 'the log in order'),
                ('events', 'version', 'unique', '(stream_id, version)', '', 'a stream in order; across partitions unique by the row lock'),
                ('events', 'event_id', '', '(event_id, tenant_id)', '', 'an event by id'),
                ('events', 'tenant', '', '(tenant_id, global_position)', '', 'the log of a tenant in order'),
                ('events', 'category', '', '(tenant_id, category, global_position)', '', 'the log of a category in order'),
                ('events', 'subject', '', '(tenant_id, subject, global_position)', 'where subject is not null', 'what is held about a person, in order'),
                ('events', 'late', '', '(stream_id, version, occurred_at)', 'where occurred_at < max_occurred_at', 'the late events of a stream')
            ) as i (of_log, suffix, uniqueness, columns, condition, meaning)
            where i.of_log = log
        loop
            execute format('create %s index %I on _eventstream.%I %s %s',
                           index.uniqueness, name || '_' || index.suffix || '_idx', name, index.columns, index.condition);
            execute format('comment on index _eventstream.%I is %L', name || '_' || index.suffix || '_idx', index.meaning);
        end loop;
        if log = 'events' then
            -- Statistics would hold values of documents. LIKE takes no target along.
            execute format('alter table _eventstream.%I alter column payload set statistics 0, alter column metadata set statistics 0', name);
        end if;
        execute format('comment on table _eventstream.%I is %L', name,
                       format(case log when 'events' then 'Events with global_position from %s to %s.'
                                       else 'Tags of the events with global_position from %s to %s.' end, lower_bound, upper_bound - 1));
        execute format('create trigger refuse_change before update or delete or truncate on _eventstream.%I '
                       'for each statement execute function _eventstream.refuse_change()', name);
        execute format('comment on trigger refuse_change on _eventstream.%I is %L', name, 'events are immutable (ES050)');
        execute format('alter table _eventstream.%I enable always trigger refuse_change', name);
        -- Default privileges of the owner may have granted something; nobody but the owner gets anything.
        for whose in
            select distinct case when a.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end as grantee
            from pg_class c, aclexplode(c.relacl) a
            where c.oid = to_regclass(format('_eventstream.%I', name)) and a.grantee <> c.relowner
        loop
            execute format('revoke all on _eventstream.%I from %s', name, whose.grantee);
        end loop;
        execute format('alter table _eventstream.%I attach partition _eventstream.%I for values from (%s) to (%s)',
                       log, name, lower_bound, upper_bound);
        execute format('alter table _eventstream.%I enable always trigger refuse_change_of_row', name);
        execute format('alter table _eventstream.%I enable always trigger refuse_insert', name);
    end loop;
    return true;
end
$$;
comment on function _eventstream.make_partition(bigint, bigint) is
'Makes and attaches the partition [lower_bound, upper_bound) of the log, of events and of tags; false where it exists. Lets appends go on meanwhile.';

create function _eventstream.forget_values() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
set transform_null_equals = off
set array_nulls = on
set plpgsql.extra_errors = none
as $$
#variable_conflict error
declare
    part record;
begin
    for part in
        select c.oid::regclass as log, a.attname, a.attnum, coalesce(a.attstattarget, -1) as target
        from pg_class c join pg_attribute a on a.attrelid = c.oid
        where (c.oid = '_eventstream.events'::regclass or c.oid in (select i.inhrelid from pg_inherits i where i.inhparent = '_eventstream.events'::regclass))
          and a.attname in ('payload', 'metadata')
    loop
        if part.target <> 0 then
            execute format('alter table only %s alter column %I set statistics 0', part.log, part.attname);
        end if;
        if exists (select from pg_statistic s where s.starelid = part.log and s.staattnum = part.attnum) then
            delete from pg_statistic s where s.starelid = part.log and s.staattnum = part.attnum;
        end if;
    end loop;
end
$$;
comment on function _eventstream.forget_values() is
'Sees to it that no statistics hold values of payloads and metadata, of which there may be some where partitions came from the dump of a log that had others.';

-- The first partition belongs to the extension; later ones are ordinary tables, so that pg_dump takes them whole.
select _eventstream.make_partition(1, 16777216);
