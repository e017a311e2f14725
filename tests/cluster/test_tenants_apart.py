"""No tenant, and no stream, waits for or is hidden by what is none of its business: what an append locks, and in which order; the gate of a
tenant; the horizon of a tenant. Asked with paused transactions, savepoints, racers, kills, and one tenant beside another."""

import contextlib
import json
import os
import random
import threading
import time

import psycopg
import pytest
from database import Database, all_at_once, gaps, raised, rows, value, verify
from psycopg.types.json import Jsonb
from server import wait_until
from writers import Reader


@pytest.mark.parametrize("count", [1, 3, 100])
def test_racers_that_begin_the_same_streams_begin_each_once_and_leave_no_gap(quiet, count):
    """More than 64 names are not kept: there the unique index decides."""
    sessions = 6

    def race(number):
        order = random.Random(number)
        with quiet.connect() as session:
            for turn in range(10):
                streams = [f"account-{turn}-{stream}" for stream in range(count)]
                order.shuffle(streams)
                appends = [{"stream": stream, "events": [{"type": "Begun", "payload": number}]} for stream in streams]
                session.execute("select * from es_append_streams(%s)", (Jsonb(appends),))

    assert raised(all_at_once(sessions, race)) == []
    with quiet.connect() as session:
        assert (gaps(session), verify(session)) == ([], [])
        assert value(session, "select count(*) from eventstream.streams where version = %s", sessions) == 10 * count
        last, events = rows(session, "select last_position, (select count(*) from _eventstream.events) from es_log_info()")[0]
        assert last == events or count > 64


# --- the gate ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def two(quiet):
    """Two tenants; a: with a handler that does nothing."""
    with quiet.connect() as session:
        session.execute("select es_create_tenant('a'), es_create_tenant('b')")
        session.execute("create function on_event(event eventstream.event) returns void language sql as ''")
        session.execute(f"alter database \"{quiet.name}\" set eventstream.gate_timeout = '800ms'")
    return quiet


@contextlib.contextmanager
def in_tenant(database, tenant, **options):
    with database.connect(**options) as session:
        session.execute(f"set eventstream.tenant = '{tenant}'")
        if not session.autocommit:
            session.commit()
        yield session


MAKE = "select es_create_projection('p', 'on_event(eventstream.event)', mode => 'inline')"
LATENCY = "select es_append('account-' || %s, 'Moved', '{}')"


def longest(session, seconds, turn=lambda: None):
    """The slowest of the appends of so many seconds, in seconds."""
    slowest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        session.execute(LATENCY, (random.randrange(1000),))
        slowest = max(slowest, time.monotonic() - began)
        turn()
    return slowest


def test_who_waits_for_a_gate_stops_nobody_for_long_and_gives_up_with_the_holders(two):
    with in_tenant(two, "a", autocommit=False) as holder, in_tenant(two, "a") as appender, in_tenant(two, "b") as other:
        holder.execute("select es_append('account-held', 'Moved', '{}')")
        with in_tenant(two, "a") as manager:
            failure = []

            def make():
                try:
                    manager.execute(MAKE)
                except psycopg.Error as error:
                    failure.append(error)

            waiting = threading.Thread(target=make)
            waiting.start()
            slowest = longest(appender, 0.7), longest(other, 0.05)
            waiting.join(20)
            pid = holder.info.backend_pid
            holder.commit()
    # eventstream.gate_wait is 100 ms; the machine may be busy.
    assert slowest[0] < 0.6 and slowest[1] < 0.6, slowest
    error = failure[0]
    assert error.sqlstate == "55P03"
    assert "tenant \"a\" did not come to rest within 800 ms" in error.diag.message_primary
    detail = json.loads(error.diag.message_detail)
    assert [found["pid"] for found in detail["holders"]] == [pid]
    assert detail["holders"][0]["since"].startswith("20")
    assert f"pg_terminate_backend({pid})" in error.diag.message_hint
    with in_tenant(two, "a") as session:
        assert value(session, "select count(*) from eventstream.projections") == 0
        session.execute(MAKE)


def test_a_session_that_idles_with_a_gate_closed_is_ended_and_appends_go_on(two):
    with in_tenant(two, "a", autocommit=False) as manager, in_tenant(two, "b") as other:
        manager.execute(MAKE)
        assert longest(other, 0.2) < 0.6
        with in_tenant(two, "a") as appender:
            began = time.monotonic()
            assert value(appender, "select es_append('account-1', 'Moved', '{}')") == 1
            assert 0.2 < time.monotonic() - began < 5
            assert value(appender, "select count(*) from eventstream.projections") == 0
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            manager.execute("select 1")
        manager.close()


