"""What becomes of a tenant: its end, after which nothing is recorded in it, another name, under which nothing is lost, and the view that shows all of them.

Asked of the kinds: isolation (specs closed_tenant and renamed_tenant; an idle session that has known another answer), transaction (rolled back, savepoint, open append), role
(none, admin of another, manage, monitor), tenant (another's goes on), size (counts as upkeep has them), text (hostile names and reasons), copies (dump and restore, standby is
refused by `must_be_writable`), death (a closing holds after kill -9), verification (acts, a row changed by hand, verify.py), every door in, reader of the answer."""

import threading
import uuid

import psycopg
import pytest
from consuming import fetch
from database import Database, forced, rows, value, verify
from deciding import COMMANDS, DECIDE, FOLD, refused, send
from minting import Bank, use
from outside import HEADS_AS_CSV, check_outside, copied
from psycopg.types.json import Jsonb
from scheduling import schedule, stage, wait_for
from server import SUPERUSER, WORK, run, wait_until

CLOSE = "select es_close_tenant('acme', 'CHG-1')"
ALL = "select * from eventstream.tenants"
SHOWN = "select tenant, status, events, closed_by, close_reason from eventstream.tenants order by 1"


@pytest.fixture
def database(quiet):
    """With a bank in the tenant acme, which is the session's; without workers."""
    with quiet.connect() as session:
        session.execute("select es_create_tenant('acme')")
        session.execute(f"alter database \"{quiet.name}\" set eventstream.tenant = 'acme'")
    with quiet.connect() as session:
        session.execute(FOLD)
        session.execute(DECIDE)
        session.execute("select es_register_decider('cashier', 'account', 'decide(jsonb, eventstream.command)', commands => %s)", (Jsonb(COMMANDS),))
    return quiet


@pytest.fixture
def session(database):
    with database.connect() as connection:
        yield connection


def append(session, stream="account-1", **more):
    names = "".join(f", {name} => %s" for name in more)
    return value(session, f"select es_append(%s, 'Credited', '{{\"amount\": 5}}'{names})", stream, *more.values())


def acts(session):
    return rows(session, "select event_type, payload -> 'before' ->> 'name', payload -> 'after' ->> 'name', payload -> 'after' ->> 'close_reason' "
                         "from eventstream.administration where payload ->> 'kind' = 'tenant' order by version")  # fmt: skip


DOORS = [
    "select es_append('account-1', 'Credited', '{\"amount\": 1}')",
    "select es_append('new-1', 'Credited', '{\"amount\": 1}', expected_version => 0)",
    "select es_append_events('account-1', '[{\"type\": \"Credited\", \"payload\": {\"amount\": 1}}]')",
    "select * from es_append_streams('[{\"stream\": \"account-1\", \"events\": [{\"type\": \"Credited\", \"payload\": {\"amount\": 1}}]}]')",
    "select es_close_stream('account-1', 'over')",
    "select es_command('account-1', 'Deposit', '{\"amount\": 1}')",
    "select es_command('account-1', 'Deposit', '{\"amount\": 1}', command_key => 'new')",
    "select es_command('account-1', 'Nothing', '{}')",
    "select es_simulate_command('account-1', 'Deposit', '{\"amount\": 1}')",
    "select es_schedule_command('account-1', 'Deposit', '{\"amount\": 1}', '2100-01-01Z')",
    "select es_begin_command('charge', 'k', '{}')",
]


@pytest.mark.parametrize("door", DOORS)
def test_no_door_leads_into_a_closed_tenant(session, door):
    append(session)
    before = value(session, "select count(*) from _eventstream.events where tenant_id > 0")
    with session.transaction(force_rollback=True):
        session.execute(door)
    session.execute(CLOSE)
    diag = refused(session.execute, door)
    assert diag.sqlstate == "ES045" and '"acme" is closed' in diag.message_primary
    assert '"closed_at":"20' in diag.message_detail and '"reason":"CHG-1"' in diag.message_detail and "append to another one" in diag.message_hint
    assert value(session, "select count(*) from _eventstream.events where tenant_id > 0") == before
    for table in ("command_answers", "scheduled_commands", "operations"):
        assert rows(session, f"select from _eventstream.{table}") == []


