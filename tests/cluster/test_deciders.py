"""Deciders: what they may be, what they see and answer, and that whatever is wrong with them leaves nothing behind.

Asked of the kinds: isolation (their snapshot is newer than their locks, at each level), code of others (raise, loop, NULL, wrong shapes, a million events, append by themselves,
another owner, dropped, replaced), role (registrant weaker than the caller, and the other way round; no grant), tenant, number (scale), session (settings; search_path), DDL (DROP FUNCTION
of what is in use), copies (dump and restore; a standby is in test_commands), verification (acts), bad input of every argument."""

import threading

import pytest
from database import Database, forced, rows, unguarded, value, verify
from deciding import COMMANDS, balance, decider, open_bank, refused, send
from operating import check, run_psql
from server import run


@pytest.fixture
def session(database):
    with database.connect() as connection:
        open_bank(connection)
        yield connection


def nothing_was_written(session):
    return rows(session, "select stream from es_read_all()") == [] == rows(session, "select from _eventstream.command_answers")


def test_a_command_becomes_the_events_that_its_decider_answers(session):
    answer = send(session, "Deposit", {"amount": 100.50}, metadata={"actor": "ann", "channel": "web"}, subject="p-1", occurred_at="2024-03-01 10:00+00")
    assert {**answer, "event_ids": None, "global_position": None} == {
        "stream": "account-1", "version": 1, "versions": {"account-1": 1}, "event_ids": None, "global_position": None, "result": None, "replayed": False,
    }  # fmt: skip
    event = session.execute(
        "select event_id::text, global_position, event_type, payload::text, subject, occurred_at = '2024-03-01 10:00+00', metadata, recorded_by from es_read('account-1')"
    ).fetchone()
    assert event[:2] == (answer["event_ids"][0], answer["global_position"])
    assert event[2:6] == ("Credited", '{"amount": 100.5}', "p-1", True) and event[7] == "postgres"
    assert event[6] == {"actor": "ann", "channel": "web", "command": {"type": "Deposit", "key": None, "decider": "cashier", "read": {}}}
    assert send(session, "Withdraw", {"amount": 0.25})["result"] == {"left": 100.25}
    assert balance(session) == value(session, "select 100.25")
    assert send(session, "Nothing", {})["event_ids"] == [] and value(session, "select es_stream_version('account-1')") == 2
    assert verify(session) == []


def test_numbers_keep_their_scale_from_command_to_event_and_result(session):
    decider(session, "begin return jsonb_build_object('events', jsonb_build_array(es_make_event('Seen', command.payload)), 'result', command.payload); end", is_default=False)
    exact = '{"a": 1.000, "b": 100000000000000000000000000000.00000000000000000001, "c": -0.10}'
    answer = value(session, f"select es_command('account-1', 'Any', '{exact}', decider => 'other', command_key => 'k')::text")
    assert f'"result": {exact}' in answer
    assert value(session, "select payload::text from es_read('account-1')") == exact
    again = value(session, f"select es_command('account-1', 'Any', '{exact}', decider => 'other', command_key => 'k')::text")
    assert again == answer.replace('"replayed": false', '"replayed": true')


def test_a_decider_sees_the_command_whole(session):
    decider(session, "begin return jsonb_build_object('result', jsonb_build_object('command', to_jsonb(command), 'state', state)); end", is_default=False)
    send(session, "Deposit", {"amount": 5})
    session.execute("set eventstream.metadata = '{\"actor\": \"ann\"}'")
    seen = send(session, "Ask", {"n": 1.50}, decider="other", metadata={"x": 1}, command_key="k-1", subject="p", occurred_at="2024-03-01 10:00+00")["result"]
    command = seen["command"]
    assert seen["state"] == {"balance": 5, "movements": 1}
    assert command.pop("decided_at") is not None
    assert command.pop("occurred_at").startswith("2024-03-01T")
    assert command == {
        "command_type": "Ask", "payload": {"n": 1.5}, "metadata": {"actor": "ann", "x": 1}, "stream": "account-1", "version": 1, "versions": {"account-1": 1},
        "subject": "p", "command_key": "k-1", "tenant": "default", "role": "postgres", "actor": "ann",
    }  # fmt: skip
    without = send(session, "Ask", {}, decider="other")["result"]["command"]
    assert without["occurred_at"] == without["decided_at"] and without["command_key"] is None
    fresh = send(session, "Ask", {}, stream="account-new", decider="other")["result"]
    assert fresh["state"] == {"balance": 0, "movements": 0} and fresh["command"]["version"] == 0


