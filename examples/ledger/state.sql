-- The ledger's states: balances at any moment, and how they came about
--
-- Goes on where examples/ledger/ledger.sql ends, in the same database.
-- Paste it into psql piece by piece, or run the whole:  psql -X -a -f examples/ledger/state.sql
\set ON_ERROR_STOP on
\set SHOW_CONTEXT never
\pset footer off
set timezone = 'UTC';

-- == 10. A fold: how events become a balance ==
-- Said once, by rules: a debit adds to the balance, a credit takes from it, and opening the account names it.
-- (A function in PL/pgSQL, Python or any other language does as well: handler => 'ledger.apply(jsonb, eventstream.event)'.)
select es_register_fold('ledger_account', 'account', initial_state => '{"balance": 0, "entries": 0}', rules => '{
    "on": {
        "AccountOpened":   [{"set": {"/number": "/number", "/name": "/name", "/class": "/class"}}],
        "AccountDebited":  [{"add": {"/balance": "/amount"}}, {"increment": "/entries"}],
        "AccountCredited": [{"subtract": {"/balance": "/amount"}}, {"increment": "/entries"}]
    }
}') as fold;

-- From now on the state of any account is one call away, exact to the last digit.
select es_state('account-cash') as cash;

-- == 11. A balance sheet on two days ==
-- The whole category at a moment in valid time. A day ends when it ends where the books are kept: es_day_end says when.
select sheet.day, s.state ->> 'number' as number, s.state ->> 'name' as account,
       (s.state ->> 'balance')::numeric as balance
from (values (date '2024-01-31'), (date '2024-02-06')) as sheet (day),
     es_category_state('account', as_of => es_day_end(sheet.day, 'UTC')) as s
where (s.state ->> 'balance')::numeric <> 0
order by day, number;

-- == 12. A back-dated correction: as of a day, as known on a day ==
-- January is reported: the rent account shows 7,800.00. (psql remembers the moment of the report in :reported.)
select es_state_at('account-rent', es_day_end('2024-01-31', 'UTC')) ->> 'balance' as january, clock_timestamp() as reported
\gset
\echo :january

-- In March somebody finds a bill for the cellar, for January: 150.00. It is booked with its date, in the past.
select * from ledger.post('2024-009', '2024-01-31', 'Cellar for January, bill found in March',
    '[{"account": "rent", "debit": 150.00}, {"account": "payables", "credit": 150.00}]');

-- Two questions, two answers, and both stay true for ever: what was January's rent, as we know today;
-- and what was it as we knew when we reported?
select es_state_at('account-rent', as_of => es_day_end('2024-01-31', 'UTC')) ->> 'balance' as as_we_know_now,
       es_state_at('account-rent', as_of => es_day_end('2024-01-31', 'UTC'), known_at => :'reported') ->> 'balance' as as_reported;

-- == 13. The history of an account ==
-- The state after each event, and what the event changed.
select version, event_type, occurred_at::date as booked, state ->> 'balance' as balance, changes
from es_history('account-rent');