def test_what_was_recorded_is_read_repeated_consumed_and_proved_as_before(session):
    one = str(uuid.uuid4())
    append(session, event_id=one)
    send(session, command_key="k")
    kept = value(session, "select es_begin_command('charge', 'k', '{}')")
    session.execute("select es_create_subscription('mailer')")
    session.execute(CLOSE)
    assert value(session, "select es_state('account-1') ->> 'balance'") == "15"
    assert append(session, event_id=one) == 1, "a retry is answered as the first time"
    assert send(session, command_key="k")["replayed"] is True
    assert value(session, "select es_complete_command(%s::uuid, '{}')", kept["attempt_token"]) is not None
    assert value(session, "select es_begin_command('charge', 'k', '{}') ->> 'outcome'") == "replay"
    assert len(fetch(session, subscription="mailer")) == 2
    assert verify(session) == [] and rows(session, "select * from es_verify_audit()") == []
    assert check_outside(session)[0] == 0
    # What is steered goes on: its acts are recorded beside its events.
    session.execute("select es_grant('public', 'read')")
    session.execute("select es_snapshot('account-1')")
    session.execute("set eventstream.tenant = 'default'")
    assert append(session) == 1, "another tenant's are its own"


def test_a_projection_finishes_and_one_that_appends_says_why_it_does_not(session):
    session.execute("create table seen (version bigint)")
    session.execute("create function see(event eventstream.event) returns void language sql as 'insert into public.seen values (event.version)'")
    session.execute("create function more(event eventstream.event) returns void language sql as $$ select public.es_append('other-1', 'Seen', '1') $$")
    session.execute("select es_create_projection('seen', 'see(eventstream.event)', categories => '{account}')")
    session.execute("select es_create_projection('more', 'more(eventstream.event)', categories => '{account}')")
    append(session)
    session.execute(CLOSE)
    session.execute("select es_run_projection('seen')")
    assert rows(session, "select version from seen") == [(1,)]
    session.execute("select es_run_projection('more')")
    status, sqlstate = rows(session, "select status, error_sqlstate from eventstream.projections where name = 'more'")[0]
    assert (status, sqlstate) == ("retrying", "ES045")


def test_commands_for_later_are_taken_back_and_one_in_hand_stops_nobody(session, database):
    schedule(session, "k1", after="1 day")
    schedule(session, "k2", after="1 day")
    with database.connect(autocommit=False) as other:
        other.execute("select from _eventstream.scheduled_commands where command_key = 'k2' for update")
        session.execute("set statement_timeout = '10 s'")
        session.execute(CLOSE)
        other.rollback()
    reasons = rows(session, "select command_key, stage, reason, payload from eventstream.scheduled_commands order by 1")
    assert reasons[0] == ("k1", "unscheduled", "CHG-1", None)
    # What somebody had in hand stays, and can be taken back; executed it is not.
    assert stage(session, "k2") == "pending"
    assert refused(send, session, command_key="k2").sqlstate == "ES045"
    assert refused(schedule, session, "k3").sqlstate == "ES045"
    assert value(session, "select es_unschedule_command('k2', 'over')") == "unscheduled"


def test_one_in_hand_ends_as_the_others_when_its_time_comes(new_server):
    database = Database(new_server("ended_late"), "ended_late").create()
    with database.connect() as session:
        session.execute("select es_create_tenant('acme')")
        session.execute("set eventstream.tenant = 'acme'")
        session.execute(FOLD)
        session.execute(DECIDE)
        session.execute("select es_register_decider('cashier', 'account', 'decide(jsonb, eventstream.command)', commands => %s)", (Jsonb(COMMANDS),))
        schedule(session, "k", after="2 s")
        with database.connect(autocommit=False) as other:
            other.execute("select from _eventstream.scheduled_commands where command_key = 'k' for update")
            session.execute(CLOSE)
            assert stage(session, "k") == "pending"
            other.rollback()
        wait_for(session, "k", "unscheduled")
        assert rows(session, "select reason, attempts, payload from eventstream.scheduled_commands") == [("CHG-1", 0, None)]
        assert rows(session, "select * from eventstream.dead_letters") == []


@pytest.mark.parametrize("begins", ["select es_begin_command('charge', 'k', '{}')", "select es_unschedule_command('k', 'over')"])
def test_what_somebody_begins_a_closing_waits_for(session, database, begins):
    schedule(session, "k", after="1 day")
    session.execute("set eventstream.gate_timeout = '300 ms'")
    with database.connect(autocommit=False) as other:
        other.execute(begins)
        assert refused(session.execute, CLOSE).sqlstate == "55P03"
        other.rollback()
    session.execute(CLOSE)
    assert stage(session, "k") == "unscheduled"