def test_made_commands_and_events_are_what_a_decider_is_given_and_answers(session):
    answer = value(session, "select decide('{\"balance\": 5}', es_make_command('Withdraw', '{\"amount\": 3}', stream => 'account-1', version => 2))")
    assert answer == {"events": [{"type": "Debited", "payload": {"amount": 3}}], "result": {"left": 2}}
    assert refused(session.execute, "select decide('{\"balance\": 2}', es_make_command('Withdraw', '{\"amount\": 3}'))").sqlstate == "ES033"
    assert value(session, "select to_jsonb(es_make_command('A', stream => 's-1', version => 2, occurred_at => '2024-01-01Z')) ->> 'versions'") == '{"s-1": 2}'
    made = value(session, "select es_make_event('T', '{\"a\": 1.0}', stream => 's-1', tags => '{a:1}', subject => 'p', schema_version => 2)::text")
    assert made == '{"tags": ["a:1"], "type": "T", "stream": "s-1", "payload": {"a": 1.0}, "subject": "p", "schema_version": 2}'
    for statement in ("select es_make_event(null, '{}')", "select es_make_event('T', null)", "select es_make_command(null)", "select es_make_command('T', null)"):
        assert refused(session.execute, statement).sqlstate == "ES005", statement


def test_a_refusal_is_told_in_the_deciders_words_and_leaves_nothing(session):
    send(session, "Deposit", {"amount": 10})
    diag = refused(send, session, "Withdraw", {"amount": 10.01}, command_key="w-1")
    assert (diag.sqlstate, diag.message_primary, diag.message_hint) == ("ES033", "only 10 are there", None)
    assert diag.message_detail == '{"available":10,"code":"insufficient_funds"}'
    assert rows(session, "select from _eventstream.command_answers") == []
    send(session, "Deposit", {"amount": 1})
    # A refusal keeps no key.
    assert send(session, "Withdraw", {"amount": 10.01}, command_key="w-1")["version"] == 3
    # What holds is no refusal; what is not known does not hold.
    assert value(session, "select es_require(true, 'c', 'm')") is True
    for condition in ("false", "null"):
        assert refused(session.execute, f"select es_require({condition}, 'c', 'm')").sqlstate == "ES033"
    for bad in ("null, 'm'", "'', 'm'", "'c', null", "'c', ' '", "'c', repeat('m', 5000)", "'c', 'm', '[]'", "'c', 'm', null", "'c', 'm', jsonb_build_object('a', repeat('x', 9999))"):
        assert refused(session.execute, f"select es_require(true, {bad})").sqlstate == "ES005", bad


def test_a_decider_in_sql_refuses_too(session):
    decider(
        session,
        "select es_require((state ->> 'balance')::numeric >= (command.payload ->> 'amount')::numeric, 'too_much', 'not so much');"
        "select jsonb_build_array(es_make_event('Debited', command.payload))",
        language="sql",
        is_default=False,
    )
    assert refused(send, session, "Take", {"amount": 1}, decider="other").message_detail == '{"code":"too_much"}'
    send(session, "Deposit", {"amount": 1})
    assert send(session, "Take", {"amount": 1}, decider="other")["version"] == 2


