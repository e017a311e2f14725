"""Protected fields where something is under way, or was made before the rule: from the commit of es_protect on, nobody is told what it names, by a cursor, a batch, a table, a text or an answer."""

import threading
import time

import psycopg
import pytest
from database import Database, rows, value
from server import wait_until

CANARY = "Mia Q. Canary"
PROTECT = "select es_protect('Named', pointers => '{/name}')"
NAMED = f"select es_append('customer-1', 'Named', '{{\"name\": \"{CANARY}\", \"n\": 1}}')"
KEEP = """create function keep(state jsonb, event eventstream.event) returns jsonb immutable language sql as $$ select state || event.payload $$;
select es_register_fold('kept', 'customer', 'keep(jsonb, eventstream.event)')"""
TABLE = """select es_create_state_table('{}', 'customer', '[{{"name": "name", "type": "text", "path": "/name"}}, {{"name": "n", "type": "int", "path": "/n"}}]', mode => '{}')"""


@pytest.fixture
def session(quiet):
    with quiet.connect() as connection:
        connection.execute("set client_min_messages = warning")
        yield connection


def under_way(database, statement, *settings):
    """Runs it in another session; what it raised, once it is joined."""
    raised = []

    def work():
        with database.connect() as connection:
            try:
                for setting in settings:
                    connection.execute(setting)
                connection.execute(statement)
            except psycopg.Error as error:
                raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, raised


# What is under way


@pytest.mark.parametrize("view", ["select payload from eventstream.events", "select payload from eventstream.scheduled_commands", "select answer from eventstream.scheduled_commands"])
def test_a_cursor_that_only_fetches(quiet, session, view):
    session.execute(NAMED)
    session.execute(f"select es_append('customer-' || i, 'Named', '{{\"name\": \"{CANARY}\"}}') from generate_series(2, 20) i")
    session.execute("create function decide(state jsonb, command eventstream.command) returns jsonb stable language sql as $$ select jsonb_build_object('result', command.payload) $$")
    session.execute(KEEP)
    session.execute("select es_register_decider('said', 'customer', 'decide(jsonb, eventstream.command)')")
    session.execute(f"select es_schedule_command('customer-1', 'Say', '{{\"name\": \"{CANARY}\"}}', '2100-01-01Z', 'k' || i) from generate_series(1, 20) i")
    if "answer" in view:
        session.execute(f"select es_command('customer-1', 'Say', '{{\"name\": \"{CANARY}\"}}', command_key => 'k' || i) from generate_series(1, 20) i")
    with quiet.connect() as reader, reader.transaction():
        reader.execute(f"declare c no scroll cursor for {view}")
        assert CANARY in str(reader.execute("fetch 1 from c").fetchall())
        session.execute(PROTECT)
        session.execute("select es_protect('Say', pointers => '{/name}', kind => 'command')")
        with pytest.raises(psycopg.errors.SerializationFailure), reader.transaction():
            reader.execute("fetch all from c")
        fetched = reader.execute(view).fetchall()
        assert len(fetched) == 20 and CANARY not in str(fetched)


