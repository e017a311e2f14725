-- Something outside, once: a card is charged by a program, however often its client asks
--
-- Needs a database in which `create extension eventstream` has been run and this example has not.
-- Paste it into psql piece by piece, or run the whole:  psql -X -a -f examples/outside/outside.sql
\set ON_ERROR_STOP on
\set SHOW_CONTEXT never
\pset footer off

-- == 1. The client names its intention by a key; the first who asks is to execute it ==
select b ->> 'outcome' as outcome, b ->> 'attempt_token' as token from es_begin_command('charge', 'order-1', '{"amount": 12.50}') b \gset
\echo :outcome
-- Who asks meanwhile waits, or comes again later.
select es_begin_command('charge', 'order-1', '{"amount": 12.50}') ->> 'outcome' as meanwhile;

-- == 2. (The card is charged.) What came of it, and its event, in one transaction ==
begin;
select es_append('payment-1', 'CardCharged', '{"amount": 12.50}', event_id => es_command_event_id(:'token', 1)) as version;
select es_complete_command(:'token', '{"receipt": "R-1"}') as attempt;
commit;

-- == 3. The client never got that answer, and sends its request again: nothing is charged ==
select b ->> 'outcome' as again, b -> 'result' as result from es_begin_command('charge', 'order-1', '{"amount": 12.50}') b;

-- == 4. Another request under the same key is refused ==
\set ON_ERROR_STOP off
select es_begin_command('charge', 'order-1', '{"amount": 99.00}');
\set ON_ERROR_STOP on
select case when :'SQLSTATE' = 'ES030' then 'one key, one intention' else (1 / 0)::text end as refused;