def test_a_command_that_its_decider_does_not_take_is_refused_before_it_runs(session):
    diag = refused(send, session, "Rob", {"amount": 1})
    assert diag.sqlstate == "ES035" and diag.message_hint == "It takes: Deposit, Nothing, Withdraw."
    diag = refused(send, session, "Deposit", {"amount": "top secret"})
    assert diag.sqlstate == "ES016" and "/amount" in diag.message_primary
    assert "secret" not in f"{diag.message_primary}{diag.message_detail}{diag.message_hint}"
    assert value(session, diag.message_hint.removeprefix("The schema: ")) == COMMANDS["Deposit"]["schema"]
    assert refused(send, session, "Deposit", {}).sqlstate == "ES016"
    diag = refused(send, session, "Deposit", stream="order-1")
    assert diag.sqlstate == "ES036" and diag.message_primary == 'category "order" has no default decider'
    assert refused(send, session, "Deposit", decider="nobody").message_primary == 'there is no decider "nobody" for category "account"'
    # Of another category.
    assert refused(send, session, "Deposit", stream="order-1", decider="cashier").sqlstate == "ES036"
    assert nothing_was_written(session)


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ("null", "ES037", "its answer is NULL"),
        ("'5'", "ES037", "its answer must be an array of events, or an object"),
        ("'\"x\"'", "ES037", "its answer must be an array"),
        ("'{\"event\": []}'", "ES037", "its answer.event is not a key that can stand here"),
        ("'{\"events\": 5}'", "ES037", "its answer.events must be an array of events"),
        ("'[5]'", "ES037", "its answer[0] must be an object, not a number"),
        ("'[{}]'", "ES037", "its answer[0].type must be given"),
        ("'[{\"type\": \"T\"}]'", "ES037", "its answer[0].payload must be given"),
        ("'[{\"type\": 5, \"payload\": 1}]'", "ES037", "its answer[0].type must be a string"),
        ("'{\"events\": [{\"type\": \"T\", \"payload\": 1}, {\"type\": \"T\", \"payload\": 1, \"colour\": 1}]}'", "ES037", "its answer.events[1].colour is not a key"),
        ("'[{\"type\": \"\", \"payload\": 1}]'", "ES037", "its answer[0].type must"),
        ("'[{\"type\": \"StreamClosed\", \"payload\": 1}]'", "ES037", "its answer[0].type must not be StreamClosed"),
        ("'[{\"type\": \"T\", \"payload\": 1, \"stream\": \"nonsense\"}]'", "ES037", "its answer[0].stream is no stream name"),
        ("'[{\"type\": \"T\", \"payload\": 1, \"stream\": \"$audit-1\"}]'", "ES037", "its answer[0].stream is no stream name"),
        ("'[{\"type\": \"T\", \"payload\": 1, \"metadata\": {\"command\": 1}}]'", "ES037", "its answer[0].metadata must not have the key command"),
        ("'[{\"type\": \"T\", \"payload\": 1, \"metadata\": 5}]'", "ES037", "its answer[0].metadata must be a JSON object"),
        ("'[{\"type\": \"T\", \"payload\": 1, \"event_id\": \"x\"}]'", "ES037", "its answer[0].event_id must be a uuid"),
        ("'[{\"type\": \"T\", \"payload\": 1, \"occurred_at\": \"tomorrow\"}]'", "ES037", "its answer[0].occurred_at must"),
        ("'[{\"type\": \"T\", \"payload\": 1, \"tags\": [\"\"]}]'", "ES037", "its answer[0].tags[0] must"),
        ("(select jsonb_agg(jsonb_build_object('type', 'T', 'payload', n)) from generate_series(1, 1000000) n)", "ES007", "has 1000000 events"),
        ("jsonb_build_array(es_make_event('T', to_jsonb(repeat('x', 2000000))))", "ES007", "answer[0].payload has"),
        ("jsonb_build_array(es_make_event('T', '1', stream => 'account-2'), es_make_event('T', '1', stream => 'account-3'))", None, None),
    ],
)
def test_answers_that_are_none_are_told_by_their_place(session, answer, code, words):
    decider(session, f"begin return {answer}; end", is_default=False)
    if code is None:
        assert set(send(session, "Any", {}, decider="other")["versions"]) == {"account-1", "account-2", "account-3"}
        return
    diag = refused(send, session, "Any", {}, decider="other", command_key="k")
    assert diag.sqlstate == code and words in diag.message_primary, diag.message_primary
    assert nothing_was_written(session)


