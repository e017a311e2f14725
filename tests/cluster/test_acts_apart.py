"""No act of administration of a tenant waits for one of another, whichever of them is open: what they lock is the tenant's own. Acts of one tenant that would judge by what the other changes do wait, and whichever
comes first, what is kept is right."""

import json
import threading

import psycopg
import pytest
from database import all_at_once, raised, rows, value
from server import wait_until
from test_tenants_apart import KEY, in_tenant, two  # noqa: F401

CANARY = "Mia Q. Canary"
NAMED = f"select es_append('customer-1', 'Named', '{{\"name\": \"{CANARY}\"}}')"
PROTECT = "select es_protect('Named', pointers => '{/name}')"
TABLE = """select es_create_state_table('{}', 'customer', '[{{"name": "name", "type": "text", "path": "/name"}}]', mode => '{}')"""
MADE = """
select es_append('customer-1', 'Named', '{"name": "Ada"}');
select es_register_fold('kept', 'customer', 'keep(jsonb, eventstream.event)');
select es_create_projection('async', 'on_event(eventstream.event)');
select es_create_projection('inline', 'on_event(eventstream.event)', mode => 'inline');
select es_create_projection('old', 'on_event(eventstream.event)');
select es_create_projection('paused', 'on_event(eventstream.event)'), es_pause_projection('paused');
select es_create_state_table('table_TENANT', 'customer', '[{"name": "name", "type": "text", "path": "/name"}]', mode => 'inline');
select es_create_event_type('Named', 1, example => '{"name": "Ada"}');
select es_create_subscription('old');
select es_protect('Old', pointers => '{/name}');
select es_add_token_key('k1', KEY, 'TENANT', 'https://id.example.org');
select es_grant('WEB', 'read', 'TENANT');
"""
ACTS = {
    "es_protect": PROTECT,
    "es_protect, of a new version": "select es_protect('Old', 2, pointers => '{/name}')",
    "es_unprotect": "select es_unprotect('Old')",
    "es_create_projection": "select es_create_projection('new', 'on_event(eventstream.event)')",
    "es_create_projection, inline": "select es_create_projection('new', 'on_event(eventstream.event)', mode => 'inline')",
    "es_create_state_table": TABLE.format("new_TENANT", "async"),
    "es_create_state_table, inline": TABLE.format("new_TENANT", "inline"),
    "es_create_temporal_view": """select es_create_temporal_view('then_TENANT', 'customer', '[{"name": "name", "type": "text", "path": "/name"}]')""",
    "es_alter_projection": "select es_alter_projection('async', '{\"batch_size\": 7}')",
    "es_pause_projection": "select es_pause_projection('inline')",
    "es_resume_projection": "select es_resume_projection('paused')",
    "es_rebuild_projection": "select es_rebuild_projection('table_TENANT')",
    "es_run_projection": "select es_run_projection('async')",
    "es_drop_projection": "select es_drop_projection('old')",
    "es_register_fold": "select es_register_fold('kept', 'customer', 'keep(jsonb, eventstream.event)', initial_state => '{\"x\": 1}')",
    "es_register_upcaster": "select es_register_upcaster('Other', 1, 'up(jsonb, jsonb)')",
    "es_create_event_type": "select es_create_event_type('New', 1)",
    "es_alter_event_type": "select es_alter_event_type('Named', 1, '{\"json_schema\": {\"type\": \"object\"}}')",
    "es_alter_category": "select es_alter_category('customer', '{\"expected_version\": \"optional\"}')",
    "es_create_subscription": "select es_create_subscription('new')",
    "es_drop_subscription": "select es_drop_subscription('old')",
    "es_close_period": "select es_close_period('{customer}', '2020-01-01Z', 'over')",
    "es_add_token_key": f"select es_add_token_key('k2', {KEY}, 'TENANT', 'https://id.example.org')",
    "es_revoke_token_key": "select es_revoke_token_key('k1', 'TENANT')",
    "es_require_token": "select es_require_token('WEB')",
    "es_grant": "select es_grant('WEB', 'append', 'TENANT')",
    "es_revoke": "select es_revoke('WEB', 'read', 'TENANT')",
    "es_rename_tenant": "select es_rename_tenant('TENANT', 'new_TENANT')",
    "es_close_tenant": "select es_close_tenant('TENANT', 'over')",
}


