"""es_reveal: nothing is shown without a record, and a record is for ever.

Asked of the kinds: isolation (each level), transaction (ROLLBACK, savepoint, read only, half-read cursor, exception in PL/pgSQL), session (a metadata setting that is too long), role (every
mix of read and reveal, narrowed; SECURITY DEFINER; users' code that runs with others' rights), tenant (a log each), size (several pages, above work_mem), text (reasons),
death (kill -9 of the scribe between request and answer, its termination, a cancel, a crash right after), load (more sessions than worker slots, none at all), copies (standby),
version without preload, verification (chains; acts are another matter), reader of the answer (no value in the record)."""

import threading
import time

import psycopg
import pytest
from database import Database, forced, rows, value, verify
from deciding import refused
from minting import Bank, use
from outside import HEADS_AS_CSV, check_outside, copied
from server import kill_9, wait_until

REVEAL = "select (e).version, (e).payload from (select es_reveal('customer-1', 'CASE-1') e) r"
LOG = "select recorded_by, role, actor, function, stream, from_version, to_version, events, reason from eventstream.access_log order by global_position"
HEALTH = "select status, detail, fix from eventstream.health where name = 'reveals'"
SCRIBES = "select pid from pg_stat_activity where backend_type = 'eventstream scribe' and datname = current_database()"


def fill(session, events=3, stream="customer-1"):
    session.execute(
        "select es_append_events(%s, (select jsonb_agg(jsonb_build_object('type', 'Named', 'payload', jsonb_build_object('name', 'secret ' || i))) from generate_series(1, %s) i))",
        (stream, events),
    )


@pytest.fixture
def database(quiet):
    with quiet.connect() as session:
        fill(session)
    return quiet


@pytest.fixture
def session(database):
    with database.connect() as connection:
        yield connection


def log(session):
    return [row[5:8] for row in rows(session, LOG)]


def test_records_are_proved_outside_and_one_that_is_gone_is_missed(session, tmp_path):
    rows(session, REVEAL)
    assert check_outside(session)[0] == 0
    heads = tmp_path / "heads.csv"
    heads.write_bytes(copied(session, HEADS_AS_CSV))
    rows(session, REVEAL)
    assert check_outside(session, heads)[0] == 0
    with forced(session):
        session.execute("update _eventstream.events set payload = jsonb_set(payload, '{reason}', '\"FORGED\"') where category = '$access' and version = 1")
    status, said = check_outside(session, heads)
    assert status == 1 and "$access-" in said


def records(session):
    return value(session, "select count(*) from eventstream.access_log")


class Held:
    """Whoever records access waits meanwhile."""

    def __init__(self, database):
        self.session = database.connect(autocommit=False)

    def __enter__(self):
        self.session.execute("select from _eventstream.streams where category = '$access' for update")
        return self

    def __exit__(self, *_):
        self.session.close()


def test_who_is_shown_what_and_why_is_on_record_and_no_value(session):
    session.execute("""set eventstream.metadata = '{"actor": "cleo"}'""")
    assert rows(session, REVEAL) == [(number, {"name": f"secret {number}"}) for number in (1, 2, 3)]
    assert rows(session, LOG) == [("postgres", "postgres", "cleo", "es_reveal", "customer-1", 1, 3, 3, "CASE-1")]
    assert value(session, "select count(*) from _eventstream.events e where e.tenant_id < 0 and e::text like '%%secret%%'") == 0
    assert rows(session, "select version from es_reveal('customer-1', 'CASE-2', 2, 1)") == [(2,)]
    assert log(session)[-1] == (2, 2, 1)
    # Nothing is shown, and so nothing recorded.
    assert rows(session, "select from es_reveal('customer-1', 'CASE-3', 4)") == [] == rows(session, "select from es_reveal('none-1', 'CASE-3')")
    assert records(session) == 2
    assert verify(session) == [] and rows(session, "select * from es_verify_audit()") == []
    assert rows(session, "select from eventstream.administration where category <> '$audit'") == []
    uuid_of = value(session, "select tenant_uuid from es_log_info()")
    assert value(session, "select count(*) from es_read(%s)", f"$access-{uuid_of}") == 2
    assert value(session, "select count(*) from es_read_all(categories => '{$access}')") == 2


