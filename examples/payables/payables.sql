-- What we owe: suppliers' invoices, kept as events
--
-- Needs a database in which `create extension eventstream` has been run and this example has not.
-- Paste it into psql piece by piece, or run the whole:  psql -X -a -f examples/payables/payables.sql
\set ON_ERROR_STOP on
\set SHOW_CONTEXT never
\pset footer off
set timezone = 'UTC';

-- This check of ours is used below wherever an error is *wanted*: it fails unless it was the expected one.
create schema payables;
create function payables.refused_with(expected text, got text) returns text language plpgsql as $$
begin
    if got is distinct from expected then
        raise exception 'expected SQLSTATE %, got %', expected, got;
    end if;
    return got;
end
$$;

-- == 1. How events become what is owed ==
-- Each invoice is a stream. `when` makes an operation depend on the event or on the state: an invoice is settled when
-- nothing is open any more, however it came to that.
select es_register_fold('payable', 'payable', initial_state => '{"open": 0, "status": "unknown"}', rules => '{
    "on": {
        "InvoiceReceived": [
            {"set": {"/supplier": "/supplier", "/due": "/due", "/open": "/amount", "/status": {"value": "received"}}}],
        "InvoiceApproved": [
            {"when": {"state:/status": "received"}, "set": {"/status": {"value": "approved"}, "/approved_by": "/by"}}],
        "PaymentMade": [
            {"subtract": {"/open": "/amount"}},
            {"when": {"state:/open": {"at_most": 0}}, "set": {"/status": {"value": "settled"}}}],
        "CreditNoteReceived": [
            {"subtract": {"/open": "/amount"}},
            {"append": {"/credit_notes": "/number"}},
            {"when": {"state:/open": {"at_most": 0}}, "set": {"/status": {"value": "settled"}}}],
        "StreamClosed": []
    },
    "otherwise": "error"
}') as fold;

-- == 2. Receive and approve ==
select i.number, es_append('payable-' || i.number, 'InvoiceReceived',
           jsonb_build_object('supplier', i.supplier, 'amount', i.amount, 'due', i.due),
           expected_version => 0, occurred_at => i.received) as version
from (values
    ('F17', 'Feller', 1200.00, date '2024-03-31', timestamptz '2024-03-01 09:00Z'),
    ('F18', 'Feller',  340.50, date '2024-04-15', timestamptz '2024-03-15 09:00Z'),
    ('H9',  'Huber',    89.90, date '2024-02-29', timestamptz '2024-02-12 09:00Z')
) as i (number, supplier, amount, due, received);

select es_append('payable-F17', 'InvoiceApproved', '{"by": "ann"}', occurred_at => '2024-03-04 10:00Z') as f17,
       es_append('payable-H9', 'InvoiceApproved', '{"by": "ann"}', occurred_at => '2024-03-05 10:00Z') as h9;

select stream, state from es_category_state('payable');

-- == 3. Pay, and never too much ==
-- A payment is decided on the state: approved, and no more than is open. es_load gives the state and the version that it
-- is based on; for_update lets others who want the same invoice wait here, so that two clerks cannot both pay it.
create function payables.pay(invoice text, amount numeric, paid timestamptz) returns numeric language plpgsql as $$
declare
    seen record;
begin
    select l.state, l.version into seen from es_load('payable-' || invoice, for_update => true) l;
    if seen.state ->> 'status' <> 'approved' then
        raise exception 'invoice % is %, and must be approved to be paid', invoice, seen.state ->> 'status'
            using errcode = 'AP001';
    elsif amount > (seen.state ->> 'open')::numeric then
        raise exception '% is more than the % that are open on invoice %', amount, seen.state ->> 'open', invoice
            using errcode = 'AP002';
    end if;
    perform es_append('payable-' || invoice, 'PaymentMade', jsonb_build_object('amount', amount),
                      expected_version => seen.version, occurred_at => paid);
    return es_state('payable-' || invoice) -> 'open';
end
$$;

-- The invoice of 1,200.00 in two parts. The first:
select payables.pay('F17', 500.00, '2024-03-25 12:00Z') as open;

-- Somebody forgets that, and pays 800.00 where 700.00 are open.
\set ON_ERROR_STOP off
select payables.pay('F17', 800.00, '2024-03-28 12:00Z') as open;
\set got :SQLSTATE
\set ON_ERROR_STOP on
select payables.refused_with('AP002', :'got');

-- Nobody has approved this one yet.
\set ON_ERROR_STOP off
select payables.pay('F18', 340.50, '2024-03-28 12:00Z') as open;
\set got :SQLSTATE
\set ON_ERROR_STOP on
select payables.refused_with('AP001', :'got');

-- == 4. A credit note ==
-- A part of the goods was damaged; Feller credits 100.00, and the rest is paid in April.
select es_append('payable-F17', 'CreditNoteReceived', '{"number": "G-4", "amount": 100.00}',
                 occurred_at => '2024-03-29 08:00Z') as version;
select payables.pay('F17', 600.00, '2024-04-03 12:00Z') as open;

-- How the invoice got here: each event, and the state after it.
select version, event_type, to_char(occurred_at, 'MM-DD') as day, state -> 'open' as open, state ->> 'status' as status
from es_history('payable-F17');

-- == 5. What is open, and how old is it? ==
-- On any day, from the states that the invoices had when that day ended where the books are kept.
create function payables.aging(day date)
returns table (supplier text, not_due numeric, up_to_30_days numeric, older numeric, open numeric) language sql stable as $$
    with owed as (
        select s.state ->> 'supplier' as supplier, (s.state ->> 'open')::numeric as open,
               day - (s.state ->> 'due')::date as days_late
        from es_category_state('payable', as_of => es_day_end(day, 'Europe/Vienna')) s
        where (s.state ->> 'open')::numeric <> 0
    )
    select o.supplier, sum(o.open) filter (where days_late <= 0), sum(o.open) filter (where days_late between 1 and 30),
           sum(o.open) filter (where days_late > 30), sum(o.open)
    from owed o
    group by grouping sets ((o.supplier), ())
    order by o.supplier
$$;

select * from payables.aging('2024-03-31');
select * from payables.aging('2024-04-30');

-- == 6. What if? ==
-- Would paying Huber with 2 % off settle the invoice? No: 1.80 would stay open. Nothing is written by asking.
select es_simulate('payable-H9', jsonb_build_array(
           jsonb_build_object('type', 'PaymentMade', 'payload', jsonb_build_object('amount', 88.10)))) as would_be,
       es_stream_version('payable-H9') as version;
