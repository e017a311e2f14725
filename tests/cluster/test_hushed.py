"""What a decider says of a command whose fields, or the tenant's events', are protected: its caller is told each word of it, and the server's log none, by whatever way it is said and comes out.
The log says that it failed, with its SQLSTATE and which decider it was, and what PostgreSQL itself says of corruption, waits and limits. Without a rule the log has all of it, as ever."""

import psycopg
import pytest
from database import Database, rows, value
from server import wait_until

CANARY = "Mia Q. Canary"

#: What deciders do with what they are given, as a body of PL/pgSQL, and the SQLSTATE that comes of it (None: no error).
SAYS = {
    "message": ("raise exception 'no such name: %', name", "P0001"),
    "detail": ("raise exception 'no' using detail = name, hint = 'not ' || name, errcode = 'BK007'", "BK007"),
    "their refusal": ("raise exception '%', name using errcode = 'ES033'", "ES033"),
    "cast": ("perform name::int", "22P02"),
    "context": ("execute format('select 1/length(%L) + 1/0', name)", "22012"),
    "query": ("execute format('select nonsense(%L)', name)", "42883"),
    "caught": ("begin raise exception '%', name; exception when others then raise; end", "P0001"),
    "words of others": ("begin raise exception '%', name; exception when others then raise exception 'it was %', sqlerrm; end", "P0001"),
    "warning": ("raise warning 'a name: %', name", None),
    "notice": ("raise notice 'a name: %', name", None),
    "log": ("raise log 'a name: %', name", None),
    "assert": ("assert name = '', name", "P0004"),
    "ours": ("perform es_make_event(name || repeat('x', 600), '{}')", None),
    "parallel": ("perform count(*) from pg_class c where shouts(name || c.relname)", "P0001"),
    "require": ("perform es_require(false, 'no', 'not ' || name, jsonb_build_object('name', name))", "ES033"),
    "no event": ("return jsonb_build_array(jsonb_build_object('type', 'Moved', 'payload', '{}'::jsonb, 'stream', name))", "ES037"),
    "no answer": ("return jsonb_build_array(jsonb_build_object('type', 'Moved', 'payload', '{}'::jsonb, 'occurred_at', name))", "ES037"),
}

DECIDERS = """
create function shouts(text) returns bool immutable parallel safe language plpgsql as $$ begin raise exception 'not %', $1; end $$;
select es_register_fold('none', 'customer', rules => '{"on": {}}', initial_state => '{}');
create function bounds(command eventstream.command) returns jsonb stable language plpgsql as $$ begin raise exception 'no boundary: %', command.payload ->> 'name'; end $$;
create function holds(events eventstream.event[]) returns text stable language plpgsql as $$ begin raise exception 'does not hold: %', events[1].payload; end $$;
create function says_no(events eventstream.event[]) returns text stable language sql as $$ select 'not ' || events[1].payload::text $$;
create function handles(event eventstream.event) returns void language plpgsql as $$ begin raise exception 'not handled: %', event.payload; end $$;
create function called(how text, name text) returns void language plpgsql as $$ begin
    begin perform es_command('customer-9', how, jsonb_build_object('name', name)); exception when others then raise; end; end $$;
create table asked (how text, name text);
create function on_asked() returns trigger language plpgsql as $$ begin perform called(new.how, new.name); return null; end $$;
create constraint trigger later after insert on asked deferrable initially deferred for each row execute function on_asked();
"""


def make(session) -> None:
    session.execute(DECIDERS)
    for number, (how, (body, _)) in enumerate(SAYS.items()):
        session.execute(
            f"""create function says_{number}(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $f$
                declare name text := command.payload ->> 'name'; begin {body}; return '[]'; end $f$"""
        )
        commands = '{"%s": {}}' % how
        session.execute(f"select es_register_decider('says_{number}', 'customer', 'says_{number}(jsonb, eventstream.command)', commands => %s, is_default => %s)", (commands, number == 0))
    parts = "'says_0(jsonb, eventstream.command)', boundary => 'bounds(eventstream.command)', is_default => false"
    session.execute(f"select es_register_decider('bounded', 'customer', {parts})")


