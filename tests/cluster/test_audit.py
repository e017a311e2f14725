"""Acts of administration are events: each that commits is one, in its own transaction, at the commit; what was written by hand is found.

Kinds: each act there is; savepoints, rollback, a pooler's long transaction, two acts at once, PREPARE; rights (only audit reads them); isolation levels;
a role that is renamed, dropped, or bound in a copy; every register edited by hand; replicas' triggers; the tenant's own readers, who see none of it.
"""

import contextlib
import json
import threading

import psycopg
import pytest

from database import Database, rows, value
from server import wait_until

ACTS = "select event_type from es_read_all(0, 1000, categories => '{$audit}') order by global_position"
LAST = "select event_type, payload from es_read_all(0, 1000, categories => '{$audit}') order by global_position desc limit 1"
FUNCTIONS = """create function upcast(payload jsonb, metadata jsonb) returns jsonb immutable language sql as $$ select payload $$;
create function handle(event eventstream.event) returns void language plpgsql as $$ begin null; end $$;
create function handle_2(event eventstream.event) returns void language plpgsql as $$ begin null; end $$;
create function start_over() returns void language plpgsql as $$ begin null; end $$;
create function fails(event eventstream.event) returns void language plpgsql as $$ begin raise 'no'; end $$;"""
#: What is called, and the acts that it is.
CALLS = [
    ("select es_create_tenant('b')", ["TenantCreated"]),
    ("select es_create_tenant('b', if_not_exists => true)", []),
    ("select es_grant('clerk', 'read')", ["PrivilegeGranted"]),
    ("select es_grant('clerk', 'read')", []),
    ("select es_grant('clerk', 'append', category => 'account')", ["PrivilegeGranted"]),
    ("select es_revoke('clerk', 'read')", ["PrivilegeRevoked"]),
    ("select es_register_fold('sums', 'account', rules => '{\"on\": {}}')", ["FoldRegistered"]),
    ("select es_register_fold('sums', 'account', rules => '{\"on\": {}}')", []),
    ("select es_register_fold('sums', 'account', rules => '{\"on\": {}}', initial_state => '{\"n\": 1.50}')", ["FoldAltered"]),
    # The other one is the default no more.
    ("select es_register_fold('others', 'account', rules => '{\"on\": {}}')", ["FoldAltered", "FoldRegistered"]),
    ("select es_unregister_fold('sums')", ["FoldUnregistered"]),
    ("select es_register_upcaster('Happened', 1, 'upcast(jsonb, jsonb)')", ["UpcasterRegistered"]),
    ("select es_unregister_upcaster('Happened', 1)", ["UpcasterUnregistered"]),
    ("select es_create_projection('p', 'handle(eventstream.event)', reset => 'start_over()')", ["ProjectionCreated"]),
    ("select es_create_projection('p', 'handle(eventstream.event)', reset => 'start_over()', if_not_exists => true)", []),
    ("select es_alter_projection('p', '{\"batch_size\": 7}')", ["ProjectionAltered"]),
    ("select es_pause_projection('p')", ["ProjectionPaused"]),
    ("select es_pause_projection('p')", []),
    ("select es_resume_projection('p')", ["ProjectionResumed"]),
    ("select es_rebuild_projection('p')", ["ProjectionRebuildBegun"]),
    ("select es_drop_projection('p')", ["ProjectionDropped"]),
    ("select es_create_state_table('balances', 'account', '[{\"name\": \"n\", \"type\": \"int\", \"path\": \"/n\"}]')", ["ProjectionCreated"]),
    ("select es_drop_projection('balances', drop_table => true)", ["ProjectionDropped"]),
    ("select es_create_subscription('s')", ["SubscriptionCreated"]),
    # It stands there.
    ("select es_seek_subscription('s', 0)", []),
    ("select es_append('account-1', 'Happened', '{}')", []),
    ("select es_seek_subscription('s', (select max(global_position) from eventstream.events))", ["SubscriptionMoved"]),
    ("select es_seek_subscription('s', (select max(global_position) from eventstream.events))", []),
    ("select es_seek_subscription('s', 0)", ["SubscriptionMoved"]),
    # What is leased is no more: that is a change.
    ("select * from es_fetch('s', 'c')", []),
    ("select es_seek_subscription('s', 0)", ["SubscriptionMoved"]),
    ("select es_nack(lease_id, (event).global_position, 'no') from es_fetch('s', 'c')", []),
    ("select es_seek_subscription('s', 0)", ["SubscriptionMoved"]),
    ("select es_seek_subscription('s', 0)", []),
    ("select es_drop_subscription('s')", ["SubscriptionDropped"]),
]


