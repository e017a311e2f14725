-- What import.sh runs; the CSV comes on psql's standard input, so that no file name or value becomes SQL text.
\set ON_ERROR_STOP on
\pset footer off
\pset tuples_only on
\pset format unaligned
\pset fieldsep '   '
set client_min_messages = warning;
set client_encoding = 'UTF8';
set timezone = 'UTC';
set datestyle = 'ISO';

select clock_timestamp() as began
\gset

-- == Read the file as text, then check every value, before anything is written ==
create temp table rows (
    row bigint generated always as identity,
    trans_id text, account_id text, seq text, date text, direction text, operation text, amount text, purpose text,
    bank_balance text
);
\copy rows (trans_id, account_id, seq, date, direction, operation, amount, purpose, bank_balance) from pstdin with (format csv, header true, force_not_null (trans_id, account_id, seq, date, direction, operation, amount, purpose, bank_balance))
\set SHOW_CONTEXT never

create function pg_temp.is_date(value text) returns bool language plpgsql as $$
begin
    return value ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' and value::date is not null;
exception
    when data_exception then return false;
end
$$;

-- The first offending line is named, with the column, the value and what it must be.
create function pg_temp.check_rows() returns text language plpgsql as $$
declare
    bad record;
begin
    if not exists (select from rows) then
        raise exception 'the file has a header and nothing else';
    end if;
    with wrong_dates as materialized (
        select date from (select distinct date from rows) d where not pg_temp.is_date(date)
    )
    select r.row + 1 as line, c.* into bad
    from rows r
    cross join lateral (values
        ('trans_id', r.trans_id, r.trans_id ~ '^(0|[1-9][0-9]{0,17})$', 'a whole number'),
        ('account_id', r.account_id, r.account_id ~ '^[^[:cntrl:]]{1,100}$' and r.account_id = trim(r.account_id),
         '1 to 100 characters, without control characters or blanks around them'),
        ('seq', r.seq, r.seq ~ '^[1-9][0-9]{0,17}$', 'a whole number from 1'),
        ('date', r.date, r.date not in (select w.date from wrong_dates w), 'a day as in 2024-12-31'),
        ('direction', r.direction, r.direction in ('credit', 'debit'), 'credit or debit'),
        ('operation', r.operation, r.operation ~ '^[^[:cntrl:]]{1,100}$', '1 to 100 characters'),
        ('amount', r.amount, r.amount ~ '^[0-9]{1,15}\.[0-9]{2}$', 'a decimal with two places, as in 900.00'),
        ('purpose', r.purpose, r.purpose ~ '^[^[:cntrl:]]{0,100}$', 'empty, or up to 100 characters'),
        ('bank_balance', r.bank_balance, r.bank_balance ~ '^-?[0-9]{1,15}\.[0-9]{2}$',
         'a decimal with two places, as in 900.00')
    ) as c (column_name, value, is_right, must_be)
    where not c.is_right
    order by r.row
    limit 1;
    if found then
        raise exception 'line %: % is %, and must be %',
            bad.line, bad.column_name, quote_literal(left(bad.value, 100)), bad.must_be;
    end if;

    select trans_id, min(row) + 1 as first, max(row) + 1 as last into bad
    from rows
    group by trans_id
    having count(*) > 1
    order by min(row)
    limit 1;
    if found then
        raise exception 'lines % and % have the same trans_id, %', bad.first, bad.last, bad.trans_id;
    end if;

    select * into bad
    from (
        select row + 1 as line, account_id, seq::bigint as seq,
               row_number() over (partition by account_id order by seq::bigint, row) as expected
        from rows
    ) numbered
    where seq <> expected
    order by line
    limit 1;
    if found then
        raise exception 'line %: account % has seq % where % is due (seq counts 1, 2, 3 … within an account)',
            bad.line, quote_literal(bad.account_id), bad.seq, bad.expected;
    end if;

    return (select format('  %s transactions of %s accounts, %s to %s: every line is as it must be',
                          to_char(count(*), 'FM999,999,999'), to_char(count(distinct account_id), 'FM999,999,999'),
                          min(date), max(date))
            from rows);