def test_what_is_protected_is_revealed_and_nowhere_else(session):
    session.execute("select es_protect('Named', 1, '{/name}')")
    assert rows(session, "select payload, salt from es_read('customer-1')") == [({"name": None}, None)] * 3
    assert rows(session, "select (e).payload ->> 'name', (e).salt is not null from (select es_reveal('customer-1', 'CASE-1') e) r limit 1") == [("secret 1", True)]
    assert rows(session, "select payload ->> 'name' from es_reveal('customer-1', 'CASE-1', 2, 1)") == [("secret 2",)]
    assert rows(session, "select payload ->> 'name' from eventstream.events where category = 'customer'") == [(None,)] * 3


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable", "read committed read only", "serializable read only deferrable"])
def test_what_is_rolled_back_or_read_only_is_on_record_at_every_level(session, database, level):
    with database.connect() as other:
        session.execute(f"begin isolation level {level}")
        assert len(rows(session, REVEAL)) == 3
        assert records(other) == 1, "before the transaction ends"
        session.execute("savepoint s")
        assert len(rows(session, REVEAL)) == 3
        session.execute("rollback to s")
        session.execute("rollback")
        assert records(other) == 2
        assert value(other, "select count(*) from eventstream.streams where category = '$access'") == 0


def test_a_cursor_that_is_half_read_has_its_pages_on_record(session):
    fill(session, 1197)
    with session.transaction(force_rollback=True):
        session.execute("declare c no scroll cursor for select es_reveal('customer-1', 'CASE-1')")
        assert records(session) == 0
        for fetched, recorded in ((1, 1), (499, 1), (1, 2), (499, 2), (200, 3)):
            session.execute(f"fetch {fetched} from c")
            assert records(session) == recorded
    assert log(session) == [(1, 500, 500), (501, 1000, 500), (1001, 1200, 200)]


def test_in_from_what_fits_into_work_mem_is_shown_and_more_is_refused_before_it_reaches_the_disk(session, database):
    session.execute("select es_append('customer-2', 'Named', jsonb_build_object('name', string_agg(md5(i::text), ''))) from generate_series(1, 30) i, generate_series(1, 100) j group by j")
    session.execute("set work_mem = '64kB'")
    diag = refused(session.execute, "select * from es_reveal('customer-2', 'CASE-1')")
    assert diag.sqlstate == "ES007" and "more than work_mem allows (64)" in diag.message_primary and "max_count" in diag.message_hint
    assert records(session) == 0
    assert len(rows(session, "select version from es_reveal('customer-2', 'CASE-1', max_count => 10)")) == 10
    assert len(rows(session, "select es_reveal('customer-2', 'CASE-1')")) == 100
    session.execute("set work_mem = '1MB'")
    assert len(rows(session, "select version from es_reveal('customer-2', 'CASE-1')")) == 100
    session.execute("select pg_stat_force_next_flush()")
    with database.connect() as other:
        assert value(other, "select temp_files from pg_stat_database where datname = current_database()") == 0


@pytest.mark.parametrize("kilobytes", [64, 256, 1024])
def test_no_number_of_rows_that_is_let_through_reaches_the_disk(session, database, kilobytes):
    """The most that is let through, found by halving."""
    fill(session, 9997)
    session.execute(f"set work_mem = '{kilobytes}kB'")
    low, high = 1, 10_000
    while high - low > 1:
        middle = (low + high) // 2
        try:
            session.execute("select count(*) from es_reveal('customer-1', 'CASE-1', max_count => %s)", (middle,))
            low = middle
        except psycopg.Error as error:
            assert error.sqlstate == "ES007"
            high = middle
    assert low > 50
    session.execute("select pg_stat_force_next_flush()")
    with database.connect() as other:
        assert value(other, "select temp_files from pg_stat_database where datname = current_database()") == 0