def test_who_only_looks_at_an_attempt_keeps_no_tenant_open(session, database):
    session.execute("select es_begin_command('charge', 'k', '{}')")
    with database.connect(autocommit=False) as other:
        assert value(other, "select es_begin_command('charge', 'k', '{}') ->> 'outcome'") == "in_progress"
        session.execute(CLOSE)
        other.rollback()


RENAMED = "select es_rename_tenant('acme', 'acme-old'); select es_create_tenant('acme')"


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_a_transaction_goes_on_in_the_tenant_that_it_began_in(session, database, level):
    append(session)
    with database.connect(autocommit=False) as other:
        other.execute(f"set transaction isolation level {level}")
        other.execute("select es_use_tenant('acme')")
        assert value(other, "select count(*) from es_read('account-1')") == 1
        session.execute(RENAMED)
        for ask in ("select es_append('account-1', 'Credited', '{\"amount\": 5}')", "select es_use_tenant('acme')", "select es_begin_command('charge', 'k', '{}')"):
            other.execute("savepoint s")
            diag = refused(other.execute, ask)
            assert diag.sqlstate == "ES040" and "another tenant" in diag.message_primary, ask
            other.execute("rollback to s")
        other.execute("select es_use_tenant('acme-old')")
        assert append(other, stream="account-2") == 1
        other.commit()
        assert append(other) == 1, "the next transaction says the name anew"
        other.rollback()
    session.execute("set eventstream.tenant = 'acme-old'")
    assert value(session, "select es_stream_version('account-2')") == 1


def test_a_transaction_that_gives_the_name_away_itself_goes_on_with_the_new_one(session):
    append(session)
    with session.transaction(force_rollback=True):
        append(session)
        session.execute(RENAMED)
        assert append(session) == 1
        session.execute("savepoint s")
        session.execute("select es_create_tenant('b'); set local eventstream.tenant = 'b'")
        assert append(session) == 1
        session.execute("rollback to s; select es_create_tenant('b'); set local eventstream.tenant = 'b'")
        assert append(session) == 1


#: Each gives names away and takes that back.
TAKEN_BACK = {
    "a savepoint": "savepoint s; select es_rename_tenant('acme', 'zz'); rollback to s",
    "one within another that is kept": "savepoint s; savepoint t; select es_rename_tenant('acme', 'zz'); release t; rollback to s",
    "what is read in between": "savepoint s; select es_rename_tenant('acme', 'zz'); select es_rename_tenant('bank', 'acme'); select es_stream_version('account-1'); rollback to s",
    "a block of PL/pgSQL": "do $$ begin perform es_rename_tenant('acme', 'zz'); raise sqlstate '22012'; exception when division_by_zero then null; end $$",
}


@pytest.mark.parametrize("way", TAKEN_BACK)
@pytest.mark.parametrize("read", ["before", "after"])
def test_a_name_that_was_given_away_and_is_not_means_what_it_did(session, database, way, read):
    session.execute("select es_create_tenant('bank')")
    for tenant, count in (("bank", 2), ("acme", 1)):
        session.execute(f"set eventstream.tenant = '{tenant}'")
        for _ in range(count):
            append(session)
    version = "select es_stream_version('account-1')"
    with database.connect(autocommit=False) as other:
        other.execute("set client_min_messages = warning; set eventstream.tenant = 'acme'")
        if read == "before":
            assert value(other, version) == 1
        other.execute(TAKEN_BACK[way])
        if read == "after":
            assert value(other, version) == 1
        session.execute("select es_rename_tenant('acme', 'x'); select es_rename_tenant('bank', 'acme')")
        assert refused(other.execute, version).sqlstate == "ES040"


@pytest.mark.parametrize("asked", ["es_read('account-1')", "es_reveal('account-1', 'CASE-1')"])
def test_no_page_is_another_tenants(session, asked):
    session.execute("select es_create_tenant('b')")
    for tenant in ("b", "acme"):
        session.execute(f"set eventstream.tenant = '{tenant}'")
        session.execute("select es_append_events('account-1', (select jsonb_agg('{\"type\": \"Credited\", \"payload\": {\"amount\": 1}}'::jsonb) from generate_series(1, 600)))")
    with session.transaction(force_rollback=True):
        session.execute(f"declare c no scroll cursor for select {asked}")
        assert len(rows(session, "fetch 500 from c")) == 500
        session.execute("set local eventstream.tenant = 'b'")
        diag = refused(session.execute, "fetch 1 from c")
        assert diag.sqlstate == "ES040" and "another tenant" in diag.message_primary