@pytest.fixture
def log(quiet):
    quiet.role("clerk")
    with quiet.connect() as session:
        for statement in FUNCTIONS.splitlines():
            session.execute(statement)
    return quiet


def acts(session) -> list[str]:
    return [act for (act,) in rows(session, ACTS)]


def differences(session) -> list[tuple]:
    return rows(session, "select kind, key, problem from es_verify_audit()")


def by_hand(session, statement: str, trigger: str = "refuse_foreign") -> None:
    """As a superuser does who means it: with that trigger off, and as a replica's."""
    table = "_eventstream." + statement.split("_eventstream.")[1].split()[0].rstrip(";") if "_eventstream." in statement else "_eventstream.grants"
    session.execute(f"set eventstream.allow_drop = on; alter table {table} disable trigger {trigger}; set session_replication_role = replica")
    session.execute(statement)
    session.execute(f"reset session_replication_role; alter table {table} enable always trigger {trigger}; reset eventstream.allow_drop")


def test_every_act_is_an_event_and_nothing_else_is(log):
    with log.connect() as session:
        session.execute("set eventstream.tenant = 'default'")
        seen = len(acts(session))
        for call, expected in CALLS:
            session.execute(call)
            everything = acts(session)
            if "es_create_tenant('b')" in call:
                # It is the first act of the new tenant's.
                session.execute("set eventstream.tenant = 'b'")
                assert acts(session) == expected
                session.execute("set eventstream.tenant = 'default'")
                expected = []
            assert everything[seen:] == expected, call
            seen = len(everything)
            assert differences(session) == [], call
        assert rows(session, "select * from es_verify()") == []


def test_an_act_says_who_did_it_and_what_was_before_and_is_after(log):
    with log.connect() as session:
        oid = log.role("joe")
        session.execute("select es_grant('joe', 'admin'); grant joe to current_user")
        session.execute("""set role joe; set eventstream.metadata = '{"actor": "user-7"}'; select es_grant('clerk', 'append', category => 'account')""")
        session.execute("reset role; reset eventstream.metadata")
        ((act, payload, metadata, recorded_by),) = rows(
            session, "select event_type, payload, metadata, recorded_by from eventstream.administration order by global_position desc limit 1"
        )
        clerk = str(value(session, "select 'clerk'::regrole::oid"))
        assert act == "PrivilegeGranted" and metadata == {"actor": "user-7"} and recorded_by == value(session, "select session_user")
        assert payload == {
            "kind": "grant",
            "before": None,
            "after": {"role": "clerk", "role_oid": clerk, "privilege": "append", "category": "account", "granted_by": "joe"},
            "role": "joe",
            "role_oid": str(value(session, "select 'joe'::regrole::oid")),
            "home": value(session, "select _eventstream.home_of_log()"),
        }
        assert oid is None or oid
        session.execute("select es_register_fold('sums', 'account', rules => '{\"on\": {}}', initial_state => '{\"n\": 1.50}')")
        session.execute("select es_register_fold('sums', 'account', rules => '{\"on\": {}}', initial_state => '{\"n\": 1.5}')")
        ((before, after),) = rows(
            session, "select payload -> 'before' ->> 'initial_state', payload -> 'after' ->> 'initial_state' from eventstream.administration order by global_position desc limit 1"
        )
        assert (before, after) == ('{"n": 1.50}', '{"n": 1.5}')


def test_what_is_rolled_back_is_no_act(log):
    with log.connect() as session:
        session.execute("begin; select es_grant('clerk', 'read'); rollback")
        assert acts(session) == []
        session.execute(
            """begin; select es_grant('clerk', 'read'); savepoint a; select es_grant('clerk', 'append'); savepoint b; select es_grant('clerk', 'consume');
               release savepoint b; rollback to savepoint a; select es_grant('clerk', 'audit'); commit"""
        )
        granted = rows(session, "select payload -> 'after' ->> 'privilege' from eventstream.administration order by version")
        assert [one for (one,) in granted] == ["read", "audit"]
        assert differences(session) == []


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_a_long_transaction_with_an_act_holds_up_nobody(log, level):
    with log.connect() as long, log.connect() as other:
        other.execute("select es_append('account-1', 'Happened', '{}')")
        long.execute(f"begin isolation level {level}; select es_grant('clerk', 'read')")
        other.execute("set statement_timeout = '5s'")
        other.execute("select es_grant('clerk', 'append'); select es_append('account-1', 'Happened', '{}')")
        # Readers go on: it holds no position.
        assert len(rows(other, "select * from es_read_all(0, 10)")) == 2
        assert value(other, "select es_horizon() >= max(global_position) from eventstream.events")
        assert acts(other) == ["PrivilegeGranted"]
        long.execute("commit")
        assert acts(other) == ["PrivilegeGranted"] * 2
        assert differences(other) == []