def test_each_way_to_call_it_is_on_record(session, database):
    clerk = database.role(f"{database.name[:40]}_c")
    session.execute("prepare p as select (e).version from (select es_reveal('customer-1', 'CASE-1') e) r")
    for _ in range(7):
        session.execute("execute p")
    assert records(session) == 7
    session.execute("do $$ declare found record; begin for found in select es_reveal('customer-1', 'CASE-1') loop exit; end loop; end $$")
    assert records(session) == 8
    session.execute("do $$ begin perform es_reveal('customer-1', 'CASE-1'); raise 'no'; exception when raise_exception then null; end $$")
    assert records(session) == 9
    assert value(session, "select (select count(*) from es_reveal('customer-1', 'CASE-1')) + 1") == 4
    assert value(session, "select max((e).version) from unnest(array(select es_reveal('customer-1', 'CASE-1'))) e") == 3
    assert records(session) == 11
    session.execute("explain analyze select es_reveal('customer-1', 'CASE-1')")
    session.execute("explain select es_reveal('customer-1', 'CASE-1')")
    assert records(session) == 12
    session.execute("create function shown() returns bigint security definer language sql as 'select count(*) from public.es_reveal(''customer-1'', ''CASE-9'')'")
    with database.connect(user=clerk) as there:
        assert value(there, "select shown()") == 3
    assert rows(session, LOG)[-1] == (clerk, "postgres", None, "es_reveal", "customer-1", 1, 3, 3, "CASE-9")
    name = "debug_parallel_query" if session.info.server_version >= 160000 else "force_parallel_mode"
    session.execute(f"set {name} = on; set parallel_setup_cost = 0")
    assert len(rows(session, REVEAL)) == 3 and records(session) == 14


def test_a_join_that_asks_again_is_recorded_again(session):
    session.execute("set enable_material = off; set enable_memoize = off; set enable_hashjoin = off; set enable_mergejoin = off")
    assert value(session, "select count(*) from generate_series(1, 3) i cross join lateral (select es_reveal('customer-1', 'CASE-' || i)) r") == 9
    assert [row[8] for row in rows(session, LOG)] == ["CASE-1", "CASE-2", "CASE-3"]


def test_only_who_may_read_and_reveal_the_category_is_shown_it(session, database):
    fill(session, 1, "order-1")
    session.execute("select es_create_tenant('b')")
    role = database.role(f"{database.name[:40]}_r")
    asked = ["select es_reveal('customer-1', 'CASE-1')", "select * from es_reveal('customer-1', 'CASE-1')"]
    with database.connect(user=role) as there:
        for grants, shown in (
            ([], False), ([("read", None)], False), ([("reveal", None)], False), ([("read", None), ("reveal", "order")], False), ([("read", "order"), ("reveal", None)], False),
            ([("read", "customer"), ("reveal", "customer")], True), ([("read", None), ("reveal", None)], True), ([("admin", None), ("audit", None), ("read", None), ("manage", None)], False),
        ):  # fmt: skip
            for privilege, category in grants:
                session.execute("select es_grant(%s, %s, tenant => 'default', category => %s)", (role, privilege, category))
            before = value(session, "select count(*) from _eventstream.events where category = '$access'")
            for ask in asked:
                if shown:
                    assert len(rows(there, ask)) == 3
                else:
                    diag = refused(there.execute, ask)
                    assert diag.sqlstate == "42501", (grants, ask)
            assert value(session, "select count(*) from _eventstream.events where category = '$access'") == before + (2 if shown else 0)
            for privilege, category in grants:
                session.execute("select es_revoke(%s, %s, tenant => 'default', category => %s)", (role, privilege, category))
        session.execute("select es_grant(%s, 'read', tenant => 'default'), es_grant(%s, 'reveal', tenant => 'default')", (role, role))
        assert refused(there.execute, LOG).sqlstate == "42501"
        session.execute("select es_grant(%s, 'audit', tenant => 'default')", (role,))
        assert len(rows(there, LOG)) == 4
        assert refused(there.execute, "set eventstream.tenant = 'b'; " + LOG).sqlstate == "42501"
    session.execute("set eventstream.tenant = 'b'")
    assert records(session) == 0