-- == 14. "This balance looks wrong": where it comes from ==
-- On 5 February the rent is 7,950.00 and not 7,800.00, why? Version 4 counts although it came late, and the rebate of
-- the next day does not count yet. (The answer has more keys, such as where folding started, and how long it took.)
select jsonb_pretty(e -> 'counted') as counted,
       jsonb_pretty(e #- '{left_out,occurred_later,first,0,recorded_at}' -> 'left_out') as left_out
from es_explain_state('account-rent', as_of => es_day_end('2024-02-05', 'UTC')) e;

-- == 15. What if? ==
-- Would the account be overdrawn if we returned another 5,000.00 of capital? Nothing is written.
select es_simulate('account-cash', '[{"type": "AccountCredited", "payload": {"entry": "what-if", "amount": 5000.00}}]') ->> 'balance' as cash_then,
       es_state('account-cash') ->> 'balance' as cash_now;

-- == 16. Typed columns for reporting tools ==
-- A view over the states of a category; it follows the session's moment.
select es_create_temporal_view('ledger.accounts', 'account', '[
    {"name": "number", "type": "text", "path": "/number"},
    {"name": "name", "type": "text", "path": "/name"},
    {"name": "balance", "type": "numeric", "path": "/balance"}
]') as made;
select number, name, balance from ledger.accounts where balance <> 0 order by number;

set eventstream.as_of = '2024-01-31 23:59:59.999999Z';
select number, name, balance from ledger.accounts where balance <> 0 order by number;
reset eventstream.as_of;

-- A date without a time and zone would silently mean midnight somewhere, so it is refused: ES005.
\set ON_ERROR_STOP off
set eventstream.as_of = '2024-01-31';
\set got :SQLSTATE
\set ON_ERROR_STOP on
select ledger.refused_with('ES005', :'got');

-- == 17. Decide and append ==
-- es_load gives a command what it needs: the state, and the version that its append expects. With for_update others
-- who want the same stream wait, and no retry is needed.
begin;
select state ->> 'balance' as balance, version as seen from es_load('account-cash', for_update => true)
\gset
select :balance >= 150 as is_covered
\gset
\if :is_covered
select * from ledger.post('2024-010', '2024-03-15', 'Cellar for January paid',
    '[{"account": "payables", "debit": 150.00}, {"account": "cash", "credit": 150.00}]',
    expected => jsonb_build_object('cash', :seen));
\endif
commit;
select es_state('account-cash') ->> 'balance' as cash;

-- == 18. A closed period ==
-- January and February are reported. From now on nothing can be booked into them, by whoever, and what comes back is the moment
-- to quote with the report: what is known at it never changes any more.
select es_close_period('{account,journal}', es_day_end('2024-02-29', 'UTC'), 'CLOSE-2024-02') as closed
\gset
select es_state_at('account-rent', as_of => es_day_end('2024-02-29', 'UTC'), known_at => :'closed') ->> 'balance' as reported;

-- One more bill for January is found. It is too late for January: ES018 …
\set ON_ERROR_STOP off
select * from ledger.post('2024-011', '2024-01-31', 'Electricity in the cellar, January',
    '[{"account": "rent", "debit": 35.20}, {"account": "payables", "credit": 35.20}]');
\set got :SQLSTATE
\set ON_ERROR_STOP on
select ledger.refused_with('ES018', :'got');

-- … so it is booked in March, and its memo says of which month it is.
select * from ledger.post('2024-011', '2024-03-16', 'Electricity in the cellar, for January',
    '[{"account": "rent", "debit": 35.20}, {"account": "payables", "credit": 35.20}]');
select es_state('account-rent') ->> 'balance' as now,
       es_state_at('account-rent', as_of => es_day_end('2024-02-29', 'UTC'), known_at => :'closed') ->> 'balance' as reported;

-- Only an admin opens it again, with a reference that says why, and both are kept for ever.
select es_reopen_period('{account,journal}', null, 'CHG-4711') as taken_back;
select category, closed_until::date, reason, reopen_reason from eventstream.periods order by category;

-- == 19. The entry as a decision ==
-- Until here ledger.post was trusted to know the accounts, and to be called once. A decider is given the accounts as they are, behind
-- their locks, and answers the events of the entry, or says no: debits are credits, and every account is open. What the entry
-- depends on is said by its boundary: the accounts of its lines.
select es_close_period('{account,journal}', es_day_end('2024-02-29', 'UTC'), 'CLOSE-2024-02') is not null as closed;
select es_register_fold('journal', 'journal', initial_state => '{"entries": 0}', rules => '{"on": {"EntryPosted": [{"increment": "/entries"}]}}');

create function ledger.accounts_of(command eventstream.command) returns jsonb
language sql immutable as $$
    select jsonb_build_object('streams', jsonb_agg('account-' || (line ->> 'account')))
    from jsonb_array_elements(command.payload -> 'lines') line
$$;

create function ledger.decide(state jsonb, command eventstream.command) returns jsonb
language plpgsql stable as $$
declare
    debits numeric := (select coalesce(sum((line ->> 'debit')::numeric), 0) from jsonb_array_elements(command.payload -> 'lines') line);
    credits numeric := (select coalesce(sum((line ->> 'credit')::numeric), 0) from jsonb_array_elements(command.payload -> 'lines') line);
    unopened jsonb := (
        select jsonb_agg(line -> 'account') from jsonb_array_elements(command.payload -> 'lines') line
        where state -> ('account-' || (line ->> 'account')) -> 'number' is null);
begin
    perform es_require(debits = credits and debits > 0, 'not_balanced', format('debits are %s, and credits %s', debits, credits));
    perform es_require(unopened is null, 'not_open', format('not in the chart of accounts: %s', unopened));
    return (
        select jsonb_build_array(es_make_event('EntryPosted', command.payload - 'lines'))
               || jsonb_agg(es_make_event(
                   case when line ? 'debit' then 'AccountDebited' else 'AccountCredited' end,
                   jsonb_build_object('entry', command.payload -> 'entry', 'amount', coalesce(line -> 'debit', line -> 'credit')),
                   stream => 'account-' || (line ->> 'account')))
        from jsonb_array_elements(command.payload -> 'lines') line);
end
$$;
select es_register_decider('entries', 'journal', 'ledger.decide(jsonb, eventstream.command)', boundary => 'ledger.accounts_of(eventstream.command)',
    commands => '{"PostEntry": {
        "description": "an entry of the journal, with its lines",
        "schema": {"type": "object", "required": ["entry", "memo", "lines"],
                   "properties": {"lines": {"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/line"}}},
                   "$defs": {"amount": {"type": "number", "exclusiveMinimum": 0, "multipleOf": 0.01},
                             "line": {"type": "object", "required": ["account"],
                                      "properties": {"account": {"type": "string"},
                                                     "debit": {"$ref": "#/$defs/amount"}, "credit": {"$ref": "#/$defs/amount"}},
                                      "oneOf": [{"required": ["debit"]}, {"required": ["credit"]}]}}}}}');