def test_a_decider_that_raises_is_told_whole_and_one_that_loops_is_ended(session):
    decider(session, "begin raise 'a bug' using errcode = 'P0042', detail = 'd', hint = 'h'; end", is_default=False)
    diag = refused(send, session, "Any", {}, decider="other")
    assert (diag.sqlstate, diag.message_primary, diag.message_detail, diag.message_hint) == ("P0042", "a bug", "d", "h")
    assert 'decider "other" of command "Any" for stream "account-1" at version 0' in diag.context
    decider(session, "begin loop perform pg_sleep(0.01); end loop; end", is_default=False)
    session.execute("set statement_timeout = '300ms'")
    assert refused(send, session, "Any", {}, decider="other").sqlstate == "57014"
    assert nothing_was_written(session)


@pytest.mark.parametrize(
    "call",
    [
        "es_append('account-1', 'T', '{}')",
        "es_append_events('account-1', '[{\"type\": \"T\", \"payload\": 1}]')",
        "(select version from es_append_streams('[{\"stream\": \"account-1\", \"events\": [{\"type\": \"T\", \"payload\": 1}]}]'))",
        "es_close_stream('account-1', 'x')",
        "es_command('account-2', 'Deposit', '{\"amount\": 1}')",
        "es_simulate_command('account-2', 'Deposit', '{\"amount\": 1}')",
        "(select version from es_load('account-1', for_update => true))",
        "es_register_fold('f', 'account', rules => '{\"on\": {}}')",
        "es_register_decider('d', 'account', 'decide(jsonb, eventstream.command)')",
        "es_create_event_type('T')",
        "es_close_period('{account}', '2024-01-01Z', 'x')",
        "es_grant('public', 'read')",
        "es_create_subscription('s')",
        "es_snapshot('account-1')",
        "es_create_tenant('t')",
        "(select count(*) from es_maintain())",
    ],
)
def test_a_decider_writes_nothing_by_our_functions(session, call):
    send(session, "Deposit")
    decider(session, f"begin perform {call}; return '[]'; end", is_default=False)
    diag = refused(send, session, "Any", {}, decider="other")
    assert diag.sqlstate == "0A000" and "decider" in diag.message_primary, diag.message_primary
    # Nor its boundary.
    session.execute(f"create function bounds(command eventstream.command) returns jsonb stable language plpgsql as $$ begin perform {call}; return '{{}}'; end $$")
    decider(session, "begin return '[]'; end", is_default=False, boundary="bounds(eventstream.command)")
    assert refused(send, session, "Any", {}, decider="other").sqlstate == "0A000"
    assert len(rows(session, "select from es_read_all()")) == 1
    # Afterwards the session writes as ever.
    send(session, "Deposit")


def test_a_decider_reads_tables_and_states(session):
    session.execute("create table limits (stream text, most numeric); insert into limits values ('account-1', 50)")
    decider(
        session,
        "begin perform es_require((select most from public.limits where stream = command.stream) >= (es_state('account-2') ->> 'balance')::numeric, 'limit', 'over the limit');"
        " return jsonb_build_array(es_make_event('Checked', '1')); end",
        is_default=False,
    )
    send(session, "Deposit", {"amount": 50}, stream="account-2")
    send(session, "Any", {}, decider="other")
    send(session, "Deposit", {"amount": 1}, stream="account-2")
    assert refused(send, session, "Any", {}, decider="other").sqlstate == "ES033"


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_a_decider_sees_what_was_committed_before_its_locks(database, session, level):
    """A statement's snapshot is older than what it waits for: by it, both would see the limit of before."""
    session.execute("create table used (n int); create table noted (n int)")
    decider(session, "begin return jsonb_build_array(es_make_event('Seen', to_jsonb((select count(*) from public.used)))); end", is_default=False)
    send(session, "Deposit")
    with database.connect(autocommit=False) as holder, database.connect(autocommit=False) as waiter:
        waiter.execute(f"set transaction isolation level {level}")
        value(waiter, "select count(*) from noted")
        send(holder, "Deposit")
        holder.execute("insert into used values (1)")
        seen = []
        thread = threading.Thread(target=lambda: seen.append(send(waiter, "Any", {}, decider="other")))
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        holder.commit()
        thread.join(20)
        waiter.commit()
    assert [answer["version"] for answer in seen] == [3]
    assert value(session, "select payload from es_read('account-1', from_version => 3)") == 1


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("f(state jsonb, command eventstream.command) returns jsonb volatile", "must be STABLE or IMMUTABLE"),
        ("f(state jsonb, command eventstream.command) returns text stable", "must have the signature"),
        ("f(state jsonb) returns jsonb stable", "must have the signature (state jsonb, command eventstream.command) returns jsonb, and"),
        ("pg_temp.f(state jsonb, command eventstream.command) returns jsonb stable", "temporary"),
        ("f(state jsonb, command eventstream.command) returns setof jsonb stable", "plain function"),
    ],
)
def test_handlers_that_are_none(session, function, words):
    session.execute(f"create function {function} language sql as $$ select null::{'text' if 'text' in function else 'jsonb'} $$")
    name = function.split(" returns")[0].replace("state ", "").replace("command eventstream.command", "eventstream.command")
    diag = refused(session.execute, "select es_register_decider('d', 'account', %s)", (name,))
    assert diag.sqlstate == "ES005" and words in diag.message_primary, diag.message_primary
    diag = refused(session.execute, "select es_register_decider('d', 'account', 'decide(jsonb, eventstream.command)', boundary => 'decide(jsonb, eventstream.command)')")
    assert diag.sqlstate == "ES005" and diag.message_primary.startswith("boundary must have the signature (command eventstream.command) returns jsonb")


