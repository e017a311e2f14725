"""What a session may go through while a token is in use, or remembered: settings, plans, names that change hands, more tokens than are remembered, transactions of a procedure, triggers that wait for the
commit."""

from __future__ import annotations

import time

import psycopg
import pytest
from database import rows, value
from minting import ISSUER, MARKS, Bank, filled, marks, mint_token, refused, use

#: src/access/verified.rs, src/shared/token.rs: so many verified tokens a session remembers, and so many may be in use in a transaction.
REMEMBERED = 64


@pytest.fixture
def bank(database):
    return filled(database)


def all_sets(cursor: psycopg.Cursor) -> list[list[tuple]]:
    """Of each statement of a query that gave rows."""
    found = []
    while True:
        if cursor.description:
            found.append(cursor.fetchall())
        if not cursor.nextset():
            return found


WAYS = [
    "set eventstream.tenant = 'bank'",
    "set local eventstream.tenant = 'bank'",
    "reset eventstream.tenant",
    "reset all",
    "discard plans",
    "discard sequences",
    "discard temp",
    "set session authorization web",
    "set local session authorization default",
    "reset session authorization",
    "set role none",
    "set local role web",
    "reset role",
    "set search_path = pg_temp",
    "set plan_cache_mode = force_generic_plan",
    "deallocate all",
    "savepoint s; release s",
    "set constraints all immediate",
]


def test_nothing_that_a_session_sets_changes_what_its_token_says(bank):
    """In a session whose setting, plans and prepared statements are of before."""
    for before in ["acme", "bank"]:
        with bank.connect() as session:
            session.execute(f"set eventstream.tenant = '{before}'; set plan_cache_mode = force_generic_plan")
            session.execute("prepare p as select payload ->> 'mark' from eventstream.events")
            for way in WAYS:
                with session.transaction(force_rollback=True):
                    use(session, bank.token("acme"))
                    assert marks(session, "execute p") == {MARKS["acme"]}
                    session.execute(way)
                    assert marks(session) == marks(session, "select payload ->> 'mark' from public.es_read('account-1')") == {MARKS["acme"]}, way
                    if way != "deallocate all":
                        assert marks(session, "execute p") == {MARKS["acme"]}, way
                    else:
                        session.execute("prepare p as select payload ->> 'mark' from eventstream.events")
                with refused("ES042"):
                    session.execute("execute p")
            with refused("25001"), session.transaction():
                use(session, bank.token("acme"))
                session.execute("discard all")


def test_several_statements_of_a_query_are_held_to_the_token_one_by_one(bank):
    seen = "select distinct payload ->> 'mark' from eventstream.events"
    with bank.connect() as session:
        session.execute("begin")
        use(session, bank.token("acme"))
        found = all_sets(session.execute(f"{seen}; set local eventstream.tenant = 'bank'; {seen}; reset all; discard plans; {seen}"))
        assert found == [[(MARKS["acme"],)]] * 3
        with refused("ES042"):
            session.execute(f"commit; {seen}")
        session.execute("rollback")
        with refused("ES042"):
            session.execute("begin")
            use(session, bank.token("acme"))
            session.execute(f"commit and chain; {seen}")
        session.execute("rollback")
        # A token that is no literal, in a query without BEGIN: its statements are one transaction, up to a COMMIT among them.
        session.execute("select set_config('my.acme', %s, false), set_config('my.bank', %s, false)", (bank.token("acme"), bank.token("bank")))
        token = "select es_use_token(current_setting('my.{}'))"
        assert all_sets(session.execute(f"{token.format('acme')}; {seen}")) == [[("acme",)], [(MARKS["acme"],)]]
        with refused("ES042"):
            session.execute(seen)
        with refused("ES042"):
            session.execute(f"{token.format('acme')}; commit; {seen}")
        with refused("ES044"):
            session.execute(f"{token.format('acme')}; {seen}; {token.format('bank')}; {seen}")
        found = all_sets(session.execute(f"{token.format('acme')}; {seen}; commit; {token.format('bank')}; {seen}"))
        assert found == [[("acme",)], [(MARKS["acme"],)], [("bank",)], [(MARKS["bank"],)]]


def test_a_procedure_goes_from_tenant_to_tenant_by_its_commits_alone(bank):
    with bank.admin() as session:
        session.execute("create schema code; grant usage on schema code to public")
        session.execute("create function code.seen() returns text language plpgsql as $$ begin return (select string_agg(distinct payload ->> 'mark', ',') from eventstream.events); "
                        "exception when others then return sqlstate; end $$")
        session.execute("create procedure code.both(inout told text) language plpgsql as $$ begin told := code.seen(); perform es_use_token(current_setting('my.acme')); told := told || ' ' || code.seen(); {end}; "
                        "told := told || ' ' || code.seen(); perform es_use_token(current_setting('my.bank')); told := told || ' ' || code.seen(); end $$".format(end="commit"))
        session.execute("create procedure code.at_once() language plpgsql as $$ begin perform es_use_token(current_setting('my.acme')); perform es_use_token(current_setting('my.bank')); end $$")
    with bank.connect() as session:
        session.execute("select set_config('my.acme', %s, false), set_config('my.bank', %s, false)", (bank.token("acme"), bank.token("bank")))
        assert value(session, "call code.both('')") == f"ES042 {MARKS['acme']} ES042 {MARKS['bank']}"
        assert value(session, "select code.seen()") == "ES042"
        with refused("ES044"):
            session.execute("call code.at_once()")


