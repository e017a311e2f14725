-- Read models that follow the log by themselves, in the ledger's database: examples/live/live.sh runs this piece by piece, and lets
-- others append meanwhile. By hand it works as well, after examples/ledger/ledger.sql and state.sql:  psql -X -a -f examples/live/live.sql

-- == 21. Balances and stock levels, as tables ==
-- One row a stream, from the fold of its category. Background workers keep them up to date: no trigger, no code, no cron.
select es_create_state_table('ledger.balances', 'account', '[
    {"name": "name", "type": "text", "path": "/name"},
    {"name": "balance", "type": "numeric", "path": "/balance"}]') as state_table;
select es_register_fold('stock', 'stock', initial_state => '{"on_hand": 0}', rules => '{"on": {
    "StockReceived": [{"add": {"/on_hand": "/quantity"}}],
    "StockShipped":  [{"subtract": {"/on_hand": "/quantity"}}]}}') as fold;
select es_create_state_table('ledger.stock_levels', 'stock', '[{"name": "on_hand", "type": "int", "path": "/on_hand"}]') as state_table;
select es_append('stock-lamp', 'StockReceived', '{"quantity": 1000}') as version;

-- == 22. A table of our own, by a function of ours ==
-- Revenue a day. The function handles a batch of events with one statement.
create table ledger.revenue (day date primary key, sales int not null, amount numeric(7, 2) not null);
create function ledger.add_revenue(events eventstream.event[]) returns void language sql as $$
    insert into ledger.revenue
    select (e.occurred_at at time zone 'UTC')::date, count(*), sum((e.payload ->> 'amount')::numeric)
    from unnest(events) e
    where e.stream = 'account-sales'
    group by 1
    on conflict (day) do update set sales = revenue.sales + excluded.sales, amount = revenue.amount + excluded.amount
$$;
select es_create_projection('revenue', 'ledger.add_revenue(eventstream.event[])',
    categories => '{account}', event_types => '{AccountCredited}', after_position => es_horizon(), max_retries => 1) as projection;

-- == 23. A sale that the table has no room for ==
-- numeric(7, 2) ends at 99,999.99. The append is none of the projection's business: it succeeds.
select es_append('account-sales', 'AccountCredited', '{"amount": 250000.00, "text": "a chandelier"}', occurred_at => '2024-06-01 12:00Z') > 0 as appended;
-- The projection tries once more, then stops. Whoever waits for it is told:
\set ON_ERROR_STOP off
select es_wait_for('revenue');
\set got :SQLSTATE
\set ON_ERROR_STOP on
select ledger.refused_with('ES021', :'got');
-- The others go on, and health says what is wrong and what to type:
select name, status, fix from eventstream.health where name in ('projection revenue', 'projection ledger.balances') order by status;
select failed_position, attempts, error_sqlstate, error_message from eventstream.projections where name = 'revenue';
-- Mended, and resumed. What failed is handled again, and nothing twice:
alter table ledger.revenue alter amount type numeric;
select es_resume_projection('revenue') as resumed;
select es_wait_for('revenue') > 0 as has_passed;
select name, status, detail from eventstream.health where name = 'projection revenue';
select * from ledger.revenue order by day;