@pytest.mark.parametrize(
    "arguments",
    [
        "null, 'account', {f}",
        "'', 'account', {f}",
        "repeat('x', 256), 'account', {f}",
        "'d', null, {f}",
        "'d', 'a-b', {f}",
        "'d', '$audit', {f}",
        "'d', 'account', null",
        "'d', 'account', 4711",
        "'d', 'account', {f}, is_default => null",
        "'d', 'account', {f}, commands => '[]'",
        "'d', 'account', {f}, commands => '{{}}'",
        "'d', 'account', {f}, commands => '{{\"\": {{}}}}'",
        "'d', 'account', {f}, commands => '{{\"A\": 5}}'",
        "'d', 'account', {f}, commands => '{{\"A\": {{\"other\": 1}}}}'",
        "'d', 'account', {f}, commands => '{{\"A\": {{\"schema\": 5}}}}'",
        "'d', 'account', {f}, commands => '{{\"A\": {{\"schema\": {{\"$ref\": \"http://x.example/y\"}}}}}}'",
        "'d', 'account', {f}, commands => '{{\"A\": {{\"description\": 1}}}}'",
        "'d', 'account', {f}, commands => jsonb_build_object('A', jsonb_build_object('description', repeat('x', 5000)))",
        "'d', 'account', {f}, commands => (select jsonb_object_agg(n::text, jsonb_build_object('description', repeat('x', 4000))) from generate_series(1, 300) n)",
        "'cashier', 'order', {f}",
    ],
)
def test_bad_input_of_a_registration(session, arguments):
    before = rows(session, "select * from eventstream.deciders")
    call = arguments.format(f="'decide(jsonb, eventstream.command)'")
    assert refused(session.execute, f"select es_register_decider({call})").sqlstate == "ES005"
    assert rows(session, "select * from eventstream.deciders") == before


def test_registrations_that_do_not_agree(session):
    for arguments, code in (
        ("fold => 'nobody'", "ES010"),
        ("commands => '{\"A\": {\"schema\": {\"type\": \"object\"}, \"example\": 5}}'", "ES016"),
    ):
        assert refused(session.execute, f"select es_register_decider('d', 'account', 'decide(jsonb, eventstream.command)', {arguments})").sqlstate == code
    assert refused(session.execute, "select es_register_decider('d', 'account', 'nobody(jsonb, jsonb)')").sqlstate == "42883"
    for statement, code in (("select es_unregister_decider('nobody')", "ES036"), ("select es_unregister_decider(null)", "ES005")):
        assert refused(session.execute, statement).sqlstate == code
    heard = []
    session.add_notice_handler(lambda diag: heard.append(diag.message_primary))
    decider(session, "begin return '[]'; end")
    assert heard == ['decider "other" is the default one of category "account" now, and "cashier" is not any more']
    assert rows(session, "select name, is_default from eventstream.deciders order by 1") == [("cashier", False), ("other", True)]
    session.execute("select es_unregister_decider('other')")
    assert refused(send, session, "Deposit").sqlstate == "ES036"
    send(session, "Deposit", decider="cashier")


