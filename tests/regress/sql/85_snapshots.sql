-- Snapshots: due ones, damaged ones, old ones, and what goes.
set eventstream.state_cache_size = 0;
set eventstream.tenant = 'default';
create function counted(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$
begin
    if event.payload ? 'refuse' then
        raise exception 'refused' using errcode = 'GL042', detail = 'in detail', hint = 'as a hint';
    end if;
    return jsonb_build_object('n', (state ->> 'n')::int + 1);
end
$$;
select es_register_fold('count', 'dial', 'counted(jsonb, eventstream.event)', initial_state => '{"n": 0}', snapshot_every => 5);
select es_append_events('dial-1', (select jsonb_agg('{"type": "Read", "payload": {}}'::jsonb) from generate_series(1, 12)));
select es_append_events('dial-2', (select jsonb_agg('{"type": "Read", "payload": {}}'::jsonb) from generate_series(1, 5)));
select name, category, handler, rules, initial_state, snapshot_every, fold_order, is_default, registrant, search_path, tenant
from eventstream.folds where name = 'count';

-- The due ones, once.
select * from es_maintain() where task like 'snapshots%';
select * from es_maintain() where task like 'snapshots%';
select es_snapshot('dial-1');
select stream, fold, version, bytes > 0 as has_bytes, is_current, tenant from eventstream.snapshots where fold = 'count' order by stream, version;
select es_snapshot_state('dial-1'), es_snapshot_state('dial-1', 10), (es_stream('dial-1')).snapshots;
select es_snapshot_state('dial-1', 11);
\echo :SQLSTATE
select es_snapshot_state('dial-1', 0);
select es_snapshot('dial-3');
select es_snapshot('dial-1', 'no fold');
select es_prune_snapshots(keep => -1);
select es_prune_snapshots(older_than => '-1 day');

-- Damaged: named, not used, and the answer is right.
update _eventstream.snapshots set state = '{"n": 100}' where version = 12;
update _eventstream.snapshots set chain_hash = '\x00' where version = 10;
select es_state_at_version('dial-1', 12);
select es_snapshot_state('dial-1');
select es_snapshot_state('dial-1', 12);
select * from es_verify_snapshots();
select * from es_verify_snapshots('count', thorough => true);
select * from es_verify_snapshots('no fold');
select es_snapshot('dial-1');
select * from es_verify_snapshots();

-- A stream that fails stops no other.
select es_append('dial-1', 'Read', '{"refuse": true}');
select es_append_events('dial-1', (select jsonb_agg('{"type": "Read", "payload": {}}'::jsonb) from generate_series(1, 12)));
select es_append_events('dial-2', (select jsonb_agg('{"type": "Read", "payload": {}}'::jsonb) from generate_series(1, 5)));
select * from es_maintain() where task like 'snapshots%';
select es_snapshot('dial-1');
select stream, version from eventstream.snapshots where fold = 'count' order by stream, version;

-- Of an earlier definition: never used, and removed.
create or replace function counted(state jsonb, event eventstream.event) returns jsonb immutable language sql as $$
    select jsonb_build_object('n', (state ->> 'n')::int + 10)
$$;
select es_state('dial-2');
select stream, version, is_current from eventstream.snapshots where fold = 'count' order by stream, version;
select es_snapshot_state('dial-2', 5);
select * from es_verify_snapshots(thorough => true);
select * from es_maintain() where task like 'snapshots%';
select stream, version, is_current from eventstream.snapshots where fold = 'count' order by stream, version;
select es_state('dial-2');

-- What stays.
select es_prune_snapshots(keep => 1, older_than => '1 day');
select es_prune_snapshots(keep => 1);
select stream, version from eventstream.snapshots where fold = 'count' order by stream, version;
set eventstream.snapshot_keep = -1;
set eventstream.snapshot_keep = 2;
show eventstream.snapshot_max_age;

-- The counts of the database, for those who may.
select name, scope, meaning from eventstream.stats;
create role no_monitor;
set role no_monitor;
select * from eventstream.stats;
select es_snapshot('dial-1');
reset role;
drop role no_monitor;

select es_unregister_fold('count');
select count(*) from eventstream.snapshots where fold = 'count';
drop function counted;
