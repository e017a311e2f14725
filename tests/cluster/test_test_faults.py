"""What es_test must not do: show what was there before, tell what is hidden, be green where nothing was tested, or red where nothing is wrong.

Asked of the kinds: every es_* function and every view (a new one has to be decided here), role (with append alone), code of others (handlers and upcasters that raise, in every mode and with
every on_error), two sessions (opposite orders of names), text (every end of a line that somebody knows), size (results that nobody compares)."""

import json
import threading

import psycopg
import pytest
from database import rows, value, verify
from deciding import open_bank, refused
from psycopg.types.json import Jsonb
from test_tests import CREDIT, command, es_test, green, red


@pytest.fixture
def session(database):
    with database.connect() as connection:
        open_bank(connection)
        yield connection


# --- what a test sees -------------------------------------------------------------------------------------

LIVE = """
    select es_append('account-live', 'Credited', '{"amount": 5}', tags => '{t:1}', subject => 'p-1', event_id => '01890a5d-ac96-774b-bcce-b302099a8057');
    select es_append('account-live', 'Credited', '{"amount": 6}', tags => '{t:1}', subject => 'p-1');
    select es_create_subscription('sub', '{account}');
    create table seen (stream text);
    create function see(event eventstream.event) returns void language sql as $$ insert into public.seen values (event.stream) $$;
    select es_create_projection('seen', 'see(eventstream.event)');
    select es_create_state_table('balances', 'account', '[{"name": "balance", "type": "numeric", "path": "/balance"}]', mode => 'inline');
    select es_snapshot('account-live');
    select es_command('account-live', 'Deposit', '{"amount": 1}', command_key => 'k-1');
    select es_schedule_command('account-live', 'Deposit', '{"amount": 1}', now() + interval '1 day', command_key => 'k-2');
    select es_begin_command('op', 'k-1', '{}');
"""

REFUSED = "refused within a test"
#: It declares, steers or computes, and shows no event.
NO_EVENT = "shows no event"