def test_another_fold_than_the_default_one(session):
    session.execute("select es_register_fold('count', 'account', initial_state => '{\"n\": 0}', is_default => false, rules => '{\"on\": {\"Credited\": [{\"increment\": \"/n\"}]}}')")
    decider(session, "begin return jsonb_build_object('result', state); end", is_default=False, fold="count")
    send(session, "Deposit")
    assert send(session, "Any", {}, decider="other")["result"] == {"n": 1}
    session.execute("select es_unregister_fold('count')")
    assert refused(send, session, "Any", {}, decider="other").sqlstate == "ES010"
    # A category without a fold has no states.
    decider(session, "begin return '[]'; end", name="bare", category="bare")
    diag = refused(send, session, "Any", {}, stream="bare-1")
    assert diag.sqlstate == "ES010" and "bare" in diag.message_primary


def test_what_becomes_of_its_function_is_noticed(database, session):
    with database.connect() as idle:
        send(idle, "Deposit")
        for statement in ("drop function decide(jsonb, eventstream.command)", "drop function decide(jsonb, eventstream.command) cascade"):
            diag = refused(session.execute, statement)
            assert diag.sqlstate == "2BP01" and "decider cashier of tenant default" in diag.message_primary
        # Another body counts from its commit on.
        session.execute(
            "create or replace function decide(state jsonb, command eventstream.command) returns jsonb stable language sql as $$ select '[]'::jsonb $$"
        )
        assert send(idle, "Deposit")["event_ids"] == []
        session.execute("alter function decide(jsonb, eventstream.command) volatile")
        diag = refused(send, idle, "Deposit")
        assert diag.sqlstate == "ES037" and "VOLATILE" in diag.message_primary
        assert refused(session.execute, "alter function decide(jsonb, eventstream.command) rename to else_where").sqlstate == "2BP01"
        session.execute("alter function decide(jsonb, eventstream.command) stable")
        send(idle, "Deposit")
        session.execute("select es_unregister_decider('cashier')")
        assert refused(send, idle, "Deposit").sqlstate == "ES036"
        session.execute("drop function decide(jsonb, eventstream.command)")


def test_the_boundarys_function_is_kept_too(session):
    session.execute("create function bounds(command eventstream.command) returns jsonb immutable language sql as $$ select '{}'::jsonb $$")
    decider(session, "begin return '[]'; end", is_default=False, boundary="bounds(eventstream.command)")
    diag = refused(session.execute, "drop function bounds(eventstream.command)")
    assert diag.sqlstate == "2BP01" and "decider other" in diag.message_primary