def test_who_reveals_by_a_token_is_the_one_that_it_names(quiet):
    bank = Bank(quiet)
    with bank.admin() as admin:
        admin.execute("select es_grant('web', 'reveal')")
        fill(admin)
        with bank.connect() as there:
            with there.transaction():
                use(there, bank.token(sub="case-worker-3"))
                assert len(rows(there, REVEAL)) == 3
            with there.transaction(force_rollback=True):
                use(there, bank.token(privileges=["read"]))
                assert refused(there.execute, REVEAL).sqlstate == "42501"
            assert refused(there.execute, REVEAL).sqlstate == "ES042"
        assert [row[:3] for row in rows(admin, LOG)] == [("web", "web", "case-worker-3")]
    with bank.admin("bank") as admin:
        assert records(admin) == 0


def test_a_right_that_is_taken_back_ends_at_the_next_page(session, database):
    fill(session, 997)
    role = database.role(f"{database.name[:40]}_r")
    session.execute("select es_grant(%s, 'read'), es_grant(%s, 'reveal')", (role, role))
    with database.connect(user=role, autocommit=False) as there:
        there.execute("declare c no scroll cursor for select es_reveal('customer-1', 'CASE-1')")
        assert len(there.execute("fetch 500 from c").fetchall()) == 500
        session.execute("select es_revoke(%s, 'reveal')", (role,))
        assert refused(there.execute, "fetch 1 from c").sqlstate == "42501"
        there.rollback()
    assert log(session) == [(1, 500, 500)]


@pytest.mark.parametrize("arguments, sqlstate", [
    ("'customer-1', null", "ES005"), ("'customer-1', ''", "ES005"), ("'customer-1', 'write to ada@example.org'", "ES005"), ("'customer-1', repeat('x', 65)", "ES005"),
    ("'customer-1', E'two\\nlines'", "ES005"), ("'customer-1', 'x', 0", "ES005"), ("'customer-1', 'x', null", "ES005"), ("'customer-1', 'x', 1, -1", "ES005"), ("null, 'x'", "ES005"),
    ("'nothing', 'x'", "ES004"), ("'$access-1', 'x'", "ES004"), ("'$audit-1', 'x'", "ES004"),
])  # fmt: skip
def test_bad_input_is_refused_and_not_recorded(session, arguments, sqlstate):
    for select in ("select es_reveal({})", "select * from es_reveal({})"):
        assert refused(session.execute, select.format(arguments)).sqlstate == sqlstate
    assert records(session) == 0


def test_a_session_that_says_too_much_of_itself_is_shown_nothing(session):
    session.execute("select set_config('eventstream.metadata', jsonb_build_object('actor', repeat('x', 3000))::text, false)")
    assert refused(session.execute, REVEAL).sqlstate == "ES005"
    # The longest that is let through, with characters that take most room.
    session.execute("select set_config('eventstream.metadata', jsonb_build_object('actor', repeat('\"', 1000))::text, false)")
    name = 'customer-' + '"' * 503
    session.execute("select es_append(%s, 'Named', '1')", (name,))
    assert len(rows(session, "select es_reveal(%s, %s)", name, '"' * 64)) == 1


