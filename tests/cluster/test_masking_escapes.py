"""What a role gets out of protected fields by SQL alone: nothing, by any of these ways. The role has every privilege but admin (so it registers folds, upcasters, projections, deciders and invariants
of its own), a schema of its own, and all the cunning that SQL allows.

Each escape is tried in two databases with the same events: in one fields are protected, in the other nothing is. In the first it says nothing; in the second it does, else it would be no escape.
`telling`: the canary stands in what is told (rows, errors, notices). `guessing`: a right guess is answered otherwise than a wrong one."""

import re
import subprocess

import psycopg
import pytest
from database import Database, rows, value
from server import BIN, Server, wait_until

CANARY, WRONG = "Canary 7391", "Sparrow 1000"
ID = "01890a5d-ac96-774b-bcce-b302099a8057"

FILL = f"""
create schema clerk authorization clerk;
select es_create_event_type('Named', 1, example => '{{"name": "Ada", "person": {{"born": "1815"}}, "n": 1}}');
select es_append('customer-1', 'Named', '{{"name": "{CANARY}", "person": {{"born": "{CANARY}"}}, "n": 1}}', metadata => '{{"note": "{CANARY}"}}', subject => 'p-1', event_id => '{ID}');
select es_append('customer-2', 'Named', '{{"name": "M", "person": {{"born": "x"}}, "n": 2}}', metadata => '{{"note": "x"}}');
create function public.decide(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $$ begin
    if command.payload ? 'fails' then raise 'no: %', command.payload using detail = command.payload::text; end if; return '{{"result": null}}'; end $$;
select es_register_fold('none', 'command', rules => '{{"on": {{"None": []}}}}');
select es_register_decider('said', 'command', 'public.decide(jsonb, eventstream.command)');
"""
PROTECT = "select es_protect('Named', 1, '{/name,/person/born}', metadata_pointers => '{/note}')"
#: What it leaves is told of no command that was protected since.
FAIL = f"select es_schedule_command('command-1', 'Say', '{{\"name\": \"{CANARY}\", \"fails\": 1}}', now(), 'fails')"
PROTECT_COMMANDS = """
select es_protect('Say', pointers => '{/name}', kind => 'command');
select es_protect('call', pointers => '{/name}', kind => 'command');
"""
KEYED = f"""
select es_command('command-1', 'Say', '{{"name": "{CANARY}"}}', command_key => 'key');
select es_schedule_command('command-1', 'Say', '{{"name": "{CANARY}"}}', '2100-01-01Z', 'later', metadata => '{{"note": "{CANARY}"}}');
select es_begin_command('call', 'key', '{{"name": "{CANARY}"}}');
select es_schedule_command('command-1', 'Say', '{{"name": "{CANARY}"}}', '2100-01-01Z', 'later' || n) from generate_series(1, 20) n;
"""


def all_of(error):
    diag = error.diag
    return " ".join(str(part) for part in (diag.sqlstate, diag.message_primary, diag.message_detail, diag.message_hint, diag.context, diag.column_name))


class World:
    """A database, and the role's session in it."""

    def __init__(self, server, name, is_hidden):
        self.database = Database(server, name).create()
        with self.database.connect() as owner:
            owner.execute(FILL + (PROTECT if is_hidden else ""))
            owner.execute(FAIL)
            wait_until(lambda: value(owner, "select stage from eventstream.scheduled_commands") == "dead")
            owner.execute((PROTECT_COMMANDS if is_hidden else "") + KEYED)
            for privilege in ("read", "append", "command", "consume", "manage", "upkeep", "audit"):
                owner.execute("select es_grant('clerk', %s)", (privilege,))
        self.session = self.database.connect(user="clerk")
        self.session.execute("set search_path = clerk, public")
        self.said = []
        self.session.add_notice_handler(lambda notice: self.said.append(f"{notice.message_primary} {notice.message_detail}"))

    def told(self, *statements, session=None):
        """Everything that is said: rows, notices, errors with all that belongs to them."""
        session = session or self.session
        self.said.clear()
        told = []
        with session.transaction(force_rollback=True):
            for statement in statements:
                try:
                    with session.transaction():
                        cursor = session.execute(statement)
                        told += [repr(row) for row in cursor.fetchall()] if cursor.description else []
                except psycopg.Error as error:
                    told.append(all_of(error))
        return "\n".join(told + self.said)