def test_it_runs_as_its_registrant_and_not_as_its_caller(database, session):
    owner, app, weak = (database.role(f"{database.name}_{name}") for name in ("owner", "app", "weak"))
    session.execute("create schema own authorization {0}; grant create, usage on schema public to {0}".format(f'"{owner}"'))
    for role, privilege in ((owner, "manage"), (owner, "read"), (app, "command"), (weak, "manage"), (weak, "read")):
        session.execute("select es_grant(%s, %s)", (role, privilege))
    with database.connect(user=owner) as there:
        there.execute("create table own.secret (n int); insert into own.secret values (7)")
        there.execute("set search_path = own, public")
        decider(there, "begin return jsonb_build_object('events', jsonb_build_array(es_make_event('Seen', '1')), 'result',"
                " jsonb_build_object('n', (select n from secret), 'user', current_user)); end", name="peek", is_default=False)  # fmt: skip
    with database.connect(user=app) as there:
        # The caller may neither read the table nor the events, and may not append by itself.
        assert send(there, "Any", {}, decider="peek")["result"] == {"n": 7, "user": owner}
        assert refused(there.execute, "select es_append('account-1', 'T', '{}')").sqlstate == "42501"
        assert refused(there.execute, "select * from es_read('account-1')").sqlstate == "42501"
        assert refused(there.execute, "select es_simulate_command('account-1', 'Any', '{}', decider => 'peek')").sqlstate == "42501"
    assert value(session, "select recorded_by from es_read('account-1')") == app
    with database.connect(user=weak) as there:
        # Somebody else's function does not run with the rights of who registers it.
        diag = refused(there.execute, "select es_register_decider('d', 'account', 'own.peek(jsonb, eventstream.command)')")
        assert diag.sqlstate in ("42501", "ES005")
    with database.connect(user=app) as there:
        assert refused(decider, there, "begin return '[]'; end").sqlstate == "42501"
        assert refused(there.execute, "select es_unregister_decider('peek')").sqlstate == "42501"
    # The registrant's right to read what it is given is asked each time.
    session.execute("select es_revoke(%s, 'read')", (owner,))
    with database.connect(user=app) as there:
        diag = refused(send, there, "Any", {}, decider="peek")
        assert diag.sqlstate == "42501" and owner in diag.message_primary and '"read"' in diag.message_primary
    session.execute("select es_grant(%s, 'read')", (owner,))
    with database.connect(user=app) as there:
        send(there, "Any", {}, decider="peek")


def test_a_role_without_the_privilege_is_told_so(database, session):
    nobody, appender = database.role(f"{database.name}_nobody"), database.role(f"{database.name}_appender")
    session.execute("select es_grant(%s, 'append'), es_grant(%s, 'read')", (appender, appender))
    for role in (nobody, appender):
        with database.connect(user=role) as there:
            diag = refused(send, there, "Deposit")
            assert diag.sqlstate == "42501"
            if role == appender:
                assert value(session, diag.message_hint.removeprefix("An admin of the tenant can run: ")) is not None
                session.execute("select es_revoke(%s, 'command', category => 'account')", (role,))
    session.execute("select es_grant(%s, 'command', category => 'order')", (nobody,))
    with database.connect(user=nobody) as there:
        assert refused(send, there, "Deposit").sqlstate == "42501"


def test_tenants_do_not_see_each_others(database, session):
    session.execute("select es_create_tenant('b')")
    with database.connect() as there:
        there.execute("set eventstream.tenant = 'b'")
        assert rows(there, "select from eventstream.deciders") == []
        assert refused(send, there, "Deposit").sqlstate == "ES036"
        there.execute("select es_register_fold('balance', 'account', rules => '{\"on\": {}}')")
        decider(there, "begin return jsonb_build_object('result', jsonb_build_object('tenant', command.tenant, 'set', current_setting('eventstream.tenant'))); end")
        assert send(there, "Deposit", command_key="k")["result"] == {"tenant": "b", "set": "b"}
    session.execute("set eventstream.tenant = 'default'")
    assert send(session, "Deposit", command_key="k")["version"] == 1


def test_whatever_the_session_has_set_the_decider_decides_the_same(session):
    decider(session, "begin return jsonb_build_object('result', jsonb_build_array(to_jsonb('2024-01-02 00:00Z'::timestamptz), now()::text ~ '\\+00$', 0.1::float8, $$a\\b$$)); end",
            is_default=False)  # fmt: skip
    expected = send(session, "Any", {}, decider="other")["result"]
    for name, setting in (("timezone", "Asia/Tokyo"), ("datestyle", "German"), ("extra_float_digits", "-10"), ("search_path", "nowhere"), ("bytea_output", "escape")):
        session.execute(f"set {name} = '{setting}'")
    session.execute("set search_path = public")
    assert send(session, "Any", {}, decider="other")["result"] == expected


