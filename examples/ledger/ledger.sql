-- A general ledger, kept as events
--
-- Needs a database in which `create extension eventstream` has been run and no ledger has been kept yet.
-- Paste it into psql piece by piece, or run the whole:  psql -X -a -f examples/ledger/ledger.sql
\set ON_ERROR_STOP on
\set SHOW_CONTEXT never
\pset footer off
set timezone = 'UTC';

-- == 1. The chart of accounts ==
-- What an event says is kept for ever, so it is worth saying once what one looks like. That is optional; what is declared
-- is judged whenever it is appended, by whoever. Amounts have two decimals at most, compared as decimals and never as floats.
select es_create_event_type('AccountOpened', description => 'an account of the chart', json_schema => '{
    "type": "object",
    "required": ["number", "name", "class"],
    "properties": {
        "number": {"type": "integer"},
        "name": {"type": "string"},
        "class": {"enum": ["asset", "liability", "equity", "income", "expense"]}}}');
select es_create_event_type(event_type, description => meaning,
    json_schema => '{
        "type": "object",
        "required": ["amount"],
        "properties": {
            "amount": {"type": "number", "exclusiveMinimum": 0, "multipleOf": 0.01},
            "entry": {"type": "string"}}}',
    example => '{"entry": "2024-001", "amount": 10000.00}')
from (values ('AccountDebited', 'the left side of an entry'), ('AccountCredited', 'its right side')) as types (event_type, meaning);

-- Every account is a stream: a list of events, in order, that is only ever added to.
-- Its first event says that the account was opened. `expected_version => 0` means: only if the stream has no
-- events yet. What comes back is the stream's new version, which is the number of its events.
select format('account-%s', id) as stream,
       es_append(
           format('account-%s', id),
           'AccountOpened',
           jsonb_build_object('number', number, 'name', name, 'class', class),
           expected_version => 0,
           occurred_at => '2024-01-01 00:00Z'
       ) as version
from (values
    ('cash',        1000, 'Cash at bank',        'asset'),
    ('receivables', 1200, 'Trade receivables',   'asset'),
    ('payables',    2000, 'Trade payables',      'liability'),
    ('capital',     3000, 'Paid-in capital',     'equity'),
    ('sales',       4000, 'Sales',               'income'),
    ('rent',        5000, 'Rent',                'expense')
) as chart (id, number, name, class);

-- == 2. A posting: debit, credit and journal, all or nothing ==
-- The owner pays in 10,000.00. Three streams get an event each in one call: either all of it is recorded, or none.
select stream, version from es_append_streams('[
    {"stream": "journal-2024", "events": [{
        "type": "EntryPosted", "occurred_at": "2024-01-02T00:00:00Z",
        "payload": {"entry": "2024-001", "memo": "Owner pays in capital"}}]},
    {"stream": "account-cash", "events": [{
        "type": "AccountDebited", "occurred_at": "2024-01-02T00:00:00Z",
        "payload": {"entry": "2024-001", "amount": 10000.00}}]},
    {"stream": "account-capital", "events": [{
        "type": "AccountCredited", "occurred_at": "2024-01-02T00:00:00Z",
        "payload": {"entry": "2024-001", "amount": 10000.00}}]}
]');

-- Nobody wants to type that. The rule of double entry (debits = credits) belongs to the ledger, not to the event
-- store, so the ledger keeps it in a function of its own. `legs` are the lines of the entry; `expected` may name
-- the version of an account that the decision was based on. Event ids are derived from the entry's number.
create schema ledger;

create function ledger.post(
    entry text, booked date, memo text, legs jsonb, expected jsonb default '{}'
) returns table (stream text, version bigint)
language plpgsql as $$
declare
    debits numeric := (select coalesce(sum((leg ->> 'debit')::numeric), 0) from jsonb_array_elements(legs) leg);
    credits numeric := (select coalesce(sum((leg ->> 'credit')::numeric), 0) from jsonb_array_elements(legs) leg);
    occurred timestamptz := booked::timestamp at time zone 'UTC';
    journal jsonb := jsonb_build_object(
        'stream', 'journal-' || extract(year from booked),
        'events', jsonb_build_array(jsonb_build_object(
            'type', 'EntryPosted',
            'event_id', md5(entry)::uuid,
            'occurred_at', occurred,
            'payload', jsonb_build_object('entry', entry, 'memo', memo))));
    accounts jsonb := (
        select jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
            'stream', 'account-' || (leg ->> 'account'),
            'expected_version', expected -> (leg ->> 'account'),
            'events', jsonb_build_array(jsonb_build_object(
                'type', case when leg ? 'debit' then 'AccountDebited' else 'AccountCredited' end,
                'event_id', md5(entry || '/' || (leg ->> 'account'))::uuid,
                'occurred_at', occurred,
                'payload', jsonb_build_object('entry', entry, 'amount', coalesce(leg -> 'debit', leg -> 'credit')))))))
        from jsonb_array_elements(legs) leg);