@pytest.fixture(scope="module")
def worlds():
    server = Server("escapes", **{"eventstream.retry_pause": "1ms", "eventstream.command_retries": 0}).create()
    with server.connect("postgres") as admin:
        admin.execute("create role clerk login")
    made = World(server, "hidden", True), World(server, "plain", False)
    # From now on nobody comes in between.
    with server.connect("postgres") as admin:
        admin.execute("alter system set eventstream.max_workers = 0")
        admin.execute("select pg_reload_conf()")
    yield made
    for world in made:
        world.session.close()
    server.destroy()


@pytest.fixture
def telling(worlds):
    def check(*statements):
        hidden, plain = (world.told(*statements) for world in worlds)
        assert CANARY not in hidden, hidden
        assert CANARY in plain, plain
        return hidden

    return check


@pytest.fixture
def guessing(worlds):
    def check(*statements):
        """With GUESS in them."""
        answers = [[world.told(*(statement.replace("GUESS", guess) for statement in statements)).replace(guess, "GUESS") for guess in (CANARY, WRONG)] for world in worlds]
        costs = r"cost=[\d.]+|width=\d+|time=\S+|(Planning|Execution) Time: \S+|\d+kB|[0-9a-f]{8}-[0-9a-f-]{27}|\d{4}-\d\d-\d\d \d\d:\S+|\d+\.\d+"
        (right, wrong), (plainly_right, plainly_wrong) = [[re.sub(costs, "…", answer) for answer in both] for both in answers]
        assert right == wrong, (right, wrong)
        assert plainly_right != plainly_wrong, plainly_right

    return check


# Views and functions


def test_a_predicate_on_the_view(guessing):
    guessing("select count(*) from eventstream.events where payload ->> 'name' = 'GUESS'")


def test_a_predicate_by_containment_and_by_path(guessing):
    guessing("select count(*) from eventstream.events where payload @> '{\"name\": \"GUESS\"}'")
    guessing("select count(*) from eventstream.events where payload @? '$.person.born ? (@ == \"GUESS\")'")


def test_a_predicate_on_metadata(guessing):
    guessing("select count(*) from eventstream.events where metadata ->> 'note' like 'GUESS%'")


def test_a_cheap_function_that_says_what_it_is_given(telling):
    telling("create function leak(j jsonb) returns bool language plpgsql cost 0.0000001 as $$ begin raise notice '%', j; return true; end $$",
            "select count(*) from eventstream.events where leak(payload) and leak(metadata)")


def test_an_operator_that_says_what_it_is_given(telling):
    telling("create function leak(a jsonb, b int) returns bool language plpgsql cost 0.0000001 as $$ begin raise notice '%', a; return true; end $$",
            "create operator <<>> (leftarg = jsonb, rightarg = int, function = leak)", "select 1 from eventstream.events where payload <<>> 1")


def test_the_order_of_rows(guessing):
    guessing("select stream from eventstream.events where event_type = 'Named' order by payload ->> 'name' <= 'GUESS', stream")


def test_a_join_with_a_list_of_guesses(guessing):
    guessing("select g from (values ('GUESS'), ('other')) v (g) join eventstream.events e on e.payload ->> 'name' = v.g")


def test_aggregates_and_windows(telling):
    telling("select max(payload ->> 'name'), jsonb_agg(payload), string_agg(metadata::text, ',') from eventstream.events")
    telling("select first_value(payload) over (order by version) from es_read('customer-1')")


def test_groups_of_equal_values(guessing):
    guessing("select count(distinct payload ->> 'name') from (select payload from eventstream.events where event_type = 'Named' union all select '{\"name\": \"GUESS\"}') e")