def decider(how: str) -> str:
    return f"says_{list(SAYS).index(how)}"


def ways(how: str) -> list[tuple[str, list[str]]]:
    """Statements by which that is said, with the value as a literal of each."""
    command = f"'customer-1', '{how}', '{{\"name\": \"{CANARY}\"}}', decider => '{decider(how)}'"
    return [
        ("es_command", [f"select es_command({command})"]),
        ("with a key", [f"select es_command({command}, command_key => '{how}')"]),
        ("caught by us", [f"do $$ begin begin perform es_command({command}); exception when others then raise; end; end $$"]),
        ("in a savepoint", ["begin", "savepoint s", f"select es_command({command})", "rollback"]),
        ("es_simulate_command", [f"select es_simulate_command({command})"]),
    ]


def run(session, statements: list[str]) -> psycopg.Error | None:
    raised = None
    for statement in statements:
        try:
            session.execute(statement)
        except psycopg.Error as error:
            raised = error
    return raised


def told(raised: psycopg.Error) -> str:
    diag = raised.diag
    return f"{diag.message_primary} {diag.message_detail} {diag.message_hint} {diag.context} {diag.internal_query}"


@pytest.fixture
def hushed(new_server):
    server = new_server("hushed", log_min_messages="notice", **{"eventstream.retry_pause": "10ms"})
    database = Database(server, "hushed").create()
    with database.connect() as session:
        parallel = "force_parallel_mode" if session.info.server_version < 160000 else "debug_parallel_query"
        session.execute(f"set {parallel} = on")
        yield server, session


#: A rule of the command itself, and one of the events that it may make of its command.
RULES = ["select es_protect(how, pointers => '{/name}', kind => 'command') from unnest(%s::text[]) how", "select es_protect('CustomerNamed', pointers => '{/name}') where %s::text[] is not null"]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("conflicts", ["off", "on"])
def test_what_a_decider_says_goes_to_its_caller_and_not_to_the_log(hushed, rule, conflicts):
    server, session = hushed
    make(session)
    session.execute(rule, (list(SAYS),))
    session.execute(f"set eventstream.log_conflicts = {conflicts}")
    said = []
    session.add_notice_handler(lambda notice: said.append(notice.message_primary))
    for how, (_, code) in SAYS.items():
        for way, statements in ways(how):
            before = len(server.log.read_text())
            raised = run(session, statements)
            written = server.log.read_text()[before:]
            assert "Canary" not in written, (how, way, written)
            if how in ("warning", "notice"):
                assert CANARY in str(said.pop()), (how, way)
            if code is None:
                continue
            if way == "es_simulate_command" and code == "ES033":
                # Its refusal is a part of the answer.
                assert raised is None
                continue
            assert raised is not None and raised.sqlstate == code, (how, way, raised)
            assert CANARY in told(raised), (how, way)
            # That it failed is said, and by whom; an expected outcome is counted.
            is_quiet = conflicts == "off" and how == "require"
            line = f'ERROR:  error {code} of decider "{decider(how)}" of command "{how}" for stream "customer-1"'
            assert (line in written) != is_quiet, (how, way, written)
            assert written.count("\n") == 0 or "CONTEXT" not in written and "STATEMENT" not in written and "DETAIL" not in written
    command = f"'customer-1', 'message', '{{\"name\": \"{CANARY}\"}}'"
    assert CANARY in told(run(session, [f"select es_command({command}, decider => 'bounded')"]))
    assert CANARY in told(run(session, [f"select called('message', '{CANARY}')"]))
    assert CANARY in told(run(session, ["begin", f"insert into asked values ('message', '{CANARY}')", "commit"]))
    session.execute(f"select es_schedule_command({command}, now(), command_key => 'later')")
    wait_until(lambda: value(session, "select attempts from eventstream.scheduled_commands where command_key = 'later'") > 0, 20, "an attempt")
    raised = run(session, [f"select es_test('test', command => '{{\"stream\": \"customer-1\", \"command_type\": \"message\", \"payload\": {{\"name\": \"{CANARY}\"}}}}')"])
    assert raised is None or CANARY in told(raised)
    assert "Canary" not in server.log.read_text()