#: Of every function: what it is within a test; of those that read, what they give where account-t1 was credited 100 and nothing else happened.
FUNCTIONS = {
    "es_ack": REFUSED, "es_activate": REFUSED, "es_add_token_key": NO_EVENT, "es_alter_category": NO_EVENT, "es_alter_event_type": NO_EVENT, "es_alter_projection": NO_EVENT,
    "es_append": ("select es_append('account-t1', 'Credited', '{\"amount\": 1}')", 2),
    "es_append_events": ("select es_append_events('account-t1', '[{\"type\": \"Credited\", \"payload\": {\"amount\": 1}}]')", 2),
    "es_append_streams": ("select version from es_append_streams('[{\"stream\": \"account-t1\", \"events\": [{\"type\": \"Credited\", \"payload\": {\"amount\": 1}}]}]')", 2),
    "es_begin_command": ("select es_begin_command('op', 'k-1', '{\"other\": 1}') -> 'outcome'", "execute"),
    "es_category_state": ("select jsonb_agg(stream) from es_category_state('account')", ["account-t1"]),
    "es_chain_heads": REFUSED, "es_check_event_types": REFUSED, "es_close_period": NO_EVENT, "es_close_tenant": NO_EVENT, "es_reveal": REFUSED, "es_rename_tenant": NO_EVENT,
    "es_close_stream": ("select es_close_stream('account-t1', 'x')", 2),
    "es_command": ("select (es_command('account-t1', 'Deposit', '{\"amount\": 1}', command_key => 'k-1') -> 'replayed')", False),
    "es_command_event_id": NO_EVENT, "es_complete_command": NO_EVENT,
    "es_condition": ("select es_condition('{\"items\": [{\"tags\": [\"t:1\"]}]}') -> 'seen' -> 'count'", 0),
    "es_create_event_type": NO_EVENT, "es_create_projection": REFUSED, "es_create_state_table": REFUSED, "es_create_subscription": NO_EVENT,
    "es_create_temporal_view": NO_EVENT, "es_create_tenant": NO_EVENT, "es_day_end": NO_EVENT, "es_definitions": NO_EVENT, "es_drop_dead_letter": REFUSED,
    "es_drop_event_type": NO_EVENT, "es_drop_projection": NO_EVENT, "es_drop_subscription": NO_EVENT,
    "es_event": ("select count(*) from es_event('01890a5d-ac96-774b-bcce-b302099a8057') e where e.stream is not null", 0),
    "es_explain_state": ("select es_explain_state('account-live')", "ES002"),
    "es_extend_command": NO_EVENT, "es_extend_lease": REFUSED, "es_fail_command": NO_EVENT, "es_fetch": REFUSED, "es_grant": NO_EVENT,
    "es_history": ("select count(*) from es_history('account-live')", "ES002"),
    "es_horizon": ("select es_horizon() = (select max(global_position) from es_read_all())", True),
    "es_last_append": ("select stream from es_last_append()", "account-t1"),
    "es_load": ("select version from es_load('account-live')", 0),
    "es_log_info": ("select last_position = (select max(global_position) from es_read_all()) from es_log_info()", True),
    "es_maintain": REFUSED, "es_make_command": NO_EVENT, "es_make_event": NO_EVENT, "es_metrics": REFUSED, "es_nack": REFUSED, "es_new_event_id": NO_EVENT,
    "es_pause_projection": NO_EVENT, "es_protect": NO_EVENT, "es_prune_snapshots": REFUSED,
    "es_query": ("select jsonb_build_array((select count(*) from es_query('{}')), (select count(*) from es_query('{\"stream_prefix\": \"account-\"}')), (select count(*) from es_query('{\"subjects\": [\"p-1\"]}')))", [1, 1, 0]),
    "es_read": ("select count(*) from es_read('account-live')", 0),
    "es_read_all": ("select jsonb_agg(stream) from es_read_all()", ["account-t1"]),
    "es_read_backward": ("select jsonb_agg(stream) from es_read_backward()", ["account-t1"]),
    "es_read_subject": ("select count(*) from es_read_subject('p-1')", 0),
    "es_rebuild_projection": REFUSED, "es_register_decider": NO_EVENT, "es_register_fold": NO_EVENT, "es_register_invariant": NO_EVENT, "es_register_upcaster": NO_EVENT,
    "es_reopen_period": NO_EVENT, "es_require": NO_EVENT, "es_resume_projection": REFUSED, "es_retry_dead_letter": REFUSED, "es_require_token": NO_EVENT, "es_revoke": NO_EVENT, "es_revoke_token_key": NO_EVENT, "es_rotate_page_key": NO_EVENT,
    "es_run_projection": REFUSED,
    "es_schedule_command": ("select es_schedule_command('account-t1', 'Deposit', '{\"amount\": 2}', now() + interval '2 days', command_key => 'k-2') - 'run_at'",
                            {"stage": "pending", "replayed": False, "command_key": "k-2", "stream": "account-t1"}),
    "es_seek_subscription": NO_EVENT, "es_set_as_of": NO_EVENT, "es_settled_until": NO_EVENT,
    "es_simulate": ("select es_simulate('account-live', '[{\"type\": \"Credited\", \"payload\": {\"amount\": 1}}]') -> 'balance'", 1),
    "es_simulate_command": ("select es_simulate_command('account-live', 'Deposit', '{\"amount\": 1}') -> 'versions'", {"account-live": 0}),
    "es_skip_event": REFUSED,
    "es_snapshot": ("select es_snapshot('account-live')", "ES002"),
    "es_snapshot_state": ("select es_snapshot_state('account-live')", "ES002"),
    "es_state": ("select es_state('account-live')", "ES002"),
    "es_state_at": ("select es_state_at('account-live', 'infinity')", "ES002"),
    "es_state_at_version": ("select es_state_at_version('account-live', 1)", "ES002"),
    "es_stream": ("select es_stream('account-live')", "ES002"),
    "es_stream_name": NO_EVENT,
    "es_stream_version": ("select es_stream_version('account-live')", 0),
    "es_test": ("select es_test('inner')", "0A000"),
    "es_tests_done": REFUSED,
    "es_timeline": ("select count(*) from es_timeline('account-live')", "ES002"),
    "es_ulid": NO_EVENT, "es_ulid_to_uuid": NO_EVENT, "es_unprotect": NO_EVENT, "es_unregister_decider": NO_EVENT, "es_unregister_fold": NO_EVENT, "es_unregister_invariant": NO_EVENT, "es_unregister_upcaster": NO_EVENT,
    "es_unschedule_command": ("select es_unschedule_command('k-2', 'x')", None),
    "es_use_tenant": NO_EVENT, "es_use_token": NO_EVENT, "es_verify": REFUSED, "es_verify_audit": REFUSED, "es_verify_snapshots": REFUSED, "es_verify_stream": REFUSED, "es_wait_for": REFUSED,
}  # fmt: skip