def test_rows_as_one_value(telling):
    telling("select e from eventstream.events e", "select to_jsonb(e), row_to_json(e) from es_read_all() e", "select (e.*)::text from es_read('customer-1', raw => true) e")


def test_every_function_that_reads(telling):
    for statement in ("select * from es_read('customer-1')", "select * from es_read('customer-1', raw => true)", "select * from es_read_all()", "select * from es_read_backward()",
                      "select * from es_read_subject('p-1')", f"select * from es_event('{ID}')", "select * from es_query('{}')", "select (es_read('customer-1')).*"):
        telling(statement)


def test_a_search_by_what_is_not_shown(guessing):
    guessing("select count(*) from es_query('{\"payload\": {\"/name\": \"GUESS\"}}')")
    guessing("select count(*) from es_query('{\"payload\": {\"/person/born\": {\"at_least\": \"GUESS\"}}}')")
    guessing("select count(*) from es_query('{\"metadata\": {\"note\": \"GUESS\"}}')")


def test_what_a_plan_counts(guessing):
    guessing("explain (analyze, verbose, timing off, summary off) select * from eventstream.events where payload ->> 'name' = 'GUESS'")


def test_no_worker_of_a_plan_is_asked_what_is_shown(worlds, telling):
    """It has neither the session's tenant nor its token: what asks stays with the session, also where all that can goes to workers."""
    name = "debug_parallel_query" if worlds[0].session.info.server_version >= 160000 else "force_parallel_mode"
    shared = f"set local parallel_setup_cost = 0; set local parallel_tuple_cost = 0; set local min_parallel_table_scan_size = 0; set local min_parallel_index_scan_size = 0; set local {name} = on"
    assert "Gather" in worlds[0].told(shared, "explain select count(*) from pg_class")
    telling(shared, "select payload, metadata from eventstream.events", "select jsonb_agg(payload) from eventstream.events")
    telling(shared, "select payload, metadata from es_read_all()")
    with worlds[0].database.connect() as owner:
        asks = rows(owner, "select proname, proparallel from pg_proc where pronamespace = '_eventstream'::regnamespace and proname ~ '^(shown|readable|operated)'")
        assert len(asks) >= 5 and {marked for _, marked in asks} <= {"r", "u"}, asks


def test_a_plan_that_was_prepared_before_the_rule(worlds):
    hidden, _ = worlds
    with hidden.database.connect() as owner:
        owner.execute("select es_append('late-1', 'Later', %s)", (f'{{"name": "{CANARY}"}}',))
        for name, statement in (("a", "select payload from es_read('late-1')"), ("b", "select payload from eventstream.events where stream = 'late-1'")):
            hidden.session.execute(f"prepare before_{name} as {statement}")
        hidden.session.execute("set plan_cache_mode = force_generic_plan")
        assert CANARY in hidden.told("execute before_a") and CANARY in hidden.told("execute before_b")
        owner.execute("select es_protect('Later', pointers => '{/name}')")
        said = hidden.told("execute before_a", "execute before_b")
        assert CANARY not in said and said.count("name") == 2, said
    hidden.session.execute("deallocate all; reset plan_cache_mode")


def test_a_cursor_that_was_declared_before_the_rule(worlds):
    """Whatever has read under no rule gives no more rows; what has read nothing yet shows what it shows by the rule."""
    hidden, _ = worlds
    with hidden.database.connect() as owner, hidden.database.connect(user="clerk") as other:
        owner.execute("select es_append_events('opened-1', (select jsonb_agg(jsonb_build_object('type', 'Opened', 'payload', jsonb_build_object('name', %s::text))) from generate_series(1, 5000)))", (CANARY,))
        with other.transaction():
            other.execute("declare a cursor for select payload from es_read('opened-1'); declare b cursor for select payload from eventstream.events where stream = 'opened-1'; declare c cursor for select es_read('opened-1')")
            assert all(CANARY in str(rows(other, f"fetch 1 from {cursor}")) for cursor in ("b", "c"))
            owner.execute("select es_protect('Opened', pointers => '{/name}')")
            other.execute("select 1 from eventstream.streams limit 1")
            for cursor in ("b", "c"):
                with pytest.raises(psycopg.errors.SerializationFailure), other.transaction():
                    rows(other, f"fetch all from {cursor}")
            told = str(rows(other, "fetch all from a"))
            assert "name" in told and CANARY not in told
        assert CANARY not in str(rows(other, "select payload from es_read('opened-1')"))