end
$$;
select pg_temp.check_rows();

-- == Events: version = seq, occurred_at = the booking day, event_id derived from trans_id ==
-- The id is a name-based uuid (RFC 9562, version 3), so that anybody can derive it again:
--   python3 -c "import uuid; print(uuid.uuid3(uuid.UUID('6d1f6a3c-5f0e-4c55-9d5e-2a1f3f0b7c11'), 'transaction/171812'))"
create function pg_temp.event_id(trans_id text) returns uuid language sql immutable as $$
    select overlay(
               overlay(hash placing '3' from 13)
               placing substr('89ab', ('x' || substr(hash, 17, 1))::bit(4)::int % 4 + 1, 1) from 17)::uuid
    from md5('\x6d1f6a3c5f0e4c559d5e2a1f3f0b7c11'::bytea || convert_to('transaction/' || trans_id, 'UTF8')) as hash
$$;

-- Chunks of 2,500 in the order of booking. An account's days never step back in that order, even if the file's do:
-- within an account it is the order of seq.
create temp table transactions as
select (row_number() over (order by booked, account_id, seq) - 1) / 2500 as chunk,
       'account-' || account_id as stream,
       seq,
       jsonb_build_object(
           'type', case direction when 'credit' then 'AccountCredited' else 'AccountDebited' end,
           'event_id', pg_temp.event_id(trans_id),
           'occurred_at', date::timestamp at time zone 'UTC',
           'payload', jsonb_strip_nulls(jsonb_build_object(
               'trans_id', trans_id::bigint,
               'amount', amount,
               'operation', operation,
               'purpose', nullif(purpose, ''),
               'bank_balance', bank_balance))) as event,
       case direction when 'credit' then amount else -amount end as movement,
       bank_balance
from (
    select trans_id, account_id, seq::bigint as seq, date::date as date, direction, operation,
           amount::numeric as amount, purpose, bank_balance::numeric as bank_balance,
           max(date) over (partition by account_id order by seq::bigint) as booked
    from rows
) typed;
create index on transactions (chunk, stream, seq);
create index on transactions (stream, seq);
analyze transactions;

create temp table progress (done bigint, written bigint);

-- One chunk. What is there already is sent as it was sent then: a retry, which writes nothing, and which is refused
-- (ES006) where the content differs. What is new goes in with the version that it must follow.
create function pg_temp.import_chunk(which bigint, began timestamptz) returns text language plpgsql as $$
declare
    part record;
    before bigint := 0;
    after bigint := 0;
    seconds numeric;
begin
    for part in
        with heads as materialized (
            select stream, es_stream_version(stream) as version
            from (select distinct stream from transactions where chunk = which) s
        ), streams as (
            select t.stream, t.seq > h.version as is_new, h.version, min(t.seq) as first_seq,
                   jsonb_agg(t.event order by t.seq) as events
            from transactions t
            join heads h using (stream)
            where t.chunk = which
            group by t.stream, t.seq > h.version, h.version
        )
        select is_new, sum(version) as version,
               jsonb_agg(jsonb_build_object('stream', stream, 'expected_version', first_seq - 1, 'events', events)) as appends
        from streams
        group by is_new
        order by is_new
    loop
        if part.is_new then
            before := part.version;
            after := (select sum(a.version) from es_append_streams(part.appends) a);
        else
            perform a.version from es_append_streams(part.appends) a;
        end if;
    end loop;
    insert into progress select count(*), after - before from transactions where chunk = which;
    seconds := extract(epoch from clock_timestamp() - began);
    return (select format('  %s of %s (%s %%), %s written, %s s',
                          to_char(sum(done), 'FM999,999,999'),
                          to_char((select count(*) from rows), 'FM999,999,999'),
                          div(100 * sum(done), (select count(*) from rows)),
                          to_char(sum(written), 'FM999,999,990'),
                          to_char(seconds, 'FM99990.0'))
            from progress);
