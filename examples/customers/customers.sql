-- Customers: a clerk sees what he bills, and not whom
--
-- Needs a database in which `create extension eventstream` has been run and this example has not.
-- Paste it into psql piece by piece, or run the whole:  psql -X -a -f examples/customers/customers.sql
\set ON_ERROR_STOP on
\set SHOW_CONTEXT never
\pset footer off
set timezone = 'UTC';

-- == What is about a person is an event of its own, and the invoice names a pseudonym ==
select es_append('customer-c17', 'CustomerNamed', '{"name": "Mia Moser", "segment": "retail", "phones": ["0664 1234567", "01 5330"]}', subject => 'c17') as version;
select es_append('invoice-2024-1', 'InvoiceIssued', '{"customer": "c17", "amount": 240.00}', subject => 'c17') as version;

-- == From now on nobody is shown the name and the numbers ==
-- Listed are the fields that are shown: what somebody adds next year is protected from its first event on.
select es_protect('CustomerNamed', clear_pointers => '{/segment}') as protected;

-- == The clerk ==
do $$
begin
    if to_regrole('masked_clerk') is null then
        create role masked_clerk;
    end if;
    if to_regrole('masked_case_worker') is null then
        create role masked_case_worker;
    end if;
end
$$;
select es_grant('masked_clerk', 'read'), es_grant('masked_clerk', 'append');
set role masked_clerk;
select stream, event_type, payload from es_read_subject('c17');
-- Neither a search nor a predicate finds what is not shown.
select count(*) from es_query('{"payload": {"/name": "Mia Moser"}}');
select count(*) from eventstream.events where payload ->> 'name' like 'Mia%';
-- A text where the list of numbers was could hold anything: of a customer all but the segment is hidden, whatever it looks like.
select es_append('customer-c18', 'CustomerNamed', '{"segment": "business", "note": "ask for Jo Huber, 0699 7654321"}', subject => 'c18') as version;
select payload from es_read('customer-c18');
reset role;

-- == A case worker, who says why, and is on record before he sees anything ==
select es_grant('masked_case_worker', 'read'), es_grant('masked_case_worker', 'reveal');
set role masked_case_worker;
select payload from es_read('customer-c17');
select (e).payload from (select es_reveal('customer-c17', 'CASE-4711') as e) r;
reset role;

-- == Who administers the database sees who looked, at what, and why ==
select role, stream, events, reason from eventstream.access_log;

-- == Nothing is lost: the chain is as it was ==
select count(*) as problems from es_verify();
select es_revoke('masked_clerk', 'read'), es_revoke('masked_clerk', 'append');
select es_revoke('masked_case_worker', 'read'), es_revoke('masked_case_worker', 'reveal');
drop role masked_clerk, masked_case_worker;
