"""What is protected of commands and of operations outside where it stands elsewhere than the rule names: in metadata, in what a failure says, in a command that was scheduled before the rule."""

import psycopg
import pytest
from database import Database, rows, value
from server import wait_until

CANARY = "Mia Q. Canary"
DECIDER = """create function says(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $$ begin
    return jsonb_build_object('events', jsonb_build_array(jsonb_build_object('type', 'Moved', 'payload', '{}'::jsonb)), 'result', command.payload -> 'n', 'schedule', jsonb_build_array(jsonb_build_object(
        'command_type', 'Later', 'payload', '{}'::jsonb, 'command_key', 'later-' || command.stream, 'run_at', '2100-01-01T00:00:00Z', 'metadata', jsonb_build_object('why', command.payload -> 'why')))); end $$;
select es_register_fold('none', 'customer', rules => '{"on": {}}');
select es_register_decider('says', 'customer', 'says(jsonb, eventstream.command)');"""


@pytest.fixture
def session(quiet):
    with quiet.connect() as connection:
        connection.execute("set client_min_messages = warning")
        yield connection


# Metadata


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_metadata_of_what_is_scheduled_are_those_of_its_events(session, when):
    session.execute(DECIDER)
    rules = "select es_protect('Moved', pointers => '{}', metadata_pointers => '{/reason}'), es_protect('Other', pointers => '{}', metadata_pointers => '{/why,/more/name}')"
    if when == "before":
        session.execute(rules)
    metadata = f'{{"reason": "{CANARY}", "actor": "clerk", "more": {{"name": "{CANARY}", "n": 1}}}}'
    session.execute(f"select es_schedule_command('customer-1', 'Move', '{{}}', '2100-01-01Z', 'k', metadata => '{metadata}')")
    session.execute(f"select es_command('customer-1', 'Say', '{{\"why\": \"{CANARY}\"}}', metadata => '{metadata}')")
    if when == "after":
        assert CANARY in str(rows(session, "select metadata from eventstream.scheduled_commands"))
        session.execute(rules)
    told = dict(rows(session, "select command_key, metadata from eventstream.scheduled_commands"))
    assert told["k"] == {"reason": None, "actor": "clerk", "more": {"name": None, "n": 1}}
    assert told["later-customer-1"] == told["k"] | {"why": None}
    simulated = f"select es_simulate_command('customer-2', 'Say', '{{\"why\": \"{CANARY}\"}}') -> 'schedule'"
    assert value(session, simulated)[0]["metadata"] == {"why": None}
    # It is executed with all of it.
    assert CANARY in value(session, "select metadata::text from _eventstream.scheduled_commands where command_key = 'k'")
    with session.transaction(force_rollback=True):
        session.execute("select es_unprotect('Moved'), es_unprotect('Other')")
        assert CANARY not in str(rows(session, "select metadata from eventstream.scheduled_commands"))


# What a failure says

ERRORS = ['{"message": "no such name: Mia Q. Canary"}', '{"name": null, "copy": {"of": ["Mia Q. Canary"]}}', '"Mia Q. Canary"', '["Mia Q. Canary", 7391]']


@pytest.mark.parametrize("error", ERRORS)
def test_what_an_operation_failed_with_repeats_nothing_of_its_request(session, error):
    session.execute("select es_protect('call', pointers => '{/name}', kind => 'command'), es_protect('pay', clear_pointers => '{/code}', kind => 'command')")
    for operation in ("call", "pay", "free"):
        begin = f"select es_begin_command('{operation}', 'k', '{{\"name\": \"{CANARY}\"}}')"
        session.execute("select es_fail_command(%s::uuid, %s, false)", (value(session, begin)["attempt_token"], error))
        # Said again it is the same.
        told, shown = value(session, begin), value(session, "select error from eventstream.commands where operation = %s", operation)
        assert told["outcome"] == "replay" and told["error"] == shown and shown is not None
        assert (CANARY in str(shown)) == (operation == "free"), shown


def test_what_is_clear_of_a_failure_is_told(session):
    session.execute("select es_protect('pay', clear_pointers => '{/code}', kind => 'command')")
    token = value(session, "select es_begin_command('pay', 'k', '{}')")["attempt_token"]
    session.execute("select es_fail_command(%s::uuid, %s, false)", (token, '{"code": "declined", "message": "Mia"}'))
    assert value(session, "select error from eventstream.commands") == {"code": "declined", "message": None}


# What was scheduled before the rule, and has something in its way


def test_what_was_scheduled_before_a_rule_is_executed_as_it_was_kept(new_server):
    server = new_server("protect_kept", **{"eventstream.retry_pause": "10ms"})
    with Database(server, "protect_kept").create().connect() as session:
        session.execute(DECIDER)
        schedule = "select es_schedule_command('customer-{0}', 'Say', %s, now() + interval '1 second', 'k{0}')"
        strays = ['{"contacts": {"home": "Mia Q. Canary"}, "n": 1}', '"Mia Q. Canary"', '{"contacts": "Mia Q. Canary", "n": 3}']
        for number, payload in enumerate(strays):
            session.execute(schedule.format(number), (payload,))
        session.execute("select es_protect('Say', pointers => '{/contacts/*/number}', kind => 'command')")
        assert CANARY not in str(rows(session, "select s::text from eventstream.scheduled_commands s"))
        # Whoever sends it again is told nothing of it.
        with pytest.raises(psycopg.Error) as error:
            session.execute("select es_command('customer-0', 'Say', %s, command_key => 'k0')", (strays[0],))
        assert error.value.sqlstate == "ES016" and CANARY not in str(error.value)
        wait_until(lambda: value(session, "select count(*) from eventstream.scheduled_commands where command_key like 'k%%' and stage = 'pending'") == 0, 30)
        assert rows(session, "select command_key, stage, error_message from eventstream.scheduled_commands where command_key like 'k%%' order by 1") == [(f"k{number}", "done", None) for number in range(3)]
        assert value(session, "select count(*) from eventstream.events where event_type = 'Moved'") == 3
        assert CANARY not in str(rows(session, "select s::text from eventstream.scheduled_commands s union all select d::text from eventstream.dead_letters d"))
        # A new one is refused.
        with pytest.raises(psycopg.Error) as error:
            session.execute(schedule.format(9), (strays[0],))
        assert error.value.sqlstate == "ES016"