def test_a_copy_of_the_view(telling):
    telling("create temp table t as select * from eventstream.events", "select * from t", "create materialized view m as select * from eventstream.events", "select * from m")


def test_a_held_cursor(worlds):
    """The commit runs it to its end, and keeps the rows."""
    for number, world in enumerate(worlds):
        session = world.session
        session.execute("begin; declare h cursor with hold for select payload, metadata from eventstream.events; declare r cursor with hold for select payload from es_read('customer-1'); commit")
        told = str(rows(session, "fetch all from h")) + str(rows(session, "fetch all from r"))
        assert "'n': 1" in told and (CANARY in told) == (number == 1)
        session.execute("close all")


def test_the_size_of_a_document(worlds):
    sizes = [[size for (size,) in rows(world.session, "select pg_column_size(payload) from eventstream.events where event_type = 'Named' order by stream")] for world in worlds]
    assert len(set(sizes[0])) == 1 and len(set(sizes[1])) == 2


def test_the_salt_with_which_a_hash_could_be_tried(worlds):
    for number, world in enumerate(worlds):
        for statement in ("select salt from eventstream.events where event_type = 'Named'", "select salt from es_read('customer-1')", "select (event).salt from es_query('{\"event_types\": [\"Named\"]}')"):
            assert {salt is None for (salt,) in rows(world.session, statement)} == {number == 0}
    columns = {name for (name,) in rows(worlds[0].session, "select attname from pg_attribute where attrelid = 'eventstream.proof'::regclass and attnum > 0")}
    assert "salt" not in columns and "payload" not in columns


def test_security_definer_functions_and_superusers(worlds):
    for number, world in enumerate(worlds):
        with world.database.connect() as owner:
            with owner.transaction(force_rollback=True):
                owner.execute("create function public.peek() returns setof jsonb security definer language sql as 'select payload from eventstream.events union all select payload from es_read_all()'")
                owner.execute("grant execute on function public.peek() to clerk; set local role clerk")
                assert (CANARY in str(rows(owner, "select public.peek()"))) == (number == 1)
                owner.execute("reset role")
                assert (CANARY in str(rows(owner, "select public.peek()"))) == (number == 1)


# Errors


def test_the_error_of_a_cast(telling):
    telling("select (payload ->> 'name')::int from eventstream.events", "select (payload ->> 'name')::date from es_read('customer-1')")
    telling("select (metadata ->> 'note')::uuid from eventstream.events where event_type = 'Named'")


def test_the_error_of_an_expression(telling):
    telling("do $$ declare e record; begin for e in select * from eventstream.events where event_type = 'Named' loop perform jsonb_array_length(e.payload) / 0;"
            " exception when others then raise notice '%', e.payload; end loop; end $$".replace("exception", "end loop; exception").replace(" end loop; end $$", " end $$"))


def test_the_errors_of_rules_of_a_fold(telling):
    """A rule on a protected field is refused; one around it meets null."""
    register = "select es_register_fold('x', 'customer', rules => '{\"on\": {\"Named\": [%s]}}', initial_state => '{}')"
    telling(register % '{"add": {"/x": "/name"}}', "select es_state('customer-1', fold => 'x')", register % '{"set": {"/x": "/person"}}', "select es_state('customer-1', fold => 'x')")


JUDGES = {
    "answers with the log": "return (select string_agg(e.payload::text || e.metadata::text, ',') from es_read_all() e);",
    "answers with what was appended": "return (select string_agg(e.payload::text, ',') from unnest(events) e);",
    "raises what was appended": "raise 'no: %', events using detail = events[1].payload::text, errcode = 'UE001';",
}


