-- What we are owed: invoices to customers, kept as events
--
-- Needs a database in which `create extension eventstream` has been run and this example has not.
-- Paste it into psql piece by piece, or run the whole:  psql -X -a -f examples/receivables/receivables.sql
\set ON_ERROR_STOP on
\set SHOW_CONTEXT never
\pset footer off
set timezone = 'UTC';

-- == 1. How events become what is owed ==
-- Here by a function. It is given the state and the next event, and returns the state after it. It must be IMMUTABLE, so
-- it looks at nothing else: what an invoice is worth follows from the invoice's events, and from them alone.
create schema receivables;
create function receivables.apply(state jsonb, event eventstream.event) returns jsonb language plpgsql immutable as $$
declare
    amount numeric := event.payload ->> 'amount';
    still_open numeric := state ->> 'open';
begin
    case event.event_type
        when 'InvoiceIssued' then
            return event.payload || jsonb_build_object('open', amount, 'reminders', 0, 'status', 'open');
        when 'PaymentReceived' then
            still_open := still_open - amount;
            return state || jsonb_build_object('open', still_open, 'status', case when still_open > 0 then 'part paid' else 'paid' end);
        when 'ReminderSent' then
            return state || jsonb_build_object('reminders', (state ->> 'reminders')::int + 1);
        when 'WrittenOff' then
            return state || jsonb_build_object('open', 0.00, 'written_off', still_open, 'status', 'written off');
        when 'StreamClosed' then
            return state;
        else
            raise exception 'receivables do not know %', event.event_type using errcode = 'AR001';
    end case;
end
$$;
select es_register_fold('receivable', 'receivable', handler => 'receivables.apply(jsonb, eventstream.event)') as fold;

-- == 2. Issue, collect, remind ==
select i.number, es_append('receivable-' || i.number, 'InvoiceIssued',
           jsonb_build_object('customer', i.customer, 'amount', i.amount, 'due', i.due),
           expected_version => 0, occurred_at => i.issued) as version
from (values
    ('101', 'Ada',  2400.00, date '2024-03-15', timestamptz '2024-02-15 09:00Z'),
    ('102', 'Bert',  960.00, date '2024-03-20', timestamptz '2024-02-20 09:00Z'),
    ('103', 'Cleo',  150.75, date '2024-02-10', timestamptz '2024-01-10 09:00Z')
) as i (number, customer, amount, due, issued);

select es_append('receivable-101', 'PaymentReceived', '{"amount": 1000.00}', occurred_at => '2024-03-14 08:00Z') as ada,
       es_append('receivable-102', 'ReminderSent', '{"level": 1}', occurred_at => '2024-03-27 09:00Z') as bert,
       es_append('receivable-103', 'ReminderSent', '{"level": 1}', occurred_at => '2024-02-20 09:00Z') as cleo;

select stream, state ->> 'customer' as customer, state -> 'open' as open, state ->> 'status' as status, state -> 'reminders' as reminders
from es_category_state('receivable');

-- == 3. March is reported ==
-- What was open when March ended, and how old it was. The second argument asks what was known at a moment: now, or then.
create function receivables.aging(day date, known_at timestamptz default null)
returns table (customer text, not_due numeric, up_to_30_days numeric, older numeric, open numeric) language sql stable as $$
    with owed as (
        select s.state ->> 'customer' as customer, (s.state ->> 'open')::numeric as open,
               day - (s.state ->> 'due')::date as days_late
        from es_category_state('receivable', as_of => es_day_end(day, 'Europe/Vienna'), known_at => known_at) s
        where (s.state ->> 'open')::numeric <> 0
    )
    select o.customer, sum(o.open) filter (where days_late <= 0), sum(o.open) filter (where days_late between 1 and 30),
           sum(o.open) filter (where days_late > 30), sum(o.open)
    from owed o
    group by grouping sets ((o.customer), ())
    order by o.customer
$$;
select * from receivables.aging('2024-03-31');

-- psql remembers the moment of the report in :reported. (The database's own clock: recorded_at comes from it too.)
select clock_timestamp() as reported
\gset

-- == 4. A payment that came to light later ==
-- Bert had paid on 28 March; the bank's statement was found in April. The event says when it happened, the database
-- says when it was recorded. What was reported is not overwritten.
select es_append('receivable-102', 'PaymentReceived', '{"amount": 960.00, "text": "statement 13"}',
                 occurred_at => '2024-03-28 15:00Z') as version;

-- March as we know it today: Bert owes nothing.
select * from receivables.aging('2024-03-31');

-- March as it was reported, for the auditor: the same figures as above, for ever.
select * from receivables.aging('2024-03-31', known_at => :'reported');

-- The invoice in valid time: from when until when which state held, late events in their place.
select valid_from::date, valid_to::date, state ->> 'status' as status, state -> 'reminders' as reminders, state -> 'open' as open
from es_timeline('receivable-102');

-- == 5. Written off ==
-- Cleo cannot be found. What is open is a loss; that, too, is an event, and the invoice takes no more.
select es_append('receivable-103', 'WrittenOff', '{"reason": "moved, address unknown"}', occurred_at => '2024-04-22 10:00Z') as version;
select es_close_stream('receivable-103', 'written off');

-- No month that went before is changed by it: March still has Cleo's 150.75, April no longer does.
select day, a.open from (values (date '2024-03-31'), (date '2024-04-30')) as d (day), receivables.aging(d.day) a
where a.customer is null or a.customer = 'Cleo'
order by day, a.customer;