def test_code_that_runs_for_others_is_shown_nothing(session):
    ask = "select count(*) from public.es_reveal('customer-1', 'CASE-1')"
    session.execute(f"create function seen(event eventstream.event) returns void language plpgsql as $$ begin perform ({ask}); end $$")
    session.execute("select es_create_projection('seen', 'seen(eventstream.event)', categories => '{customer}')")
    session.execute("select es_run_projection('seen')")
    assert value(session, "select error_sqlstate from eventstream.projections") == "0A000"
    session.execute(f"create function decide(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $$ begin return jsonb_build_object('result', ({ask})); end $$")
    session.execute("select es_register_decider('decides', 'customer', 'decide(jsonb, eventstream.command)')")
    session.execute("select es_register_fold('plain', 'customer', rules => '{\"on\": {\"Named\": [{\"increment\": \"/n\"}]}}', initial_state => '{\"n\": 0}')")
    assert refused(session.execute, "select es_command('customer-1', 'Any', '{}')").sqlstate == "0A000"
    session.execute(f"create materialized view shown as {ask} with no data")
    assert refused(session.execute, "refresh materialized view shown").sqlstate == "0A000"
    session.execute(f"create function folded(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$ begin return to_jsonb(({ask})); end $$")
    session.execute("select es_register_fold('folds', 'customer', 'folded(jsonb, eventstream.event)', is_default => false)")
    assert refused(session.execute, "select es_state('customer-1', fold => 'folds')").sqlstate == "0A000"
    assert records(session) == 0


@pytest.mark.parametrize("asked, kept", [("es_read('customer-1')", "42501"), ("es_reveal('customer-1', 'CASE-1')", "0A000")])
def test_code_that_runs_for_others_fetches_nothing_of_a_cursor_that_is_open(session, database, asked, kept):
    """Of a registrant who may not read what the cursor reads."""
    clerk, thief = database.role(f"{database.name[:40]}_c"), database.role(f"{database.name[:40]}_t")
    for role, privileges in ((clerk, "read reveal append"), (thief, "manage append")):
        for privilege in privileges.split():
            session.execute("select es_grant(%s, %s)", (role, privilege))
    session.execute("select es_grant(%s, 'read', category => 'order')", (thief,))
    session.execute(f"grant create on schema public to {thief}")
    session.execute("select es_append('order-1', 'Placed', '1')")
    with database.connect(user=thief) as there:
        there.execute("""create function launder(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$
            declare c refcursor := 'c'; r record; begin fetch c into r; return to_jsonb(r); end $$""")
        there.execute("select es_register_fold('launder', 'order', 'launder(jsonb, eventstream.event)')")
    for user in (clerk, None):
        with database.connect(autocommit=False, **({"user": user} if user else {})) as there:
            there.execute(f"declare c no scroll cursor for select (e).payload from (select {asked} e) r")
            there.execute("fetch 1 from c")
            assert refused(there.execute, "select es_state('order-1')").sqlstate in ("0A000", kept)
            there.rollback()


def test_what_nobody_else_sees_yet_is_refused_at_once(new_server):
    """Its record would be of what only this transaction has made."""
    database = Database(new_server("unseen"), "unseen").create()
    with database.connect() as session:
        began = time.monotonic()
        with session.transaction(force_rollback=True):
            fill(session)
            diag = refused(session.execute, REVEAL)
            assert diag.sqlstate == "ES070" and "not committed yet" in diag.message_detail
        fill(session)
        assert len(rows(session, REVEAL)) == 3
        with session.transaction(force_rollback=True):
            session.execute("select es_create_tenant('own'), es_use_tenant('own')")
            fill(session)
            diag = refused(session.execute, REVEAL)
            assert diag.sqlstate == "ES070" and "not committed yet" in diag.message_detail
        assert time.monotonic() - began < 8
        assert records(session) == 1 and verify(session) == []


def test_a_closed_tenant_is_revealed_as_any(session):
    session.execute("select es_create_tenant('b')")
    session.execute("set eventstream.tenant = 'b'")
    fill(session)
    session.execute("select es_close_tenant('b', 'CHG-1')")
    assert len(rows(session, REVEAL)) == 3 and records(session) == 1


def test_a_record_is_there_after_a_crash_right_after_the_showing(new_server):
    server = new_server("revealed", **{"eventstream.max_workers": 0, "synchronous_commit": "off", "eventstream.durability": "session", "wal_writer_delay": "10s"})
    database = Database(server, "revealed").create()
    with database.connect() as session:
        fill(session)
        session.execute("checkpoint")
        assert len(rows(session, REVEAL)) == 3
        server.kill_everything()
    server.start()
    with database.connect() as session:
        assert records(session) == 1