@pytest.mark.parametrize("judge", JUDGES)
def test_the_errors_of_an_invariant(worlds, judge):
    """It judges at the commit."""
    for number, world in enumerate(worlds):
        session = world.session
        session.execute(f"create function judge(events eventstream.event[]) returns text stable language plpgsql as $$ begin {JUDGES[judge]} end $$")
        session.execute("select es_register_invariant('j', '{customer}', 'clerk.judge(eventstream.event[])')")
        session.execute("begin; select es_append('customer-3', 'Named', %s)".replace("%s", f"""'{{"name": "{CANARY}"}}'"""))
        with pytest.raises(psycopg.Error) as error:
            session.execute("commit")
        assert error.value.sqlstate == ("UE001" if "raises" in judge else "ES019"), error.value
        said = all_of(error.value)
        assert "Named" in said or '"n": 1' in said or '"name":' in said, said
        assert (CANARY in said) == (number == 1), said
        session.execute("select es_unregister_invariant('j'); drop function judge")


# Code of one's own that is given events


KEEP = "create function keep(state jsonb, event eventstream.event) returns jsonb immutable language sql as $$ select jsonb_build_object('p', event.payload, 'm', event.metadata) $$"
FOLD = "select es_register_fold('kept', 'customer', 'clerk.keep(jsonb, eventstream.event)', initial_state => '{}')"


def test_a_fold_that_keeps_all_it_is_given(telling):
    for statement in ("select es_state('customer-1')", "select es_state_at('customer-1', 'infinity')", "select es_load('customer-1')", "select * from es_category_state('customer')", "select * from es_history('customer-1')",
                      "select * from es_timeline('customer-1')", "select es_explain_state('customer-1')", "select es_simulate('customer-1', '[{\"type\": \"Named\", \"payload\": {\"name\": \"" + CANARY + "\"}}]')", "select es_snapshot('customer-1'), es_snapshot_state('customer-1')"):
        telling(KEEP, FOLD, statement)


def test_events_that_are_only_imagined(worlds):
    """What the caller gives himself is shown to his fold as it would be if it were recorded."""
    event = '[{"type": "Named", "payload": {"name": "Given"}}]'
    assert ["Given" in world.told(KEEP, FOLD, f"select es_simulate('customer-9', '{event}')") for world in worlds] == [False, True]


def test_an_upcaster_that_moves_a_field(telling):
    telling("create function up(p jsonb, m jsonb) returns jsonb immutable language sql as $$ select jsonb_build_object('elsewhere', p -> 'name', 'n', p -> 'n', 'all', p) $$",
            "select es_register_upcaster('Named', 1, 'clerk.up(jsonb, jsonb)')", "select payload from es_read('customer-1')", "select payload from es_read_all()")


def test_an_upcaster_that_copies_metadata_into_the_payload(telling):
    telling("create function up(p jsonb, m jsonb) returns jsonb immutable language sql as $$ select p || jsonb_build_object('note', m -> 'note') $$",
            "select es_register_upcaster('Named', 1, 'clerk.up(jsonb, jsonb)')", "select payload ->> 'note' from es_read('customer-1')")


def test_an_upcaster_that_turns_the_event_into_one_of_another_type(telling):
    telling("create function up(p jsonb, m jsonb) returns jsonb immutable language sql as $$ select p $$",
            "select es_register_upcaster('Named', 1, 'clerk.up(jsonb, jsonb)', to_event_type => 'Free')", "select event_type, payload from es_read('customer-1')")


def test_an_upcaster_that_says_what_it_is_given(telling):
    telling("create function up(p jsonb, m jsonb) returns jsonb immutable language plpgsql as $$ begin raise notice '% %', p, m; return p; end $$",
            "select es_register_upcaster('Named', 1, 'clerk.up(jsonb, jsonb)')", "select count(*) from es_read('customer-1')")
    telling("create function up(p jsonb, m jsonb) returns jsonb immutable language plpgsql as $$ begin if p ->> 'n' = '1' and p ->> 'name' <> 'Ada' then raise 'no: %', p; end if; return p; end $$",
            "set local eventstream.on_upcast_error = skip", "select es_register_upcaster('Named', 1, 'clerk.up(jsonb, jsonb)')", "select * from es_read('customer-1')")