def test_without_a_rule_the_log_has_it(hushed):
    server, session = hushed
    make(session)
    for how, (_, code) in SAYS.items():
        if code is None or how == "require":
            continue
        before = len(server.log.read_text())
        raised = run(session, ways(how)[0][1])
        assert raised is not None and raised.sqlstate == code, (how, raised)
        assert CANARY in server.log.read_text()[before:], how


#: What else of users' is called while a value is on its way into the log: it is given what is shown.
OTHERS = {
    "an invariant that raises": "select es_register_invariant('holds', '{customer}', 'holds(eventstream.event[])')",
    "an invariant that says no": "select es_register_invariant('holds', '{customer}', 'says_no(eventstream.event[])')",
    "an inline handler": "select es_create_projection('handled', 'handles(eventstream.event)', mode => 'inline', categories => '{customer}')",
    "a worker's handler": "select es_create_projection('handled', 'handles(eventstream.event)', categories => '{customer}')",
    "an upcaster": """create function lifts(payload jsonb, metadata jsonb) returns jsonb immutable language plpgsql as $$ begin
            if payload ->> 'amount' = '4711' then raise exception 'not lifted: % %', payload, metadata; end if; return payload; end $$;
        select es_create_event_type('CustomerNamed', 1, example => '{"amount": 1}');
        select es_register_upcaster('CustomerNamed', 1, 'lifts(jsonb, jsonb)')""",
    "a fold": """create function folds(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$ begin raise exception 'not folded: %', event.payload; end $$;
        select es_register_fold('folds', 'customer', handler => 'folds(jsonb, eventstream.event)', initial_state => '{}')""",
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_others_say_repeats_nothing_because_they_are_given_nothing(hushed, other):
    server, session = hushed
    session.execute("set log_min_error_statement = panic; set log_parameter_max_length_on_error = 0")
    session.execute(DECIDERS.replace("select es_register_fold('none', 'customer', rules => '{\"on\": {}}', initial_state => '{}');", ""))
    session.execute("select es_protect('CustomerNamed', pointers => '{/name}', metadata_pointers => '{/why}')")
    session.execute(OTHERS[other])
    append = "select es_append('customer-1', 'CustomerNamed', jsonb_build_object('name', %s::text, 'amount', 4711), metadata => jsonb_build_object('why', %s::text))"
    before = len(server.log.read_text())
    for statement, arguments in [(append, (CANARY, CANARY)), ("select * from es_read('customer-1')", ()), ("select es_state('customer-1')", ())]:
        try:
            session.execute(statement, arguments)
        except psycopg.Error:
            continue
    if other == "a worker's handler":
        wait_until(lambda: "not handled" in server.log.read_text(), 20, "a failure")
    written = server.log.read_text()[before:]
    assert "4711" in written and "Canary" not in written, written


#: Operations outside, and what is refused of commands with their request: by our own words alone.
OPERATIONS = [
    "select es_begin_command('pay', 'k1', jsonb_build_object('name', %s::text))",
    "select es_begin_command('pay', 'k1', jsonb_build_object('name', 1, 'other', %s::text))",
    "select es_begin_command('pay', 'k2', jsonb_build_object('name', jsonb_build_object(%s::text, 1)))",
    "select es_begin_command('pay', 'k3', to_jsonb(%s::text))",
    "select es_fail_command(gen_random_uuid(), jsonb_build_object('message', %s::text), false)",
    "select es_fail_command(gen_random_uuid(), to_jsonb(%s::text), true)",
    "select es_complete_command(gen_random_uuid(), result => jsonb_build_object('name', %s::text))",
    "select es_schedule_command('customer-1', 'pay', to_jsonb(%s::text), now(), 'k4')",
    "select es_schedule_command('customer-1', 'pay', jsonb_build_object('name', 1, 'amount', %s::text), now() - interval '1 year', 'k5', decider => 'none')",
    "select es_command('customer-1', 'pay', jsonb_build_object('name', %s::text), expected_version => 7)",
    "select es_append('customer-1', 'Named', jsonb_build_object('name', jsonb_build_object('deep', %s::text)))",
    "select es_append('customer-1', 'Named', to_jsonb(%s::text))",
]


def test_refusals_of_ours_repeat_no_value(hushed):
    server, session = hushed
    make(session)
    session.execute("set log_min_error_statement = panic; set log_parameter_max_length_on_error = 0; set eventstream.log_conflicts = on")
    session.execute("select es_protect('pay', pointers => '{/name/first}', kind => 'command'), es_protect('Named', pointers => '{/name/first}')")
    before = len(server.log.read_text())
    refused = 0
    for statement in OPERATIONS:
        try:
            session.execute(statement, (CANARY,))
        except psycopg.Error:
            refused += 1
    written = server.log.read_text()[before:]
    assert refused >= 8 and written.count("ERROR") >= 8
    assert "Canary" not in written, written


def test_the_end_of_a_session_within_a_decider_is_written(hushed):
    server, session = hushed
    session.execute(
        """select es_register_fold('none', 'customer', rules => '{"on": {}}', initial_state => '{}');
           create function sleeps(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as
           $$ begin execute format('select %L, pg_sleep(60)', command.payload ->> 'name'); return '[]'; end $$;
           select es_register_decider('sleeps', 'customer', 'sleeps(jsonb, eventstream.command)');
           select es_protect('Sleep', pointers => '{/name}', kind => 'command')"""
    )
    import threading

    other = psycopg.connect(session.info.dsn, autocommit=True)
    sleeper = threading.Thread(target=lambda: run(other, [f"select es_command('customer-1', 'Sleep', '{{\"name\": \"{CANARY}\"}}')"]))
    sleeper.start()
    look = "select pid from pg_stat_activity where wait_event = 'PgSleep'"
    wait_until(lambda: rows(session, look) != [], 20, "the sleep")
    session.execute("select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep'")
    sleeper.join(20)
    wait_until(lambda: "terminating connection" in server.log.read_text(), 10, "the line")
    assert "Canary" not in server.log.read_text()


def protected_decider(session, name: str, body: str, settings: str = "", commands: tuple = ()) -> str:
    """A decider, and the statement that calls it with the value."""
    session.execute(
        f"""create or replace function d_{name}(state jsonb, command eventstream.command) returns jsonb stable {settings} language plpgsql as $f$
            declare name text := command.payload ->> 'name'; begin {body}; return '[]'; end $f$"""
    )
    kinds = ", ".join('"%s": {}' % kind for kind in (name, *commands))
    session.execute(f"select es_register_decider('{name}', 'customer', 'd_{name}(jsonb, eventstream.command)', commands => '{{{kinds}}}', is_default => false)")
    session.execute(f"select es_protect('{name}', pointers => '{{/name}}', kind => 'command')")
    return f"select es_command('customer-1', '{name}', '{{\"name\": \"{CANARY}\"}}', decider => '{name}')"


#: What PostgreSQL says of itself while a decider works: its SQLSTATE, and a part of its words.
OWN = {
    "timeout": ("execute format('select %L, pg_sleep(20)', name)", "57014", "canceling statement due to statement timeout"),
    "lock": ("execute format('select %L from locked', name)", "55P03", "canceling statement due to lock timeout"),
    "depth": ("perform (repeat('[', 1000000) || name)::jsonb", "54001", "stack depth limit exceeded"),
    "broken": ("execute format('select %L from broken', name)", "XX001", "invalid page in block 0 of relation base/"),
}


def test_what_the_server_says_of_itself_is_written(hushed):
    server, session = hushed
    make(session)
    session.execute("create table locked (a int); create table broken as select 1 as a; grant select on locked, broken to public; checkpoint")
    file = value(session, "select pg_relation_filepath('broken')")
    commands = {how: protected_decider(session, how, body) for how, (body, _, _) in OWN.items()}
    lies = {code: protected_decider(session, f"lies_{code.lower()}", f"raise exception '%', name using errcode = '{code}'") for code in ("XX001", "57014", "53100")}
    files = protected_decider(session, "files", "execute format('select count(*) from (select distinct g, %L from generate_series(1, 30000) g) t', name)")
    info = session.info.dsn
    server.stop()
    with open(server.data / file, "r+b") as broken:
        broken.write(b"\xff" * 8192)
    server.start()
    with psycopg.connect(info, autocommit=True) as session, psycopg.connect(info, autocommit=True) as other:
        session.execute("set statement_timeout = '3s'; set lock_timeout = '500ms'; set deadlock_timeout = '50ms'; set log_lock_waits = on; set log_temp_files = 0; set work_mem = '64kB'")
        other.execute("begin; lock table locked")
        for how, (_, code, words) in OWN.items():
            before = len(server.log.read_text())
            raised = run(session, [commands[how]])
            written = server.log.read_text()[before:]
            assert raised is not None and raised.sqlstate == code, (how, raised)
            assert "Canary" not in written, (how, written)
            assert f'ERROR:  error {code} of decider "{how}" of command "{how}" for stream "customer-1": {words}' in written, (how, written)
            if how == "lock":
                assert "still waiting for AccessShareLock on relation" in written, written
        for code, command in lies.items():
            raised = run(session, [command])
            assert raised is not None and raised.sqlstate == code and CANARY in told(raised)
        before = len(server.log.read_text())
        assert run(session, [files]) is None
        assert "temporary file: path" in server.log.read_text()[before:]
        assert "Canary" not in server.log.read_text()


WORD = "MiaQCanary"

#: What eventstream says of what deciders answer: an answer, or a boundary.
ANSWERS = {
    "begun": (f"return jsonb_build_array(jsonb_build_object('type', 'Moved', 'payload', '{{}}'::jsonb, 'stream', 'customer-{WORD}'))", "ES034"),
    "foreign": (f"return jsonb_build_array(jsonb_build_object('type', 'Moved', 'payload', '{{}}'::jsonb, 'stream', '{WORD}-1'))", "42501"),
    "scheduled": (f"return jsonb_build_object('schedule', jsonb_build_array(jsonb_build_object('stream', '{WORD}-1', 'command_type', 'x', 'payload', '{{}}'::jsonb, 'run_at', now() + interval '1 day', 'command_key', 'k')))", "42501"),
    "bounded": (f"return jsonb_build_object('streams', jsonb_build_array('{WORD}-1'))", "ES010"),
}


@pytest.mark.parametrize("rule", RULES)
def test_what_is_said_of_an_answer_goes_to_its_caller_and_not_to_the_log(hushed, rule):
    server, session = hushed
    session.execute(DECIDERS)
    session.execute(f"select es_append('customer-{WORD}', 'Begun', '{{}}'); create role clerk login")
    session.execute("select es_grant('clerk', privilege, category => 'customer') from unnest('{read,command,append}'::text[]) privilege")
    for how, (body, _) in ANSWERS.items():
        is_boundary = how == "bounded"
        own, bounds = ("return '[]'", body) if is_boundary else (body, "return '{}'")
        session.execute(f"create function a_{how}(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $f$ begin {own}; end $f$")
        session.execute(f"create function b_{how}(command eventstream.command) returns jsonb stable language plpgsql as $f$ begin {bounds}; end $f$")
        boundary = f", boundary => 'b_{how}(eventstream.command)'" if is_boundary else ""
        session.execute(f"select es_register_decider('{how}', 'customer', 'a_{how}(jsonb, eventstream.command)', commands => '{{\"{how}\": {{}}}}', is_default => false{boundary})")
    session.execute(rule, (list(ANSWERS),))
    session.execute("set log_min_error_statement = panic; set eventstream.log_conflicts = on; set role clerk")
    for how, (_, code) in ANSWERS.items():
        for act in ("es_command", "es_simulate_command"):
            before = len(server.log.read_text())
            raised = run(session, [f"select {act}('customer-1', '{how}', '{{\"name\": \"{WORD}\"}}', decider => '{how}')"])
            written = server.log.read_text()[before:]
            # Whose states the caller may not read he is not shown: the right is asked first there.
            expected = "42501" if (how, act) == ("bounded", "es_simulate_command") else code
            assert raised is not None and raised.sqlstate == expected, (how, act, raised)
            assert WORD in told(raised), (how, act, raised)
            assert WORD not in written and f'ERROR:  error {expected} of decider "{how}" of command "{how}"' in written, (how, act, raised, written)


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_what_a_worker_keeps_of_a_command_that_its_handler_executes(hushed, on_error):
    server, session = hushed
    make(session)
    session.execute(RULES[0], (list(SAYS),))
    session.execute(
        """create function issues(event eventstream.event) returns void language plpgsql as $$ begin
               perform es_command('customer-9', 'detail', jsonb_build_object('name', event.payload ->> 'name'), decider => '%s'); end $$"""
        % decider("detail")
    )
    session.execute(f"select es_create_projection('issues', 'issues(eventstream.event)', categories => '{{asked}}', max_retries => 0, on_error => '{on_error}')")
    session.execute(f"select es_append('asked-1', 'Asked', '{{\"name\": \"{CANARY}\"}}')")
    what = "select status from eventstream.projections" if on_error == "stop" else "select count(*) from eventstream.dead_letters"
    wait_until(lambda: value(session, what) in ("stopped", 1), 20, "a failure")
    session.execute("set log_min_error_statement = panic")
    kept = [str(rows(session, f"select * from eventstream.{view}")) for view in ("projections", "dead_letters", "health")]
    assert "Canary" not in str(kept), kept
    assert f'decider "{decider("detail")}" of command "detail"' in str(kept), kept
    assert "BK007" in str(kept), kept
    run(session, ["select es_run_projection('issues')"])
    written = server.log.read_text()
    assert "Canary" not in written and 'fails on stream "asked-1"' in written, written


PARALLEL = """set parallel_leader_participation = off; set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0;
    set plan_cache_mode = force_generic_plan; set log_min_error_statement = panic"""


def test_no_parallel_worker_says_it_whatever_was_planned(hushed):
    server, session = hushed
    make(session)
    session.execute("create table big as select g from generate_series(1, 2000) g; grant select on big to public; analyze big")
    session.execute(PARALLEL)
    body = "perform count(*) from big where shouts(name || g)"
    cached = protected_decider(session, "cached", body, commands=("open",))
    for _ in range(3):
        raised = run(session, ["select es_command('customer-1', 'open', '{\"name\": \"harmless\"}', decider => 'cached')"])
    assert "parallel worker" in told(raised)
    set_for_it = protected_decider(session, "set_for_it", body, "set max_parallel_workers_per_gather = 2")
    set_within = protected_decider(session, "set_within", f"perform set_config('max_parallel_workers_per_gather', '2', true); {body}")
    in_a_loop = protected_decider(session, "in_a_loop", "for name in select name || g from big where shouts(name || g) loop null; end loop")
    for command in (cached, set_for_it, set_within, in_a_loop):
        raised = run(session, [command])
        assert raised is not None and CANARY in told(raised), raised
    written = server.log.read_text()
    assert "harmless" in written and "Canary" not in written, written