begin
    if debits <> credits or debits = 0 then
        raise exception 'entry % does not balance: debits %, credits %', entry, debits, credits
            using errcode = 'GL001';
    end if;
    return query select a.stream, a.version from es_append_streams(journal || accounts) a;
end
$$;

-- A sale on credit, part of it paid, and the rent billed:
select * from ledger.post('2024-002', '2024-01-15', 'Invoice 17',
    '[{"account": "receivables", "debit": 2400.50}, {"account": "sales", "credit": 2400.50}]');
select * from ledger.post('2024-003', '2024-01-25', 'Invoice 17, first part paid',
    '[{"account": "cash", "debit": 1400.50}, {"account": "receivables", "credit": 1400.50}]');
select * from ledger.post('2024-004', '2024-01-31', 'Rent for January',
    '[{"account": "rent", "debit": 7800.00}, {"account": "payables", "credit": 7800.00}]');

-- This check of ours is used below wherever an error is *wanted*: it fails unless it was the expected one.
create function ledger.refused_with(expected text, got text) returns text language plpgsql as $$
begin
    if got is distinct from expected then
        raise exception 'expected SQLSTATE %, got %', expected, got;
    end if;
    return got;
end
$$;

-- An entry that does not balance is refused by the ledger's own rule, and nothing of it is recorded.
\set ON_ERROR_STOP off
select * from ledger.post('2024-005', '2024-02-01', 'Two digits swapped',
    '[{"account": "cash", "debit": 54.00}, {"account": "sales", "credit": 45.00}]');
\set got :SQLSTATE
\set ON_ERROR_STOP on
select ledger.refused_with('GL001', :'got');

-- An amount that is none gets in by no door. The event store says where it stands and by which rule it is refused: ES016.
\set ON_ERROR_STOP off
select es_append('account-cash', 'AccountDebited', '{"entry": "2024-005", "amount": "54,00"}');
\set got :SQLSTATE
\set ON_ERROR_STOP on
select ledger.refused_with('ES016', :'got');

-- What is asked of accounts is asked of each, whoever appends: no type that nobody has declared (a slip of the pen is one), and
-- nothing dated a week ahead. Other categories, such as the journal, take what comes.
select es_alter_category('account', '{"event_types": "declared", "max_future": "24 hours"}');
\set ON_ERROR_STOP off
select es_append('account-cash', 'AccountDebitted', '{"entry": "2024-005", "amount": 54.00}');
\set got :SQLSTATE
\set ON_ERROR_STOP on
select ledger.refused_with('ES017', :'got');

-- == 3. Reading back ==
-- One account, oldest event first. Amounts are exact decimals: 1400.50 stays 1400.50, not 1400.5.
select version, event_type, payload ->> 'entry' as entry, payload ->> 'amount' as amount, occurred_at::date as booked
from es_read('account-cash');

-- A balance is a sum over events, and so is the balance of any day in the past.
select sum(amount) as now,
       sum(amount) filter (where booked <= '2024-01-15') as on_january_15
from (
    select occurred_at::date as booked,
           case event_type when 'AccountDebited' then 1 else -1 end * (payload ->> 'amount')::numeric as amount
    from es_read('account-cash')
    where event_type in ('AccountDebited', 'AccountCredited')
) as movements;

-- == 4. Two clerks, one account: a version conflict and its retry ==
-- Both look at the cash account and remember the version that their decision is based on.
select es_stream_version('account-cash') as seen
\gset

-- Ann sees 11,400.50 and pays the rent: 7,800.00. Nobody was faster, so it is recorded.
select * from ledger.post('2024-006', '2024-02-05', 'Rent for January paid',
    '[{"account": "payables", "debit": 7800.00}, {"account": "cash", "credit": 7800.00}]',
    expected => jsonb_build_object('cash', :seen));

-- Bob saw 11,400.50 too and wants to return 5,000.00 to the owner. What he saw is no longer true: ES001.
\set ON_ERROR_STOP off
select * from ledger.post('2024-007', '2024-02-05', 'Capital returned',
    '[{"account": "capital", "debit": 5000.00}, {"account": "cash", "credit": 5000.00}]',
    expected => jsonb_build_object('cash', :seen));
\set got :SQLSTATE
\set ON_ERROR_STOP on
select ledger.refused_with('ES001', :'got');

