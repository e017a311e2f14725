-- Several events to one stream: all or nothing.
select es_append_events('cart-1', '[
    {"type": "Opened", "payload": {}, "occurred_at": "2024-10-15T12:00:00Z"},
    {"type": "Filled", "payload": {"sku": "widget", "price": 9.90}, "subject": "customer-7"},
    {"type": "Filled", "payload": {"sku": "gadget", "price": 10.00}, "schema_version": 2, "metadata": {"actor": "web"}}
]', 0);
select version, event_type, schema_version, payload, metadata, subject from es_read('cart-1');
select count(distinct recorded_at) from es_read('cart-1');

-- A wrong element is named by its place, from 0; nothing is written.
select es_append_events('cart-2', '[{"type": "Opened", "payload": {}}, {"type": "Filled"}, {"type": "Filled", "payload": {}}]');
\echo :SQLSTATE
select es_append_events('cart-2', '[{"type": "Opened", "payload": {}, "colour": "red"}]');
select es_append_events('cart-2', '[{"type": "Opened", "payload": {}, "metadata": ["web"]}]');
select es_append_events('cart-2', '[{"type": "Opened", "payload": {}, "schema_version": "2"}]');
select es_append_events('cart-2', '[{"type": "Opened", "payload": {}, "event_id": "cart"}]');
select es_append_events('cart-2', '[{"type": "Opened", "payload": {}, "occurred_at": "soon"}]');
select es_append_events('cart-2', '["Opened"]');
select es_append_events('cart-2', '{"type": "Opened", "payload": {}}');
select es_append_events('cart-2', '[]');
select es_stream_version('cart-2');

-- Limits.
select es_append_events('cart-2', (select jsonb_agg('{"type": "T", "payload": {}}'::jsonb) from generate_series(1, 10001)));
\echo :SQLSTATE
set eventstream.max_batch_events = 2;
select es_append_events('cart-2', '[{"type": "A", "payload": 1}, {"type": "B", "payload": 2}, {"type": "C", "payload": 3}]');
reset eventstream.max_batch_events;

-- A retry of the batch is recognised whole, a part of it is not.
select es_append_events('cart-3', '[
    {"type": "Opened", "payload": {}, "event_id": "0192d1c8-0000-7000-8000-000000000031"},
    {"type": "Filled", "payload": {}, "event_id": "0192d1c8-0000-7000-8000-000000000032"}]', 0);
select es_append_events('cart-3', '[
    {"type": "Opened", "payload": {}, "event_id": "0192d1c8-0000-7000-8000-000000000031"},
    {"type": "Filled", "payload": {}, "event_id": "0192d1c8-0000-7000-8000-000000000032"}]', 0);
select es_append_events('cart-3', '[
    {"type": "Filled", "payload": {}, "event_id": "0192d1c8-0000-7000-8000-000000000032"},
    {"type": "Emptied", "payload": {}, "event_id": "0192d1c8-0000-7000-8000-000000000033"}]');
\echo :SQLSTATE
select es_append_events('cart-3', '[
    {"type": "Filled", "payload": {}, "event_id": "0192d1c8-0000-7000-8000-000000000032"},
    {"type": "Opened", "payload": {}, "event_id": "0192d1c8-0000-7000-8000-000000000031"}]');
select es_append_events('cart-3', '[
    {"type": "Emptied", "payload": {}, "event_id": "0192d1c8-0000-7000-8000-000000000034"},
    {"type": "Emptied", "payload": {}, "event_id": "0192d1c8-0000-7000-8000-000000000034"}]');
select version, event_type from es_read('cart-3');