def test_a_refusal_that_is_told_and_not_raised(session):
    """By a decider, and by a boundary. What es_command raises is its caller's own."""
    session.execute("""create function no(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $$ begin
        perform es_require(false, 'no', 'no ' || (command.payload ->> 'name'), jsonb_build_object('name', command.payload -> 'name')); end $$;
        create function nowhere(command eventstream.command) returns jsonb stable language plpgsql as $$ begin
        raise 'no %', command.payload using errcode = 'ES033', detail = json_build_object('code', command.payload ->> 'name'); end $$""")
    session.execute(KEEP)
    session.execute("select es_register_decider('no', 'customer', 'no(jsonb, eventstream.command)'), es_register_decider('nowhere', 'customer', 'no(jsonb, eventstream.command)', boundary => 'nowhere(eventstream.command)')")
    simulated = [f"select es_simulate_command('customer-1', '{{}}', '{{{{\"name\": \"{CANARY}\"}}}}', decider => '{decider}')" for decider in ("no", "nowhere")]
    for statement in simulated:
        assert str(value(session, statement.format("Say"))).count(CANARY) > 1
    session.execute("select es_protect('Say', pointers => '{/name}', kind => 'command')")
    for statement in simulated:
        told = value(session, statement.format("Say"))
        assert CANARY not in str(told) and told["refusal"] == {"code": None, "detail": None, "message": "not told: fields of the command are protected"}
        assert CANARY in str(value(session, statement.format("Other")))
    with pytest.raises(psycopg.Error, match=CANARY):
        session.execute(f"select es_command('customer-1', 'Say', '{{\"name\": \"{CANARY}\"}}', decider => 'no')")


def test_a_batch_that_began_before(quiet, session):
    session.execute(NAMED)
    session.execute("""create table seen (said text);
        create function see(event eventstream.event) returns void language plpgsql as $$ begin perform pg_advisory_xact_lock(7); raise 'no %', event.payload; end $$""")
    session.execute("select es_create_projection('skips', 'see(eventstream.event)', on_error => 'skip', max_retries => 0)")
    session.execute("select es_create_projection('stops', 'see(eventstream.event)', max_retries => 0)")
    with quiet.connect() as holder:
        holder.execute("select pg_advisory_lock(7)")
        batches = [under_way(quiet, f"select es_run_projection('{name}')", "set client_min_messages = error") for name in ("skips", "stops")]
        wait_until(lambda: value(holder, "select count(*) from pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())") == 2)
        rule, raised = under_way(quiet, PROTECT)
        time.sleep(1)
        assert rule.is_alive()
        holder.execute("select pg_advisory_unlock_all()")
        for thread, _ in [*batches, (rule, None)]:
            thread.join()
    assert raised == []
    texts = rows(session, "select d::text from eventstream.dead_letters d union all select p::text from eventstream.projections p")
    assert len(texts) == 3 and CANARY not in str(texts) and "not told" in str(texts)


@pytest.mark.parametrize("holds", ["select es_run_projection('async')", "select es_register_fold('other', 'other', rules => '{\"on\": {}}')", "select * from async for update"])
def test_appends_go_on_while_a_rule_waits(quiet, session, holds):
    session.execute(KEEP)
    session.execute(TABLE.format("async", "async"))
    session.execute(NAMED)
    session.execute("select es_run_projection('async')")
    session.execute(NAMED)
    with quiet.connect() as holder, holder.transaction():
        holder.execute(holds)
        rule, raised = under_way(quiet, PROTECT, "set eventstream.gate_timeout = '3s'")
        wait_until(lambda: value(session, "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()") == 1)
        if "for update" not in holds:
            with quiet.connect() as other:
                other.execute("set statement_timeout = '1s'; select es_append('other-1', 'Other', '{}')")
        rule.join(20)
        assert not rule.is_alive() and [error.sqlstate for error in raised] == ["55P03"]
    session.execute(PROTECT)


# What was made before