def test_acts_at_once_all_come_through(log):
    """Each in its tenant's one stream, which they lock one after the other at their commits."""
    for number in range(8):
        log.role(f"clerk_{number}")
    failed = []

    def work(number):
        try:
            with log.connect() as session:
                for privilege in ["read", "append", "consume", "audit"] * 3:
                    session.execute(f"begin; select es_grant('clerk_{number}', '{privilege}'); select es_append('account-{number}', 'Happened', '{{}}'); commit")
                    session.execute(f"select es_revoke('clerk_{number}', '{privilege}')")
        except psycopg.Error as error:
            failed.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    assert failed == []
    with log.connect() as session:
        assert len(acts(session)) == 8 * 12 * 2
        assert differences(session) == [] and rows(session, "select * from es_verify()") == []


def test_an_act_cannot_be_prepared(log):
    with log.connect() as session:
        session.execute("begin; select es_grant('clerk', 'read')")
        with pytest.raises(psycopg.Error) as error:
            session.execute("prepare transaction 'act'")
        assert error.value.sqlstate == "0A000" and "act of administration" in str(error.value)
        session.execute("rollback")
        assert acts(session) == []


def test_only_audit_reads_acts_and_nobody_comes_by_them(log):
    with log.connect() as session:
        session.execute("select es_append('account-1', 'Happened', '{}')")
        session.execute("select es_create_subscription('all'); select es_create_projection('all', 'handle(eventstream.event)')")
        session.execute("select es_grant('clerk', 'read'); select es_grant('clerk', 'append'); select es_grant('clerk', 'consume'); select es_grant('clerk', 'manage')")
        stream = value(session, "select stream from eventstream.administration limit 1")
        assert value(session, "select count(*) from eventstream.events") == value(session, "select count(*) from eventstream.streams") == 1
        assert [name for (name,) in rows(session, "select stream from es_read_all(0, 100)")] == ["account-1"]
        assert [name for (name,) in rows(session, "select (event).stream from es_fetch('all', 'c')")] == ["account-1"]
        session.execute("select es_run_projection('all')")
        session.execute("select es_grant('clerk', 'audit'); select es_revoke('clerk', 'audit')")
        assert rows(session, "select lag, events_applied from eventstream.projections where name = 'all'") == [(0, 1)]
    asked = [
        f"select * from es_read('{stream}')",
        "select * from es_read_all(0, 10, categories => '{$audit}')",
        f"select es_stream_version('{stream}')",
        "select * from eventstream.administration",
        "select * from es_verify_audit()",
        f"select * from es_verify_stream('{stream}')",
    ]
    with log.connect("clerk") as clerk:
        for statement in asked:
            with pytest.raises(psycopg.Error) as error:
                rows(clerk, statement)
            assert error.value.sqlstate == "42501" and "audit" in str(error.value), statement
        for call, sqlstate in [
            (f"select es_append('{stream}', 'Forged', '{{}}')", "ES004"),
            (f"select es_append_events('{stream}', '[{{\"type\": \"Forged\", \"payload\": {{}}}}]')", "ES004"),
            (f"select * from es_append_streams('[{{\"stream\": \"{stream}\", \"events\": [{{\"type\": \"Forged\", \"payload\": {{}}}}]}}]')", "ES004"),
            (f"select es_close_stream('{stream}', 'over')", "ES004"),
            ("select es_register_fold('f', '$audit', rules => '{\"on\": {}}')", "ES005"),
            ("select * from es_read_all(0, 10, categories => '{$audit,account}')", "ES005"),
            ("select es_create_subscription('acts', categories => '{$audit}')", "ES005"),
            ("select es_create_projection('acts', 'handle(eventstream.event)', categories => '{$audit}')", "ES005"),
        ]:
            with pytest.raises(psycopg.Error) as error:
                rows(clerk, call)
            assert error.value.sqlstate == sqlstate, (call, str(error.value))
    log.role("auditor")
    with log.connect() as session:
        session.execute("select es_grant('auditor', 'audit')")
    with log.connect("auditor") as auditor:
        for statement in asked:
            rows(auditor, statement)
        assert len(rows(auditor, asked[0])) == value(auditor, asked[2]) == 9
        assert value(auditor, f"select count(*) from es_chain_heads() where stream = '{stream}'") == 1