@pytest.fixture
def apart(two):  # noqa: F811
    roles = {tenant: two.role(f"web_{tenant}_{two.name[-20:]}") for tenant in "ab"}
    with two.connect() as session:
        session.execute(f'revoke temp on database "{two.name}" from public')
        session.execute("create function keep(state jsonb, event eventstream.event) returns jsonb immutable language sql as $$ select state || event.payload $$")
        session.execute("create function up(p jsonb, m jsonb) returns jsonb immutable language sql as $$ select p $$")

    def of(tenant, statement):
        return statement.replace("TENANT", tenant).replace("WEB", roles[tenant]).replace("KEY", KEY)

    for tenant in "ab":
        with in_tenant(two, tenant) as session:
            session.execute(of(tenant, MADE))
    return two, of


@pytest.mark.parametrize("act", ACTS)
def test_no_act_of_a_tenant_waits_for_an_open_one_of_another(apart, act):
    database, of = apart
    with in_tenant(database, "a", autocommit=False) as open_, in_tenant(database, "b", autocommit=False) as other:
        other.execute("set lock_timeout = '2 s'; set statement_timeout = '10 s'")
        other.commit()
        open_.execute(of("a", ACTS[act]))
        for statement in (*ACTS.values(), "select es_append('account-1', 'Moved', '{}')"):
            other.execute(of("b", statement))
            other.rollback()
        open_.rollback()


MAKE = {
    "a table": TABLE.format("t", "async"),
    "an inline table": TABLE.format("t", "inline"),
    "a handler": "select es_create_projection('p', 'see(eventstream.event)')",
    "an inline handler": "select es_create_projection('p', 'see(eventstream.event)', mode => 'inline')",
}
SEEN = "select count(*) from (select s::text from seen s union all select t::text from t) x where x::text like '%Canary%'"


@pytest.fixture
def one(quiet):
    with quiet.connect() as session:
        session.execute("create table seen (said text); create table t (said text)")
        session.execute("create function keep(state jsonb, event eventstream.event) returns jsonb immutable language sql as $$ select state || event.payload $$")
        session.execute("create function see(event eventstream.event) returns void language sql as $$ insert into public.seen values (event.payload::text) $$")
        session.execute("select es_register_fold('kept', 'customer', 'keep(jsonb, eventstream.event)')")
        session.execute(NAMED)
    return quiet


def in_background(database, statement):
    errors = []

    def work():
        with database.connect() as session:
            try:
                session.execute(statement)
            except psycopg.Error as error:
                errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, errors


def wait_for_a_waiter(session):
    wait_until(lambda: value(session, "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()") == 1)


@pytest.mark.parametrize("made", MAKE)
@pytest.mark.parametrize("first", ["the rule", "the projection"])
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_projection_that_is_made_while_a_rule_comes(one, made, first, end):
    """What is made behind the rule is made of what it shows; what was made before is emptied of what it hides (a read model is its handler's own)."""
    make = MAKE[made].replace("'t'", "'t2'")
    begun, late = (PROTECT, make) if first == "the rule" else (make, PROTECT)
    with one.connect() as session, one.connect() as watcher:
        session.execute(f"begin; {begun}")
        thread, errors = in_background(one, late)
        wait_for_a_waiter(watcher)
        session.execute(end)
        thread.join(20)
        assert not thread.is_alive() and errors == []
        if end == "rollback" and first == "the rule":
            session.execute(PROTECT)
        name = "t2" if "table" in made else "p"
        if not (end == "rollback" and first == "the projection"):
            if "inline" not in made:
                session.execute(f"select es_run_projection('{name}')")
            assert rows(session, "select name, status from eventstream.projections") == [(name, "running")]
            if "table" in made:
                assert rows(session, "select name from t2") == [(None,)]
            elif end == "commit" and first == "the rule":
                assert CANARY not in str(rows(session, "select said from seen"))
        session.execute("select es_append('customer-2', 'Named', '{\"name\": \"Canary 2\"}')")
        assert "Canary 2" not in str(rows(session, "select said from seen"))


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
@pytest.mark.parametrize("act", [PROTECT, "select es_unprotect('Named')"])
def test_a_transaction_that_keeps_its_snapshot_sets_no_rule(one, level, act):
    """It would not see the rows of a table that came since."""
    with one.connect() as session:
        session.execute(f"begin isolation level {level}")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="cannot be called in a REPEATABLE READ or SERIALIZABLE transaction"):
            session.execute(act)
        session.execute("rollback")