@pytest.mark.parametrize("mode", ["async", "inline"])
@pytest.mark.parametrize("status", ["running", "paused", "failing"])
def test_a_state_table(session, mode, status):
    session.execute(KEEP)
    session.execute(NAMED)
    session.execute(TABLE.format("t", mode))
    if mode == "async":
        session.execute("select es_run_projection('t')")
    session.execute("analyze t; create statistics both_of (mcv) on name, n from t; create index on t (upper(name)); analyze t")
    if status == "paused":
        session.execute("select es_pause_projection('t')")
    if status == "failing":
        session.execute("""create or replace function keep(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$ begin
            if event.payload ->> 'name' is null then raise 'no name'; end if; return state || event.payload; end $$""")
        # What it is filled by is that function now.
        session.execute("select es_run_projection('t')" if mode == "async" else "select es_rebuild_projection('t')")
        session.execute("select es_run_projection('t')" if mode == "async" else "select 1")
    kept = "select count(*) from t where name is not null"
    assert value(session, kept) == 1
    session.execute(PROTECT)
    assert value(session, kept) == 0
    told = "select count(*) from (select s::text from pg_stats s where tablename like 't%%' union all select s::text from pg_stats_ext s) x where x::text ilike %s"
    assert value(session, told, f"%{CANARY}%") == 0
    if status == "running":
        if mode == "async":
            session.execute("select es_run_projection('t')")
        assert rows(session, "select name, n from t") == [(None, 1)]
    if status == "paused":
        session.execute("select es_resume_projection('t')")
        if mode == "async":
            session.execute("select es_run_projection('t')")
        assert rows(session, "select name, n from t") == [(None, 1)]
    if status == "failing":
        assert value(session, "select es_append('customer-9', 'Other', '{}')") == 1


def test_texts_and_answers_that_are_made_of_states(new_server):
    server = new_server("protect_texts", **{"eventstream.retry_pause": "10ms"})
    with Database(server, "texts").create().connect() as session:
        session.execute(KEEP)
        session.execute(NAMED)
        session.execute("select es_append('customer-1', 'Other', '{}')")
        session.execute("""create function see(event eventstream.event) returns void language plpgsql as $$ begin if event.event_type = 'Other' then raise 'no: %', es_state(event.stream); end if; end $$;
            create function decide(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $$ begin
                if command.command_type = 'Boom' then raise 'boom %', state using errcode = 'ES033', detail = state::text; end if; return jsonb_build_object('result', state); end $$""")
        session.execute("select es_create_projection('seen', 'see(eventstream.event)', on_error => 'skip', max_retries => 0)")
        session.execute("select es_register_decider('said', 'customer', 'decide(jsonb, eventstream.command)')")
        ask = "select es_command('customer-1', 'Ask', '{}', command_key => 'asked')"
        assert value(session, ask)["result"]["name"] == CANARY
        session.execute("select es_schedule_command('customer-1', 'Boom', '{}', now(), 'boom'), es_schedule_command('customer-1', 'Ask', '{}', now(), 'later')")
        session.execute("select es_schedule_command('customer-1', 'Ask', '{}', now(), 'later')")
        wait_until(lambda: value(session, "select count(*) filter (where stage <> 'pending') from eventstream.scheduled_commands") == 2)
        wait_until(lambda: value(session, "select count(*) from eventstream.dead_letters") == 1)
        told = "select d::text from eventstream.dead_letters d union all select c::text from eventstream.scheduled_commands c"
        assert sum(CANARY in text for (text,) in rows(session, told)) == 3
        session.execute(PROTECT)
        assert CANARY not in str(rows(session, told))
        again = value(session, ask)
        assert again["replayed"] and again["result"] is None
        # What is decided since is told whole.
        fresh = "select es_command('customer-1', 'Ask', '{}', command_key => 'since')"
        assert value(session, fresh)["result"] == value(session, fresh)["result"] == {"name": None, "n": 1}


# What a rule means