def test_who_closes_and_what_is_refused(session, database):
    role = database.role(f"{database.name[:40]}_r")
    session.execute("select es_create_tenant('b')")
    with database.connect(user=role) as there:
        for statement in (CLOSE, "select es_rename_tenant('acme', 'x')", "select es_close_tenant(null, null)"):
            assert refused(there.execute, statement).sqlstate == "42501"
        session.execute("select es_grant(%s, 'admin', tenant => 'b'), es_grant(%s, 'manage'), es_grant(%s, 'read')", (role, role, role))
        for statement in (CLOSE, "select es_rename_tenant('acme', 'x')"):
            assert refused(there.execute, statement).sqlstate == "42501"
        for tenant, reason, sqlstate in (
            ("b", "", "ES005"), ("b", "write to ada@example.org", "ES005"), ("b", "x" * 65, "ES005"), ("none", "x", "42501"), (None, "x", "42501"), ("b", None, "ES005"),
        ):  # fmt: skip
            assert refused(there.execute, "select es_close_tenant(%s, %s)", (tenant, reason)).sqlstate == sqlstate, (tenant, reason)
        there.execute("select es_close_tenant('b', 'CHG-2')")
    assert refused(session.execute, "select es_close_tenant('default', 'x')").message_primary.startswith("tenant must not be default")
    assert refused(session.execute, "select es_rename_tenant('default', 'x')").sqlstate == "ES005"
    assert refused(session.execute, "select es_close_tenant('none', 'x')").sqlstate == "ES040"
    assert rows(session, SHOWN)[1] == ("b", "closed", 0, role, "CHG-2")


def test_a_name_that_is_no_tenants_any_more_is_not_said_to_be_free(session, database):
    """Whoever follows a hint would make an empty ledger under the old name, or be granted it."""
    role = database.role(f"{database.name[:40]}_r")
    session.execute("select es_grant(%s, 'read', tenant => 'acme')", (role,))
    session.execute("select es_rename_tenant('acme', 'acme-ag')")
    session.execute("set eventstream.tenant = 'acme'")
    for statement in ("select es_stream_version('account-1')", "select es_close_tenant('acme', 'x')", "select es_rename_tenant('acme', 'x')", "select es_use_tenant('acme')"):
        diag = refused(session.execute, statement)
        assert diag.sqlstate == "ES040" and "create" not in diag.message_hint and "renamed" in diag.message_hint, (statement, diag.message_hint)
        session.execute(diag.message_hint.rpartition(": ")[2])
    with database.connect(user=role) as there:
        there.execute("set eventstream.tenant = 'acme'")
        for statement in ("select es_stream_version('account-1')", "table eventstream.events", "table eventstream.projections"):
            diag = refused(there.execute, statement)
            assert diag.sqlstate == "42501" and "renamed" in diag.message_hint, (statement, diag.message_hint)


def test_a_closed_tenant_s_name_is_said_to_be_one(session, database):
    session.execute(CLOSE)
    diag = refused(session.execute, "select es_create_tenant('acme')")
    assert diag.sqlstate == "ES005" and "and it is closed" in diag.message_primary and "if_not_exists" not in diag.message_hint
    said = []
    session.add_notice_handler(lambda diag: said.append(diag.message_primary))
    session.execute("select es_create_tenant('acme', if_not_exists => true)")
    assert said == ['tenant "acme" is there already, and it is closed']
    role = database.role(f"{database.name[:40]}_r")
    session.execute("select es_grant(%s, 'admin', tenant => 'default')", (role,))
    with database.connect(user=role) as there:
        there.execute("set eventstream.tenant = 'default'")
        diag = refused(there.execute, "select es_create_tenant('acme')")
        assert diag.sqlstate == "ES005" and "closed" not in diag.message_primary, "it is another's"