def test_the_lock_timeout_of_whoever_closes_a_gate_counts_where_it_is_shorter(two):
    with in_tenant(two, "a", autocommit=False) as holder, in_tenant(two, "a") as manager:
        holder.execute("select es_append('account-held', 'Moved', '{}')")
        manager.execute("set lock_timeout = '50ms'")
        began = time.monotonic()
        with pytest.raises(psycopg.errors.LockNotAvailable, match="within 50 ms"):
            manager.execute(MAKE)
        assert time.monotonic() - began < 0.6
        assert value(manager, "show lock_timeout") == "50ms"
        holder.rollback()


def test_a_fold_of_an_inline_table_is_registered_beside_appends_without_a_deadlock(two):
    """Each append folds, and takes a snapshot, which wants the row that es_register_fold writes."""
    two.make_partitions_small()
    with in_tenant(two, "a") as session:
        session.execute("set eventstream.gate_timeout = '10s'")
        register = "select es_register_fold('total', 'account', rules => %s, initial_state => '{\"n\": 0}', snapshot_every => 1)"
        rules = [Jsonb({"on": {"Moved": [{"increment": "/n"}, {"set": {"/step": {"value": step}}}]}}) for step in (1, 2)]
        session.execute(register, (rules[0],))
        columns = [{"name": "n", "type": "numeric", "path": "/n"}]
        session.execute("select es_create_state_table('totals', 'account', %s, mode => 'inline')", (Jsonb(columns),))
        stop = threading.Event()

        def append(number):
            with in_tenant(two, "a") as own:
                own.execute("set statement_timeout = '20s'")
                while not stop.is_set():
                    own.execute(LATENCY, (number,))
                    own.execute("select es_snapshot(%s)", (f"account-{number}",))

        def registers(number):
            if number > 0:
                return append(number)
            try:
                for turn in range(20):
                    session.execute(register, (rules[turn % 2],))
            finally:
                stop.set()

        assert raised(all_at_once(4, registers)) == []
        session.execute(register, (rules[0],))
        assert rows(session, "select n = version, count(*) from totals group by 1") == [(True, 3)]


def test_a_fold_of_an_inline_table_waits_for_the_gate_before_it_keeps_what_appends_want(two):
    """Who has appended and goes on to take a snapshot wants the fold's row: whoever waits for the gate must not have it."""
    with in_tenant(two, "a") as session, in_tenant(two, "a", autocommit=False) as holder:
        session.execute("set eventstream.gate_timeout = '20s'")
        register = "select es_register_fold('total', 'account', rules => %s, initial_state => '{\"n\": 0}')"
        rules = [Jsonb({"on": {"Moved": [{"increment": "/n"}, {"set": {"/step": {"value": step}}}]}}) for step in (1, 2)]
        session.execute(register, (rules[0],))
        session.execute("select es_create_state_table('totals', 'account', %s, mode => 'inline')", (Jsonb([{"name": "n", "type": "numeric", "path": "/n"}]),))
        holder.execute("select es_append('account-1', 'Moved', '{}')")
        failure = []

        def again():
            try:
                session.execute(register, (rules[1],))
            except psycopg.Error as error:
                failure.append(error)

        registering = threading.Thread(target=again)
        registering.start()
        time.sleep(0.6)
        assert registering.is_alive(), "it waits for the open append"
        holder.execute("set local lock_timeout = '3s'")
        holder.execute("select es_snapshot('account-1', 'total')")
        holder.commit()
        registering.join(30)
        assert not registering.is_alive() and failure == []
        assert rows(session, "select n, version from totals") == [(1, 1)]


# --- the horizon ------------------------------------------------------------------------------------------------------------------------

TENANTS = [f"t{number}" for number in range(10)]
SECONDS = float(os.environ.get("EVENTSTREAM_TAILING_SECONDS", "60")) / 6