#: Statements that call what is refused, with arguments that would do otherwise.
CALLS = {
    "es_ack": "select es_ack(gen_random_uuid())", "es_drop_dead_letter": "select es_drop_dead_letter(1, 'x')", "es_extend_lease": "select es_extend_lease(gen_random_uuid(), '1 min')",
    "es_create_projection": "select es_create_projection('other', 'see(eventstream.event)', mode => 'inline')",
    "es_create_state_table": "select es_create_state_table('other', 'account', '[{\"name\": \"balance\", \"type\": \"numeric\", \"path\": \"/balance\"}]', mode => 'inline')",
    "es_fetch": "select jsonb_agg(f) from es_fetch('sub', 'me') f", "es_nack": "select es_nack(gen_random_uuid(), 1, 'x')", "es_rebuild_projection": "select es_rebuild_projection('balances')",
    "es_resume_projection": "select es_resume_projection('seen')", "es_reveal": "select es_reveal('account-live', 'x')", "es_retry_dead_letter": "select es_retry_dead_letter(1)", "es_run_projection": "select es_run_projection('seen')",
    "es_skip_event": "select es_skip_event('seen', 1, 'x')", "es_verify_stream": "select es_verify_stream('account-live')", "es_wait_for": "select es_wait_for('seen')",
}  # fmt: skip

#: Views show what is there, and the test's own beside it: docs/test.md says so.
VIEWS = "access_log audit administration categories commands dead_letters deciders event_types events folds grants health horizon_holders invariants periods progress projections proof protections scheduled_commands snapshots stats stream_names streams subscriptions tenants upcasters"


def test_what_every_function_shows_within_a_test_is_decided(session):
    names = {name for (name,) in rows(session, "select distinct proname from pg_proc where proname like 'es\\_%'")}
    assert names == set(FUNCTIONS), names ^ set(FUNCTIONS)
    views = {name for (name,) in rows(session, "select relname from pg_class where relnamespace = 'eventstream'::regnamespace and relkind = 'v'")}
    assert views == set(VIEWS.split()), views ^ set(VIEWS.split())
    for has_others in (False, True):
        if has_others:
            session.execute(LIVE)
            events = "select count(*), max(global_position) from _eventstream.events"
            before = rows(session, events)
        for name, decided in FUNCTIONS.items():
            if decided == REFUSED and (has_others or name not in CALLS):
                said = red(session, name, given=CREDIT, sql=CALLS.get(name, f"select {name}()"))
                assert said == f"error: expected none, found 0A000: {name} cannot be called within a test", said
            elif decided not in (REFUSED, NO_EVENT):
                sql, gives = decided
                is_code = isinstance(gives, str) and len(gives) == 5
                said = es_test(session, name, given=CREDIT, sql=sql, **({"error": gives} if is_code else {"result": gives}))
                assert said.startswith("ok"), (has_others, said)
    assert rows(session, events) == before and verify(session) == []
    # The projection was given the test's event once, and no other.
    green(session, given=CREDIT, sql="select jsonb_agg(stream) from seen where stream like 'account-t%'", result=["account-t1"])


def test_a_key_is_one_requests_within_a_test_too(session):
    both = "select es_schedule_command('account-t1', 'Deposit', '{\"amount\": 1}', now() + interval '1 day', command_key => 'k'); select es_command('account-t1', 'Deposit', '{\"amount\": 2}', command_key => 'k')"
    green(session, sql=both, error="ES030")