def test_a_repetition_is_answered_and_says_which_reason_stays(session):
    said = []
    session.add_notice_handler(lambda diag: said.append(diag.message_primary))
    first = value(session, CLOSE)
    assert value(session, CLOSE) == first and value(session, "select es_close_tenant('acme', 'CHG-2')") == first
    assert said == ['tenant "acme" is closed already', 'tenant "acme" is closed already: its reason stays, and the one that is given now is not kept']
    assert acts(session) == [("TenantCreated", None, "acme", None), ("TenantAltered", "acme", "acme", "CHG-1")]


def test_what_is_rolled_back_closed_nothing(session, database):
    with database.connect() as other:
        append(other)
        with session.transaction(force_rollback=True):
            session.execute(CLOSE)
            with pytest.raises(psycopg.Error, match="is closed"), session.transaction():
                append(session)
        append(other)
        with session.transaction():
            with session.transaction(force_rollback=True):
                session.execute(CLOSE)
            append(session)
        append(other)
        session.execute(CLOSE)
        assert refused(append, other).sqlstate == "ES045", "a session that has known it open"
    assert value(session, "select es_stream_version('account-1')") == 4


def test_a_closing_waits_for_open_appends_and_gives_up_with_their_holders(session, database):
    session.execute("set eventstream.gate_timeout = '300 ms'")
    with database.connect(autocommit=False) as slow:
        append(slow)
        pid = slow.info.backend_pid
        diag = refused(session.execute, CLOSE)
        assert diag.sqlstate == "55P03" and str(pid) in diag.message_detail
        slow.commit()
    session.execute(CLOSE)
    assert value(session, "select es_stream_version('account-1')") == 1


def test_racers_and_a_closing_leave_nothing_after_it(session, database):
    """8 sessions append all the time, each in transactions of two appends, while it is closed."""
    refusals, began = [], threading.Barrier(9)

    def race(number):
        with database.connect() as own:
            began.wait()
            try:
                while True:
                    with own.transaction():
                        append(own, f"account-{number}")
                        append(own, f"account-{number}")
            except psycopg.Error as error:
                refusals.append(error.sqlstate)

    racers = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for racer in racers:
        racer.start()
    began.wait()
    closed_at = value(session, CLOSE)
    for racer in racers:
        racer.join()
    assert refusals == ["ES045"] * 8
    assert value(session, "select count(*) from eventstream.events where recorded_at > %s", closed_at) == 0
    assert all(version % 2 == 0 for (version,) in rows(session, "select version from eventstream.streams"))


def test_it_is_closed_after_a_crash_and_in_a_restored_copy(new_server):
    server = new_server("tenants")
    original, copy = Database(server, "original").create(), Database(server, "copy")
    with original.connect() as session:
        session.execute("set synchronous_commit = off")
        session.execute("select es_create_tenant('acme')")
        session.execute("set eventstream.tenant = 'acme'")
        append(session)
        append(session, "order-1")
        session.execute("select es_rename_tenant('acme', 'acme-ag')")
        session.execute("set eventstream.tenant = 'acme-ag'")
        session.execute("select es_close_tenant('acme-ag', 'CHG-1')")
        server.stop("immediate")
    server.start()
    folder = WORK / f"dump-{uuid.uuid4().hex}"
    run("pg_dump", "-h", server.socket, "-U", SUPERUSER, "-Fd", "-f", folder, original.name)
    copy.create(extension=False)
    run("pg_restore", "-h", server.socket, "-U", SUPERUSER, "--exit-on-error", "-d", copy.name, folder)
    for database in (original, copy):
        with database.connect() as session:
            session.execute("set eventstream.tenant = 'acme-ag'")
            assert refused(append, session).sqlstate == "ES045"
            assert rows(session, "select status, close_reason from eventstream.tenants where tenant = 'acme-ag'") == [("closed", "CHG-1")]
            assert verify(session) == [] and rows(session, "select * from es_verify_audit()") == []


def test_a_closing_that_was_undone_by_hand_is_found(session):
    session.execute(CLOSE)
    with pytest.raises(psycopg.Error, match="ES050|own functions only"):
        session.execute("update _eventstream.tenants set closed_at = null, closed_by = null, close_reason = null where name = 'acme'")
    with forced(session):
        session.execute("update _eventstream.tenants set closed_at = null, closed_by = null, close_reason = null where name = 'acme'")
    found = rows(session, "select tenant, kind, problem from es_verify_audit()")
    assert found == [("acme", "tenant", "is not what its last act made it: other close_reason, closed_at, closed_by")]