def test_without_a_worker_nothing_is_shown(new_server):
    server = new_server("slotless", max_worker_processes=1)
    database = Database(server, "slotless").create()
    with database.connect() as session:
        fill(session)
        with session.transaction(force_rollback=True):
            session.execute("declare c cursor for select es_reveal('customer-1', 'CASE-1')")
            diag = refused(session.execute, "fetch 1 from c")
        assert diag.sqlstate == "ES070" and "no worker process" in diag.message_detail and "max_worker_processes" in diag.message_hint
        session.execute("set statement_timeout = '1s'")
        assert refused(session.execute, REVEAL).sqlstate == "57014"
        assert records(session) == 0
        session.execute("set statement_timeout = 0; create role looks")
        assert rows(session, HEALTH) == []
        session.execute("select es_grant('looks', 'reveal')")
        ((status, detail, fix),) = rows(session, HEALTH)
        assert status == "warning" and "all 1 worker processes" in detail
        for statement in fix.split(";")[:1]:
            session.execute(statement)
        server.restart()
    with database.connect() as session:
        assert [row[:1] for row in rows(session, HEALTH)] == [("ok",)] and len(rows(session, REVEAL)) == 3
    unloaded = Database(new_server("unloaded_reveal", preload=False), "unloaded").create()
    with unloaded.connect() as session:
        fill(session)
        assert refused(session.execute, REVEAL).sqlstate == "ES008"


def test_a_scribe_that_is_held_or_ended_shows_nothing_and_a_cancel_leaves_nothing_behind(session, database):
    rows(session, REVEAL)
    with database.connect() as other:
        with Held(database):
            session.execute("set statement_timeout = '1s'")
            assert refused(session.execute, REVEAL).sqlstate == "57014"
            session.execute("set statement_timeout = 0")
            diag = refused(session.execute, REVEAL)
            assert diag.sqlstate == "ES070" and "no worker came through" in diag.message_detail
            assert records(other) == 1
        wait_until(lambda: rows(other, SCRIBES) == [], 10, "the scribes to end")
        before = records(other)
        assert rows(session, REVEAL) and records(other) == before + 1
        # One that is told to end has not made its record: another one does.
        shown = []
        with Held(database):
            asking = threading.Thread(target=lambda: shown.extend(rows(session, REVEAL)))
            asking.start()
            for _ in range(2):
                wait_until(lambda: rows(other, SCRIBES), 5, "a scribe")
                for (pid,) in rows(other, SCRIBES):
                    value(other, "select pg_terminate_backend(%s)", pid)
        asking.join()
        assert len(shown) == 3 and records(other) > before + 1


def test_a_scribe_that_is_killed_shows_nothing(new_server):
    server = new_server("killed_scribe", **{"eventstream.max_workers": 0})
    database = Database(server, "killed").create()
    with database.connect() as session:
        fill(session)
        rows(session, REVEAL)
        shown, ended = [], []

        def ask():
            try:
                shown.extend(rows(session, REVEAL))
            except psycopg.Error as error:
                ended.append(error)

        with Held(database), database.connect() as other:
            asking = threading.Thread(target=ask)
            asking.start()
            wait_until(lambda: rows(other, SCRIBES), 5, "a scribe")
            kill_9(rows(other, SCRIBES)[0][0])
            asking.join()
    assert shown == [] and len(ended) == 1
    server.wait_for_connections()
    with database.connect() as session:
        assert records(session) == 1 and verify(session) == []
        assert len(rows(session, REVEAL)) == 3 and records(session) == 2