def test_a_fold_that_is_registered_under_an_old_snapshot_fills_tables_that_came_since(one):
    with one.connect() as session, one.connect() as other:
        session.execute("begin isolation level repeatable read; select count(*) from eventstream.events")
        other.execute(TABLE.format("t2", "inline"))
        replace = "select es_register_fold('kept', 'customer', 'keep(jsonb, eventstream.event)', initial_state => '{\"name\": \"none\"}')"
        try:
            session.execute(f"{replace}; commit")
        except psycopg.errors.SerializationFailure:
            session.execute("rollback")
            session.execute(replace)
        session.execute("select es_append('customer-2', 'Other', '{}')")
        assert rows(session, "select stream, name from t2 order by stream") == [("customer-1", CANARY), ("customer-2", "none")]


#: Acts of one tenant, there and back.
BOTH_WAYS = {
    "es_protect": (PROTECT, "select es_unprotect('Named')"),
    "es_register_fold, by rules": tuple(f"select es_register_fold('r', 'customer', rules => '{{\"on\": {{\"{on}\": []}}}}', is_default => false)" for on in ("Other", "Another")),
    "es_register_fold, by a function": tuple(f"select es_register_fold('kept', 'customer', 'keep(jsonb, eventstream.event)', initial_state => '{{\"x\": {x}}}')" for x in (1, 2)),
    "es_register_upcaster": ("select es_register_upcaster('Old', 1, 'up(jsonb, jsonb)')", "select es_unregister_upcaster('Old', 1)"),
    "es_create_event_type": ("select es_create_event_type('New', 1)", "select es_drop_event_type('New', 1)"),
    "es_pause_projection": ("select es_pause_projection('i')", "select es_resume_projection('i')"),
    "es_rebuild_projection": ("select es_rebuild_projection('i')", "select es_run_projection('a')"),
    "es_create_projection": ("select es_create_projection('n', 'see(eventstream.event)', mode => 'inline', categories => '{never}')", "select es_drop_projection('n')"),
    "es_append": ("select es_append('customer-1', 'Named', '{\"name\": \"x\"}')", "select es_append('customer-2', 'Named', '{\"name\": \"x\"}')"),
}


@pytest.mark.parametrize("act", BOTH_WAYS)
def test_acts_of_one_tenant_come_one_after_the_other_and_to_no_deadlock(one, act):
    with one.connect() as session:
        session.execute("create function up(p jsonb, m jsonb) returns jsonb immutable language sql as $$ select p $$")
        session.execute(TABLE.format("i", "inline"))
        session.execute(TABLE.format("a", "async"))
        session.execute("select es_run_projection('a')")
    for other in list(BOTH_WAYS)[: list(BOTH_WAYS).index(act)]:

        def work(number, names=(act, other)):
            with one.connect() as session:
                session.execute("set client_min_messages = error; set deadlock_timeout = '100ms'")
                for statement in BOTH_WAYS[names[number]] * 8:
                    session.execute(statement)

        assert raised(all_at_once(2, work)) == [], other