-- The clerk's program gives each entry a key of its own, and sends it until it is answered. Here the first answer was lost:
select es_command('journal-2024', 'PostEntry', '{"entry": "2024-012", "memo": "Rent for February",
    "lines": [{"account": "rent", "debit": 650.00}, {"account": "payables", "credit": 650.00}]}',
    command_key => 'entry-2024-012', occurred_at => '2024-03-20 00:00Z') - array['event_ids', 'global_position'] as answer;
select es_command('journal-2024', 'PostEntry', '{"entry": "2024-012", "memo": "Rent for February",
    "lines": [{"account": "rent", "debit": 650.00}, {"account": "payables", "credit": 650.00}]}',
    command_key => 'entry-2024-012', occurred_at => '2024-03-20 00:00Z') - array['event_ids', 'global_position'] as the_same_again;
select count(*) as recorded from es_read('account-rent') where payload ->> 'entry' = '2024-012';

-- A refusal is an answer: ES033, in the decider's words, and nothing is recorded.
\set ON_ERROR_STOP off
select es_command('journal-2024', 'PostEntry', '{"entry": "2024-013", "memo": "Two digits swapped",
    "lines": [{"account": "cash", "debit": 54.00}, {"account": "sales", "credit": 45.00}]}', command_key => 'entry-2024-013');
\set got :SQLSTATE
\set ON_ERROR_STOP on
select ledger.refused_with('ES033', :'got');

\set ON_ERROR_STOP off
select es_command('journal-2024', 'PostEntry', '{"entry": "2024-013", "memo": "Into an account that there is not",
    "lines": [{"account": "yacht", "debit": 45.00}, {"account": "cash", "credit": 45.00}]}', command_key => 'entry-2024-013');
\set got :SQLSTATE
\set ON_ERROR_STOP on
select ledger.refused_with('ES033', :'got');

-- And a decision is judged as every append is: February is closed, ES018.
\set ON_ERROR_STOP off
select es_command('journal-2024', 'PostEntry', '{"entry": "2024-013", "memo": "Too late",
    "lines": [{"account": "rent", "debit": 1.00}, {"account": "cash", "credit": 1.00}]}',
    command_key => 'entry-2024-013', occurred_at => '2024-02-28 00:00Z');
\set got :SQLSTATE
\set ON_ERROR_STOP on
select ledger.refused_with('ES018', :'got');

-- An auditor sees what each event was decided by.
select stream, event_type, metadata -> 'command' as command from es_read_all(max_count => 1000) where payload ->> 'entry' = '2024-012';