# --- what is hidden stays so ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["handler", "batch", "table"])
def test_what_workers_are_told_is_told_to_nobody_else(database, session, kind):
    clerk = database.role(f"clerk_{kind}_of_secrets")
    session.execute("create table secret as select 'top secret' as words")
    raising = "declare words text; begin select s.words into words from public.secret s; raise notice 'it is %', words; raise exception 'secret is %', words; end"
    match kind:
        case "handler":
            session.execute(f"create function handle(event eventstream.event) returns void language plpgsql as $$ {raising} $$")
            session.execute("select es_create_projection('secretive', 'handle(eventstream.event)')")
        case "batch":
            session.execute(f"create function handle(events eventstream.event[]) returns void language plpgsql as $$ {raising} $$")
            session.execute("select es_create_projection('secretive', 'handle(eventstream.event[])')")
        case "table":
            # Its trigger is what raises, and what every stream would meet: a stream's own fault is passed over.
            session.execute("select es_create_state_table('balances', 'account', '[{\"name\": \"balance\", \"type\": \"numeric\", \"path\": \"/balance\"}]')")
            session.execute("select es_run_projection('balances')")
            denied = raising.replace("words; end", "words using errcode = '42501'; end")
            session.execute(f"create function spoil() returns trigger language plpgsql as $$ {denied} $$")
            session.execute("create trigger spoil before insert on balances for each row execute function spoil()")
    session.execute(f"select es_grant('{clerk}', 'append', category => 'account')")
    noticed = []
    with database.connect(clerk) as caller:
        caller.add_notice_handler(lambda notice: noticed.append(notice.message_primary))
        given = red(caller, given=CREDIT)
        acted = red(caller, sql="select es_append('account-t1', 'Credited', '{\"amount\": 1}')")
    for said in (given, acted):
        assert "secret" not in said and "its message is shown to roles that may read" in said, said
    assert noticed == []
    # Who may read what it is shown is told.
    assert "secret is top secret" in red(session, given=CREDIT)
    assert "secret is top secret" in red(session, sql="select es_append('account-t1', 'Credited', '{\"amount\": 1}')")


# --- green ------------------------------------------------------------------------------------------------


RAISED = ["given => '5'", "command => '5'", "given => '[{\"stream\": \"account-old\", \"type\": \"T\", \"payload\": 1}]'", "description => null", "as_role => 'nobody_at_all'", "error => ''",
          "sql => 'select pg_sleep(10)'", "sql => 'select 1', command => '{}'"]  # fmt: skip


@pytest.mark.parametrize("wrong", RAISED)
def test_a_call_that_ended_in_an_error_is_no_green_test(session, wrong):
    session.execute("select es_append('account-old', 'Credited', '{\"amount\": 1}'); set statement_timeout = '300ms'")
    green(session)
    arguments = wrong if wrong.startswith("description") else f"description => 'x', {wrong}"
    refused(session.execute, f"select es_test({arguments})")
    # Also where the transaction goes on, or is rolled back.
    session.execute(f"do $$ begin perform es_test({arguments}); exception when others then end $$") if "sleep" not in wrong else refused(session.execute, f"select es_test({arguments})")
    with pytest.raises(psycopg.Error), session.transaction():
        session.execute(f"select es_test({arguments})")
    diag = refused(session.execute, "select es_tests_done()")
    assert (diag.sqlstate, diag.message_primary) == ("ES038", "0 of 1 tests failed, and 3 calls of es_test ended in an error")
    assert json.loads(diag.message_detail) == {"plan": "1..1", "count": 0, "failed": [], "errors": 3}
    green(session)
    assert value(session, "select es_tests_done()") == "1..1"


def test_what_cannot_be_is_not_expected(session):
    for more in ({"sql": "select 1/0", "error": "22012"}, {"given": CREDIT, "command": command(101), "error": "insufficient_funds"}):
        green(session, **more)
        diag = refused(es_test, session, **more, result={"x": 1})
        assert (diag.sqlstate, diag.message_primary) == ("ES005", "result must be NULL where there is an error: what fails has no result")
        # What fails appends nothing; states are as given.
        assert red(session, **more, events=[{}]) == "events: expected 1, found 0"
        assert "states" in red(session, **more, states={"account-t1": {"balance": 7}})


def test_codes_of_refusals_and_sqlstates_are_apart(session):
    for code in ("22012", "P0001", "ES033", "LIMIT", "00000"):
        for condition in ("true", "false"):
            diag = refused(session.execute, f"select es_require({condition}, '{code}', 'm')")
            assert diag.sqlstate == "ES005" and "five of 0-9 and A-Z" in diag.message_primary
    # A refusal that was made without es_require: its code is none that a test can mean by an SQLSTATE.
    fake = "do $$ begin raise 'no' using errcode = 'ES033', detail = '{\"code\": \"22012\"}'; end $$"
    assert red(session, sql=fake, error="22012") == "error: expected 22012, found ES033 22012: no"
    green(session, sql=fake, error="ES033")
    for code in ("limit", "2201", "220123", "too_late", "Limit"):
        green(session, sql=f"select es_require(false, '{code}', 'm')", error=code)
    green(session, sql="select 1/0", error="22012")
    green(session, sql="do $$ begin raise 'x' using errcode = 'ABCDE'; end $$", error="ABCDE")


# --- red --------------------------------------------------------------------------------------------------


