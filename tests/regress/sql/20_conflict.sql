-- Two clerks have read version 1; the second to write is told what to do.
select es_append('stock-widget', 'Received', '{"quantity": 10}', 0);
select es_append('stock-widget', 'Reserved', '{"quantity": 4}', 1);
select es_append('stock-widget', 'Reserved', '{"quantity": 7}', 1);
\echo :SQLSTATE
-- As the hint says: read on, decide again, append with the new version.
select version, event_type, payload from es_read('stock-widget', from_version => 2);
select es_append('stock-widget', 'Reserved', '{"quantity": 6}', 2);

-- A stream that was to be new, and one that was to exist.
select es_append('stock-widget', 'Received', '{"quantity": 1}', 0);
select es_append('stock-gadget', 'Shipped', '{"quantity": 1}', 3);
select es_append('stock-widget', 'Shipped', '{"quantity": 1}', 9);

-- Handled in SQL.
do $$
declare
    actual bigint;
    detail text;
begin
    perform es_append('stock-widget', 'Shipped', '{"quantity": 4}', 1);
exception when sqlstate 'ES001' then
    get stacked diagnostics detail = pg_exception_detail;
    actual := (detail::jsonb ->> 'actual_version')::bigint;
    raise notice 'at version % by now', actual;
    perform es_append('stock-widget', 'Shipped', '{"quantity": 4}', actual);
end
$$;
select es_stream_version('stock-widget');
-- A conflict writes nothing.
select * from es_verify_stream('stock-widget');