-- Nothing of Bob's entry is there, not the journal's event either. He reads what he missed …
select version, event_type, payload ->> 'amount' as amount
from es_read('account-cash', from_version => :seen + 1);

-- … sees that 3,600.50 are left, decides again, and appends with the version that he has now seen.
select * from ledger.post('2024-007', '2024-02-05', 'Capital returned',
    '[{"account": "capital", "debit": 3000.00}, {"account": "cash", "credit": 3000.00}]',
    expected => jsonb_build_object('cash', :seen + 1));

-- == 5. Sent twice, recorded once ==
-- Bob's connection broke before the answer came. Was it recorded? He need not know: he sends the same again.
-- The event ids are those of the first time, so the same versions come back and nothing is written.
select * from ledger.post('2024-007', '2024-02-05', 'Capital returned',
    '[{"account": "capital", "debit": 3000.00}, {"account": "cash", "credit": 3000.00}]',
    expected => jsonb_build_object('cash', :seen + 1));
select replayed from es_last_append();

-- The same ids with another amount are no retry but a mistake: ES006.
\set ON_ERROR_STOP off
select * from ledger.post('2024-007', '2024-02-05', 'Capital returned',
    '[{"account": "capital", "debit": 3333.00}, {"account": "cash", "credit": 3333.00}]');
\set got :SQLSTATE
\set ON_ERROR_STOP on
select ledger.refused_with('ES006', :'got');

-- == 6. The whole log ==
-- Every event of every stream has a place in one log. Read on from the last place you saw: nothing is skipped,
-- not even while others append. This is what feeds reports, search indexes and other systems.
select global_position, stream, version, event_type, payload ->> 'amount' as amount
from es_read_all(after_position => 9, max_count => 10);

-- How many events there are of each type that was declared, and whether all that is stored is as it was said.
select event_type, schema_version, events from eventstream.event_types order by event_type;
select event_type, problem, events from es_check_event_types(thorough => true);

-- == 7. The trial balance, in plain SQL ==
-- Each account's balance stands on its side, and both sides have the same sum, to the cent.
with balances as (
    select a.payload ->> 'number' as number,
           a.payload ->> 'name' as account,
           sum((e.payload ->> 'amount')::numeric
               * case e.event_type when 'AccountDebited' then 1 else -1 end) as balance
    from eventstream.events a
    join eventstream.events e on e.stream = a.stream
    where a.event_type = 'AccountOpened' and e.event_type in ('AccountDebited', 'AccountCredited')
    group by number, account
)
select number, account, sum(balance) filter (where balance > 0) as debit, sum(-balance) filter (where balance < 0) as credit
from balances
group by grouping sets ((number, account), ())
order by number;

-- What was booked to any account with at least 500.00, newest first, a page of three at a time? (docs/query.md)
select (event).stream, (event).event_type, (event).payload -> 'amount' as amount
from es_query('{"categories": ["account"], "payload": {"/amount": {"at_least": 500.00}}, "order": "backward"}', 3);

-- == 8. History cannot be changed ==
-- Somebody with all rights, a superuser even, tries to make the rent smaller. The table refuses: ES050.
\set ON_ERROR_STOP off
update _eventstream.events set payload = '{"entry": "2024-004", "amount": 780.00}'
where event_type = 'AccountDebited' and payload ->> 'entry' = '2024-004';
\set got :SQLSTATE
\set ON_ERROR_STOP on
select ledger.refused_with('ES050', :'got');

\set ON_ERROR_STOP off
truncate _eventstream.events;
\set got :SQLSTATE
\set ON_ERROR_STOP on
select ledger.refused_with('ES050', :'got');

-- A mistake is put right as in a paper ledger: by another entry.
select * from ledger.post('2024-008', '2024-02-06', 'Landlord grants a rebate on January',
    '[{"account": "cash", "debit": 300.00}, {"account": "rent", "credit": 300.00}]');

-- == 9. Who can prove it? ==
-- Each event holds a SHA-256 over itself and its predecessor's: a chain. Verification recomputes every chain.
-- es_verify returns a row for each problem, with the stream, the version and what is wrong. None: all chains are intact.
select count(*) as problems from es_verify();

-- Note the newest hash of every stream outside of the database, and not even somebody who can rewrite a
-- whole chain gets away with it: tools/verify.py --anchor compares. ($audit has the acts of administration: what was declared.)
select stream, version, left(encode(chain_hash, 'hex'), 16) || '…' as chain_hash
from es_chain_heads()
order by stream;

-- Who recorded what, and when? (recorded_from is the client's address; empty for a local socket)
select stream, version, event_type, recorded_by, recorded_from, recorded_at
from eventstream.audit
order by global_position desc
limit 3;