-- What it decides is tested in SQL: what had happened, what is asked, what must come of it. All of it is undone.
select es_test('an entry is posted to each of its accounts',
    given => '[{"stream": "account-till", "type": "AccountOpened", "payload": {"number": 1010, "name": "Till", "class": "asset"}},
               {"stream": "account-cakes", "type": "AccountOpened", "payload": {"number": 4010, "name": "Cakes", "class": "income"}}]',
    command => '{"stream": "journal-test", "command_type": "PostEntry", "payload": {"entry": "T-1", "memo": "A cake",
        "lines": [{"account": "till", "debit": 45.00}, {"account": "cakes", "credit": 45.00}]}}',
    events => '[{"type": "EntryPosted"}, {"type": "AccountDebited", "stream": "account-till"}, {"type": "AccountCredited", "payload": {"amount": 45}}]',
    states => '{"account-till": {"balance": 45.00}, "account-cakes": {"balance": -45}}') as test;
select es_test('an entry that does not balance is refused',
    given => '[{"stream": "account-till", "type": "AccountOpened", "payload": {"number": 1010, "name": "Till", "class": "asset"}}]',
    command => '{"stream": "journal-test", "command_type": "PostEntry", "payload": {"entry": "T-1", "memo": "Two digits swapped",
        "lines": [{"account": "till", "debit": 54.00}, {"account": "till", "credit": 45.00}]}}',
    error => 'not_balanced') as test;
select es_test('nothing is booked into an account that there is not',
    command => '{"stream": "journal-test", "command_type": "PostEntry", "payload": {"entry": "T-1", "memo": "",
        "lines": [{"account": "yacht", "debit": 1}, {"account": "till", "credit": 1}]}}',
    error => 'not_open') as test;
-- One that is mistaken itself says what it expected, and what it found.
select es_test('a test that is mistaken',
    given => '[{"stream": "account-till", "type": "AccountOpened", "payload": {"number": 1010, "name": "Till", "class": "asset"}}]',
    command => '{"stream": "journal-test", "command_type": "PostEntry", "payload": {"entry": "T-1", "memo": "To and fro",
        "lines": [{"account": "till", "debit": 12.50}, {"account": "till", "credit": 12.50}]}}',
    events => '[{"type": "EntryPosted"}, {"type": "AccountDebited", "payload": {"amount": 12.05}}]',
    states => '{"account-till": {"balance": 12.50}}') as test;
\set ON_ERROR_STOP off
select es_tests_done();
\set got :SQLSTATE
\set ON_ERROR_STOP on
select ledger.refused_with('ES038', :'got');

-- == 20. A rule that must hold, however many calls it takes ==
-- The cash box cannot hold less than nothing. Each of two clerks' calls looks well by itself, so the rule is asked when their transaction
-- commits: of a function that is given all that it appended.
create function ledger.cash_is_there(events eventstream.event[]) returns text
language sql stable as $$
    select format('the cash box would hold %s', cash.balance)
    from (select (es_state('account-cash') ->> 'balance')::numeric as balance) cash
    where cash.balance < 0
$$;
select es_register_invariant('cash is there', '{account}', 'ledger.cash_is_there(eventstream.event[])') as registered;

-- The money is there for one of them …
select (es_state('account-cash') ->> 'balance')::numeric - 40.00 as paid
\gset
begin;
select es_append('account-cash', 'AccountCredited', jsonb_build_object('entry', '2024-014', 'amount', :paid), occurred_at => '2024-03-21 00:00Z') as version;
-- … and not for both: ES019 at the commit, and neither is recorded.
select es_append('account-cash', 'AccountCredited', '{"entry": "2024-015", "amount": 50.00}', occurred_at => '2024-03-21 00:00Z') as version;
\set ON_ERROR_STOP off
commit;
\set got :SQLSTATE
\set ON_ERROR_STOP on
select ledger.refused_with('ES019', :'got');
select count(*) as recorded from es_read('account-cash') where payload ->> 'entry' in ('2024-014', '2024-015');

-- The import below books earlier years into this category, so it is opened once more.
select es_reopen_period('{account,journal}', null, 'CHG-4712') as taken_back;