end
$$;

-- Each chunk is a statement and so a transaction of its own: an interrupted import has whole chunks.
select format('select pg_temp.import_chunk(%s, %L)', chunk, :'began')
from (select distinct chunk from transactions) chunks
order by chunk
\gexec

-- == Verification ==
create function pg_temp.must(holds bool, otherwise text) returns void language plpgsql as $$
begin
    if holds is not true then
        raise exception '%', otherwise;
    end if;
end
$$;

select clock_timestamp() as verification_began
\gset
create temp table problems as select * from es_verify();
select to_char(extract(epoch from clock_timestamp() - :'verification_began'), 'FM99990.0') as seconds
\gset
select format('  every chain verified: %s problems in %s events of %s streams, %s s',
              (select count(*) from problems),
              to_char(sum(version), 'FM999,999,999'), to_char(count(*), 'FM999,999,999'), :'seconds')
from eventstream.streams;
select * from problems limit 10;
select pg_temp.must(not exists (select from problems), 'verification found problems')
\g /dev/null

-- == Sums: what the log says, what the file says, what the bank printed ==
create temp table accounts as
select f.stream, f.transactions, f.file_sum, f.file_balance, l.events, l.exact_sum, l.bank_balance
from (
    select stream, count(*) as transactions, sum(movement) as file_sum,
           (array_agg(bank_balance order by seq desc))[1] as file_balance
    from transactions
    group by stream
) f
left join (
    select e.stream,
           count(*) as events,
           sum(case e.event_type when 'AccountCredited' then 1 else -1 end * (e.payload ->> 'amount')::numeric) as exact_sum,
           (array_agg((e.payload ->> 'bank_balance')::numeric order by e.version desc))[1] as bank_balance
    from eventstream.events e
    join transactions t on t.stream = e.stream and t.seq = e.version
    where e.category = 'account'
    group by e.stream
) l using (stream);

-- A few accounts: the busiest, the one that drifts most from the bank's figure, and the first one.
create temp table shown as
(select stream from accounts order by transactions desc, stream limit 1)
union
(select stream from accounts order by abs(exact_sum - bank_balance) desc, stream limit 1)
union
(select stream from transactions order by chunk, seq, stream limit 1);
\pset tuples_only off
\pset format aligned
\echo
select e.stream, e.version, e.event_type, e.payload ->> 'operation' as operation, e.payload ->> 'purpose' as purpose,
       (e.payload ->> 'amount')::numeric as amount, (e.payload ->> 'bank_balance')::numeric as bank_balance,
       e.occurred_at::date as booked
from accounts a
cross join lateral es_read(a.stream, backward => true, max_count => 3) e
where a.stream in (select stream from shown)
order by a.transactions desc, e.stream, e.version;
select stream, events, exact_sum, bank_balance, exact_sum - bank_balance as difference
from accounts
where stream in (select stream from shown)
order by transactions desc, stream;
\pset tuples_only on
\pset format unaligned

select pg_temp.must(
    not exists (select from accounts where (events, exact_sum, bank_balance) is distinct from (transactions, file_sum, file_balance)),
    'the log and the file do not have the same sums')
\g /dev/null
select format(E'  exact sum of every account: as in the file, to the cent (%s accounts, %s in total)\n'
              '  largest difference between an exact sum and the bank''s own balance: %s',
              to_char(count(*), 'FM999,999,999'), sum(exact_sum), max(abs(exact_sum - bank_balance)))
from accounts;
select format('  %s written, %s there already; %s s in all', to_char(sum(written), 'FM999,999,990'),
              to_char(sum(done - written), 'FM999,999,990'),
              to_char(extract(epoch from clock_timestamp() - :'began'), 'FM99990.0'))
from progress;
