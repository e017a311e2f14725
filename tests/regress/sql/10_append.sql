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
