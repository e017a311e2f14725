-- A first session: append, read back, look at the stream.
set time zone 'UTC';
set datestyle = 'ISO';
select es_append('account-1000', 'AccountOpened', '{"owner": "customer-7"}', expected_version => 0,
                 occurred_at => '2024-10-01 09:00:00+00');
select es_append('account-1000', 'AccountCredited', '{"amount": 1234567890123456.78}',
                 metadata => '{"actor": "clerk-3", "correlation_id": "c-1"}', occurred_at => '2024-10-15 12:00:00+00');
select es_append('account-1000', 'AccountDebited', '{"amount": 1.00}', 2,
                 occurred_at => '2024-10-14 12:00:00+00', subject => 'customer-7', schema_version => 2);

select version, event_type, schema_version, payload, metadata, subject, occurred_at from es_read('account-1000');
select stream, category, tenant, recorded_by from es_read('account-1000', max_count => 1);
select es_stream_version('account-1000'), es_stream_version('account-1001');
select stream, version, events, snapshots, closed, first_occurred_at, last_occurred_at from es_stream('account-1000');
select stream, version, array_length(event_ids, 1) as events, replayed from es_last_append();
select stream, category, version, closed from eventstream.streams;

-- The event joins the transaction of its caller.
begin;
create table orders (id int primary key);
insert into orders values (1);
select es_append('order-1', 'Ordered', '{}');
rollback;
select es_stream_version('order-1');
begin;
select es_append('order-1', 'Ordered', '{}', 0);
savepoint before_second;
select es_append('order-1', 'Confirmed', '{}', 1);
rollback to before_second;
select es_append('order-1', 'Cancelled', '{}', 1);
commit;
select version, event_type from es_read('order-1');

-- Transactions that a procedure ends itself.
create procedure three_of_five() language plpgsql as $$
begin
    for i in 1..5 loop
        perform es_append('order-3', 'Counted', to_jsonb(i));
        if i % 2 = 0 then rollback; else commit; end if;
    end loop;
end
$$;
call three_of_five();
select version, payload from es_read('order-3');
drop procedure three_of_five;
-- A statement that only runs at the commit, and one that runs row by row.
begin;
declare later cursor with hold for select es_append('order-4', 'Ordered', '{}', 0);
commit;
fetch all from later;
close later;
prepare post(text, numeric) as select es_append($1, 'Posted', jsonb_build_object('amount', $2));
execute post('order-4', 1.50);
execute post('order-4', 2.00);
deallocate post;
copy (select (es_read('order-4')).payload) to stdout;

-- A retry with the same id writes nothing, and answers what the first attempt did.
select es_append('order-2', 'Ordered', '{"n": 1}', 0, event_id => '0192d1c8-0000-7000-8000-000000000001');
select es_append('order-2', 'Paid', '{}', 1);
select es_append('order-2', 'Ordered', '{"n": 1}', 0, event_id => '0192d1c8-0000-7000-8000-000000000001');
select stream, version, event_ids, replayed from es_last_append();
select es_append('order-2', 'Ordered', '{"n": 2}', 0, event_id => '0192d1c8-0000-7000-8000-000000000001');
\echo :SQLSTATE

-- Names and ids.
select es_stream_name('account', '1000');
select es_ulid('01890a5d-ac96-774b-bcce-b302099a8057'), es_ulid_to_uuid('01H455VB4PEX5VSKNK084SN02Q');

-- A stream that must exist is not made by a typing error; by no function that appends.
select es_append('visit-2', 'Begun', '{}');
select es_append('visit-3', 'Paid', '{}', must_exist => true);
\echo :SQLSTATE
select es_append_events('visit-3', '[{"type": "Paid", "payload": {}}]', must_exist => true);
select stream, version from es_append_streams('[{"stream": "visit-2", "events": [{"type": "Paid", "payload": {}}]},
                                                {"stream": "visit-3", "events": [{"type": "Paid", "payload": {}}]}]', must_exist => true);
select es_append('visit-3', 'Paid', '{}', 0, must_exist => true);
select es_append('visit-2', 'Paid', '{}', 0, must_exist => true);
select es_append('visit-2', 'Paid', '{}', 1, must_exist => true);
select es_append('visit-2', 'Paid', '{}', must_exist => null);
select es_append('visit-2', 'Paid', '{}', must_exist => true), es_append_events('visit-2', '[{"type": "Paid", "payload": {}}]', must_exist => true);
select stream, version from es_append_streams('[{"stream": "visit-2", "events": [{"type": "Paid", "payload": {}}]}]', must_exist => true);
select es_stream_version('visit-3');

-- Where the events went: of a batch, of several streams, and of a retry what it was the first time.
select es_append_events('visit-4', '[{"type": "A", "payload": 1, "event_id": "0192d1c8-0000-7000-8000-000000000002"},
                                     {"type": "B", "payload": 2, "event_id": "0192d1c8-0000-7000-8000-000000000003"}]');
select positions = (select array_agg(global_position order by version) from es_read('visit-4')) as positions,
       global_position = positions[2] as newest, replayed from es_last_append();
select es_append('visit-4', 'C', '3');
select es_append_events('visit-4', '[{"type": "A", "payload": 1, "event_id": "0192d1c8-0000-7000-8000-000000000002"},
                                     {"type": "B", "payload": 2, "event_id": "0192d1c8-0000-7000-8000-000000000003"}]');
select positions = (select array_agg(global_position order by version) from es_read('visit-4', max_count => 2)) as positions,
       global_position = positions[2] as newest, replayed from es_last_append();
select string_agg(a.positions::text, ' ') as went
from es_append_streams('[{"stream": "visit-5", "events": [{"type": "D", "payload": 4}, {"type": "D", "payload": 5}]},
                         {"stream": "visit-4", "events": [{"type": "D", "payload": 6}]}]') a \gset
select :'went' = string_agg(w.positions, ' ') as positions
from (select array_agg(global_position order by version)::text as positions from es_read('visit-5')
      union all select array_agg(global_position)::text from es_read('visit-4', event_types => '{D}')) w;
select a.stream, a.positions = (select array_agg(r.global_position order by r.version) from es_read(a.stream, to_version => 2) r) as positions
from es_append_streams('[{"stream": "visit-4", "events": [{"type": "A", "payload": 1, "event_id": "0192d1c8-0000-7000-8000-000000000002"},
                                                          {"type": "B", "payload": 2, "event_id": "0192d1c8-0000-7000-8000-000000000003"}]}]') a;
