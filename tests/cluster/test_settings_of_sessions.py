"""Our own SQL means the same in every session: one scenario that calls every es_* function gives the same rows and the same errors under each
hostile setting, each alone and all at once.
"""

import datetime
import re
from decimal import Decimal

import hostile
import psycopg
from database import Database, rows, value

HANDLERS = """
create schema "The app";
create function "The app"."a fold"(state jsonb, event eventstream.event) returns jsonb language plpgsql immutable as $$
begin
    begin
        perform 1 / (event.payload ->> 'divisor')::int;
    exception when division_by_zero then
        return state || '{"divided": false}';
    end;
    return state || jsonb_build_object('last', event.payload, 'n', (state ->> 'n')::int + 1);
end $$;
create function "The app".upcast(payload jsonb, metadata jsonb) returns jsonb language plpgsql immutable as $$
begin
    return payload || '{"upcast": "a\\\\b"}';
exception when others then
    return payload;
end $$;
create table "The app".seen (tenant text, what jsonb);
create function "The app".on_event(event eventstream.event) returns void language plpgsql as $$
begin
    if event.payload ? 'refuse' then
        raise exception 'refused';
    end if;
    insert into "The app".seen values (event.tenant, event.payload);
end $$;
create function "The app".decide(state jsonb, command eventstream.command) returns jsonb language plpgsql stable as $$
begin
    perform es_require(not command.payload ? 'refuse', 'refused', 'it''s a\\b', jsonb_build_object('at', command.occurred_at));
    return jsonb_build_object('events', jsonb_build_array(es_make_event('Paid', command.payload, tags => '{"a:1", "b c"}')),
                              'result', jsonb_build_array(state, command.occurred_at, command.payload ->> 'back', 0.1::float8));
end $$;
create function "The app".bounds(command eventstream.command) returns jsonb language sql immutable as $$ select '{"streams": ["a-2"], "writes": ["a-8"]}'::jsonb $$;
create function "The app".judge(events eventstream.event[]) returns text language sql stable as $$
    select format('%s %s it''s a\\b', e.payload, e.occurred_at) from unnest(events) e
$$;
create function "The app".empty() returns void language sql as $$ delete from "The app".seen where tenant = current_setting('eventstream.tenant') $$;
"""

PAYLOAD = r"""{"amount": 12.50, "back": "a\\b'c", "divisor": 1}"""
RULES = '{"on": {"Paid": [{"add": {"/sum": "/amount"}}, {"set": {"/at": "event:/occurred_at", "/back": "/back"}}]}}'
COLUMNS = r"""[{"name": "Sum of it", "type": "numeric", "path": "/sum"}, {"name": "back\\slash", "type": "text", "path": "/back"}]"""
EVENT = 'select version, event_type, schema_version, payload, metadata, subject, occurred_at from'
DEAD = "(select min(id) from eventstream.dead_letters where reason like {})"

