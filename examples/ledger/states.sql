-- The states of the imported accounts: by rules and by a PL/pgSQL function, at three moments, against the sums of the amounts and
-- the balances that the bank printed. Stops with an error unless everything agrees. `make demo` runs it after the import.
\set ON_ERROR_STOP on
\set SHOW_CONTEXT never
\pset tuples_only on
\pset format unaligned
set client_min_messages = warning;
set timezone = 'UTC';

create or replace function pg_temp.must(holds bool, what text) returns void language plpgsql as $$
begin
    if holds is not true then
        raise exception '%', what using errcode = 'GL003';
    end if;
end
$$;

create schema if not exists bank;
create or replace function bank.apply(state jsonb, event eventstream.event) returns jsonb
language plpgsql immutable as $$
declare
    sign int := case event.event_type when 'AccountCredited' then 1 when 'AccountDebited' then -1 else 0 end;
begin
    if sign = 0 then
        return state;
    end if;
    return jsonb_build_object(
        'balance', (state ->> 'balance')::numeric + sign * (event.payload ->> 'amount')::numeric,
        'transactions', (state ->> 'transactions')::int + 1);
end
$$;

select es_register_fold('bank_by_function', 'account', handler => 'bank.apply(jsonb, eventstream.event)',
                        initial_state => '{"balance": 0, "transactions": 0}', is_default => false)
\g /dev/null
select es_register_fold('bank_by_rules', 'account', is_default => false, initial_state => '{"balance": 0, "transactions": 0}', rules => '{
    "on": {
        "AccountCredited": [{"add": {"/balance": "/amount"}}, {"increment": "/transactions"}],
        "AccountDebited": [{"subtract": {"/balance": "/amount"}}, {"increment": "/transactions"}]
    }
}')
\g /dev/null

-- The accounts of the file; the ledger's own, where its story was told in this database, are not the bank's.
create temp table imported as
select distinct stream from eventstream.events where category = 'account' and payload ? 'bank_balance';

create temp table moments (name text, as_of timestamptz);
insert into moments values
    ('1993-06-30', es_day_end('1993-06-30', 'UTC')), ('1993-12-31', es_day_end('1993-12-31', 'UTC')), ('the end', 'infinity');

create temp table states (moment text, fold text, stream text, state jsonb);
create temp table timings (moment text, fold text, milliseconds numeric);
do $$
declare
    asked record;
    began timestamptz;
begin
    for asked in select m.name, m.as_of, f.fold from moments m, (values ('bank_by_rules'), ('bank_by_function')) as f (fold) loop
        began := clock_timestamp();
        insert into states
        select asked.name, asked.fold, s.stream, s.state from es_category_state('account', asked.as_of, fold => asked.fold) as s
        where s.stream in (select i.stream from imported i) and (s.state ->> 'transactions')::int > 0;
        insert into timings values (asked.name, asked.fold, 1000 * extract(epoch from clock_timestamp() - began));
    end loop;
end
$$;

create temp table sums as
select m.name as moment, e.stream, count(*) as transactions,
       sum(case e.event_type when 'AccountCredited' then 1 else -1 end * (e.payload ->> 'amount')::numeric) as balance,
       (array_agg((e.payload ->> 'bank_balance')::numeric order by e.version desc) filter (where e.payload ? 'bank_balance'))[1] as bank_balance
from moments m
join eventstream.events e on e.category = 'account' and e.event_type in ('AccountCredited', 'AccountDebited') and e.occurred_at <= m.as_of
join imported using (stream)
group by m.name, e.stream;

create temp table compared as
select s.moment, s.stream, r.state as by_rules, f.state as by_function, s.balance, s.transactions, s.bank_balance
from sums s
left join states r on (r.moment, r.fold, r.stream) = (s.moment, 'bank_by_rules', s.stream)
left join states f on (f.moment, f.fold, f.stream) = (s.moment, 'bank_by_function', s.stream);

select pg_temp.must(not exists (select from compared where by_rules::text is distinct from by_function::text),
                    'rules and function do not give the same states')
\g /dev/null
select pg_temp.must((select count(*) from states) = 2 * (select count(*) from compared), 'there are states of streams without transactions')
\g /dev/null
select pg_temp.must(
    not exists (select from compared where ((by_rules ->> 'balance')::numeric, (by_rules ->> 'transactions')::int) is distinct from (balance, transactions)),
    'a state is not the sum of its events')
\g /dev/null
select pg_temp.must(not exists (select from compared where abs((by_rules ->> 'balance')::numeric - bank_balance) > 0.80),
                    'a balance lies more than 0.80 from the one that the bank printed')
\g /dev/null

select format('  %s %s accounts with %s transactions: rules = function = sum of the amounts; at most %s from the bank''s figures (%s ms by rules, %s ms by function)',
              rpad(case m.name when 'the end' then 'at the end:' else 'on ' || m.name || ':' end, 14),
              to_char(count(*), 'FM999,999,990'), to_char(sum(c.transactions), 'FM999,999,990'),
              coalesce(max(abs(c.balance - c.bank_balance)), 0),
              (select round(milliseconds) from timings t where (t.moment, t.fold) = (m.name, 'bank_by_rules')),
              (select round(milliseconds) from timings t where (t.moment, t.fold) = (m.name, 'bank_by_function')))
from moments m join compared c on c.moment = m.name
group by m.name, m.as_of
order by m.as_of;