def test_each_pointer_has_to_lead_where_others_stand_beside_it(session):
    session.execute("select es_protect('Star', pointers => '{/contacts/*/number,/contacts/note}'), es_protect('Place', pointers => '{/contacts/0/number,/contacts/x/number}')")
    for event_type, contacts in (("Star", '{"home": {"number": 7}}'), ("Star", '{"*": null, "home": {"number": 7}}'), ("Star", '{"note": 1, "home": {"number": 7}}'), ("Place", '{"1": {"number": 7}}'), ("Place", '{"x": {"number": 7}, "1": {"number": 7}}')):
        with pytest.raises(psycopg.Error) as error:
            session.execute("select es_append('c-1', %s, %s::jsonb)", (event_type, f'{{"contacts": {contacts}}}'))
        assert error.value.sqlstate == "ES016"
    for event_type, contacts, shown in (("Star", '{"note": 7}', {"note": None}), ("Star", '[{"number": 7, "n": 1}]', [{"number": None, "n": 1}]), ("Star", '{"*": {"number": 7}}', {"*": {"number": None}}),
                                        ("Place", '{"x": {"number": 7}, "y": 1}', {"x": {"number": None}, "y": 1}), ("Place", '[{"number": 7}, {"number": 8}]', [{"number": None}, {"number": 8}])):
        session.execute("select es_append('c-1', %s, %s::jsonb)", (event_type, f'{{"contacts": {contacts}}}'))
        assert value(session, "select payload -> 'contacts' from es_read('c-1', backward => true, max_count => 1)") == shown


def test_what_an_event_becomes_is_masked_by_the_rule_of_that(session):
    session.execute("""create function split(payload jsonb, metadata jsonb) returns jsonb immutable language sql as $$ select jsonb_build_object('name', payload -> 'full') $$;
        select es_create_event_type('P', 1, example => '{"full": "x"}'), es_create_event_type('Old', 1, example => '{"full": "x", "other": 1}')""")
    session.execute("select es_register_upcaster('P', 1, 'split(jsonb, jsonb)'), es_register_upcaster('Old', 1, 'split(jsonb, jsonb)', 'P')")
    session.execute(f"select es_append('p-1', type, '{{\"full\": \"{CANARY}\", \"other\": 1}}') from unnest('{{P,Old}}'::text[]) type")
    session.execute("begin; select es_protect('Old', 1, pointers => '{/other}'), es_protect('P', 1, pointers => '{}')")
    session.execute("select es_protect('P', 2, pointers => '{/name}'); commit")
    assert rows(session, "select event_type, schema_version, payload, salt from es_read('p-1')") == [("P", 2, {"name": None}, None)] * 2


def test_a_version_that_is_only_stored_is_told(session):
    session.execute("select es_append('c-1', 'T', '{\"name\": 1}', schema_version => version) from generate_series(1, 3) version")
    told = []
    session.execute("set client_min_messages = notice")
    session.add_notice_handler(lambda notice: told.append(notice.message_primary))
    session.execute("select es_protect('T', pointers => '{/name}')")
    assert [text for text in told if "version 2, 3, of which there are events" in text]


# A rule that is taken back

NARROWER = {
    "es_unprotect": "select es_unprotect('Named')",
    "es_unprotect of commands": "select es_unprotect('Say', kind => 'command')",
    "another rule": "select es_protect('Named', pointers => '{}')",
    "es_unprotect in a savepoint": "savepoint s; select es_unprotect('Named'); release s",
    "another in its place": "select es_unprotect('Named'); select es_protect('Named', pointers => '{/n}')",
}
LOOKS = [
    "select payload, metadata, salt from eventstream.events",
    "select payload from es_read('customer-1')",
    "select payload from es_read('customer-1', raw => true)",
    "select es_state('customer-1')",
    "select name from t",
    "select payload from eventstream.scheduled_commands",
]