def test_another_name_changes_nothing_that_is_recorded_granted_or_registered(session, database, tmp_path):
    role = database.role(f"{database.name[:40]}_r")
    session.execute("select es_grant(%s, 'append'), es_grant(%s, 'read')", (role, role))
    session.execute("create table seen (tenant text)")
    session.execute("create function see(event eventstream.event) returns void language sql as 'insert into public.seen values (event.tenant)'")
    session.execute("select es_create_projection('seen', 'see(eventstream.event)', categories => '{account}', mode => 'inline')")
    append(session)
    schedule(session, "k", after="1 day")
    (tmp_path / "before").write_bytes(copied(session, HEADS_AS_CSV.replace("es_chain_heads()", "es_chain_heads() where tenant = 'acme'")))
    uuid_before = value(session, "select tenant_uuid from es_log_info()")
    with database.connect(user=role) as clerk, database.connect() as boss:
        append(clerk)
        append(boss)
        assert value(session, "select es_rename_tenant('acme', 'acme AG')") == "acme AG"
        # The old name is none any more, for whoever had it.
        assert refused(append, clerk).sqlstate == "42501" and refused(append, boss).sqlstate == "ES040"
        for other in (clerk, boss, session):
            other.execute("set eventstream.tenant = 'acme AG'")
        assert append(clerk) == 4 and append(boss) == 5
        assert value(clerk, "select tenant from es_read('account-1') limit 1") == "acme AG"
        assert refused(clerk.execute, "select es_grant('public', 'read')").message_primary.endswith('in tenant "acme AG"')
    assert rows(session, "select tenant, count(*) from seen group by 1 order by 1") == [("acme", 3), ("acme AG", 2)]
    assert value(session, "select es_state('account-1') ->> 'balance'") == "25"
    assert send(session)["version"] == 6
    assert value(session, "select tenant_uuid from es_log_info()") == uuid_before
    assert verify(session) == [] and rows(session, "select * from es_verify_audit()") == []
    assert check_outside(session, tmp_path / "before")[0] == 0
    assert rows(session, "select tenant, command_key from eventstream.scheduled_commands") == [("acme AG", "k")]
    assert acts(session)[-1] == ("TenantAltered", "acme", "acme AG", None)
    # The name is free again, and another tenant's.
    session.execute("select es_create_tenant('acme')")
    with database.connect() as fresh:
        assert value(fresh, "select count(*) from eventstream.events") == 0


def test_tokens_name_the_tenant_by_its_name_of_now_and_open_no_closed_one(quiet):
    bank = Bank(quiet)
    with bank.admin("default") as admin, bank.connect() as there:
        admin.execute("select es_rename_tenant('acme', 'acme AG')")
        with there.transaction(force_rollback=True):
            assert refused(use, there, bank.token("acme")).sqlstate == "ES043"
        with there.transaction():
            assert use(there, bank.token("acme AG", key=bank.keys["acme"])) == "acme AG"
            assert append(there) == 1
        admin.execute("select es_close_tenant('acme AG', 'CHG-1')")
        with there.transaction(force_rollback=True):
            use(there, bank.token("acme AG", key=bank.keys["acme"]))
            assert value(there, "select count(*) from es_read('account-1')") == 1
            assert refused(append, there).sqlstate == "ES045"


def test_workers_follow_under_the_new_name(new_server):
    database = Database(new_server("renamed"), "renamed").create()
    with database.connect() as session:
        session.execute("select es_create_tenant('acme')")
        session.execute("set eventstream.tenant = 'acme'")
        session.execute("create function more(event eventstream.event) returns void language sql as "
                        "$$ select public.es_append('seen-1', 'Seen', to_jsonb((event).tenant)) $$")  # fmt: skip
        session.execute("select es_create_projection('more', 'more(eventstream.event)', categories => '{account}')")
        append(session)
        wait_until(lambda: value(session, "select es_stream_version('seen-1')") == 1, 20, "the worker")
        session.execute("select es_rename_tenant('acme', 'b')")
        session.execute("set eventstream.tenant = 'b'")
        append(session)
        wait_until(lambda: value(session, "select es_stream_version('seen-1')") == 2, 20, "the worker under the new name")
        assert rows(session, "select payload from es_read('seen-1')") == [("acme",), ("b",)]


