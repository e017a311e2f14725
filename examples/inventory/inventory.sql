-- An inventory, kept as events
--
-- Needs a database in which `create extension eventstream` has been run and this example has not.
-- Paste it into psql piece by piece, or run the whole:  psql -X -a -f examples/inventory/inventory.sql
\set ON_ERROR_STOP on
\set SHOW_CONTEXT never
\pset footer off
set timezone = 'UTC';

-- This check of ours is used below wherever an error is *wanted*: it fails unless it was the expected one.
create schema inventory;
create function inventory.refused_with(expected text, got text) returns text language plpgsql as $$
begin
    if got is distinct from expected then
        raise exception 'expected SQLSTATE %, got %', expected, got;
    end if;
    return got;
end
$$;

-- == 1. Receive ==
-- Each item is a stream. A batch is appended whole or not at all; the result is the stream's new version.
select es_append_events('item-bolt_m8', '[
    {"type": "ItemAdded", "occurred_at": "2024-03-01T08:00:00Z", "payload": {"name": "Bolt M8 x 40", "unit": "piece"}},
    {"type": "StockReceived", "occurred_at": "2024-03-01T09:00:00Z", "payload": {"quantity": 30, "purchase_order": "P-1"}},
    {"type": "StockReceived", "occurred_at": "2024-03-04T09:30:00Z", "payload": {"quantity": 20, "purchase_order": "P-2"}}
]', expected_version => 0) as version;

-- What is in stock is not stored anywhere: it follows from the events. `version` tells which events it is based on.
create function inventory.stock(item text, at timestamptz default null)
returns table (version bigint, on_hand numeric, reserved numeric, available numeric)
language sql stable as $$
    with movements as (
        select e.version, e.event_type, (e.payload ->> 'quantity')::numeric as quantity
        from es_read('item-' || item, until => at) e
    ), sums as (
        select max(m.version) as version,
               coalesce(sum(quantity) filter (where event_type in ('StockReceived', 'StockAdjusted')), 0)
                   - coalesce(sum(quantity) filter (where event_type = 'StockShipped'), 0) as on_hand,
               coalesce(sum(quantity) filter (where event_type = 'StockReserved'), 0)
                   - coalesce(sum(quantity) filter (where event_type = 'StockShipped'), 0) as reserved
        from movements m
    )
    select s.version, s.on_hand, s.reserved, s.on_hand - s.reserved from sums s
$$;
select * from inventory.stock('bolt_m8');

-- == 2. Reserve: two orders want the same pieces ==
-- Both see 50 available at the same version.
select version as seen from inventory.stock('bolt_m8')
\gset

-- The first takes 45 …
select es_append('item-bolt_m8', 'StockReserved', '{"quantity": 45, "order": "A-1"}',
                 expected_version => :seen, occurred_at => '2024-03-05 10:00Z') as version;

-- … so the second may no longer have the 10 that it saw: ES001. Without expected_version, 55 of 50 would be promised.
\set ON_ERROR_STOP off
select es_append('item-bolt_m8', 'StockReserved', '{"quantity": 10, "order": "A-2"}',
                 expected_version => :seen, occurred_at => '2024-03-05 10:00Z') as version;
\set got :SQLSTATE
\set ON_ERROR_STOP on
select inventory.refused_with('ES001', :'got');

-- It looks again, and takes the 5 that are left.
select version as seen, available from inventory.stock('bolt_m8')
\gset
select es_append('item-bolt_m8', 'StockReserved', jsonb_build_object('quantity', least(10, :available), 'order', 'A-2'),
                 expected_version => :seen, occurred_at => '2024-03-05 10:01Z') as version;
select * from inventory.stock('bolt_m8');

-- == 3. Ship: the item and the order together ==
-- Two streams, all or nothing: no order is marked as shipped whose pieces are still on the shelf.
select stream, version from es_append_streams('[
    {"stream": "item-bolt_m8", "events": [{
        "type": "StockShipped", "occurred_at": "2024-03-06T14:00:00Z", "payload": {"quantity": 45, "order": "A-1"}}]},
    {"stream": "order-A-1", "expected_version": 0, "events": [{
        "type": "OrderShipped", "occurred_at": "2024-03-06T14:00:00Z", "payload": {"item": "bolt_m8", "quantity": 45}}]}
]');

-- == 4. Adjust: after a stock count ==
-- Somebody counts the shelf: 4 pieces, and not 5. The correction is right only if nothing moved since the count
-- was begun, so it names the version. Here a delivery came in between, and the correction is refused.
select version as counted_at, on_hand from inventory.stock('bolt_m8')
\gset
select es_append('item-bolt_m8', 'StockReceived', '{"quantity": 20, "purchase_order": "P-3"}',
                 occurred_at => '2024-03-07 08:15Z') as version;
\set ON_ERROR_STOP off
select es_append('item-bolt_m8', 'StockAdjusted', jsonb_build_object('quantity', 4 - :on_hand, 'reason', 'stock count'),
                 expected_version => :counted_at, occurred_at => '2024-03-07 08:20Z') as version;
\set got :SQLSTATE
\set ON_ERROR_STOP on
select inventory.refused_with('ES001', :'got');

-- Counted again: 24. The correction is an event with its reason; nothing is overwritten.
select version as counted_at, on_hand from inventory.stock('bolt_m8')
\gset
select es_append('item-bolt_m8', 'StockAdjusted', jsonb_build_object('quantity', 24 - :on_hand, 'reason', 'stock count'),
                 expected_version => :counted_at, occurred_at => '2024-03-07 09:00Z') as version;

-- == 5. The whole story, and any day of it ==
select version, to_char(occurred_at, 'MM-DD HH24:MI') as occurred_at, event_type, payload
from es_read('item-bolt_m8');

select day::date, s.*
from generate_series('2024-03-01', '2024-03-07', interval '1 day') day,
     inventory.stock('bolt_m8', at => day + interval '1 day - 1 microsecond') s
order by day;

-- No row: the chain of the item's events is intact.
select count(*) as problems from es_verify_stream('item-bolt_m8');