def test_registering_one_is_an_act_with_its_whole_definition(session):
    send(session, "Deposit", command_key="k")
    decider(session, "begin return '[]'; end", is_default=False)
    decider(session, "begin return '[ ]'; end", is_default=False)
    session.execute("select es_unregister_decider('other')")
    acts = rows(session, "select event_type, payload -> 'after' from eventstream.administration where event_type like 'Decider%' order by global_position")
    assert [act for act, _ in acts] == ["DeciderRegistered", "DeciderRegistered", "DeciderAltered", "DeciderUnregistered"]
    first = acts[0][1]
    assert first["name"] == "cashier" and first["commands"] == COMMANDS and first["handler"] == "public.decide"
    assert first["source"]["handler"][0] == "plpgsql" and "insufficient_funds" in first["source"]["handler"][1]
    assert "return '[ ]'" in acts[2][1]["source"]["handler"][1]
    assert rows(session, "select * from es_verify_audit()") == [] == verify(session)
    for statement in ("delete from _eventstream.deciders", "truncate _eventstream.deciders", "drop table _eventstream.deciders", "truncate _eventstream.command_answers",
                      "insert into _eventstream.command_answers select * from _eventstream.command_answers", "drop type eventstream.command cascade"):  # fmt: skip
        assert refused(session.execute, statement).sqlstate in ("ES050", "ES051", "2BP01"), statement
    with forced(session):
        session.execute("update _eventstream.deciders set handler = 'public.else'")
    assert [kind for (kind,) in rows(session, "select kind from es_verify_audit()")] == ["decider"]


def test_deciders_and_answers_come_along_with_a_dump(new_server):
    server = new_server("deciders")
    original, copy = Database(server, "original").create(), Database(server, "copy").create(extension=False)
    with original.connect() as session:
        open_bank(session)
        first = send(session, "Deposit", {"amount": 5}, command_key="d-1")
        before = rows(session, "select * from eventstream.deciders"), rows(session, "select * from _eventstream.command_answers")
    run_psql(copy, run("pg_dump", env=server.address("original")))
    with copy.connect() as session:
        assert (rows(session, "select * from eventstream.deciders"), rows(session, "select * from _eventstream.command_answers")) == before
        assert send(session, "Deposit", {"amount": 5}, command_key="d-1") == {**first, "replayed": True}
        session.execute("select es_activate()")
        assert send(session, "Withdraw", {"amount": 5})["version"] == 2
        assert rows(session, "select * from es_verify_audit()") == [] == verify(session)


def test_health_tells_of_deciders_that_cannot_decide_and_of_those_of_superusers(database, session):
    found = check(session, "decider cashier")
    assert found.status == "warning" and "postgres, a superuser" in found.detail and len(rows(session, found.fix)) == 1
    owner = database.role(f"{database.name}_owner")
    session.execute(f'alter function decide(jsonb, eventstream.command) owner to "{owner}"')
    for privilege in ("manage", "read"):
        session.execute("select es_grant(%s, %s)", (owner, privilege))
    with database.connect(user=owner) as there:
        there.execute("select es_register_decider('cashier', 'account', 'decide(jsonb, eventstream.command)')")
    assert check(session, "decider cashier") is None
    send(session, "Deposit")
    with unguarded(session):
        session.execute("alter function decide(jsonb, eventstream.command) owner to postgres")
        session.execute(f'drop owned by "{owner}"')
    database.roles.remove(owner)
    session.execute(f'drop role "{owner}"')
    found = check(session, "decider cashier")
    assert found.status == "critical" and f"role {owner} that registered it does not exist any more" in found.detail
    diag = refused(send, session, "Deposit")
    assert diag.sqlstate == "ES037" and owner in diag.message_primary


def test_a_fold_is_no_place_for_commands(session):
    for number, call in enumerate(("es_command('account-2', 'Deposit', '{\"amount\": 1}')", "es_require(false, 'c', 'm')", "es_make_event('T', '1')")):
        session.execute(f"create function folds_{number}(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$ begin perform {call}; return state; end $$")
        session.execute(f"select es_register_fold('f{number}', 'odd{number}', 'folds_{number}(jsonb, eventstream.event)')")
        session.execute(f"select es_append('odd{number}-1', 'T', '1')")
        assert refused(session.execute, f"select es_state('odd{number}-1')").sqlstate == "0A000", call
    decider(session, "begin return '[]'; end", name="odd_decider", category="odd1")
    # A fold's mistake is no refusal.
    assert refused(send, session, "Any", {}, stream="odd1-1").sqlstate == "0A000"