def test_a_schema_that_asks_about_what_is_stored(guessing):
    guessing("select es_alter_event_type('Named', 1, '{\"example\": null}')", "select es_alter_event_type('Named', 1, '{\"json_schema\": {\"properties\": {\"name\": {\"const\": \"GUESS\"}}}}')",
             "select count(*) from es_check_event_types(thorough => true)")
    guessing("select es_alter_event_type('Named', 1, '{\"example\": null}')", "select es_alter_event_type('Named', 1, '{\"json_schema\": {\"not\": {\"properties\": {\"name\": {\"const\": \"GUESS\"}}}}}')",
             "select count(*) from es_check_event_types(thorough => true)")


def test_a_read_model(telling):
    telling("create table seen (e text)", "create function see(event eventstream.event) returns void language sql as $$ insert into clerk.seen values (event::text) $$",
            "select es_create_projection('seen', 'clerk.see(eventstream.event)')", "select es_run_projection('seen')", "select * from seen")


def test_a_handler_that_is_given_a_batch(telling):
    telling("create table seen (e text)", "create function see(events eventstream.event[]) returns void language sql as $$ insert into clerk.seen select e::text from unnest(events) e $$",
            "select es_create_projection('seen', 'clerk.see(eventstream.event[])')", "select es_run_projection('seen')", "select * from seen")


def test_a_state_table_and_a_trigger_on_it(telling):
    telling(KEEP, FOLD, "select es_create_state_table('states', 'customer', '[{\"name\": \"p\", \"type\": \"jsonb\", \"path\": \"/p\"}, {\"name\": \"m\", \"type\": \"jsonb\", \"path\": \"/m\"}]', mode => 'inline')",
            "select * from states", "create function spy() returns trigger language plpgsql as $$ begin raise notice '%', new; return new; end $$",
            "create trigger spy before insert or update on states for each row execute function spy()", "select es_rebuild_projection('states')", "select es_append('customer-1', 'Other', '{}')")


def test_a_temporal_view(telling):
    telling(KEEP, FOLD, "select es_create_temporal_view('then_', 'customer', '[{\"name\": \"p\", \"type\": \"jsonb\", \"path\": \"/p\"}]')", "select * from then_", "select * from then__at('infinity')")


def test_a_subscription_and_its_dead_letters(telling):
    """Parked, then put aside, with a reason made of what the consumer was given."""
    nack = ("with batch as materialized (select lease_id, event from es_fetch('sub', 'me', max_count => 1)) select es_nack(lease_id, (event).global_position, (event).payload::text%s) from batch")
    said = telling("select es_create_subscription('sub', '{customer}')", nack % ", retry_after => '0'", "select * from eventstream.subscriptions", nack % ", dead_letter => true",
                   "select * from eventstream.subscriptions", "select * from eventstream.dead_letters", "select event from es_fetch('sub', 'me')")
    assert "ES0" not in said and "'customer-1', 1, 'Named', 2, " in said, said


def test_a_dead_letter_of_a_handler_that_raises_what_it_was_given(telling):
    telling("create function see(event eventstream.event) returns void language plpgsql as $$ begin raise 'no: %', event using detail = event.payload::text; end $$",
            "select es_create_projection('seen', 'clerk.see(eventstream.event)', on_error => 'skip', max_retries => 0, categories => '{customer}')", "select es_run_projection('seen')", "select * from eventstream.dead_letters",
            "select * from eventstream.projections", "select * from eventstream.health")


def test_a_decider_that_answers_with_the_state(telling):
    telling(KEEP, FOLD, "create function says(state jsonb, command eventstream.command) returns jsonb stable language sql as $$ select jsonb_build_object('result', state) $$",
            "select es_register_decider('says', 'customer', 'clerk.says(jsonb, eventstream.command)')", "select es_command('customer-1', 'Say', '{}')", "select es_simulate_command('customer-1', 'Ask', '{}')",
            "select es_command('customer-1', 'Ask', '{}')")