@pytest.mark.parametrize("signal", [None, "pg_cancel_backend", "pg_terminate_backend"])
def test_what_is_on_no_standby_that_must_have_it_is_not_shown(new_server, signal):
    server = new_server("unreplicated", **{"eventstream.max_workers": 0})
    database = Database(server, "unreplicated").create()
    with database.connect() as session, database.connect() as other:
        fill(session)
        rows(session, REVEAL)
        server.configure(synchronous_standby_names="missing")
        server.reload()
        answers = []

        def ask():
            try:
                answers.append(rows(session, REVEAL))
            except psycopg.Error as error:
                answers.append(error.sqlstate)

        asking = threading.Thread(target=ask)
        asking.start()
        signalled = 0
        while asking.is_alive():
            if signal:
                found = rows(other, f"select {signal}(pid) from pg_stat_activity where backend_type = 'eventstream scribe' and wait_event = 'SyncRep'")
                signalled += len(found)
            asking.join(0.05)
        assert answers == ["ES070"] and (signalled > 0) == bool(signal)
        wait_until(lambda: rows(other, SCRIBES) == [], 10, "the scribes to end")
        server.configure(synchronous_standby_names="")
        server.reload()
        assert len(rows(session, REVEAL)) == 3


def test_the_pages_of_a_session_are_recorded_by_one_worker_and_no_other_databases(new_server):
    server = new_server("attended", **{"eventstream.max_workers": 0, "log_min_messages": "debug1"})
    first, second = Database(server, "attended").create(), Database(server, "beside").create()

    def started():
        return server.log.read_text(errors="replace").count('starting background worker process "eventstream scribe"')

    with first.connect() as session, second.connect() as beside:
        for each in (session, beside):
            fill(each, 1200)
        started_for = []
        for _ in range(10):
            before = started(), records(session)
            assert len(rows(session, REVEAL)) == 1200 and records(session) >= before[1] + 3
            started_for.append(started() - before[0])
            wait_until(lambda: rows(session, SCRIBES) == [], 5, "the scribe to end")
        # More where the machine is too busy for one to be there in time.
        assert min(started_for) == 1
        # It may be ended between any two pages.
        with session.transaction():
            session.execute("declare c no scroll cursor for select es_reveal('customer-1', 'CASE-1')")
            shown = []
            while page := rows(session, "fetch 500 from c"):
                shown += page
                rows(beside, "select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'eventstream scribe'")
        assert len(shown) == 1200 and records(session) >= 33
    # Whoever comes to the place of a session that has gone asks in a database of his own.
    for database in (first, second) * 3:
        with database.connect() as session:
            before = records(session)
            assert len(rows(session, REVEAL)) == 1200 and records(session) >= before + 3
    with first.connect() as session, second.connect() as beside:
        # Where the machine is too busy one that comes late records a page that is recorded again.
        assert 9 <= records(beside) <= 12 and verify(session) == verify(beside) == []


def test_more_sessions_than_worker_slots_are_all_shown_and_recorded(database):
    done, failed = [], []

    def ask(number):
        try:
            with database.connect() as own:
                for _ in range(4):
                    done.append(len(rows(own, "select es_reveal('customer-1', %s)", f"CASE-{number}")))
        except psycopg.Error as error:
            failed.append(error)

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for each in asking:
        each.start()
    for each in asking:
        each.join()
    assert failed == [] and done == [3] * 48
    with database.connect() as session:
        assert rows(session, "select reason, count(*) from eventstream.access_log group by 1 having count(*) < 4") == []


def test_a_standby_shows_nothing(new_server):
    server = new_server("revealing", **{"eventstream.max_workers": 0})
    database = Database(server, "revealing").create()
    with database.connect() as session:
        fill(session)
    standby = new_server.adopt(server.make_standby("revealing_standby"))
    there = Database(standby, "revealing")
    with database.connect() as session:
        position = value(session, "select pg_current_wal_lsn()")
    with there.connect() as session:
        wait_until(lambda: value(session, "select pg_last_wal_replay_lsn() >= %s::pg_lsn", str(position)), 20, "the standby")
        assert value(session, "select count(*) from es_read('customer-1')") == 3
        assert refused(session.execute, REVEAL).sqlstate == "ES009"