@pytest.mark.parametrize("narrower", NARROWER.values(), ids=NARROWER)
def test_nobody_looks_before_the_commit_that_leaves_a_trace(quiet, session, narrower):
    session.execute(KEEP)
    session.execute(TABLE.format("t", "inline"))
    session.execute("create function decide(state jsonb, command eventstream.command) returns jsonb stable language sql as $$ select '{}'::jsonb $$; select es_register_decider('said', 'customer', 'decide(jsonb, eventstream.command)')")
    session.execute("select es_protect('Named', pointers => '{/name}'), es_protect('Say', pointers => '{/name}', kind => 'command')")
    session.execute(NAMED)
    session.execute(f"select es_schedule_command('customer-1', 'Say', '{{\"name\": \"{CANARY}\"}}', '2100-01-01Z', 'k')")
    look = lambda: str([rows(session, statement) for statement in LOOKS])
    session.execute(f"begin; {narrower}")
    assert CANARY not in look()
    session.execute("rollback")
    assert CANARY not in look()
    session.execute(f"begin; {narrower}; commit")
    assert value(session, "select count(*) from eventstream.administration where event_type = 'FieldsUnprotected' or payload -> 'before' <> 'null'") > 0
    told = look()
    assert CANARY in told
    if "command" not in narrower:
        # What a table may repeat is in it when it is filled by that, after the commit.
        assert rows(session, "select name from t") == [(None,)]
        session.execute("select es_rebuild_projection('t')")
        told = look()
        assert rows(session, "select name from t") == [(CANARY,)] and value(session, "select es_state('customer-1') ->> 'name'") == CANARY
    with quiet.connect() as other:
        assert str([rows(other, statement) for statement in LOOKS]) == told


def test_a_table_whose_rule_is_taken_back_says_so_and_is_emptied_by_the_next_rule(session):
    """Rows are those of before until the table is filled again, or their streams have another event: so it is filled by no rule as it is, not by the same one either that comes back."""
    session.execute(KEEP)
    session.execute(PROTECT)
    session.execute(TABLE.format("t", "inline"))
    session.execute("select es_register_fold('counted', 'customer', rules => '{\"on\": {\"Other\": [{\"add\": {\"/n\": {\"value\": 1}}}]}}', is_default => false)")
    session.execute(TABLE.format("c", "inline").replace("mode", "fold => 'counted', mode"))
    session.execute(NAMED)
    session.execute(NAMED.replace("customer-1", "customer-2"))
    told = []
    session.execute("set client_min_messages = notice")
    session.add_notice_handler(lambda notice: told.append(notice.message_primary))
    session.execute("select es_unprotect('Named')")
    assert told == ['rows of before, until es_rebuild_projection fills them by what is shown now: state tables "t"']
    assert rows(session, "select name from t") == [(None,), (None,)]
    session.execute("select es_append('customer-2', 'Other', '{}')")
    assert rows(session, "select stream, name from t order by stream") == [("customer-1", None), ("customer-2", CANARY)]
    session.execute(PROTECT)
    assert rows(session, "select name from t") == [(None,), (None,)]
    session.execute("select es_unprotect('Named'), es_rebuild_projection('t')")
    # In that transaction it was filled under what was hidden then.
    assert rows(session, "select name from t") == [(None,), (None,)]
    session.execute("select es_rebuild_projection('t')")
    assert rows(session, "select name from t") == [(CANARY,), (CANARY,)]
    session.execute(PROTECT)
    told.clear()
    session.execute("begin; savepoint s; select es_unprotect('Named'); rollback to s; commit")
    assert told == [] and rows(session, "select name from t") == [(None,), (None,)]


def test_what_no_rule_names_stays_hidden_until_the_commit_of_the_one_that_names_it(database):
    """A rule for such a version that is rolled back was a look at it without a trace."""
    with database.connect() as session:
        session.execute("select es_append('p-1', 'Named', '{\"name\": \"Ada\"}')")
        session.execute("select es_append('p-1', 'Named', '{\"fullname\": \"Bob Secret\"}', schema_version => 2)")
        session.execute("select es_protect('Named', 1, pointers => '{/name}')")
        with session.transaction(force_rollback=True):
            session.execute("select es_protect('Named', 2, pointers => '{}')")
            assert "Secret" not in str(rows(session, "select payload from es_read('p-1')"))
            assert "Secret" not in str(rows(session, "select payload from eventstream.events"))
        session.execute("select es_protect('Named', 2, pointers => '{}')")
        assert "Secret" in str(rows(session, "select payload from es_read('p-1')"))