# Retries, commands, operations


def test_a_retry_with_a_guess(guessing):
    guessing("select es_append('customer-1', 'Named', '{\"name\": \"GUESS\", \"person\": {\"born\": \"" + CANARY + f"\"}}, \"n\": 1}}', event_id => '{ID}', subject => 'p-1')")


def test_an_imagined_retry_with_a_guess(guessing):
    guessing(KEEP, FOLD, "select es_simulate('customer-1', '[{\"type\": \"Named\", \"subject\": \"p-1\", \"event_id\": \"" + ID + "\", \"payload\": {\"name\": \"GUESS\", \"person\": {\"born\": \"" + CANARY + "\"}, \"n\": 1}}]') is null")


def test_the_key_of_a_command_with_a_guess(guessing):
    guessing("select es_command('command-1', 'Say', '{\"name\": \"GUESS\"}', command_key => 'key')")


def test_the_key_of_a_scheduled_command_with_a_guess(guessing):
    guessing("select es_schedule_command('command-1', 'Say', '{\"name\": \"GUESS\"}', '2100-01-01Z', 'later')")


def test_the_key_of_an_operation_with_a_guess(guessing):
    guessing("select es_begin_command('call', 'key', '{\"name\": \"GUESS\"}') ->> 'outcome'")


def test_the_view_of_scheduled_commands(telling):
    for column in ("payload", "metadata", "error_message", "error_detail"):
        telling(f"select {column} from eventstream.scheduled_commands")
    telling("select * from eventstream.scheduled_commands")


def test_the_dead_letters_of_scheduled_commands(telling):
    for column in ("reason", "error_detail"):
        telling(f"select {column} from eventstream.dead_letters")


# What lies around


def test_the_tables_themselves_and_their_statistics(worlds):
    for world in worlds:
        for statement in ("select * from _eventstream.events", "copy _eventstream.events_1 to stdout", "select * from _eventstream.scheduled_commands", "select stavalues1 from pg_statistic",
                          "create statistics s on (payload ->> 'name'), version from _eventstream.events", "select * from _eventstream.events tablesample system (100)", "select * from _eventstream.protections"):
            assert "42501" in world.told(statement), statement
        with world.database.connect() as owner:
            owner.execute("analyze; analyze _eventstream.events")
            assert value(owner, "select count(*) from pg_statistic s where s::text like %s", f"%{CANARY}%") == 0
        assert CANARY not in world.told("select * from pg_stats", "select * from pg_stats_ext")


def test_copy_of_what_may_be_read(worlds):
    for number, world in enumerate(worlds):
        with world.session.cursor().copy("copy (select * from eventstream.events) to stdout") as copy:
            assert (CANARY.encode() in b"".join(bytes(part) for part in copy)) == (number == 1)


def test_a_dump_by_the_role(worlds):
    for world in worlds:
        done = subprocess.run([BIN / "pg_dump", "-U", "clerk"], env=world.database.server.address(world.database.name), capture_output=True, timeout=60)
        assert done.returncode != 0 and b"permission denied for schema _eventstream" in done.stderr
        assert CANARY.encode() not in done.stdout + done.stderr


def test_what_an_append_says_of_itself(worlds):
    append = "select es_append('customer-5', 'Named', '{\"name\": \"" + CANARY + "\"}')"
    for world in worlds:
        said = world.told(append, "select * from es_last_append()", "select es_metrics()", "select * from eventstream.streams", "select * from eventstream.audit where event_type = 'Named'", "select * from eventstream.proof",
                          "select * from es_log_info()", "select * from es_chain_heads()", "select * from es_verify()", "select * from es_maintain()", "select es_definitions()", "select * from eventstream.administration")
        assert CANARY not in said and "customer-5" in said


@pytest.fixture
def workers(worlds):
    """As `worlds` ended them."""
    with worlds[0].database.server.connect("postgres") as admin:
        admin.execute("alter system set eventstream.max_workers = 2")
        admin.execute("alter system set eventstream.idle_interval = '1s'")
        admin.execute("select pg_reload_conf()")
        yield
        admin.execute("alter system set eventstream.max_workers = 0")
        admin.execute("alter system reset eventstream.idle_interval")
        admin.execute("select pg_reload_conf()")