class Turners:
    """Sessions whose transactions append to one tenant after another, to more than a slot has bounds for now and then, dawdle, roll back a
    savepoint, or all of it."""

    def __init__(self, database, count=8):
        self.database, self.until = database, time.monotonic() + SECONDS
        self.committed = {tenant: set() for tenant in TENANTS}
        self.results, self.threads = [None] * count, []
        for number in range(count):
            self.threads.append(threading.Thread(target=self._run, args=(number,), daemon=True))
            self.threads[-1].start()

    def _run(self, number):
        try:
            self._write(number)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.results[number] = error

    def _write(self, number):
        choice, count = random.Random(number), 0
        with self.database.connect(autocommit=False) as session:
            while time.monotonic() < self.until:
                written = []
                most = choice.choice([1, 1, 1, 2, 2, 3, len(TENANTS)])
                # In one order: two transactions that go back and forth between streams deadlock.
                turns = sorted(choice.sample(range(len(TENANTS)), most))
                for tenant in (TENANTS[turn] for turn in turns):
                    session.execute("select es_use_tenant(%s)", (tenant,))
                    is_kept = choice.random() > 0.2
                    if not is_kept:
                        session.execute("savepoint s")
                    count += 1
                    token = f"{number}-{count}"
                    stream = f"account-{choice.randrange(6)}"
                    session.execute("select es_append(%s, 'Moved', %s)", (stream, Jsonb({"token": token})))
                    if is_kept:
                        written.append((tenant, token))
                    else:
                        session.execute("rollback to s")
                    time.sleep(choice.choice([0, 0, 0.002, 0.01]))
                if choice.random() < 0.15:
                    session.rollback()
                    continue
                session.commit()
                for tenant, token in written:
                    self.committed[tenant].add(token)

    def finish(self):
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()
        return raised(self.results)


def follow(naive):
    def step(session, checkpoint):
        if naive:
            found = rows(
                session,
                "select global_position, payload->>'token' from eventstream.events where global_position > %s order by 1 limit 200",
                checkpoint,
            )
            return found, found[-1][0] if found else checkpoint
        up_to = value(session, "select es_horizon()")
        assert up_to >= checkpoint, f"the horizon stepped back from {checkpoint} to {up_to}"
        found = rows(
            session, "select global_position, payload->>'token' from es_read_all(%s, 50, up_to => %s)", checkpoint, up_to
        )
        return found, found[-1][0] if len(found) == 50 else up_to

    return step


class OfTenant:
    """A database as a reader of one tenant sees it."""

    def __init__(self, database, tenant):
        self.database, self.tenant = database, tenant

    def connect(self):
        session = self.database.connect()
        session.execute(f"set eventstream.tenant = '{self.tenant}'")
        return session


def test_each_tenants_reader_misses_nothing_beside_transactions_that_turn_from_tenant_to_tenant(quiet):
    with quiet.connect() as session:
        for tenant in TENANTS:
            session.execute("select es_create_tenant(%s)", (tenant,))
    turners = Turners(quiet)
    followed = ["t0", "t1", "t5", "t9"]
    readers = {tenant: Reader(OfTenant(quiet, tenant), follow(naive=False)).start() for tenant in followed}
    naive = Reader(OfTenant(quiet, "t1"), follow(naive=True)).start()
    failures = turners.finish()
    assert failures == []
    with quiet.connect() as session:
        session.execute("set eventstream.tenant = 't0'")
        last = value(session, "select last_position from es_log_info()")
    for tenant, reader in readers.items():
        reader.finish(last)
        tokens = [token for _, token in reader.seen]
        assert len(tokens) == len(set(tokens)), tenant
        assert set(tokens) == turners.committed[tenant], tenant
        assert [position for position, _ in reader.seen] == sorted(position for position, _ in reader.seen)
        assert reader.checkpoints == sorted(reader.checkpoints)
    naive.finish(last)
    # Else the load would prove nothing.
    assert turners.committed["t1"] - {token for _, token in naive.seen}
    with quiet.connect() as session:
        assert (gaps(session), verify(session)) == ([], [])


def test_a_transaction_that_appends_to_more_tenants_than_a_slot_has_bounds_for_holds_back_all_others_from_then_on(quiet):
    with quiet.connect(autocommit=False) as session, quiet.connect() as looker:
        for tenant in TENANTS:
            session.execute("select es_create_tenant(%s)", (tenant,))
        session.commit()
        for turn, tenant in enumerate(TENANTS[:9]):
            session.execute("select es_use_tenant(%s)", (tenant,))
            session.execute("select es_append('account-1', 'Moved', '{}')")
            held = dict(rows(looker, "select tenant, global_position from eventstream.horizon_holders"))
            assert len(held) == min(turn + 1, 8) and len(set(held.values())) == len(held)
            looker.execute("set eventstream.tenant = 't9'")
            last, horizon = rows(looker, "select last_position, horizon from es_log_info()")[0]
            assert (last - horizon) == max(0, turn - 6), "the others are held from the eighth on"
        session.commit()
        assert rows(looker, "select 1 from eventstream.horizon_holders") == []
        assert value(looker, "select last_position - horizon from es_log_info()") == 0