def test_what_is_the_same_is_not_told_apart(session):
    event_id = "01890a5d-ac96-774b-bcce-b302099a8057"

    for none in ([], None):
        green(session, sql="select es_append('a-t', 'T', '1')", events=[{"tags": none}])
        green(session, sql="select es_append('a-t', 'T', '1', tags => '{}')", events=[{"tags": none}])
    for tags in (["b:2", "a:1"], ["a:1", "b:2", "a:1"]):
        green(session, sql="select es_append('a-t', 'T', '1', tags => '{b:2,a:1}')", events=[{"tags": tags}])
    assert red(session, sql="select es_append('a-t', 'T', '1', tags => '{a:1}')", events=[{"tags": []}]) == "events[0].tags: expected 0 elements, found 1 element"
    assert red(session, sql="select es_append('a-t', 'T', '1')", events=[{"tags": ["a:1", "a:1"]}]) == "events[0].tags: expected 1 element, found 0 elements"
    for text in (event_id, event_id.upper(), event_id.replace("-", ""), "{" + event_id + "}"):
        green(session, sql=f"select es_append('a-t', 'T', '1', event_id => '{event_id}')", events=[{"event_id": text}])
    assert "events[0].event_id" in red(session, sql=f"select es_append('a-t', 'T', '1', event_id => '{event_id}')", events=[{"event_id": event_id[:-1] + "8"}])


@pytest.mark.parametrize("document", ["(repeat('[', 200) || repeat(']', 200))::jsonb", "to_jsonb(repeat('x', 2000000))"])
def test_a_result_that_nobody_compares_may_be_as_it_likes(session, document):
    green(session, sql=f"select {document}")
    assert "result must" in red(session, sql=f"select {document}", result=1)


def test_payloads_that_nobody_compares_may_be_as_large_as_they_like(session):
    session.execute("set eventstream.max_payload_bytes = '16MB'")
    append = "select es_append('a-t', 'T', to_jsonb(repeat('x', 2000000)))"
    green(session, sql=append, events=[{"type": "T", "version": 1, "metadata": {}}])
    assert red(session, sql=append, events=[{"payload": 1}]) == "events: cannot be read: payload must have at most 1048576 bytes (ES005)"


@pytest.mark.parametrize("arguments", ["event", "event[]"])
def test_an_event_that_workers_pass_over_fails_no_test(session, arguments):
    session.execute("create table seen (amount numeric)")
    body = {"event": "insert into public.seen select 1 / ((event.payload ->> 'amount')::numeric - 13)", "event[]": "insert into public.seen select 1 / ((e.payload ->> 'amount')::numeric - 13) from unnest(events) e"}[arguments]
    name = {"event": "event", "event[]": "events"}[arguments]
    session.execute(f"create function see({name} eventstream.{arguments}) returns void language sql as $$ {body} $$")
    session.execute(f"select es_create_projection('seen', 'see(eventstream.{arguments})', on_error => 'skip', max_retries => 0)")
    given = [{**CREDIT[0], "payload": {"amount": amount}} for amount in (14, 13, 12)]
    many = "select es_append_events('account-t1', (select jsonb_agg(jsonb_build_object('type', 'Credited', 'payload', jsonb_build_object('amount', n))) from generate_series(11, 15) n))"
    look = "select count(*) from seen"
    green(session, given=given, sql=look, result=2)
    green(session, sql=f"{many}; {look}", result=4)
    # What is no fault of the event would stop it; so would any, with stop.
    session.execute("alter table seen rename to other")
    assert "42P01" in red(session, given=CREDIT)
    session.execute("alter table other rename to seen; select es_alter_projection('seen', '{\"on_error\": \"stop\"}')")
    assert "22012" in red(session, given=given)
    # Inline, it fails the append whatever on_error is: as it does live.
    assert rows(session, "select from seen") == []


def test_a_stream_that_a_state_table_passes_over_fails_no_test(session):
    session.execute("create function broken(state jsonb, event eventstream.event) returns jsonb immutable language sql as $$ select jsonb_build_object('n', 1 / ((event.payload ->> 'amount')::int - 13)) $$")
    session.execute("select es_register_fold('broken', 'frail', 'broken(jsonb, eventstream.event)', initial_state => '{}')")
    session.execute("select es_create_state_table('frail', 'frail', '[{\"name\": \"n\", \"type\": \"int\", \"path\": \"/n\"}]')")
    session.execute("select es_run_projection('frail')")
    given = [{"stream": f"frail-t{n}", "type": "T", "payload": {"amount": amount}} for n, amount in enumerate((12, 13, 14))]
    green(session, given=given, sql="select jsonb_agg(stream order by stream) from frail", result=["frail-t0", "frail-t2"])