# Keys that were used before

HIDDEN = "was used before fields of such requests were protected as they are now: whether this one is the same cannot be told any more"


@pytest.mark.parametrize("change", ["first rule", "another rule"])
def test_a_key_of_which_a_rule_that_came_since_hides_the_request_is_not_said_to_be_another_ones(session, change):
    session.execute(DECIDER)
    protect = "select es_protect(%s, pointers => %s, kind => 'command')"
    names = ("Say", "Move", "call")
    if change == "another rule":
        for name in names:
            session.execute(protect, (name, ["/n"]))
    said = {
        "Say": "select es_command('customer-1', 'Say', '{\"n\": 1, \"why\": \"x\"}', command_key => 'k')",
        "Move": "select es_schedule_command('customer-1', 'Move', '{\"n\": 1, \"why\": \"x\"}', '2100-01-01Z', 'l')",
        "call": "select es_begin_command('call', 'm', '{\"n\": 1, \"why\": \"x\"}')",
    }
    for statement in said.values():
        session.execute(statement)
    for statement in said.values():
        with pytest.raises(psycopg.Error) as error:
            session.execute(statement.replace('"n": 1', '"m": 2'))
        assert error.value.sqlstate == "ES030" and error.value.diag.message_primary.endswith("was used for another request")
    for name in names:
        session.execute(protect, (name, ["/why"]))
    # By whichever way it comes again.
    ways = [*said.values(), said["Move"].replace("es_schedule_command", "es_command").replace("'2100-01-01Z', 'l'", "command_key => 'l'"),
            said["Say"].replace("es_command", "es_schedule_command").replace("command_key =>", "'2100-01-01Z',")]  # fmt: skip
    for statement in ways:
        with pytest.raises(psycopg.Error) as error:
            session.execute(statement)
        assert error.value.sqlstate == "ES030" and error.value.diag.message_primary.endswith(HIDDEN), statement
        assert error.value.diag.message_hint.startswith("It was not executed again. Look what came of it the first time")
    # What differs in what everybody sees is another one still, and so is what was kept since.
    other = {"Say": "customer-2", "Move": "customer-2"}
    for name, stream in other.items():
        with pytest.raises(psycopg.Error) as error:
            session.execute(said[name].replace("customer-1", stream))
        assert error.value.diag.message_primary.endswith("was used for another request")
    for statement in said.values():
        later = statement.replace("'k')", "'k2')").replace("'l')", "'l2')").replace("'m'", "'m2'")
        session.execute(later)
        with pytest.raises(psycopg.Error) as error:
            session.execute(later.replace('"n": 1', '"n": 2'))
        assert error.value.diag.message_primary.endswith("was used for another request")


def test_a_decider_that_schedules_such_a_key_is_told_so(session):
    session.execute(DECIDER.replace("'payload', '{}'::jsonb, 'command_key'", "'payload', '{\"n\": 1}'::jsonb, 'command_key'"))
    session.execute("select es_schedule_command('customer-1', 'Later', '{\"n\": 1}', '2100-01-01Z', 'later-customer-1')")
    session.execute("create function nothing(state jsonb, command eventstream.command) returns jsonb stable language sql as $$ select '[]'::jsonb $$")
    session.execute("select es_register_decider('nothing', 'customer', 'nothing(jsonb, eventstream.command)', is_default => false)")
    session.execute("select es_command('customer-2', 'Later', '{\"n\": 1}', command_key => 'later-customer-2', decider => 'nothing')")
    session.execute("select es_protect('Later', pointers => '{/n}', kind => 'command')")
    since = "for a request of which fields are protected since, or protected otherwise"
    for stream, stands in [("customer-1", f"it is scheduled {since} and pending"), ("customer-2", f"it was used {since}")]:
        with pytest.raises(psycopg.Error) as error:
            session.execute("select es_command(%s, 'Say', '{}')", (stream,))
        assert error.value.sqlstate == "ES030" and stands in error.value.diag.message_primary, error.value


# The server's log


@pytest.mark.parametrize("verbosity", ["default", "terse"])
def test_a_parameter_that_is_no_json_stands_in_the_context_of_its_error(quiet, session, verbosity):
    """PostgreSQL's own words, as the page on masking says."""
    session.execute("select es_protect('Named', pointers => '{/name}')")
    session.execute("set log_parameter_max_length = 0; set log_parameter_max_length_on_error = 0; set log_min_error_statement = panic")
    session.execute(f"set log_error_verbosity = {verbosity}")
    begin = len(quiet.server.log.read_text(errors="replace"))
    with pytest.raises(psycopg.Error) as error:
        session.execute("select es_append('customer-1', 'Named', %s)", ('{"name": "Mia Q. Canary",}',))
    assert error.value.sqlstate == "22P02"
    said = quiet.server.log.read_text(errors="replace")[begin:]
    assert "invalid input syntax for type json" in said and (CANARY in said) == (verbosity == "default"), said
