"""What was tried against tenants by token, and got somewhere once: each is a kind, and has a test here."""

from __future__ import annotations

import json
import time

import psycopg
import pytest
from database import rows, value
from minting import ISSUER, MARKS, Bank, filled, marks, mint_token, refused, use



@pytest.fixture
def bank(database):
    return filled(database)


def plain(bank: Bank, *privileges: str) -> None:
    """A role that needs no token, and works in both tenants."""
    bank.database.role("plain")
    for tenant in MARKS:
        with bank.admin(tenant) as session:
            for privilege in privileges:
                session.execute("select es_grant('plain', %s)", (privilege,))


def as_plain(bank: Bank) -> psycopg.Connection:
    session = bank.database.connect(user="plain")
    session.execute("set eventstream.tenant = 'acme'")
    return session


def test_code_of_who_needs_a_token_chooses_no_other_tenant_wherever_and_as_whoever_it_runs(bank):
    plain(bank, "read", "append", "command")
    with bank.admin() as session:
        session.execute("create schema code; grant usage on schema code to public; create table code.seen (mark text); grant insert on code.seen to web")
        session.execute("create function code.peek() returns text language plpgsql security definer as $$ begin perform set_config('eventstream.tenant', 'bank', true); "
                        "return (select string_agg(distinct payload ->> 'mark', ',') from eventstream.events); end $$; alter function code.peek() owner to plain")
        session.execute("create function code.decide(state jsonb, command eventstream.command) returns jsonb language plpgsql stable as $$ begin "
                        "return jsonb_build_array(jsonb_build_object('type', 'Decided', 'payload', jsonb_build_object('seen', code.peek()))); end $$")
        session.execute("create function code.see(event eventstream.event) returns void language plpgsql as $$ begin insert into code.seen select code.peek(); end $$")
        session.execute("""select es_register_fold('item', 'item', rules => '{"on": {}}')""")
    with as_plain(bank) as session:
        assert value(session, "select code.peek()") == MARKS["bank"], "by itself it sees the other tenant"
    with bank.connect() as session, session.transaction():
        use(session, bank.token("acme"))
        session.execute("""select es_register_decider('item', 'item', 'code.decide(jsonb, eventstream.command)', commands => '{"Do": {}}')""")
        session.execute("select es_schedule_command('item-1', 'Do', '{}', now(), 'k')")
        session.execute("select es_create_projection('see', 'code.see(eventstream.event)', mode => 'inline', after_position => (select last_position from es_log_info()))")
    with as_plain(bank) as session:
        session.execute("select es_command('item-2', 'Do', '{}')")
        session.execute("select es_append('account-2', 'Opened', '{}')")
    with bank.admin() as session:
        seen = "select payload ->> 'seen' from es_read(%s)"
        assert value(session, seen, "item-2") == MARKS["acme"]
        assert marks(session, "select mark from code.seen") == {MARKS["acme"]}
        deadline = time.monotonic() + 30
        while not rows(session, "select from es_read('item-1')"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert value(session, seen, "item-1") == MARKS["acme"]


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_a_revoked_key_counts_for_nothing_in_a_cursor_that_is_open(bank, isolation):
    with bank.connect() as session:
        session.execute(f"begin isolation level {isolation}")
        use(session, bank.token())
        session.execute("declare c cursor for select payload ->> 'mark' from eventstream.events")
        assert value(session, "fetch 1 from c") == MARKS["acme"]
        with bank.admin() as admin:
            admin.execute("select es_revoke_token_key('k1')")
        with refused("ES042"):
            session.execute("fetch 1 from c")


def test_a_cursor_ends_with_each_token_that_it_gave_rows_under_and_with_no_other(bank):
    with bank.connect() as session, session.transaction():
        use(session, bank.dying("acme"))
        session.execute("declare old cursor for select payload ->> 'mark' from eventstream.events")
        assert value(session, "fetch 1 from old") == MARKS["acme"]
        use(session, bank.token("acme", privileges=[], sub="nobody"))
        with refused("42501"), session.transaction():
            session.execute("select es_read('account-1')")
        use(session, bank.token("acme"))
        session.execute("declare new cursor for select payload ->> 'mark' from eventstream.events")
        assert value(session, "fetch 1 from new") == MARKS["acme"]
        time.sleep(3)
        with refused("ES042"), session.transaction():
            session.execute("fetch 1 from old")
        # A token that follows another one lets work go on.
        assert value(session, "fetch 1 from new") == MARKS["acme"]
        session.execute("do $$ declare r record; begin for r in select * from eventstream.events, generate_series(1, 100) loop null; end loop; end $$")


LOOPS = [
    "begin perform es_use_token(current_setting('my.token')); for r in select payload from eventstream.events loop {end}; end loop; end",
    "begin for r in select es_read_all(0) from (select es_use_token(current_setting('my.token')) offset 0) t loop {end}; end loop; end",
    "begin for r in select n from generate_series(1, 100) n loop perform es_use_token(current_setting('my.token')); {end}; end loop; end",
]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_nothing_of_a_loop_is_kept_over_the_end_of_a_transaction_that_had_a_token(bank, end):
    with bank.connect() as session:
        session.execute("select set_config('my.token', %s, false)", (bank.token(),))
        for loop in LOOPS:
            with refused("0A000") as raised:
                session.execute(f"do $$ declare r record; {loop.format(end=end)} $$")
            assert "within a loop" in str(raised.value)
        session.execute(f"do $$ declare r record; begin for r in select generate_series(1, 100) loop {end}; end loop; end $$")
        session.execute(f"do $$ begin for n in 1..3 loop perform es_use_token(current_setting('my.token')); perform es_read_all(0); {end}; end loop; end $$")


def test_who_needs_no_token_is_not_held_up_by_one_that_is_over(bank):
    plain(bank, "read")
    loop = "do $$ declare r record; begin for r in select generate_series(1, 1000) loop null; end loop; end $$"
    with as_plain(bank) as session:
        with session.transaction():
            session.execute("savepoint s")
            use(session, bank.token("bank"))
            session.execute("rollback to s")
            session.execute(loop)
            session.execute("declare c cursor for select payload ->> 'mark' from eventstream.events")
            assert [value(session, "fetch 1 from c") for _ in range(2)] == [MARKS["acme"]] * 2
        with session.transaction():
            use(session, bank.dying("acme", seconds=1))
            time.sleep(1.5)
            session.execute(loop)
            with refused("ES042"), session.transaction():
                session.execute("table eventstream.events")


LASTING = [
    """alter role web set eventstream.metadata = '{"ticket": "planted"}'""",
    'alter role web in database "{database}" set search_path = x',
    "alter role current_user password 'x'",
    "alter role web reset all",
    "alter default privileges grant execute on functions to public",
    "drop owned by web",
    "reassign owned by web to web",
    "grant web to web",
    "prepare transaction 'left'",
    "select lo_from_bytea(0, 'x')",
    "select lo_create(0)",
    "do $$ begin perform lo_creat(-1); end $$",
    "do $$ begin alter role web set search_path = x; end $$",
]


@pytest.mark.parametrize("statement", LASTING)
def test_who_needs_a_token_leaves_nothing_behind_in_the_database(bank, statement):
    with bank.connect() as session:
        session.execute("begin")
        with refused("0A000") as raised:
            session.execute(statement.replace("{database}", bank.database.name))
        assert "is refused where a token is needed" in str(raised.value)
        # After an error it is a rollback.
        session.execute("prepare transaction 'left'")
        assert session.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    with bank.admin() as session:
        session.execute("begin")
        session.execute(LASTING[0])
        assert value(session, "select lo_create(0)") > 0
        session.execute("rollback")


def estimate(session: psycopg.Connection, condition: str) -> float:
    plan = value(session, f"explain (format json) select from eventstream.events where {condition}")
    return (plan if isinstance(plan, list) else json.loads(plan))[0]["Plan"]["Plan Rows"]


def test_estimates_tell_no_values(bank):
    with bank.admin("bank") as session:
        session.execute("select es_append('payment-' || n, case when n < 200 then 'Merged' else 'Opened' end, '{}', subject => 'person-of-bank') from generate_series(1, 300) n")
        session.execute("analyze")
        assert estimate(session, "event_type = 'Merged'") > estimate(session, "event_type = 'Nonsense'"), "statistics know it"
    pairs = [("event_type = 'Merged'", "event_type = 'Nonsense'"), ("subject >= 'person-of-b'", "subject >= 'person-of-c'"), ("recorded_by = 'web'", "recorded_by = 'w'"),
             ("category = 'payment'", "category = 'nothing'"), ("stream >= 'payment'", "stream >= 'zz'"), ("global_position < 10", "global_position < 1000000")]
    for token in [None, bank.token("acme")]:
        with bank.connect() as session, session.transaction():
            if token:
                use(session, token)
            for one, other in pairs:
                assert estimate(session, one) == estimate(session, other), one


def test_an_admin_with_a_token_is_told_of_no_other_tenant_and_makes_none(bank):
    with bank.admin("acme") as session:
        session.execute("select es_grant('web', 'admin')")
    with bank.connect() as session:
        for call in ["es_create_tenant('bank')", "es_create_tenant('bank', if_not_exists => true)", "es_create_tenant('new')", "es_rename_tenant('acme', 'bank')", "es_rename_tenant('acme', 'new')"]:
            with refused("42501") as raised, session.transaction():
                use(session, bank.token("acme"))
                session.execute(f"select {call}")
            assert "there is" not in str(raised.value)


def test_a_token_that_leaves_less_than_all_registers_nothing(bank):
    """What is registered runs with all rights of the role, and for good."""
    with bank.admin() as session:
        session.execute("create schema code; grant usage on schema code to public")
        session.execute("create function code.see(event eventstream.event) returns void language sql as ''")
    calls = ["es_create_projection('see', 'code.see(eventstream.event)', categories => '{account}')", "es_create_subscription('s', '{account}')", "es_drop_projection('see')"]
    with bank.connect() as session:
        for narrowing in [{"categories": ["account"]}, {"privileges": ["manage", "read"]}]:
            for call in calls:
                with refused("42501"), session.transaction():
                    use(session, bank.token("acme", **narrowing))
                    session.execute(f"select {call}")
        with session.transaction():
            use(session, bank.token("acme"))
            session.execute(f"select {calls[0]}")


def test_a_token_that_leaves_less_than_all_gives_nobody_anything(bank):
    """A key, a grant, a requirement taken back: each would outlive the token, and the person and the minutes with it."""
    with bank.admin("acme") as session:
        session.execute("select es_grant('web', 'admin')")
        own = value(session, "select public_key from _eventstream.token_keys limit 1")
    calls = ["es_add_token_key('evil', %s, null, 'issuer')", "es_grant('web', 'reveal')", "es_require_token('web', false)", "es_unprotect('Named')", "es_revoke('web', 'read')"]
    with bank.connect() as session:
        for narrowing in [{"privileges": ["admin"]}, {"privileges": ["admin", "read", "manage"]}]:
            for call in calls:
                with refused("42501"), session.transaction():
                    use(session, bank.token("acme", **narrowing))
                    session.execute(f"select {call}", (own,) if "%s" in call else None)


def test_a_scheduled_command_is_the_person_s_whom_the_token_named(bank):
    with bank.admin() as session:
        session.execute("create schema code; grant usage on schema code to public")
        session.execute("create function code.decide(state jsonb, command eventstream.command) returns jsonb language sql stable as "
                        """$$ select '[{"type": "Decided", "payload": {}, "metadata": {"actor": "the-boss", "note": 1}}]'::jsonb $$""")
        session.execute("""select es_register_fold('item', 'item', rules => '{"on": {}}')""")
    with bank.connect() as session, session.transaction():
        use(session, bank.token("acme"))
        session.execute("""select es_register_decider('item', 'item', 'code.decide(jsonb, eventstream.command)', commands => '{"Do": {}}')""")
        session.execute("select es_command('item-1', 'Do', '{}')")
        session.execute("""select es_schedule_command('item-2', 'Do', '{}', now(), 'k', metadata => '{"actor": "spoof"}')""")
    with bank.admin() as session:
        deadline = time.monotonic() + 30
        while not rows(session, "select from es_read('item-2')"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for stream in ("item-1", "item-2"):
            metadata = value(session, "select metadata from es_read(%s)", stream)
            assert (metadata["actor"], metadata["note"]) == ("clerk-7", 1), stream


def test_a_token_that_is_refused_is_not_logged_whatever_refuses_it(bank):
    token = bank.token("acme")
    plain(bank, "read")
    with as_plain(bank) as session, refused("ES005", "0A000"), session.transaction():
        session.execute("declare c cursor with hold for select 1")
        session.execute(f"select es_use_token('{token}')")
    assert token not in bank.database.server.log.read_text(errors="replace")


def test_another_key_of_the_tenant_is_none_of_the_revoked_one_s(bank):
    """The cursor's key is looked at, not that of the token that followed."""
    with bank.admin() as admin:
        admin.execute("select es_add_token_key('k2', %s, 'acme', %s)", (mint_token.public(bank.keys["bank"]), ISSUER))
    with bank.connect() as session, session.transaction():
        use(session, bank.token("acme"))
        session.execute("declare c cursor for select payload ->> 'mark' from eventstream.events")
        assert value(session, "fetch 1 from c") == MARKS["acme"]
        use(session, bank.token("acme", kid="k2", key=bank.keys["bank"]))
        with bank.admin() as admin:
            admin.execute("select es_revoke_token_key('k1')")
        with refused("ES042"), session.transaction():
            session.execute("fetch 1 from c")
        assert marks(session) == {MARKS["acme"]}