def test_es_last_append_is_the_sessions_own(log):
    with log.connect() as session:
        session.execute("begin; select es_append('account-1', 'Happened', '{}'); select es_grant('clerk', 'read'); commit")
        assert value(session, "select stream from es_last_append()") == "account-1"


BY_HAND = {
    "a grant": ("insert into _eventstream.grants (role, role_oid, privilege, tenant_id, granted_by) values ('clerk', 'clerk'::regrole, 'admin', 1, 'me')", "grant", "by no act"),
    "a grant edited": ("update _eventstream.grants set category = null where category = 'account'", "grant", ""),
    "a grant taken back": ("delete from _eventstream.grants where role = 'clerk'", "grant", "is gone"),
    "a fold's rules": ("""update _eventstream.folds set rules = '{"on": {"Happened": []}}'""", "fold", "other rules"),
    "a fold's scale": ("""update _eventstream.folds set initial_state = '{"n": 1.5}'""", "fold", "other initial_state"),
    "a fold gone": ("delete from _eventstream.folds", "fold", "is gone"),
    "an upcaster": ("update _eventstream.upcasters set handler = 'public.other'", "upcaster", "other handler"),
    "a projection": ("update _eventstream.projections set categories = '{other}'", "projection", "other categories"),
    "a subscription": ("delete from _eventstream.subscriptions", "subscription", "is gone"),
    "the tenant default": ("update _eventstream.tenants set name = 'deflt' where name = 'default'", "tenant", "CREATE EXTENSION"),
    "a projection dated back": ("update _eventstream.projections set created_at = '2001-01-01'", "projection", "older than the log"),
    "a subscription dated back": ("update _eventstream.subscriptions set created_at = '2001-01-01'", "subscription", "older than the log"),
    "a tenant": ("insert into _eventstream.tenants (id, name) values (7, 'x')", "tenant", "by no act"),
    "an activation": ("insert into _eventstream.activations values (gen_random_uuid(), 1, 1, 'me')", "activation", "by no act"),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_what_was_written_by_hand_is_found(log, case):
    statement, kind, told = BY_HAND[case]
    with log.connect() as session:
        session.execute("select es_grant('clerk', 'append', category => 'account')")
        session.execute("select es_register_fold('sums', 'account', rules => '{\"on\": {}}', initial_state => '{\"n\": 1.50}')")
        session.execute("select es_register_upcaster('Happened', 1, 'upcast(jsonb, jsonb)')")
        session.execute("select es_create_projection('p', 'handle(eventstream.event)'); select es_create_subscription('s')")
        assert differences(session) == []
        by_hand(session, statement.replace("(id, name) values (7, 'x')", with_uuid(session)))
        found = differences(session)
        assert found and {one[0] for one in found} == {kind}, found
        assert any(told in problem for _, _, problem in found), found


OTHER_KEY = "'\\x3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c'"
#: Of tokens and of protected fields.
BY_HAND_OF_WALLS = {
    "a key": (f"update _eventstream.token_keys set public_key = {OTHER_KEY}", "token_key", "other public_key"),
    "a key's issuer": ("update _eventstream.token_keys set issuer = 'https://other.example.org'", "token_key", "other issuer"),
    "a key of another tenant": ("update _eventstream.token_keys set tenant_id = 1", "token_key", "by no act"),
    "a key more": (f"insert into _eventstream.token_keys (tenant_id, kid, public_key, issuer, added_by) select id, 'k2', {OTHER_KEY}, 'x', 'postgres' from _eventstream.tenants where name = 'b'", "token_key", "by no act"),
    "a key gone": ("delete from _eventstream.token_keys", "token_key", "is gone"),
    "no token needed": ("delete from _eventstream.grants where privilege = 'token'", "token_role", "is gone"),
    "a token needed": ("insert into _eventstream.grants (role, role_oid, privilege, tenant_id, granted_by) values ('clerk', 'clerk'::regrole, 'token', 0, 'postgres')", "token_role", "by no act"),
    "every tenant granted": ("insert into _eventstream.grants (role, role_oid, privilege, tenant_id, granted_by) values ('web', 'web'::regrole, 'read', 0, 'postgres')", "token_role", "by no act"),
    "a rule's pointers": ("update _eventstream.protections set pointers = '{/other}' where kind = 'event'", "protection", "other pointers"),
    "a rule's metadata": ("update _eventstream.protections set metadata_pointers = '{}' where kind = 'event'", "protection", "other metadata_pointers"),
    "a rule's form": ("update _eventstream.protections set pointers = null, clear_pointers = '{/name}' where kind = 'event'", "protection", "other "),
    "a rule for another type": ("update _eventstream.protections set event_type = 'Else' where kind = 'event'", "protection", "is gone"),
    "a command's rule gone": ("delete from _eventstream.protections where kind = 'command'", "protection", "is gone"),
}


def test_what_was_done_by_hand_to_keys_token_roles_and_protected_fields_is_found(log):
    log.role("web")
    with log.connect() as session:
        session.execute(f"revoke temp on database \"{log.name}\" from public; select es_create_tenant('b'); set eventstream.tenant = 'default'")
        session.execute("select es_add_token_key('k1', '\\xd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a', 'b', 'https://id.example.org')")
        session.execute("select es_require_token('web'), es_protect('Named', pointers => '{/name}', metadata_pointers => '{/note}'), es_protect('Name', pointers => '{/name}', kind => 'command')")
        for case, (statement, kind, told) in BY_HAND_OF_WALLS.items():
            assert differences(session) == []
            with session.transaction(force_rollback=True):
                by_hand(session, statement)
                found = differences(session)
            assert found and {one[0] for one in found} == {kind}, (case, found)
            assert any(told in problem for _, _, problem in found), (case, found)


#: What is written by hand, the legal acts that come after it, on what, and what is told of it.
LAUNDERED = {
    "a grant whose role's name is corrected": (
        "insert into _eventstream.grants (role, role_oid, privilege, tenant_id, granted_by) values ('old_clerk', 'clerk'::regrole, 'admin', 1, 'postgres')",
        ["select * from es_maintain()", "select es_grant('clerk', 'consume')"],
        "grant",
        "it was there",
    ),
    "a projection that is altered": (
        "update _eventstream.projections set on_error = 'skip'",
        ["select es_alter_projection('p', '{\"batch_size\": 79}')", "select es_alter_projection('p', '{\"on_error\": \"stop\"}')"],
        "projection",
        "other on_error",
    ),
    "a projection that is dropped": ("update _eventstream.projections set on_error = 'skip'", ["select es_drop_projection('p')"], "projection", "other on_error"),
    "a fold that is registered as it was forged": (
        """update _eventstream.folds set initial_state = '{"n": 7}'""",
        ["select es_register_fold('sums', 'account', rules => '{\"on\": {\"A\": []}}', initial_state => '{\"n\": 7}')", "select es_unregister_fold('sums')"],
        "fold",
        "other initial_state",
    ),
    "a subscription that is made again": ("delete from _eventstream.subscriptions", ["select es_create_subscription('s')"], "subscription", "it was gone"),
    "an upcaster that is taken back": (
        "insert into _eventstream.upcasters select (jsonb_populate_record(u, '{\"from_schema_version\": 2}')).* from _eventstream.upcasters u",
        ["select es_unregister_upcaster('Happened', 2)"],
        "upcaster",
        "it was there",
    ),
}


@pytest.mark.parametrize("case", LAUNDERED)
def test_no_later_act_hides_what_was_written_by_hand(log, case):
    statement, legal, kind, told = LAUNDERED[case]
    with log.connect() as session:
        session.execute("select es_register_fold('sums', 'account', rules => '{\"on\": {}}', initial_state => '{\"n\": 1.50}')")
        session.execute("select es_register_upcaster('Happened', 1, 'upcast(jsonb, jsonb)')")
        session.execute("select es_create_projection('p', 'handle(eventstream.event)'); select es_create_subscription('s')")
        by_hand(session, statement)
        assert [one[0] for one in differences(session)] == [kind]
        for call in legal:
            session.execute(call)
            ((found, _, position, problem),) = rows(session, "select kind, key, global_position, problem from es_verify_audit()")
            assert found == kind and "by hand before this act" in problem and told in problem
            # It is the act that met it, and stays.
            assert value(session, "select payload ->> 'kind' from eventstream.administration where global_position = %s", position) == kind


def test_an_act_that_was_not_noted_is_missed_by_the_next_one(log):
    with log.connect() as session:
        by_hand(session, "select es_grant('clerk', 'read')", "note_definition")
        session.execute("select es_revoke('clerk', 'read')")
        assert acts(session) == ["PrivilegeRevoked"]
        ((kind, key, problem),) = differences(session)
        assert kind == "grant" and key["role"] == "clerk" and "before this act: it was there" in problem


def test_a_tenant_that_is_gone_is_found(log):
    with log.connect() as session:
        session.execute("select es_create_tenant('b'); set eventstream.tenant = 'b'; select es_grant('clerk', 'read'); reset eventstream.tenant")
        of_b, its_uuid = rows(session, "select id, uuid::text from _eventstream.tenants where name = 'b'")[0]
        by_hand(session, "delete from _eventstream.tenants where name = 'b'")
        by_hand(session, "delete from _eventstream.grants")
        by_hand(session, "insert into _eventstream.grants (role, role_oid, privilege, tenant_id, granted_by) values ('clerk', 'clerk'::regrole, 'admin', 99, 'postgres')")
        found = rows(session, "select tenant, kind, key, problem from es_verify_audit()")
        assert {tenant for tenant, *_ in found} == {None}
        told = [(kind, key.get("id") or key.get("uuid") or key["privilege"], problem) for _, kind, key, problem in found if kind != "act"]
        assert [one[:2] for one in told] == [("tenant", of_b), ("grant", "read"), ("tenant", its_uuid), ("tenant", 99), ("grant", "admin")]
        assert all(f"tenant {of_b}" in problem for _, _, problem in told[:3]) and all("tenant 99" in problem for _, _, problem in told[3:])
        assert "is gone" in told[1][2] and "by no act" in told[4][2]


def test_the_tenant_default_is_missed_as_well(log):
    with log.connect() as session:
        by_hand(session, "delete from _eventstream.tenants where name = 'default'")
        assert [(kind, key) for kind, key, _ in differences(session)] == [("tenant", {"id": 1}), ("tenant", {"uuid": None})]


def test_what_is_not_committed_is_not_compared(log):
    """Its rows are there, and its acts not yet."""
    with log.connect() as session:
        session.execute("begin; select es_grant('clerk', 'read')")
        with pytest.raises(psycopg.Error) as error:
            differences(session)
        assert error.value.sqlstate == "0A000" and "commit" in error.value.diag.message_hint.lower()
        session.execute("rollback; begin; savepoint a; select es_grant('clerk', 'read'); rollback to savepoint a")
        assert differences(session) == []
        session.execute("commit; begin; select es_grant('clerk', 'read'); commit")
        assert differences(session) == []


@pytest.mark.parametrize("where", ["here", "in a copy"])
def test_two_roles_that_had_one_name_after_the_other_leave_one_grant_behind(log, where):
    for name in ["ada", "q1", "q2"]:
        log.role(name)
    with log.connect() as session:
        session.execute("select es_grant('ada', 'admin'); select es_grant('q1', 'read'); grant ada to current_user")
        session.execute("set role ada; select es_grant('q2', 'read'); reset role")
        session.execute("drop role q1; alter role q2 rename to q1")
        assert differences(session) == []
    with contextlib.ExitStack() as ends:
        if where == "here":
            database = log
        else:
            database = copy_of(log)
            ends.callback(database.drop)
        with log.server.connect("postgres") as admin:
            admin.execute("drop role q1")
        session = ends.enter_context(database.connect())
        session.execute("select es_maintain()" if where == "here" else "select es_activate()")
        assert differences(session) == []
        assert rows(session, "select granted_by from _eventstream.grants where role = 'q1' and role_oid is null") == [(value(session, "select current_user"),)]
        # The next of that name takes its place.
        log.role("q1")
        session.execute("select es_grant('q1', 'read'); select es_revoke('q1', 'read')")
        assert differences(session) == []


def test_what_did_not_come_along_with_a_copy_is_made_anew(log):
    """A log that came by logical replication has no grants; that they were there is known from their acts."""
    with log.connect() as session:
        session.execute("select es_grant('clerk', 'read'); select es_create_subscription('s')")
    copy = copy_of(log)
    try:
        with copy.connect() as session:
            by_hand(session, "delete from _eventstream.grants")
            by_hand(session, "delete from _eventstream.subscriptions")
            session.execute("select es_activate()")
            assert sorted(kind for kind, _, _ in differences(session)) == ["grant", "subscription"]
            session.execute("select es_grant('clerk', 'read'); select es_create_subscription('s')")
            assert differences(session) == []
            # Only until then.
            by_hand(session, "delete from _eventstream.grants")
            session.execute("select es_grant('clerk', 'read')")
            assert [(kind, "it was gone" in problem) for kind, _, problem in differences(session)] == [("grant", True)]
    finally:
        copy.drop()


def copy_of(log) -> Database:
    copy = Database(log.server, f"copy_{log.name}"[:60])
    with log.server.connect("postgres") as admin:
        admin.execute(f'create database "{copy.name}" template "{log.name}"')
    return copy


def with_uuid(session) -> str:
    has = value(session, "select count(*) from pg_attribute where attrelid = '_eventstream.tenants'::regclass and attname = 'uuid'")
    return "(id, name, uuid) values (7, 'x', gen_random_uuid())" if has else "(id, name) values (7, 'x')"


def test_acts_are_noted_under_replica_as_well(log):
    with log.connect() as session:
        session.execute("set session_replication_role = replica; select es_grant('clerk', 'read'); reset session_replication_role")
        assert acts(session) == ["PrivilegeGranted"] and differences(session) == []


def test_a_role_that_is_renamed_or_dropped_is_seen_by_acts(log):
    log.role("passing")
    with log.connect() as session:
        session.execute("select es_grant('passing', 'read')")
        session.execute("alter role passing rename to passed")
        session.execute("select es_grant('clerk', 'read')")
        assert differences(session) == []
        session.execute("drop role passed")
        session.execute("select es_grant('clerk', 'append')")
        assert differences(session) == []


@pytest.mark.parametrize("reason", ["", "x" * 65, "ask ada@example.org"])
def test_reasons_of_acts_are_references(log, reason):
    with log.connect() as session:
        session.execute("select es_create_projection('p', 'fails(eventstream.event)', max_retries => 0); select es_append('account-1', 'Happened', '{}')")
        position = value(session, "select max(global_position) from eventstream.events")
        session.execute("select es_run_projection('p')")
        for call in ["select es_skip_event('p', %s, %s)", "select es_drop_dead_letter(%s, %s)"]:
            with pytest.raises(psycopg.Error) as error:
                session.execute(call, (position, reason))
            assert error.value.sqlstate == "ES005" and "reason" in str(error.value), call
        session.execute("select es_skip_event('p', %s, 'CHG-1')", (position,))
        ((act, payload),) = rows(session, LAST)
        assert act == "EventSkipped" and payload["particulars"].items() >= {"global_position": position, "reason": "CHG-1"}.items()
        letter = value(session, "select id from eventstream.dead_letters")
        session.execute("select es_drop_dead_letter(%s, 'CHG-2')", (letter,))
        assert rows(session, LAST)[0][0] == "DeadLetterDropped"


#: What changes no definition, and what it says of before.
BEFORE = [
    ("select es_pause_projection('p')", {"status": "stopped", "global_position": 0}),
    ("select es_resume_projection('p')", {"status": "paused", "global_position": 0}),
    ("select es_rebuild_projection('p')", {"status": "running", "global_position": 0}),
    ("select es_run_projection('p')", None),
    ("select es_skip_event('p', 1, 'CHG-1')", {"status": "stopped", "global_position": 0}),
    ("select es_seek_subscription('s', 1)", {"lowest_position": 0, "highest_position": 0, "parked": 0, "leases": 0}),
    ("select es_seek_subscription('s', 0)", {"lowest_position": 1, "highest_position": 1, "parked": 0, "leases": 0}),
    ("select * from es_fetch('s', 'c')", None),
    ("select es_seek_subscription('s', 0)", {"lowest_position": 0, "highest_position": 0, "parked": 0, "leases": 1}),
    ("select es_nack(lease_id, (event).global_position, 'no', dead_letter => true) from es_fetch('s', 'c')", None),
    ("select es_retry_dead_letter((select max(id) from eventstream.dead_letters))", {"attempts": 1, "sqlstate": None}),
    ("select es_drop_dead_letter((select max(id) from eventstream.dead_letters), 'CHG-2')", {"attempts": 1, "sqlstate": "P0001"}),
]


def test_an_act_that_changes_no_definition_says_what_was_before(log):
    with log.connect() as session:
        session.execute("select es_append('account-1', 'Happened', '{}')")
        session.execute("select es_create_projection('p', 'fails(eventstream.event)', max_retries => 0, reset => 'start_over()')")
        session.execute("select es_create_subscription('s'); select es_run_projection('p')")
        for call, before in BEFORE:
            session.execute(call)
            if before is not None:
                assert rows(session, LAST)[0][1]["particulars"]["before"] == before, call
        assert differences(session) == []


def test_an_act_is_as_large_as_its_definition(log):
    """What a definition may be, its act may be: with what was before and is after, over the bound of a payload."""
    rules = json.dumps({"on": {f"Type{number}": [] for number in range(3000)}})
    with log.connect() as session:
        session.execute("alter system set eventstream.max_payload_bytes = 10000")
        session.execute("select pg_reload_conf()")
        try:
            session.execute("select pg_sleep(0.2)")
            session.execute("select es_register_fold('sums', 'account', rules => %s)", (rules,))
            assert acts(session) == ["FoldRegistered"] and differences(session) == []
        finally:
            session.execute("alter system reset eventstream.max_payload_bytes")
            session.execute("select pg_reload_conf()")


def test_an_act_that_waits_for_its_standby_keeps_no_news_back(new_server):
    """It holds its position until its commit returns: nobody's horizon but its own."""
    server = new_server("act", **{"eventstream.durability": "session", "synchronous_commit": "local"})
    database = Database(server, "ledger").create()
    with database.connect() as session, database.connect() as listener:
        session.execute("select es_append('account-1', 'Happened', '{}')")
        server.configure(synchronous_standby_names="nobody")
        server.reload()
        listener.execute("listen eventstream")
        holder = database.connect()
        pid = holder.info.backend_pid

        def hang():
            with pytest.raises(psycopg.Error):
                holder.execute("set synchronous_commit = on; begin; select es_create_subscription('s'); commit")
                raise AssertionError("it did not wait")

        hanging = threading.Thread(target=hang, daemon=True)
        hanging.start()
        there = "select exists (select from pg_stat_activity where pid = %s and wait_event = 'SyncRep')"
        wait_until(lambda: value(listener, there, pid), 10, "the act to wait for its standby")
        list(listener.notifies(timeout=1))
        session.execute("select es_append('account-1', 'Happened', '{}')")
        position = value(session, "select global_position from es_last_append()")
        assert value(session, "select es_horizon()") == position
        assert [int(one.payload) for one in listener.notifies(timeout=10, stop_after=1)] == [position]
        listener.execute("select pg_terminate_backend(%s)", (pid,))
        hanging.join(10)


def test_an_acts_metadata_are_those_of_when_it_was_done(log):
    """Not those of the commit, which a function that gave a ticket of its own has long left."""
    with log.connect() as session:
        session.execute("""create function granted_with_ticket() returns text language sql set eventstream.metadata = '{"ticket": "CHG-3"}'
            as $$ select es_grant('clerk', 'read', category => 'm3') $$""")
        session.execute("begin")
        for ticket in ("CHG-1", "CHG-2"):
            session.execute("select set_config('eventstream.metadata', %s, true)", (json.dumps({"ticket": ticket}),))
            session.execute(f"select es_grant('clerk', 'read', category => 'm{ticket[-1]}')")
        session.execute("select set_config('eventstream.metadata', '', true)")
        session.execute("select granted_with_ticket()")
        session.execute("commit")
        tickets = "select metadata ->> 'ticket' from eventstream.administration order by global_position"
        assert rows(session, tickets)[-3:] == [("CHG-1",), ("CHG-2",), ("CHG-3",)]


def test_an_act_that_was_rolled_back_keeps_nothing_from_being_prepared(new_server):
    server = new_server("prepared", max_prepared_transactions=1)
    database = Database(server, "prepared").create()
    database.role("clerk")
    with database.connect() as session:
        session.execute("begin; savepoint before; select es_grant('clerk', 'read'); rollback to before")
        session.execute("prepare transaction 'nothing'")
        session.execute("rollback prepared 'nothing'")
        assert acts(session) == []


def test_an_act_goes_with_the_log_that_its_transaction_drops(log):
    with log.connect() as session:
        session.execute("begin; set local eventstream.allow_drop = on")
        session.execute("select es_grant('clerk', 'append')")
        session.execute("drop extension eventstream cascade; create extension eventstream")
        session.execute("select es_grant('clerk', 'read')")
        session.execute("commit")
        assert rows(session, "select payload -> 'after' ->> 'privilege' from eventstream.administration") == [("read",)]
        assert differences(session) == []
        session.execute("begin; set local eventstream.allow_drop = on")
        session.execute("select es_grant('clerk', 'append')")
        session.execute("drop extension eventstream cascade; commit")
        assert value(session, "select count(*) from pg_extension where extname = 'eventstream'") == 0
        # The fixture drops the database, whose extension is looked for.
        session.execute("create extension eventstream")


def test_an_act_says_that_it_cannot_be_written_where_the_transaction_became_read_only(log):
    with log.connect() as session:
        session.execute("begin; select es_grant('clerk', 'read'); set transaction read only")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="an act of administration"):
            session.execute("commit")


def test_a_thousand_grants_take_seconds(log):
    """They were compared each with each, at each grant."""
    with log.connect() as session:
        session.execute("set statement_timeout = '60s'")
        session.execute("select count(es_grant('clerk', 'read', category => 'k' || i)) from generate_series(1, 1000) i")
        assert value(session, "select count(*) from eventstream.grants where role = 'clerk'") == 1000