def test_what_is_tested_is_no_error_of_the_test(session):
    """A broken upcaster, wherever it is met."""
    session.execute("create function up(payload jsonb, metadata jsonb) returns jsonb immutable language sql as $$ select to_jsonb(1 / 0) $$")
    session.execute("select es_register_upcaster('Credited', 1, 'up(jsonb, jsonb)')")
    assert red(session, given=CREDIT, sql="select es_append('account-t1', 'Credited', '{\"amount\": 1}', schema_version => 1)", events=[{"version": 2}]) == "events: cannot be read: division by zero (22012)"
    assert red(session, given=CREDIT, states={"account-t1": {}}).startswith('states["account-t1"]: cannot be folded: division by zero')
    assert "22012" in red(session, given=CREDIT, command=command(1))
    assert "22012" in red(session, given=CREDIT, sql="select es_state('account-t1')")
    assert verify(session) == []


# --- others -----------------------------------------------------------------------------------------------


def test_tests_in_opposite_orders_do_not_deadlock(database, session):
    names = [f"account-{letter}" for letter in "abcdefgh"]

    def given(order):
        return [{"stream": name, "type": "Credited", "payload": {"amount": 1}} for name in order]

    # The order of the array is that of the log.
    shuffled = names[4:] + names[:4][::-1]
    green(session, given=given([*shuffled, *names]), sql="select jsonb_agg(stream order by global_position) from es_read_all()", result=[*shuffled, *names])
    slow = "create function slow(event eventstream.event) returns void language sql as $$ select pg_sleep(0.02) $$; select es_create_projection('slow', 'slow(eventstream.event)')"
    session.execute(slow)
    failed = []

    def run(order):
        with database.connect() as other:
            other.execute("set deadlock_timeout = '50ms'")
            try:
                for _ in range(5):
                    green(other, given=given(order), states={"account-a": {"balance": 1}})
            except (psycopg.Error, AssertionError) as error:
                failed.append(error)

    threads = [threading.Thread(target=run, args=(order,)) for order in (names, names[::-1])]
    for thread in threads:
        thread.start()
    # So do appends of several streams beside them.
    with database.connect() as other:
        other.execute("set deadlock_timeout = '50ms'")
        for _ in range(5):
            with other.transaction(force_rollback=True):
                other.execute("select es_append_streams(%s)", (Jsonb([{"stream": name, "events": [{"type": "Credited", "payload": {"amount": 1}}]} for name in names[::-1]]),))
    for thread in threads:
        thread.join()
    assert failed == [] and verify(session) == []


ENDS = ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\x1b[2K"]


def test_no_text_makes_a_line_of_its_own(session):
    for end in ENDS:
        said = es_test(session, "it is red", sql="select es_require(false, 'no', %s)".replace("%s", "'no" + end + "ok 78 - all is well'"))
        lines = said.splitlines()
        assert lines[0].startswith("not ok") and all(line.startswith("# ") for line in lines[1:]), (end, said)
        assert "\x1b" not in said and "\r" not in said
        said = es_test(session, "it is red", sql="select to_jsonb(%s::text)".replace("%s", "'no" + end + "ok 78'"), result=1)
        assert all(line.startswith("# ") for line in said.splitlines()[1:]), (end, said)
    for end in ENDS[8:11]:
        try:
            said = es_test(session, f"one{end}ok 77")
        except psycopg.errors.Error:
            continue
        assert len(said.splitlines()) == 1, (end, said)


def test_what_statements_set_is_not_in_force_for_the_comparison(session):
    session.execute("select es_create_tenant('b'); set eventstream.tenant = 'default'")
    append = "select es_append('account-t1', 'Credited', '{\"amount\": 1}')"
    expected = {"events": [{"stream": "account-t1"}], "states": {"account-t1": {"balance": 1}}}
    for setting in ("select es_use_tenant('b')", "set eventstream.tenant = 'b'", "set local eventstream.tenant = 'b'", "set standard_conforming_strings = off", "set role pg_monitor", "set search_path = ''"):
        green(session, setting, sql=f"{append}; {setting}", **expected)
        assert value(session, "select current_user = session_user and current_setting('standard_conforming_strings') = 'on' and coalesce(current_setting('eventstream.tenant', true), '') <> 'b'")
