-- What keeps the log from being lost or rewritten by a common command.
-- The tables that say what the log is, and whose rights count: a row trigger meets logical replication too.
do $$
declare
    register text;
begin
    foreach register in array array[
        'log_identities', 'first_appends', 'tenants', 'grants', 'streams', 'stream_segments', 'folds', 'upcasters', 'activations',
        'projections', 'subscriptions'
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