def test_projections_waits_consumers_and_notifications_of_a_tenant_go_on_while_another_is_held(new_server):
    server = new_server("apart")
    database = Database(server, "ledger").create()
    with database.connect() as session:
        session.execute("select es_create_tenant('a'), es_create_tenant('b')")
        session.execute("create table seen (tenant text, stream text)")
        session.execute(
            "create function see(event eventstream.event) returns void language sql as"
            " 'insert into public.seen values (($1).tenant, ($1).stream)'"
        )
    with in_tenant(database, "a", autocommit=False) as held, in_tenant(database, "a") as a, in_tenant(database, "b") as b:
        for session in (a, b):
            session.execute("select es_create_projection('seen', 'see(eventstream.event)')")
            session.execute("select es_create_projection('in', 'see(eventstream.event)', mode => 'inline', categories => '{never}')")
            session.execute("select es_create_subscription('mailer')")
        held.execute("select es_append('account-held', 'Moved', '{}')")
        b.execute("listen eventstream")
        for turn in range(1, 4):
            b.execute("select es_append(%s, 'Moved', '{}')", (f"account-{turn}",))
            position = value(b, "select (select global_position from es_last_append())")
            assert value(b, "select es_wait_for('seen', timeout => '10 s')") >= position
            assert value(b, "select es_wait_for('in', timeout => '10 s')") >= position
            assert any(int(notice.payload) >= position for notice in b.notifies(timeout=10))
            assert value(b, "select count(*) from es_fetch('mailer', 'me', lease => '1 min')") in (0, 1)
            assert value(b, "select count(*) from seen where tenant = 'b'") == turn
            a.execute("select es_append('account-other', 'Moved', '{}')")
        assert value(a, "select count(*) from seen where tenant = 'a'") == 0
        assert value(a, "select lag > 0 from eventstream.projections where name = 'seen'") is False
        b.execute("select * from es_fetch('mailer', 'me')")
        list(b.notifies(timeout=0.3))
        held.commit()
        # a's moves now, although b's has nothing new; a is told, and catches up.
        assert value(a, "select es_wait_for('seen', timeout => '10 s')") > 0
        wait_until(lambda: value(a, "select count(*) from seen where tenant = 'a'") == 4)
        assert list(b.notifies(timeout=10, stop_after=1))


# --- acts of administration -------------------------------------------------------------------------------------------------------------

KEY = "'\\xd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a'"
ACTS = {
    "es_protect": "select es_protect('Secret', pointers => '{/name}')",
    "es_unprotect": "select es_protect('Secret', pointers => '{/name}'), es_unprotect('Secret')",
    "es_add_token_key": f"select es_add_token_key('k2', {KEY}, 'TENANT', 'https://id.example.org')",
    "es_revoke_token_key": "select es_revoke_token_key('k1', 'TENANT')",
    "es_require_token": "select es_require_token('WEB')",
    "es_grant": "select es_grant('WEB', 'append', 'TENANT')",
    "es_rename_tenant": "select es_rename_tenant('TENANT', 'once')",
    "es_close_tenant": "select es_close_tenant('TENANT', 'over')",
}
#: Those that wait for what is open in their own tenant.
REST = {"es_protect", "es_unprotect", "es_close_tenant"}


def test_administration_of_a_tenant_and_appends_of_another_wait_for_each_other_neither_way(two):
    web = two.role(f"web_{two.name[-20:]}")
    with two.connect() as session:
        session.execute(f'revoke temp on database "{two.name}" from public')
        for tenant in "ab":
            session.execute(f"set eventstream.tenant = '{tenant}'")
            session.execute(f"select es_add_token_key('k1', {KEY}, '{tenant}', 'https://id.example.org')")
    with in_tenant(two, "b", autocommit=False) as open_, in_tenant(two, "a", autocommit=False) as admin, in_tenant(two, "b") as same:
        for session, patience in ((open_, "3 s"), (admin, "3 s"), (same, "300 ms")):
            session.execute(f"set statement_timeout = '{patience}'; set lock_timeout = '{patience}'")
        open_.commit(), admin.commit()
        for number, (act, statement) in enumerate(ACTS.items(), start=1):
            of_a, of_b = (statement.replace("TENANT", tenant).replace("WEB", web) for tenant in "ab")
            open_.execute("select es_append('account-1', 'Moved', '{}')")
            if act in REST:
                # What waits for its own tenant does so here, and gives up.
                with pytest.raises(psycopg.Error):
                    same.execute(of_b)
            admin.execute(of_a)
            admin.rollback()
            open_.rollback()
            # The other way around.
            admin.execute(of_a)
            open_.execute("select es_append('account-1', 'Moved', '{}')")
            open_.commit()
            admin.rollback()
            assert value(open_, "select count(*) from es_read('account-1')") == number
            open_.commit()