#: Statements, with the parameters; TENANT is replaced. No literal of theirs has a backslash: what the client's strings mean is the client's.
SCENARIO = [
    ("select es_register_fold('sums', 'a', rules => %s, initial_state => '{{}}')", (RULES,)),
    ("select es_register_fold('folded', 'a', '\"The app\".\"a fold\"(jsonb, eventstream.event)', initial_state => %s, is_default => false)", ('{"n": 0}',)),
    ("select es_register_upcaster('Paid', 1, '\"The app\".upcast(jsonb, jsonb)')", ()),
    ("select es_create_state_table('TENANT.\"The table\"', 'a', %s, mode => 'inline')", (COLUMNS,)),
    ("select es_create_state_table('TENANT.later', 'a', %s)", (COLUMNS,)),
    ("select es_create_temporal_view('TENANT.\"The view\"', 'a', %s)", (COLUMNS,)),
    ("select es_create_projection('seen', '\"The app\".on_event(eventstream.event)', reset => '\"The app\".empty()', max_retries => 0)", ()),
    ("select es_create_subscription('follower', categories => '{{a}}')", ()),
    ("select es_create_event_type('Declared', json_schema => %s, example => %s)", ('{"properties": {"n": {"multipleOf": 0.01}}}', '{"n": 0.03}')),
    ("select es_append('a-9', 'Declared', '{{\"n\": 0.001}}')", ()),
    ("select es_alter_event_type('Declared', 1, '{{\"appendable\": false}}')", ()),
    ("select es_append('a-9', 'Declared', '{{\"n\": 0.01}}')", ()),
    ("select event_type, schema_version, problem, events, last_recorded_at, stream, version, value, rule from es_check_event_types(thorough => true)", ()),
    ("select event_type, schema_version, appendable, json_schema, example, events, last_recorded_at from eventstream.event_types", ()),
    ("select es_drop_event_type('Declared')", ()),
    ("select es_register_decider('app', 'a', '\"The app\".decide(jsonb, eventstream.command)', commands => %s, boundary => '\"The app\".bounds(eventstream.command)')",
     ('{"Pay": {"schema": {"properties": {"amount": {"multipleOf": 0.01}}}, "example": {"amount": 0.03}, "description": "it\'s"}}',)),
    ("select es_command('a-7', 'Pay', %s, occurred_at => '2024-03-31 10:00+00', command_key => 'k-1') - 'event_ids' - 'global_position'", (PAYLOAD,)),
    ("select es_command('a-7', 'Pay', %s, occurred_at => '2024-03-31 10:00+00', command_key => 'k-1') - 'event_ids' - 'global_position'", (PAYLOAD,)),
    ("select es_command('a-7', 'Pay', '{{\"refuse\": 1}}', occurred_at => '2024-03-31 10:00+00')", ()),
    ("select es_command('a-7', 'Pay', '{{\"amount\": 0.001}}')", ()),
    ("select es_simulate_command('a-7', 'Pay', '{{\"refuse\": 1}}', occurred_at => '2024-03-31 10:00+00')", ()),
    ("select es_simulate_command('a-7', 'Pay', %s, occurred_at => '2024-03-31 10:00+00')", (PAYLOAD,)),
    ("select (es_make_command('Pay', %s, occurred_at => '2024-03-31 10:00+00')).payload, es_require(true, 'a', 'b'), es_make_event('Paid', %s, tags => '{{b,a}}')", (PAYLOAD, PAYLOAD)),
    ("select es_schedule_command('a-7', 'Pay', %s, '2100-03-31 10:00+00', 'later-1', '{{\"n\": 1.50}}')", (PAYLOAD,)),
    ("select es_schedule_command('a-7', 'Pay', %s, '2100-03-31 10:00+01', 'later-1')", (PAYLOAD,)),
    ("select es_schedule_command('a-7', 'Pay', '{{\"amount\": 0.001}}', '2100-03-31 10:00+00')", ()),
    ("select command_key, payload, metadata, run_at = '2100-03-31T10:00:00Z', stage from eventstream.scheduled_commands", ()),
    ("select es_unschedule_command('later-1', 'it''s over')", ()),
    ("select name, commands, source from eventstream.deciders where name = 'app'", ()),
    ("select kind, name, (definition - 'search_path')::text from es_definitions()", ()),
    ("select es_test('it''s', given => %s, command => %s, events => %s, states => '{{\"a-t\": {{\"none\": 1}}}}', at => '2024-03-31 10:00+00')",
     (f'[{{"stream": "a-t", "type": "Paid", "payload": {PAYLOAD}}}]', f'{{"stream": "a-t", "command_type": "Pay", "payload": {PAYLOAD}}}', f'[{{"payload": {PAYLOAD}, "occurred_at": "2024-03-31T10:00:00Z"}}]')),
    ("select es_unregister_decider('app')", ()),
    ("select es_register_invariant('exact', '{{a}}', fold => 'folded', require => %s)", ('{"": {"exists": true}, "/n": {"differs": 0.30}}',)),
    ("select es_register_invariant('judged', '{{b}}', '\"The app\".judge(eventstream.event[])', event_types => '{{Judged}}')", ()),
    ("select es_append('b-1', 'Judged', '{{\"amount\": 0.10}}', occurred_at => '2024-03-31 10:00+00')", ()),
    ("select name, categories, event_types, handler, fold, require, source from eventstream.invariants", ()),
    ("select es_unregister_invariant('judged'), es_unregister_invariant('exact')", ()),
    ("select es_begin_command('charge', 'k', '{{\"amount\": 1.50}}', keep => '100 days') - 'attempt_token' - 'lease_until'", ()),
    ("select es_extend_command(attempt_token, '1 h') > now() from _eventstream.operations where tenant_id = (select id from _eventstream.tenants where name = 'TENANT')", ()),
    ("select es_command_event_id(attempt_token, 1) is not null from _eventstream.operations where tenant_id = (select id from _eventstream.tenants where name = 'TENANT')", ()),
    ("select es_complete_command(attempt_token, '{{\"fee\": 0.10}}') from _eventstream.operations where tenant_id = (select id from _eventstream.tenants where name = 'TENANT')", ()),
    ("select es_begin_command('charge', 'k', '{{\"amount\": 1.50}}')", ()),
    ("select es_begin_command('charge', 'k', '{{\"amount\": 1.5}}')", ()),
    ("select es_fail_command((es_begin_command('charge', 'l', '{{}}') ->> 'attempt_token')::uuid, '{{}}', false)", ()),
    ("select es_protect('Hidden', pointers => array['/it''s \\\\a'])", ()),
    ("select kind, event_type, schema_version, pointers, clear_pointers, metadata_pointers from eventstream.protections", ()),
    ("select es_unprotect('Hidden')", ()),
    ("select es_close_period('{{a}}', '2024-01-01T00:00:00Z', 'x') <= clock_timestamp()", ()),
    ("select es_append('a-9', 'Declared', '{{}}', occurred_at => '2024-01-01 00:00+00')", ()),
    ("select es_reopen_period('{{a}}', null, 'x')", ()),
    ("select (es_condition('{{\"items\": [{{\"tags\": [\"order:1\"]}}]}}') - 'after' - 'log')::text", ()),
    ("select es_alter_category('a', %s)", ('{"max_future": "01:00", "id_pattern": "[0-9]+", "foldable": "required"}',)),
    ("select id_pattern, extract(epoch from max_future)::text from eventstream.categories where category = 'a'", ()),
    ("select es_append('a-x', 'Paid', %s)", (PAYLOAD,)),
    ("select es_append('a-9', 'Paid', %s, occurred_at => clock_timestamp() + interval '2 hours')", (PAYLOAD,)),
    ("select es_append('a-9', 'Paid', %s)", ('{"amount": "x", "divisor": 0}',)),
    ("select es_alter_category('a', '{{\"max_future\": null, \"id_pattern\": null, \"foldable\": null}}')", ()),
    ("select es_append('a-1', 'Paid', %s, event_id => '01890a5d-ac96-774b-bcce-b302099a8057', occurred_at => '2024-03-31 10:00+00', subject => 'Ada')", (PAYLOAD,)),
    ("select es_append('a-1', 'Paid', %s, event_id => '01890a5d-ac96-774b-bcce-b302099a8057', occurred_at => '2024-03-31 10:00+00', subject => 'Ada')", (PAYLOAD,)),
    ("select es_append('a-1', 'Paid', '{{}}', event_id => '01890a5d-ac96-774b-bcce-b302099a8057')", ()),
    ("select stream, version, event_ids, replayed from es_last_append()", ()),
    ("select es_append_events('a-1', %s)", (f'[{{"type": "Paid", "payload": {PAYLOAD}, "occurred_at": "2024-03-30T10:00:00Z"}}]',)),
    ("select stream, version from es_append_streams(%s)", (f'[{{"stream": "a-2", "events": [{{"type": "Paid", "payload": {PAYLOAD}}}]}}]',)),
    ("select es_append('a-3', 'Paid', %s, expected_version => 5)", (PAYLOAD,)),
    ("select es_append('a-2', 'Odd', %s)", ('{"divisor": 0, "refuse": 1}',)),
    ("select es_close_stream('a-2', %s)", ("it's a\\b",)),
    ("select es_append('a-2', 'Paid', %s)", (PAYLOAD,)),
    ("select es_append('b', 'Paid', %s)", (PAYLOAD,)),
    ("select es_state('a-1')", ()),
    ("select es_state('a-1', 'folded')", ()),
    ("select es_state('a-1', 'no such fold')", ()),
    ("select es_state_at('a-1', '2024-03-30 23:00+00')", ()),
    ("select es_state_at_version('a-1', 1, 'folded')", ()),
    ("select * from es_load('a-1', for_update => true)", ()),
    ("select * from es_category_state('a')", ()),
    ("select * from es_category_state('a', fold => 'folded')", ()),
    ("select es_simulate('a-1', %s)", (f'[{{"type": "Paid", "payload": {PAYLOAD}}}]',)),
    ("select version, event_type, occurred_at, state, changes from es_history('a-1')", ()),
    ("select valid_from, version, state from es_timeline('a-1')", ()),
    ("select es_explain_state('a-1', as_of => '2024-03-30 23:00+00') - array['milliseconds', 'fold', 'started_from', 'folded']", ()),
    ("select es_snapshot('a-1'), es_snapshot('a-1', 'folded'), es_snapshot('a-2')", ()),
    ("select es_snapshot_state('a-1'), es_snapshot_state('a-1', fold => 'folded')", ()),
    ("select * from es_verify_snapshots()", ()),
    ("select * from es_verify_snapshots(thorough => true)", ()),
    ("select es_prune_snapshots(keep => 0)", ()),
    (f"{EVENT} es_read('a-1')", ()),
    (f"{EVENT} es_read('a-1', until => '2024-03-30 23:00+00', raw => true)", ()),
    (f"{EVENT} es_read_all()", ()),
    (f"{EVENT} es_read_backward(categories => '{{{{a}}}}', event_types => '{{{{Paid}}}}')", ()),
    (f"{EVENT} es_read_subject('Ada')", ()),
    ("select (event).stream, (event).version, (event).payload, (event).occurred_at from es_query('{\"subjects\": [\"Ada\"], \"occurred\": {\"from\": \"2000-01-01T00:00Z\"}}')", ()),
    ("select count(*) from es_query('{}', 2, page => (select page from es_query('{}', 1)))", ()),
    ("select es_rotate_page_key() > '2024-01-01 00:00+00'", ()),
    ("select es_add_token_key('k', sha256('a')::bytea, null, 'https://id.example.org')", ()),
    ("select es_add_token_key('k', '\\xd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a', null, 'https://id.example.org')", ()),
    ("select es_revoke_token_key('k')", ()),
    ("select es_use_token('no token')", ()),
    ("select es_require_token('pg_monitor')", ()),
    (f"{EVENT} es_event('01890a5d-ac96-774b-bcce-b302099a8057')", ()),
    ("select es_stream_version('a-1'), (es_stream('a-1')).closed, (es_stream('a-1')).first_occurred_at", ()),
    ("select * from es_verify_stream('a-1')", ()),
    ("select * from es_verify()", ()),
    ("select tenant, stream, version from es_chain_heads() where tenant = 'TENANT' and stream ~ '^a' order by 2", ()),
    ("select es_ulid('01890a5d-ac96-774b-bcce-b302099a8057'), es_ulid_to_uuid('01H455VB4PEX5VSKNK084SN02Q'), es_stream_name('a', 'x-1')", ()),
    ("select es_new_event_id() is not null, es_horizon() > 0, es_settled_until() > '2024-01-01 00:00+00', (es_log_info()).horizon > 0", ()),
    ("select es_day_end('2024-10-31', 'Europe/Vienna'), es_day_end('2024-10-26', 'Atlantic/Azores')", ()),
    ("select es_set_as_of('2024-10-31', 'Europe/Vienna')", ()),
    ("select es_grant('pg_monitor', 'read', category => 'a'), es_revoke('pg_monitor', 'read', category => 'a')", ()),
    ("select es_use_tenant('TENANT')", ()),
    ("select es_run_projection('TENANT.later')", ()),
    ("select es_run_projection('seen')", ()),
    ("select es_run_projection('seen')", ()),
    ("select es_skip_event('seen', (select max(global_position) from es_read_all(event_types => '{{Odd}}')), 'skipped a')", ()),
    ("select es_run_projection('seen') > 0", ()),
    (f"select es_retry_dead_letter({DEAD.format('$$%%skipped%%$$')})", ()),
    (f"select es_drop_dead_letter({DEAD.format('$$%%skipped%%$$')}, 'no more') is not null", ()),
    ("select es_alter_projection('seen', '{{\"batch_size\": 7}}'), es_pause_projection('seen'), es_resume_projection('seen')", ()),
    ("select es_rebuild_projection('TENANT.later')", ()),
    ("select es_run_projection('TENANT.later')", ()),
    ("select es_rebuild_projection('TENANT.\"The table\"')", ()),
    ("select what from \"The app\".seen where tenant = 'TENANT' order by what::text", ()),
    ("select * from TENANT.\"The table\" order by stream", ()),
    ("select * from TENANT.later order by stream", ()),
    ("select * from TENANT.\"The view\" order by stream", ()),
    ("select * from TENANT.\"The view_at\"('2024-03-30 23:00+00') order by stream", ()),
    ("select f.lease_id is not null, f.attempt, (f.event).stream, (f.event).payload from es_fetch('follower', 'c', max_count => 3) f", ()),
    ("select es_extend_lease(lease_id, interval '1 minute') is not null from _eventstream.subscription_leases limit 1", ()),
    ("select es_nack(lease_id, (select min(global_position) from eventstream.events), 'later', interval '1 hour') is not null from _eventstream.subscription_leases limit 1", ()),
    ("select es_ack(lease_id) is not null from _eventstream.subscription_leases limit 1", ()),
    ("select es_seek_subscription('follower', 0) is not null, es_drop_subscription('follower')", ()),
    ("select name, category from eventstream.folds order by 1", ()),
    ("select count(*) from es_metrics() m", ()),
    ("select count(*) > 0 from eventstream.health", ()),
    ("select es_drop_projection('TENANT.later', drop_table => true), es_drop_projection('seen')", ()),
    ("select es_unregister_upcaster('Paid', 1)", ()),
    ("select es_unregister_fold('folded')", ()),
    ("select * from es_verify_audit()", ()),
    ("select event_type, schema_version, problem, events from es_check_event_types()", ()),
    ("select event_type from eventstream.administration order by version", ()),
    ("select count(*) from es_maintain()", ()),
    ("select (e).version, (e).event_type from (select es_reveal('a-1', 'CASE-1', 1, 1) e) r", ()),
    ("select function, stream, from_version, to_version, events, reason from eventstream.access_log", ()),
    ("select tenant, status, events, close_reason from eventstream.tenants where tenant = current_setting('eventstream.tenant')", ()),
    ("select es_close_tenant(current_setting('eventstream.tenant'), 'x') <= clock_timestamp()", ()),
    ("select es_rename_tenant(current_setting('eventstream.tenant'), current_setting('eventstream.tenant') || ' r')", ()),
]
#: Made before the scenario, or to be tried elsewhere.
BESIDES = {"es_create_tenant", "es_activate", "es_wait_for", "es_tests_done"}
#: What a setting is there to change, by statement.
MEANT = {
    "eventstream.as_of": r"The view",
    "eventstream.known_at": r"The view",
    "eventstream.metadata": r"metadata",
    # It forbids views, which is what these read.
    "restrict_nonsystem_relation_kind": r"eventstream\.|view",
    # Functions of users are refused, and much follows from that: tried below.
    "standard_conforming_strings": r"^",
}