def test_names_that_are_none_are_refused_and_a_taken_one_by_whoever_comes_second(session, database):
    session.execute("select es_create_tenant('b')")
    for name in ("", "*", " a", "a ", "a\nb", "x" * 256, "\u200b", "default", "b"):
        diag = refused(session.execute, "select es_rename_tenant('acme', %s)", (name,))
        assert diag.sqlstate == "ES005" and diag.message_primary.startswith("new_name must"), name
    assert refused(session.execute, "select es_rename_tenant('acme', null)").sqlstate == "ES005"
    assert refused(session.execute, "select es_create_tenant('*')").sqlstate == "ES005"
    assert value(session, "select es_rename_tenant('acme', 'acme')") == "acme"
    with database.connect(autocommit=False) as first:
        first.execute("select es_create_tenant('c')")
        second = threading.Thread(target=lambda: raised.append(refused(session.execute, "select es_rename_tenant('acme', 'c')")))
        raised = []
        second.start()
        with database.connect() as watcher:
            waits = "select count(*) = 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            wait_until(lambda: value(watcher, waits), 10, "the second one to wait")
        first.commit()
        second.join()
    assert (raised[0].sqlstate, raised[0].message_primary) == ("ES005", 'new_name must be a new name: there is a tenant "c" already')


def test_settings_with_the_old_name_are_told(session, database):
    role = database.role(f"{database.name[:40]}_r")
    session.execute(f"alter role \"{role}\" in database \"{database.name}\" set eventstream.tenant = 'acme'")
    said = []
    session.add_notice_handler(lambda diag: said.append(diag.message_primary))
    session.execute("select es_rename_tenant('acme', 'b')")
    assert said == [f"eventstream.tenant is still set to the old name for database {database.name}, role {role} in database {database.name}"]


def test_the_view_shows_all_or_the_current_one_with_exact_counts_up_to_where_upkeep_is(session, database):
    append(session)
    append(session, "order-1")
    session.execute("select es_create_tenant('b')")
    assert rows(session, SHOWN) == [(name, "open", 0, None, None) for name in ("acme", "b", "default")]
    for _ in range(2):
        session.execute("select es_maintain()")
        columns = "events, bytes, last_recorded_at, counted_to >= (select max(global_position) from _eventstream.events where tenant_id > 0)"
        counted = rows(session, f"select {columns} from eventstream.tenants where tenant = 'acme'")
        assert counted == rows(session, "select count(*), sum(pg_column_size(payload) + pg_column_size(metadata)), max(recorded_at), true "
                                        "from _eventstream.events where tenant_id = 2")  # fmt: skip
        for stream in ("account-1", "a-1", "a-2"):
            append(session, stream)
    assert value(session, "select uuid = (select tenant_uuid from es_log_info()) from eventstream.tenants where tenant = 'acme'") is True
    role = database.role(f"{database.name[:40]}_r")
    with database.connect(user=role) as there:
        for privilege, shown in (("read", None), ("audit", ["acme"]), ("manage", ["acme"])):
            session.execute("select es_grant(%s, %s)", (role, privilege))
            if privilege == "manage":
                session.execute("select es_revoke(%s, 'audit')", (role,))
            if shown is None:
                assert refused(there.execute, SHOWN).sqlstate == "42501"
            else:
                assert [tenant for tenant, *_ in rows(there, ALL)] == shown
        session.execute(f'grant pg_monitor to "{role}"')
        assert [tenant for tenant, *_ in rows(there, SHOWN)] == ["acme", "b", "default"]
        session.execute(f'revoke pg_monitor from "{role}"')
    narrowed = database.role(f"{database.name[:40]}_n")
    session.execute("select es_grant(%s, 'manage', category => 'a')", (narrowed,))
    with database.connect(user=narrowed) as there:
        assert refused(there.execute, SHOWN).sqlstate == "42501"


def test_the_view_reads_no_event(session):
    session.execute("select es_append_events('account-1', (select jsonb_agg(jsonb_build_object('type', 'T', 'payload', i)) from generate_series(1, 2000) i))")
    session.execute("select es_maintain()")
    plan = "\n".join(line for (line,) in rows(session, "explain (costs off) select * from eventstream.tenants"))
    assert "events_" not in plan and "streams" not in plan, plan
    assert value(session, "select events from eventstream.tenants where tenant = 'acme'") == 2000
