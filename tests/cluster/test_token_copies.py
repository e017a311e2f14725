"""Tokens where the log, or its clock, is another: in a dump that was restored, on a standby that follows, under a clock that jumps."""

from __future__ import annotations

import time

import psycopg
import pytest
from database import Database, rows, value
from minting import Bank, marks, refused, use
from operating import run_psql
from psycopg.types.json import Jsonb
from server import run, wait_until
from test_clock import Clock, faketime_library

MARK = "of-acme-4711"
KEEP = "create function public.keep(state jsonb, event eventstream.event) returns jsonb immutable language sql as $$ select jsonb_build_object('last', event.payload) $$"


def fill(bank: Bank, count: int = 3) -> Bank:
    with bank.admin("acme") as session:
        session.execute(KEEP)
        session.execute("select es_register_fold('kept', 'account', 'public.keep(jsonb, eventstream.event)', initial_state => '{}')")
    with bank.connect() as session, session.transaction():
        use(session, bank.token())
        for n in range(count):
            session.execute("select es_append('account-1', 'Opened', %s)", (Jsonb({"mark": MARK, "n": n}),))
    return bank


def health(session: psycopg.Connection) -> list[tuple]:
    """What is wrong, but for the other one of the two databases."""
    look = "select name, status, detail, fix from eventstream.health where name ~ '^token' and status <> 'ok' and detail !~ 'other databases of this server' order by 1, 2, 3"
    return rows(session, look)


def test_a_restored_dump_asks_for_a_token_has_temp_back_and_once_activated_takes_none_of_the_original_s(quiet):
    bank = fill(Bank(quiet))
    with bank.admin() as session:
        assert health(session) == []
    copy = Database(quiet.server, quiet.name[:50] + "_copy").create(extension=False)
    try:
        run_psql(copy, run("pg_dump", env=quiet.server.address(quiet.name)))
        with copy.connect(user=bank.role) as session:
            for statement in ["table eventstream.events", "select es_read('account-1')", "select es_append('account-1', 'Opened', '{}')", "select es_use_tenant('acme')"]:
                with refused("ES042"):
                    session.execute(statement)
            # Until it is activated it is the same log.
            with session.transaction():
                use(session, bank.token())
                assert marks(session) == {MARK}
        with copy.connect() as owner:
            owner.execute("set eventstream.tenant = 'default'")
            ((name, status, detail, fix),) = health(owner)
            assert (name, status) == (f"token role {bank.role}", "critical") and f"has TEMP on database {copy.name}" in detail
            owner.execute(fix)
            assert health(owner) == []
            owner.execute("select es_activate()")
        with copy.connect(user=bank.role) as session:
            with refused("ES043"), session.transaction():
                use(session, bank.token())
            with refused("ES042"):
                session.execute("table eventstream.events")
            with session.transaction():
                use(session, bank.token(aud=bank.audience.replace("/0", "/1")))
                assert marks(session) == {MARK}
        # And the original none of the copy's.
        with bank.connect() as session, refused("ES043"), session.transaction():
            use(session, bank.token(aud=bank.audience.replace("/0", "/1")))
    finally:
        copy.drop()


def test_a_standby_takes_up_a_rule_and_a_revocation_in_the_middle_of_a_transaction(new_server):
    primary = new_server("token_primary")
    bank = fill(Bank(Database(primary, "books").create()), 300)
    standby = new_server.adopt(primary.make_standby("token_standby", hot_standby_feedback="on"))

    def replayed(there: psycopg.Connection) -> None:
        with primary.connect("postgres") as session:
            position = value(session, "select pg_current_wal_lsn()::text")
        wait_until(lambda: value(there, "select pg_last_wal_replay_lsn() >= %s::pg_lsn", position), what="the replay")

    with standby.connect("books", bank.role) as session, standby.connect("postgres") as looker, bank.admin("acme") as owner:
        replayed(looker)
        session.execute("set plan_cache_mode = force_generic_plan")
        session.execute("prepare p as select payload ->> 'mark' from eventstream.events")
        session.execute("prepare q as select payload ->> 'mark' from es_read('account-1')")
        asked = ["execute p", "execute q", "select es_state('account-1') -> 'last' ->> 'mark'"]
        session.execute("begin")
        use(session, bank.token())
        session.execute("declare c cursor for select payload ->> 'mark' from eventstream.events")
        assert value(session, "fetch 1 from c") == MARK
        for statement in asked * 2:
            assert marks(session, statement) == {MARK}, statement
        owner.execute("select es_protect('Opened', pointers => '{/mark}')")
        replayed(looker)
        for statement in asked:
            assert marks(session, statement) == {None}, statement
        # PostgreSQL may have read ahead.
        with refused("40001"), session.transaction():
            session.execute("fetch 100 from c")
        session.execute("declare d cursor for select payload ->> 'mark' from eventstream.events")
        assert marks(session, "fetch 1 from d") == {None}
        owner.execute("select es_revoke_token_key('k1')")
        replayed(looker)
        for statement in ["fetch 1 from d", *asked]:
            with refused("ES042"), session.transaction():
                session.execute(statement)
        session.execute("rollback")
        with refused("ES043"), session.transaction():
            use(session, bank.token())


@pytest.fixture
def ticking(new_server):
    clock = Clock(faketime_library())
    server = new_server("token_clock", environment=clock.environment)
    yield clock, fill(Bank(Database(server, "books").create()))
    clock.file.unlink(missing_ok=True)


def test_a_clock_that_jumps_ahead_ends_a_token_and_one_that_jumps_back_begins_none(ticking):
    clock, bank = ticking
    token = bank.token(lifetime=300)
    with bank.connect() as session:
        session.execute("begin")
        use(session, token)
        session.execute("declare c cursor for select payload ->> 'mark' from eventstream.events")
        session.execute("declare d cursor for select payload ->> 'mark' from es_read('account-1')")
        assert value(session, "fetch 1 from c") == value(session, "fetch 1 from d") == MARK
        # Within the leeway, and beyond.
        clock.set("+310")
        assert value(session, "fetch 1 from c") == MARK
        clock.set("+400")
        for statement in ["fetch 1 from c", "fetch 1 from d", "table eventstream.events", "select es_read('account-1')", "select es_append('account-1', 'Opened', '{}')"]:
            with refused("ES042"), session.transaction():
                session.execute(statement)
        session.execute("rollback")
        with refused("ES043"), session.transaction():
            use(session, token)
        # Issued in what is the future now.
        clock.set("-25")
        with session.transaction():
            use(session, token)
            assert marks(session) == {MARK}
        clock.set("-120")
        with refused("ES043"), session.transaction():
            use(session, token)
        with bank.connect() as fresh, refused("ES043"), fresh.transaction():
            use(fresh, token)
        clock.set("+0")
        session.execute("begin")
        use(session, token)
        session.execute("declare c cursor for select payload ->> 'mark' from eventstream.events")
        assert value(session, "fetch 1 from c") == MARK
        clock.set("-120")
        time.sleep(0.01)
        for statement in ["fetch 1 from c", "table eventstream.events"]:
            with refused("ES042"), session.transaction():
                session.execute(statement)
        session.execute("rollback")
        clock.set("+0")