def in_utc(column):
    return column.astimezone(datetime.UTC) if isinstance(column, datetime.datetime) else column


def play(session, tenant: str) -> list[tuple]:
    """Each statement with its rows, or its error; values come in binary, so that no setting prints them."""
    played = []
    for statement, parameters in SCENARIO:
        text = statement.replace("{{", "{").replace("}}", "}").replace("TENANT", tenant)
        try:
            found = session.execute(text, parameters or None, binary=True).fetchall()
            outcome = "\n".join(repr(tuple(in_utc(column) for column in row)) for row in found)
        except psycopg.Error as error:
            outcome = f"{error.sqlstate}: {error.diag.message_primary}; {error.diag.message_hint}"
        # When it ran, and where its events came to lie in the log.
        outcome = re.sub(r"datetime\.datetime\((?!2024)[^()]*(\([^()]*\))?\)|'20(?!24)[0-9-]{6,8}T[^']*'", "now", outcome)
        outcome = re.sub(r"(position |'seen', )[0-9]+", r"\1N", outcome)
        played.append((statement, re.sub(rf"\b{tenant}\b", "TENANT", outcome)))
    return played



def test_every_function_gives_the_same_under_every_setting(quiet):
    with quiet.connect() as clean:
        clean.execute(HANDLERS)
        clean.execute("create schema planted")
        functions = {name for (name,) in rows(clean, "select distinct proname::text from pg_proc where proname like 'es\\_%'")}
        called = set(re.findall(r"\bes_\w+", " ".join(statement for statement, _ in SCENARIO)))
        assert functions - called - BESIDES == set()
        settings = hostile.settings_of(clean)
        for number in range(len(settings) + 2):
            clean.execute(f"select es_create_tenant('t{number}')")
            clean.execute(f"create schema t{number}")
    with quiet.connect() as session:
        session.execute("set eventstream.tenant = 't0'")
        usual = play(session, "t0")
    differences = []
    for number, (name, some) in enumerate([*((name, {name: setting}) for name, setting in settings.items()), ("all", hostile.together(settings))], 1):
        with quiet.connect() as session:
            session.execute(f"set eventstream.tenant = 't{number}'")
            hostile.set_to(session, some)
            found = play(session, f"t{number}")
        meant = re.compile("|".join(MEANT[each] for each in some if each in MEANT) or "(?!)")
        for (statement, expected), (_, outcome) in zip(usual, found, strict=True):
            if outcome.startswith("XX") or (outcome != expected and not meant.search(statement)):
                differences.append((name, statement, outcome, expected))
    assert differences == []