UP = "select es_register_upcaster('{}', 1, 'up(jsonb, jsonb)')"
FOLD = "select es_register_fold('{}', 'customer', 'keep(jsonb, eventstream.event)', is_default => false)"
FIRST = {"es_register_upcaster": UP.format("Old"), "es_register_fold": FOLD.format("first")}
LAST = {"es_protect": PROTECT, "es_register_upcaster": UP.format("Other"), "es_register_fold": FOLD.format("last")}


def up(session):
    session.execute("create function up(p jsonb, m jsonb) returns jsonb immutable language sql as $$ select p $$")


@pytest.mark.parametrize("mode", ["async", "inline"])
@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize("first", FIRST)
def test_a_table_that_is_made_while_acts_wait_for_each_other_leads_to_no_deadlock(one, first, last, mode):
    """Its row of progress is one that the last act has and the first one does not."""
    with one.connect() as session, one.connect() as watcher:
        up(session)
        session.execute("begin; select es_create_event_type('New', 1)")
        all_, waiting = [], "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        for statement in (FIRST[first], TABLE.format("t2", mode), LAST[last]):
            all_.append(in_background(one, statement))
            wait_until(lambda: value(watcher, waiting) == sum(thread.is_alive() for thread, _ in all_))
        session.execute("commit")
        for thread, errors in all_:
            thread.join(20)
            assert not thread.is_alive() and errors == []
        if mode == "async":
            session.execute("select es_run_projection('t2')")
        assert rows(session, "select name, status from eventstream.projections") == [("t2", "running")]


#: What an open transaction has done, and what waits for it.
BEHIND = {
    "select es_create_projection('p', 'see(eventstream.event)')": (PROTECT, "select es_unprotect('Old')", FIRST["es_register_fold"], FIRST["es_register_upcaster"], "select es_unregister_upcaster('Older', 1)"),
    "select es_create_event_type('New', 1)": (
        *(PROTECT, "select es_unprotect('Old')", FIRST["es_register_fold"], FIRST["es_register_upcaster"], "select es_unregister_upcaster('Older', 1)"),
        *("select es_create_event_type('Newer', 1)", "select es_alter_event_type('Old', 1, '{}')", "select es_drop_event_type('Old', 1)"),
    ),
    "select es_pause_projection('i')": (PROTECT, "select es_unprotect('Old')", FIRST["es_register_fold"], FIRST["es_register_upcaster"], "select es_unregister_upcaster('Older', 1)"),
    "select es_run_projection('a')": (PROTECT, FIRST["es_register_fold"]),
    FIRST["es_register_fold"]: ("select es_create_projection('p', 'see(eventstream.event)')", TABLE.format("t2", "async"), PROTECT),
}


@pytest.mark.parametrize("held", BEHIND)
def test_an_act_waits_for_another_as_long_as_for_the_gate_and_says_who_it_is(one, held):
    with one.connect() as session, one.connect() as other:
        up(session)
        session.execute("select es_create_event_type('Old', 1), es_protect('Old', pointers => '{/name}')")
        session.execute(UP.format("Older"))
        session.execute(TABLE.format("i", "async") + "; " + TABLE.format("a", "async"))
        session.execute(f"begin; {held}")
        other.execute("set eventstream.gate_timeout = '300ms'; set statement_timeout = '20s'")
        for own, most in (("0", 300), ("150ms", 150)):
            other.execute(f"set lock_timeout = '{own}'")
            for act in BEHIND[held]:
                with pytest.raises(psycopg.errors.LockNotAvailable) as refused:
                    other.execute(act)
                said = refused.value.diag
                assert said.message_primary == f'other acts of administration of tenant "default", or batches of its projections, did not end within {most} ms', act
                assert [holder["pid"] for holder in json.loads(said.message_detail)["holders"]] == [session.info.backend_pid], act
                assert f"pg_terminate_backend({session.info.backend_pid})" in said.message_hint and value(other, "show lock_timeout") == own
        session.execute("rollback")
        for act in BEHIND[held]:
            other.execute(act)
