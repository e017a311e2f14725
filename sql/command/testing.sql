-- Tests in SQL, and what is declared, to be compared.
create function es_test(
    description text,
    given jsonb default '[]',
    command jsonb default null,
    events jsonb default null,
    error text default null,
    states jsonb default null,
    result jsonb default null,
    sql text default null,
    at timestamptz default null,
    as_role name default null
) returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_test';
comment on function es_test(text, jsonb, jsonb, jsonb, text, jsonb, jsonb, text, timestamptz, name) is
$$A test of decisions, folds, projections and rules: appends the given events, executes the command, or the statements in sql, does what is due at a commit, compares, and undoes all of it. Returns a line of TAP, ok or not ok, with what differs in lines behind it; with pgTAP installed it reports by its ok() and diag().
given: events as in es_append_events, each with its stream, which must be new, and with recorded_at where that is not the time of the test. command: an object of the arguments of es_command; it goes the way of es_command. sql: statements instead, with the rights and the search_path of the caller. Then deferred constraints are judged. Expected, each compared only where it is given: events, the ones that the command or sql appended, in order: their number, and of each the fields that it names; error: an SQLSTATE (five of 0-9 and A-Z), or else a refusal's code; without it, that there is none; states: {stream: state} by the default folds; result: the decider's result, or the first column of the first row of sql. Of an object only what is named is compared, numbers as decimals. at: the clock of this test. as_role: whose rights command or sql has; SET ROLE must let the caller become it.
A test sees no event that was there before it, whatever is read through es_* functions (those that look at what is there for everybody are 0A000 within it), and its events are applied to asynchronous projections, too, at once. Needs the privilege append for the categories of given, read for what is compared; the command what es_command needs. Not on a standby, nor in a read-only transaction.
Example: select es_test('never more than there is', given => '[{"stream": "account-t1", "type": "Credited", "payload": {"amount": 100.00}}]', states => '{"account-t1": {"balance": 100}}');$$;

create function es_tests_done() returns text
language c volatile parallel unsafe as 'MODULE_PATHNAME', 'eventstream_tests_done';
comment on function es_tests_done() is
$$The plan of the tests that es_test made in this session since it was called last, such as 1..12, the line that ends a stream of TAP; ES038, with the plan and the tests that failed, where one did, or ended in an error. With pgTAP installed that counts: select * from finish().
Example: select es_tests_done();$$;

create function es_definitions(category text default null, out kind text, out name text, out definition jsonb) returns setof record
language c stable parallel restricted rows 20 as 'MODULE_PATHNAME', 'eventstream_definitions';
comment on function es_definitions(text) is
$$What is declared in the tenant and decides what events mean and which may be recorded, sorted: folds, upcasters, event types, rules of categories, deciders, invariants, projections and subscriptions, each with the functions that it calls as they are now (source); no ids, oids, positions or times. The same declarations give the same rows in every database: for a code review, and to see where two environments differ. category: those of one category, with projections and subscriptions that take all; event types and upcasters are of none. What belongs to a place is not among them: tenants, grants, closed periods. Only categories that the role may read. Privilege read.
Example: select kind, name, definition from es_definitions('account');$$;