def test_strings_read_by_other_rules_are_no_matter_where_no_code_of_users_runs(quiet):
    with quiet.connect() as session:
        session.execute("set standard_conforming_strings = off")
        session.execute("set backslash_quote = off")
        assert value(session, "select es_append('a-1', 'X', '{}')") == 1
        session.execute("select es_register_fold('sums', 'a', rules => %s)", (RULES,))
        session.execute("select es_append('a-1', 'Paid', %s)", (PAYLOAD,))
        assert value(session, "select es_state('a-1') - 'at'") == {"sum": 12.5, "back": "a\\b'c"}
        assert value(session, "select es_create_temporal_view('v', 'a', %s)", COLUMNS) == "public.v"
        assert value(session, "select es_create_state_table('t', 'a', %s)", COLUMNS) == "t"
        assert [row[:4] for row in rows(session, "select * from v")] == [("a-1", 2, Decimal("12.50"), "a\\b'c")]
        assert rows(session, "select * from es_verify()") == []


def test_a_users_own_schema_of_our_schemas_name_is_searched_where_the_extension_is_not(quiet_server):
    database = Database(quiet_server, "no_extension").create(extension=False)
    with database.connect() as session:
        session.execute("create schema eventstream_pinned; create table eventstream_pinned.theirs as select 7 as n")
        session.execute("set search_path = eventstream_pinned, public")
        assert value(session, "select n from theirs") == 7
        assert value(session, "select current_schemas(false)") == ["eventstream_pinned", "public"]
    database.drop()