def test_notifications_and_the_lines_of_the_log(worlds, workers):
    """A handler that raises what it was given stops its projection: that is told on both channels, and in the server's log."""
    for number, world in enumerate(worlds):
        session, log = world.session, world.database.server.log
        begin = len(log.read_text(errors="replace"))
        session.execute("create function see(event eventstream.event) returns void language plpgsql as $$ begin raise 'no: %', event using detail = event.payload::text; end $$")
        with world.database.connect(user="clerk") as other:
            other.execute("listen eventstream; listen eventstream_alert")
            session.execute("select es_create_projection('seen', 'clerk.see(eventstream.event)', max_retries => 0)")
            session.execute("select es_append('customer-6', 'Named', '{\"name\": \"" + CANARY + "\"}')")
            heard = []
            for notice in other.notifies(timeout=20):
                heard.append((notice.channel, notice.payload))
                if ("eventstream_alert", "projection") in heard and "eventstream" in dict(heard):
                    break
            assert ("eventstream_alert", "projection") in heard and "eventstream" in dict(heard), heard
            assert CANARY not in str(heard)
        told = log.read_text(errors="replace")[begin:]
        assert f"{world.database.name}" in told and "projection seen" in told and (CANARY in told) == (number == 1), told
        session.execute("select es_drop_projection('seen'); drop function see")


def test_a_rule_that_is_rolled_back_leaves_no_state_behind(worlds):
    """An admin who takes a rule back sees nothing before the commit, and what he undoes leaves nothing in the session's caches."""
    hidden, _ = worlds
    with hidden.database.connect() as owner:
        owner.execute(KEEP.replace("keep(", "public.keep(") + "; " + FOLD.replace("clerk.", "public."))
        assert CANARY not in str(value(owner, "select es_state('customer-1')"))
        with owner.transaction(force_rollback=True):
            owner.execute("savepoint a; select es_unprotect('Named')")
            assert CANARY not in str(value(owner, "select es_state('customer-1')")) and CANARY not in str(rows(owner, "select payload from eventstream.events"))
            owner.execute("rollback to a")
            assert CANARY not in str(value(owner, "select es_state('customer-1')")) and CANARY not in str(rows(owner, "select payload from eventstream.events"))
            owner.execute("select es_unprotect('Named'); select es_state('customer-1')")
        assert CANARY not in str(value(owner, "select es_state('customer-1')")) and CANARY not in str(rows(owner, "select payload from es_read('customer-1')"))
        owner.execute("select es_unregister_fold('kept'); drop function public.keep")


def test_settings_of_the_session(telling):
    for setting in ("eventstream.on_upcast_error = skip", "eventstream.metadata = '{\"reveal\": true}'", "row_security = off", "session_replication_role = replica", "search_path = clerk, pg_temp", "eventstream.tenant = 'default'"):
        telling(f"set local {setting}", "select payload, metadata from eventstream.events", "select payload, metadata from public.es_read('customer-1')")


def test_functions_planted_in_the_way(telling):
    telling("create function clerk.shown_payload(bigint, text, int, jsonb) returns jsonb language sql as 'select $4'", "set local search_path = clerk, _eventstream, public",
            "create function clerk.jsonb_send(jsonb) returns bytea language plpgsql as $$ begin raise notice '%', $1; return ''; end $$", "select payload from eventstream.events")


def test_the_functions_behind_the_views(worlds):
    """Whoever calls them himself gives what he has."""
    hidden, _ = worlds
    assert "Mine" not in hidden.told("select _eventstream.shown_payload(1, 'Named', 1, '{\"name\": \"Mine\"}')")
    said = hidden.told("select _eventstream.shown_payload(-1, 'Named', 1, payload) from eventstream.events", "select _eventstream.shown_payload(1, 'Other', 1, payload) from eventstream.events")
    assert CANARY not in said