def test_a_trigger_of_a_plain_table_that_waits_for_the_commit_needs_the_token_then(bank):
    with bank.admin() as session:
        session.execute("create table public.plain (n int); create table public.told (mark text); grant insert on plain, told to web")
        session.execute("create function public.tell() returns trigger language plpgsql as $$ begin insert into public.told select distinct payload ->> 'mark' from eventstream.events; return null; end $$")
        session.execute("create constraint trigger tell after insert on plain deferrable initially deferred for each row execute function tell()")
    with bank.connect() as session:
        with session.transaction():
            session.execute("insert into plain values (1)")
            use(session, bank.token("acme"))
        with refused("ES042"), session.transaction():
            session.execute("insert into plain values (2)")
        session.execute("begin")
        use(session, bank.dying("acme"))
        session.execute("insert into plain values (3)")
        time.sleep(2.1)
        with refused("ES042"):
            session.execute("commit")
    with bank.admin() as session:
        assert rows(session, "table told") == [(MARKS["acme"],)] and rows(session, "table plain") == [(1,)]


def test_a_namesake_with_the_same_key_gets_nothing_of_a_transaction_that_is_open(bank):
    with bank.connect() as session, bank.connect() as other:
        for open_ in (session, other):
            open_.execute("begin")
            use(open_, bank.token("acme"))
            open_.execute("declare c cursor for select payload ->> 'mark' from eventstream.events")
            assert value(open_, "fetch 1 from c") == MARKS["acme"]
        with bank.admin("acme") as admin:
            admin.execute("select es_rename_tenant('acme', 'once_acme'); set eventstream.tenant = 'default'; select es_create_tenant('acme')")
            admin.execute("select es_add_token_key('k1', %s, 'acme', %s)", (mint_token.public(bank.keys["acme"]), ISSUER))
            for privilege in ("read", "append"):
                admin.execute("select es_grant('web', %s, 'acme')", (privilege,))
        for statement in ["fetch 1 from c", "select es_read('account-1')", "table eventstream.events", "select es_append('account-1', 'Opened', '{}')"]:
            with refused("ES042"), session.transaction():
                session.execute(statement)
        # Nor does a new token of the namesake's open the cursor again.
        with refused("ES042", "ES044"):
            use(other, bank.token("acme"))
            other.execute("fetch 1 from c")
        for open_ in (session, other):
            open_.execute("rollback")
        with session.transaction():
            use(session, bank.token("acme"))
            assert marks(session) == set()
        with session.transaction():
            use(session, bank.token("once_acme", key=bank.keys["acme"]))
            assert marks(session) == {MARKS["acme"]}


def test_a_session_forgets_tokens_and_none_that_was_revoked_counts(bank):
    tokens = [bank.token("acme", jti=f"t-{n}") for n in range(REMEMBERED + 6)]
    with bank.connect() as session:
        for _ in range(2):
            for token in tokens:
                with session.transaction():
                    use(session, token)
        with bank.admin() as admin:
            admin.execute("select es_revoke_token_key('k1')")
        for token in tokens:
            with refused("ES043"), session.transaction():
                use(session, token)


def test_a_token_that_is_remembered_expires_all_the_same(bank):
    token = bank.dying("acme")
    with bank.connect() as session:
        for _ in range(2):
            with session.transaction():
                use(session, token)
                assert marks(session) == {MARKS["acme"]}
        time.sleep(2.1)
        with refused("ES043"), session.transaction():
            use(session, token)


def test_a_lifetime_that_was_lowered_counts_for_tokens_that_are_remembered(bank):
    token = bank.token("acme", lifetime=300)
    with bank.admin() as session:
        with session.transaction():
            use(session, token)
        session.execute("set eventstream.token_max_lifetime = '1 min'")
        with refused("ES043"), session.transaction():
            use(session, token)
        session.execute("reset eventstream.token_max_lifetime")
        with session.transaction():
            use(session, token)


def test_a_transaction_takes_so_many_tokens_that_are_not_rolled_back(bank):
    tokens = [bank.token("acme", jti=f"t-{n}") for n in range(REMEMBERED + 1)]
    for end in ["", "; release s"]:
        with bank.connect() as session:
            session.execute("begin")
            for token in tokens[:-1]:
                session.execute("savepoint s")
                use(session, token)
                session.execute(f"select{end}")
            session.execute("savepoint s")
            with refused("ES005") as raised:
                use(session, tokens[-1])
            assert f"at most {REMEMBERED}" in str(raised.value)
            # The one before still counts.
            session.execute("rollback to s")
            assert marks(session) == {MARKS["acme"]}
    with bank.connect() as session:
        session.execute("begin; savepoint s")
        for token in tokens:
            use(session, token)
            session.execute("rollback to s")
        session.execute("rollback")
        for token in tokens:
            with session.transaction():
                use(session, token)
