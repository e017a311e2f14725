"""Invariants: what a transaction appended is judged at its commit, however many calls and savepoints that were, and a state after each append; whatever is wrong with a handler lets
nothing pass.

Asked of the kinds: isolation (all levels), savepoints rolled back, deferred triggers, cursors WITH HOLD, procedures that commit, SET CONSTRAINTS, replica role, autocommit, prepared
transactions, code of others (appends, loops, raises, catches its cancel, NULL, wrong shapes, writes by helpers, dropped, replaced), roles (registrant weaker than the caller, dropped,
without read), tenants, idle backends, open appends while one is registered, limits, bad input."""

import threading
import time

import psycopg
import pytest
from database import Database, contents, rows, unguarded, value, verify
from deciding import refused
from operating import check, run_psql
from psycopg.types.json import Jsonb
from server import run

BALANCED = """create or replace function balanced(events eventstream.event[]) returns text stable language sql as $$
    select 'debits are ' || coalesce(sum(e.amount) filter (where e.is_debit), 0) || ', credits ' || coalesce(sum(e.amount) filter (where not e.is_debit), 0)
    from (select u.event_type = 'Debited' as is_debit, (u.payload ->> 'amount')::numeric as amount from unnest(events) u) e
    having sum(case when e.is_debit then e.amount else -e.amount end) <> 0 $$"""
FOLD = """select es_register_fold('balance', 'account', initial_state => '{"balance": 0}', rules => '{"on": {
    "Credited": [{"add": {"/balance": "/amount"}}], "Debited": [{"subtract": {"/balance": "/amount"}}], "Wrong": [{"add": {"/balance": "/missing"}}]}, "otherwise": "ignore"}')"""
NEVER_BELOW = """select es_register_invariant('never overdrawn', '{account}', require => '{"/balance": {"at_least": 0}}')"""
REGISTER = "select es_register_invariant('balanced', '{post}', 'balanced(eventstream.event[])')"


def post(session, kind, amount, stream="post-1", **more):
    names = "".join(f", {name} => %s" for name in more)
    return value(session, f"select es_append(%s, %s, %s{names})", stream, kind, Jsonb({"amount": amount}), *more.values())


def book(session, amount, credit=None):
    with session.transaction():
        post(session, "Debited", amount, "post-1")
        post(session, "Credited", amount if credit is None else credit, "post-2")


def handler(session, body, name="judge", categories="{post}", language="plpgsql", volatility="stable", register=True, **more):
    session.execute(f"create or replace function {name}(events eventstream.event[]) returns text {volatility} language {language} as $body$ {body} $body$")
    if register:
        names = "".join(f", {key} => %s" for key in more)
        session.execute(f"select es_register_invariant(%s, %s, %s{names})", (name, categories, f"{name}(eventstream.event[])", *more.values()))


def posts(session):
    return rows(session, "select stream, event_type, payload ->> 'amount' from eventstream.events where category = 'post' order by global_position")


@pytest.fixture
def session(database):
    with database.connect() as connection:
        connection.execute(BALANCED)
        connection.execute(REGISTER)
        yield connection


def test_all_calls_of_a_transaction_are_judged_together_at_its_commit(session):
    book(session, 5)
    with session.transaction():
        for kind, amount in (("Debited", 1), ("Debited", 2.5), ("Credited", 3.50), ("Credited", 0)):
            post(session, kind, amount, f"post-{kind}")
    before = contents(session)
    diag = refused(book, session, 5, 4.99)
    assert (diag.sqlstate, diag.message_primary) == ("ES019", 'invariant "balanced" is broken: debits are 5, credits 4.99')
    assert diag.message_detail == '{"invariant":"balanced","reason":"debits are 5, credits 4.99","streams":["post-1","post-2"],"streams_in_all":2}'
    assert value(session, "select count(*) from (" + diag.message_hint.split("what it asks: ")[1].rstrip(";") + ") x") == 1
    # Autocommit is a transaction of its own, and so is a call with several streams.
    assert refused(post, session, "Debited", 1).sqlstate == "ES019"
    append = """select es_append_streams('[{"stream": "post-1", "events": [{"type": "Debited", "payload": {"amount": 1}}]},
                                           {"stream": "post-3", "events": [{"type": "Credited", "payload": {"amount": %s}}]}]')"""
    assert refused(session.execute, append % 2).sqlstate == "ES019"
    assert contents(session) == before
    session.execute(append % 1)
    assert len(posts(session)) == 8 and verify(session) == []
    # Others are none of its business, and a retry is nothing new.
    post(session, "Debited", 1, "other-1")
    event_id = value(session, "select es_new_event_id()")
    with session.transaction():
        post(session, "Debited", 7, event_id=event_id)
        post(session, "Credited", 7)
    post(session, "Debited", 7, event_id=event_id)
    counted = [line for line in value(session, "select es_metrics()").splitlines() if line.startswith("eventstream_invariants_broken_total")]
    assert len(counted) == 1 and float(counted[0].split()[-1]) >= 3


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_what_a_savepoint_took_back_is_not_judged_and_the_rest_is(session, level):
    session.execute(f"set default_transaction_isolation = '{level}'")
    with session.transaction():
        post(session, "Debited", 5)
        with pytest.raises(ZeroDivisionError), session.transaction():
            post(session, "Debited", 100)
            with session.transaction():
                post(session, "Debited", 1000)
            raise ZeroDivisionError
        with session.transaction():
            post(session, "Credited", 5)
    assert [amount for *_, amount in posts(session)] == ["5", "5"]

    def half():
        with session.transaction():
            post(session, "Debited", 5)
            with pytest.raises(ZeroDivisionError), session.transaction():
                post(session, "Credited", 5)
                raise ZeroDivisionError

    assert refused(half).message_primary.endswith("debits are 5, credits 0")
    # All of it: nothing is due any more.
    with session.transaction():
        with pytest.raises(ZeroDivisionError), session.transaction():
            post(session, "Debited", 5)
            raise ZeroDivisionError
    # A savepoint that is rolled back to lives on.
    with session.transaction():
        session.execute("savepoint a")
        post(session, "Debited", 3)
        session.execute("rollback to a")
        post(session, "Debited", 4)
        session.execute("release a")
        post(session, "Credited", 4)
    assert len(posts(session)) == 4
    assert refused(post, session, "Credited", 1).sqlstate == "ES019"


DEFERRED = """
create table orders (id int primary key, amount numeric);
create function post_order() returns trigger language plpgsql as $$ begin
    perform es_append('post-late', 'Credited', jsonb_build_object('amount', new.amount)); return null; end $$;
create constraint trigger late after insert on orders deferrable initially deferred for each row execute function post_order();
"""


def test_what_deferred_triggers_and_cursors_that_are_held_append_is_judged(session):
    session.execute(DEFERRED)

    def order(amount, *before_commit):
        with session.transaction():
            post(session, "Debited", 5)
            session.execute("insert into orders select coalesce(max(id), 0) + 1, %s from orders", (amount,))
            for statement in before_commit:
                session.execute(statement)

    order(5)
    assert refused(order, 6).message_primary.endswith("debits are 5, credits 6")
    for constraints in ("set constraints all immediate", "set constraints all deferred"):
        assert refused(order, 6, constraints).sqlstate == "ES019"
        order(5, constraints)
    # Run when the commit materialises it.
    session.execute("create function credit(amount numeric) returns bigint language sql as $$ select es_append('post-held', 'Credited', jsonb_build_object('amount', amount)) $$")

    def hold(amount):
        with session.transaction():
            post(session, "Debited", 5)
            session.execute(f"declare held cursor with hold for select credit({amount})")

    hold(5)
    session.execute("close held")
    assert refused(hold, 4).message_primary.endswith("debits are 5, credits 4")
    assert verify(session) == []


def test_no_way_of_committing_goes_past_it(session):
    session.execute("""create procedure commits() language plpgsql as $$ begin
        perform es_append('post-1', 'Debited', '{"amount": 1}'); perform es_append('post-1', 'Credited', '{"amount": 1}'); commit;
        perform es_append('post-1', 'Debited', '{"amount": 2}'); commit; end $$""")
    diag = refused(session.execute, "call commits()")
    assert diag.sqlstate == "ES019" and [amount for *_, amount in posts(session)] == ["1", "1"]
    session.execute("""create procedure catches() language plpgsql as $$ begin
        begin perform es_append('post-1', 'Debited', '{"amount": 3}'); exception when others then null; end; commit; end $$""")
    assert refused(session.execute, "call catches()").sqlstate == "ES019"
    session.execute("set session_replication_role = replica")
    assert refused(post, session, "Debited", 1).sqlstate == "ES019"
    session.execute("reset session_replication_role")
    session.execute("set constraints all immediate")
    assert refused(post, session, "Debited", 1).sqlstate == "ES019"
    assert refused(session.execute, "do $$ begin perform es_append('post-1', 'Debited', '{\"amount\": 3}'); end $$").sqlstate == "ES019"
    # Several statements in one message, and a chain.
    assert refused(session.execute, "select es_append('post-1', 'Debited', '{\"amount\": 3}'); select 1").sqlstate == "ES019"
    session.autocommit = False
    post(session, "Debited", 1)
    assert refused(session.execute, "commit and chain").sqlstate == "ES019"
    session.rollback()
    session.autocommit = True
    # What cannot be judged at its end cannot be prepared.
    session.execute("begin")
    post(session, "Debited", 1)
    assert refused(session.execute, "prepare transaction 'p'").sqlstate == "0A000"
    session.execute("begin")
    session.execute(DEFERRED)
    session.execute("commit")
    session.execute("begin")
    session.execute("insert into orders values (1, 1)")
    assert refused(session.execute, "prepare transaction 'p'").sqlstate == "0A000"
    assert len(posts(session)) == 2 and rows(session, "select from pg_prepared_xacts") == []


@pytest.mark.parametrize("change", ["select es_unregister_invariant('balanced')", "select es_register_invariant('balanced', '{elsewhere}', 'balanced(eventstream.event[])')"])
def test_what_is_to_be_judged_is_judged_by_what_was_there(session, change):
    """Whoever may manage could leave a one-sided entry otherwise."""
    with session.transaction(force_rollback=True):
        post(session, "Debited", 5)
        diag = refused(session.execute, change)
        assert diag.sqlstate == "0A000" and "Commit first" in diag.message_hint
    # What was taken back to a savepoint, or is no event of an invariant's, is in nobody's way; nor is another invariant.
    with session.transaction():
        with session.transaction(force_rollback=True):
            post(session, "Debited", 5)
        post(session, "Debited", 5, "other-1")
        session.execute(change)
    session.execute(REGISTER)
    with session.transaction():
        post(session, "Debited", 5)
        session.execute("select es_register_invariant('another', '{post}', 'balanced(eventstream.event[])')")
        post(session, "Credited", 5)
    assert posts(session) == [("post-1", "Debited", "5"), ("post-1", "Credited", "5")]


def test_a_deferred_foreign_key_still_refuses(session):
    session.execute("create table parent (id int primary key)")
    session.execute("create table child (parent int references parent deferrable initially deferred)")

    def broken():
        with session.transaction():
            post(session, "Debited", 1)
            post(session, "Credited", 1)
            session.execute("insert into child values (1)")

    assert refused(broken).sqlstate == "23503"
    assert posts(session) == [] and rows(session, "select from child") == []
    # Nor does what a helper of the handler's writes, which is gone with the judgement.
    session.execute("create table kept (n int)")
    session.execute("create function writes() returns int language sql as $$ insert into kept values (2) returning 2 $$")
    handler(session, "begin return case when writes() = 3 then 'no' end; end")
    book(session, 1)
    assert len(posts(session)) == 2 and rows(session, "select from kept") == []
    session.execute("create or replace function writes() returns int language sql as $$ insert into child values (2) returning 2 $$")
    assert refused(book, session, 1).message_primary == "cannot fire deferred trigger within security-restricted operation"
    assert len(posts(session)) == 2 and rows(session, "select from child") == []


def test_a_handler_sees_the_events_in_order_and_what_its_transaction_did(session):
    session.execute("create table told (what text)")
    session.execute("select es_unregister_invariant('balanced')")
    handler(session, """begin
        return format('%s; %s rows; tenant %s, path %s, user %s', (select string_agg(e.stream || '@' || e.version || e.event_type || e.payload || e.category || e.tenant, ', ' order by n)
                       from unnest(events) with ordinality as e (global_position, stream, version, event_id, event_type, schema_version, payload, metadata, subject, occurred_at, recorded_at,
                                                                 category, tenant, recorded_by, salt, chain_hash, tags, n)),
                      (select count(*) from told), current_setting('eventstream.tenant'), current_setting('search_path'), current_user);
        end""", categories="{post,paid}")  # fmt: skip

    def act():
        with session.transaction():
            session.execute("insert into told values ('a'), ('b')")
            for n, stream in enumerate(("post-2", "paid-1", "other-1", "post-1", "paid-1")):
                session.execute("select es_append(%s, 'T', %s)", (stream, Jsonb({"n": n})))

    reason = refused(act).message_primary
    assert reason == (
        'invariant "judge" is broken: post-2@1T{"n": 0}postdefault, paid-1@1T{"n": 1}paiddefault, post-1@1T{"n": 3}postdefault, paid-1@2T{"n": 4}paiddefault; 2 rows; '
        'tenant default, path "$user", public, pg_temp, eventstream_pinned, user postgres'
    )


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_it_sees_what_is_committed_when_it_is_called(database, session, level):
    session.execute("create table limits (most numeric)")
    session.execute("insert into limits values (10)")
    handler(session, """begin return (select 'more than ' || l.most from limits l
        where l.most < (select max((e.payload ->> 'amount')::numeric) from unnest(events) e)); end""")  # fmt: skip
    session.execute(f"begin isolation level {level}")
    value(session, "select count(*) from limits")
    post(session, "Debited", 7)
    post(session, "Credited", 7)
    with database.connect() as other:
        other.execute("update limits set most = 6")
    assert refused(session.execute, "commit").message_primary.endswith("more than 6")


def test_handlers_that_misbehave_let_nothing_pass_and_leave_nothing(session, database):
    session.execute("select es_unregister_invariant('balanced')")
    before = contents(session)
    wrong = {
        "perform es_append('post-9', 'Credited', '{}'); return null;": ("0A000", "an append is not for an invariant: it may only read"),
        "perform es_append('other-9', 'Credited', '{}'); return null;": ("0A000", "an append is not for an invariant"),
        "begin perform es_append('other-9', 'C', '{}'); exception when others then null; end; return null;": (None, None),
        "perform es_create_tenant('mine'); return null;": ("0A000", "es_create_tenant"),
        "perform es_unregister_invariant('judge'); return null;": ("0A000", "es_unregister_invariant"),
        "raise exception 'not today' using errcode = 'GL042';": ("GL042", "not today"),
        "return 1 / 0;": ("22012", "division"),
        "return '';": ("ES019", 'invariant "judge" is broken: '),
        "return repeat('x', 10000);": ("ES019", "xxx"),
        "execute 'create table made ()'; return null;": ("0A000", ""),
        "commit; return null;": ("2D000", ""),
        "set local search_path = ''; return null;": ("0A000", ""),
        "perform set_config('eventstream.durability', 'session', true); return null;": (None, None),
    }
    for body, (sqlstate, words) in wrong.items():
        handler(session, f"begin {body} end")
        if sqlstate is None:
            post(session, "Debited", 1)
            before = contents(session)
            continue
        diag = refused(post, session, "Debited", 1)
        assert diag.sqlstate == sqlstate and words in diag.message_primary, (body, diag.message_primary)
        assert len(diag.message_primary) < 6000
        assert contents(session) == before, body
    assert value(session, "select to_regclass('made')") is None
    diag = refused(lambda: (handler(session, "begin raise exception 'why'; end"), post(session, "Debited", 1)))
    assert 'invariant "judge" at global position' in diag.context
    # The session goes on.
    handler(session, "begin return null; end")
    book(session, 1)
    assert verify(session) == []


@pytest.mark.parametrize("body", ["loop null; end loop;", "perform pg_sleep(1000); return null;", "loop perform count(*) from generate_series(1, 1000); end loop;"])
def test_a_handler_that_runs_on_is_ended(session, database, body):
    session.execute("alter system set eventstream.handler_timeout = '200ms'")
    try:
        reload(session, "200ms")
        handler(session, f"begin {body} end")
        began = time.monotonic()
        diag = refused(book, session, 1)
        assert diag.sqlstate == "57014" and "judge" in diag.message_primary and "200 ms" in diag.message_primary
        assert 0.15 < time.monotonic() - began < 5
        assert posts(session) == []
        # Within a statement that has a timeout of its own, too: its timer is left alone.
        session.execute("create procedure commits() language plpgsql as $$ begin perform es_append('post-1', 'Debited', '{}'); commit; end $$")
        session.execute("set statement_timeout = '1min'")
        assert "200 ms" in refused(session.execute, "call commits()").message_primary
        session.execute("set statement_timeout = '100ms'")
        handler(session, "begin return null; end")
        assert refused(session.execute, "select pg_sleep(1)").message_primary == "canceling statement due to statement timeout"
        session.execute("reset statement_timeout")
        time.sleep(0.3)
        book(session, 1)
        assert len(posts(session)) == 2
    finally:
        session.execute("alter system reset eventstream.handler_timeout")
        reload(session, "1min")


def reload(session, shown):
    session.execute("select pg_reload_conf()")
    until = time.monotonic() + 10
    while value(session, "show eventstream.handler_timeout") != shown:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_handler_that_catches_its_cancel_ends_its_session(session, database):
    session.execute("alter system set eventstream.handler_timeout = '100ms'")
    try:
        reload(session, "100ms")
        session.execute("select es_unregister_invariant('balanced')")
        handler(session, "begin loop begin perform pg_sleep(60); exception when query_canceled then null; end; end loop; end")
        with database.connect() as victim:
            reload(victim, "100ms")
            began = time.monotonic()
            with pytest.raises(psycopg.OperationalError):
                post(victim, "Debited", 1)
            assert time.monotonic() - began < 30
        assert posts(session) == []
    finally:
        session.execute("alter system reset eventstream.handler_timeout")
        reload(session, "1min")


def test_a_cancel_reaches_a_handler(session, database):
    handler(session, "begin perform pg_sleep(60); return null; end")
    pid = value(session, "select pg_backend_pid()")
    with database.connect() as other:
        cancel = threading.Timer(0.5, lambda: other.execute("select pg_cancel_backend(%s)", (pid,)))
        cancel.start()
        diag = refused(book, session, 1)
        cancel.join()
    assert (diag.sqlstate, diag.message_primary) == ("57014", "canceling statement due to user request")
    assert posts(session) == []


def test_a_function_in_use_stays_and_one_that_is_gone_lets_nothing_pass(session, database):
    assert "invariant balanced" in refused(session.execute, "drop function balanced").message_primary
    with database.connect() as idle:
        book(idle, 1)
        # Replaced: the next commit is judged by what it is now.
        session.execute("create or replace function balanced(events eventstream.event[]) returns text stable language sql as $$ select 'never' $$")
        assert refused(book, idle, 1).message_primary.endswith("is broken: never")
        session.execute("create or replace function balanced(events eventstream.event[]) returns text volatile language sql as $$ select 'never' $$")
        diag = refused(book, idle, 1)
        assert diag.sqlstate == "ES019" and "cannot be judged" in diag.message_primary and "VOLATILE" in diag.message_primary
        with unguarded(session):
            session.execute("drop function balanced")
        diag = refused(book, idle, 1)
        assert "its function public.balanced(eventstream.event[]) does not exist any more" in diag.message_primary
        assert "select es_unregister_invariant('balanced');" in diag.message_hint
        row = check(session, "invariant balanced")
        assert row.status == "critical" and "its function public.balanced does not exist any more" in row.detail
        assert value(session, row.fix) == ["post"]
        # Others of the tenant go on, and so do readers.
        post(idle, "Debited", 1, "other-1")
        session.execute(diag.message_hint[diag.message_hint.index("select") :])
        post(idle, "Debited", 1)


def test_open_appends_do_not_escape_one_that_is_registered(session, database):
    """It waits for them; who comes after it is judged, also a session that has known no invariant."""
    session.execute("select es_unregister_invariant('balanced')")
    with database.connect() as early, database.connect() as late:
        post(late, "Debited", 1)
        early.execute("begin")
        post(early, "Debited", 1)
        done = threading.Thread(target=session.execute, args=(REGISTER,))
        done.start()
        time.sleep(0.5)
        assert done.is_alive()
        early.execute("commit")
        done.join(10)
        assert not done.is_alive()
        assert refused(post, late, "Debited", 1).sqlstate == refused(post, early, "Debited", 1).sqlstate == "ES019"
        # What a transaction itself has appended before is part of what is judged, or was never noted; what it appends next is judged.
        session.execute("select es_unregister_invariant('balanced')")
        early.execute("begin")
        post(early, "Debited", 1)
        early.execute(REGISTER)
        post(early, "Credited", 2)
        assert refused(early.execute, "commit").sqlstate == "ES019"
        early.execute("begin")
        early.execute(REGISTER)
        early.execute("rollback")
        post(early, "Debited", 1)


def test_a_gate_that_is_kept_ends_the_registration(session, database):
    session.execute("set eventstream.gate_timeout = '300ms'")
    with database.connect() as early, early.transaction():
        post(early, "Debited", 1, "other-1")
        assert refused(session.execute, REGISTER).sqlstate == "55P03"


def test_registrants_are_who_they_are(session, database):
    keeper, clerk = database.role(f"{database.name}_keeper"), database.role(f"{database.name}_clerk")
    session.execute("create table secret (n int)")
    session.execute("grant create on schema public to public")
    for role, privilege in ((keeper, "manage"), (keeper, "read"), (clerk, "append")):
        session.execute("select es_grant(%s, %s)", (role, privilege))
    with database.connect(keeper) as own, database.connect(clerk) as client:
        handler(own, "begin return format('%s %s %s', current_user, session_user, coalesce(es_state(events[1].stream)::text, 'none')); end", register=False)
        session.execute("select es_register_fold('posted', 'post', rules => '{\"on\": {}}')")
        own.execute("select es_register_invariant('judge', '{post}', 'judge(eventstream.event[])')")
        # A stranger's function would run with the registrant's rights.
        assert refused(own.execute, REGISTER.replace("balanced(", "judge2(")).sqlstate == "42883"
        session.execute("create function theirs(events eventstream.event[]) returns text stable language sql as 'select null::text'")
        session.execute(f'alter function theirs owner to "{clerk}"')
        assert "what it, or a member of it, puts into the function" in refused(own.execute, REGISTER.replace("balanced(", "theirs(")).message_primary
        session.execute("select es_unregister_invariant('balanced')")
        diag = refused(post, client, "Debited", 1)
        assert diag.sqlstate == "ES019" and f"{keeper} {clerk}" in diag.message_primary
        handler(own, "begin return (select n::text from secret); end", register=False)
        assert refused(post, client, "Debited", 1).sqlstate == "42501"
        handler(own, "begin return null; end", register=False)
        post(client, "Debited", 1)
        # Without the right to read what it is given it is not asked, and nothing passes.
        session.execute("select es_revoke(%s, 'read')", (keeper,))
        diag = refused(post, client, "Debited", 1)
        assert diag.sqlstate == "42501" and keeper in diag.message_primary and '"read"' in diag.message_primary
        session.execute("select es_grant(%s, 'read')", (keeper,))
        post(client, "Debited", 1)
        for call in ("select es_register_invariant('x', '{post}', require => '{\"/a\": 1}')", "select es_unregister_invariant('judge')"):
            assert refused(client.execute, call).sqlstate == "42501"
        assert refused(client.execute, "select from eventstream.invariants").sqlstate == "42501"
    session.execute(f'reassign owned by "{keeper}" to postgres')
    session.execute(f'drop owned by "{keeper}"')
    session.execute("select es_revoke(%s, 'read')", (keeper,))
    session.execute("select es_revoke(%s, 'manage')", (keeper,))
    session.execute(f'drop role "{keeper}"')
    database.roles.remove(keeper)
    diag = refused(post, session, "Debited", 1)
    assert diag.sqlstate == "ES019" and f"the role {keeper} that registered it does not exist any more" in diag.message_primary


def test_tenants_are_judged_by_their_own(session):
    session.execute("select es_create_tenant('other')")
    post_there = "select es_append('post-1', 'Debited', '{\"amount\": 1}')"
    session.execute("set eventstream.tenant = 'other'")
    session.execute(post_there)
    assert rows(session, "select from eventstream.invariants") == []
    session.execute("create function says(events eventstream.event[]) returns text stable language sql as $$ select current_setting('eventstream.tenant') || cardinality(events) $$")
    session.execute("select es_register_invariant('says', '{post}', 'says(eventstream.event[])')")
    # Both in one transaction: each is given its own.
    session.execute("begin")
    session.execute(post_there)
    session.execute("set local eventstream.tenant = 'default'")
    post(session, "Debited", 1)
    post(session, "Credited", 1)
    assert refused(session.execute, "commit").message_primary == 'invariant "says" is broken: other1'


def test_only_events_of_its_types_are_shown_by_the_names_that_readers_see(session):
    session.execute("select es_unregister_invariant('balanced')")
    session.execute("create function newer(payload jsonb, metadata jsonb) returns jsonb immutable language sql as $$ select payload || '{\"up\": true}' $$")
    session.execute("select es_register_upcaster('Old', 1, 'newer(jsonb, jsonb)', to_event_type => 'New')")
    handler(session, "begin return (select string_agg(e.event_type || e.payload, ', ' order by e.version) from unnest(events) e); end", event_types=["New", "Odd"])
    post(session, "Other", 1)
    with pytest.raises(psycopg.Error) as error, session.transaction():
        for kind in ("Odd", "Other", "Old", "New"):
            post(session, kind, 1)
    assert error.value.diag.message_primary.endswith('is broken: Odd{"amount": 1}, New{"up": true, "amount": 1}, New{"amount": 1}')


def test_more_events_than_can_be_judged_are_refused(session):
    session.execute("set eventstream.max_invariant_events = 3")
    session.execute("begin")
    for _ in range(3):
        post(session, "Debited", 0)
    with pytest.raises(ZeroDivisionError), session.transaction():
        raise ZeroDivisionError
    diag = refused(post, session, "Debited", 0)
    assert diag.sqlstate == "ES007" and "4 events" in diag.message_primary
    session.execute("rollback")
    # What was taken back does not count, and what nobody judges neither.
    session.execute("set eventstream.max_invariant_events = 4")
    with session.transaction():
        for _ in range(3):
            with pytest.raises(ZeroDivisionError), session.transaction():
                post(session, "Debited", 0)
                post(session, "Debited", 0)
                raise ZeroDivisionError
            post(session, "Other", 0, "other-1")
            post(session, "Debited", 0)
    assert len(posts(session)) == 3


def test_a_projections_handler_is_judged_before_its_batch_is_over(session):
    """One event that breaks it is a dead letter; the others are applied."""
    session.execute("create function mirror(event eventstream.event) returns void language plpgsql as $$ begin"
                    " perform es_append('post-1', 'Debited', jsonb_build_object('amount', event.payload -> 'debit'));"
                    " perform es_append('post-1', 'Credited', jsonb_build_object('amount', event.payload -> 'credit')); end $$")  # fmt: skip
    for debit, credit in ((1, 1), (2, 2), (3, 4), (5, 5)):
        session.execute("select es_append('order-1', 'Placed', %s)", (Jsonb({"debit": debit, "credit": credit}),))
    session.execute("select es_create_projection('mirror', 'mirror(eventstream.event)', categories => '{order}', max_retries => 0, on_error => 'skip')")
    for _ in range(10):
        session.execute("select es_run_projection('mirror')")
    assert [amount for *_, amount in posts(session)] == ["1", "1", "2", "2", "5", "5"]
    letters = rows(session, "select version, error_sqlstate, reason from eventstream.dead_letters")
    assert [(version, sqlstate) for version, sqlstate, _ in letters] == [(3, "ES019")] and "debits are 3, credits 4" in letters[0][2]
    assert verify(session) == []


def test_an_inline_projection_and_a_command_are_judged_with_their_transaction(session):
    session.execute("create function counter(event eventstream.event) returns void language plpgsql as $$ begin perform es_append('post-9', 'Credited', event.payload); end $$")
    session.execute("select es_create_projection('counter', 'counter(eventstream.event)', mode => 'inline', categories => '{order}')")
    with session.transaction():
        post(session, "Debited", 2)
        session.execute("select es_append('order-1', 'Placed', '{\"amount\": 2}')")
    assert refused(session.execute, "select es_append('order-1', 'Placed', '{\"amount\": 2}')").sqlstate == "ES019"
    session.execute("create function decide(state jsonb, command eventstream.command) returns jsonb stable language sql as $$ select jsonb_build_array(es_make_event(command.command_type, command.payload)) $$")
    session.execute("select es_register_fold('none', 'post', rules => '{\"on\": {}}')")
    session.execute("select es_register_decider('post', 'post', 'decide(jsonb, eventstream.command)')")
    send = "select es_command('post-1', %s, '{\"amount\": 1}', command_key => %s)"
    assert refused(session.execute, send, ("Debited", "k-1")).sqlstate == "ES019"
    with session.transaction():
        session.execute(send, ("Debited", "k-1"))
        session.execute(send, ("Credited", "k-2"))
    # A replay is a read.
    assert value(session, send, "Debited", "k-1")["replayed"] is True
    assert len(posts(session)) == 4


def test_bad_input_is_refused_by_name(session):
    session.execute(FOLD)
    session.execute("create function one(event eventstream.event) returns text stable language sql as 'select null::text'")
    session.execute("create function void(events eventstream.event[]) returns void stable language sql as ''")
    session.execute("create function volatile_one(events eventstream.event[]) returns text language sql as 'select null::text'")
    session.execute("create function many(events eventstream.event[]) returns setof text stable language sql as 'select null::text'")
    good = {"name": "'n'", "categories": "'{account}'", "handler": "null", "require": "'{\"/balance\": 1}'", "fold": "null", "event_types": "null"}
    bad = {
        "name": ["null", "''", "' '", "repeat('x', 300)"],
        "categories": ["null", "'{}'", "'{null}'", "'{a-b}'", "'{$audit}'", "'{{a},{b}}'", "(select array_agg('c' || n) from generate_series(1, 1001) n)"],
        "handler": ["'balanced(eventstream.event[])'"],
        "event_types": ["'{}'", "'{\"\"}'", "'{null}'"],
    }
    for argument, values in bad.items():
        for each in values:
            call = ", ".join(f"{name} => {each if name == argument else given}" for name, given in good.items())
            assert refused(session.execute, f"select es_register_invariant({call})").sqlstate == "ES005", (argument, each)
    call = "select es_register_invariant('n', '{account}', %s)"
    for more, sqlstate in {
        "require => null": "ES005",
        "fold => 'balance'": "ES005",
        "handler => 'one(eventstream.event)'": "ES005",
        "handler => 'void(eventstream.event[])'": "ES005",
        "handler => 'volatile_one(eventstream.event[])'": "ES005",
        "handler => 'many(eventstream.event[])'": "ES005",
        "handler => '0'": "ES005",
        "handler => 'balanced(eventstream.event[])', fold => 'balance'": "ES005",
        "require => '{\"/a\": {\"bigger\": 1}}'": "ES011",
        "require => '[]'": "ES011",
        "require => '{}'": "ES011",
        "require => '{\"event:/version\": 1}'": "ES011",
        "require => jsonb_build_object('/a', repeat('x', 70000))": "ES005",
        "require => '{\"/a\": 1}', fold => 'none'": "ES010",
    }.items():
        assert refused(session.execute, call.replace("%s", more)).sqlstate == sqlstate, more
    assert refused(session.execute, "select es_register_invariant('n', '{unknown}', require => '{\"/a\": 1}')").sqlstate == "ES010"
    for name in ("null", "''", "'none'"):
        assert refused(session.execute, f"select es_unregister_invariant({name})").sqlstate == "ES005"
    assert rows(session, "select name from eventstream.invariants") == [("balanced",)]


def test_what_is_registered_is_shown_and_noted(session):
    session.execute(FOLD)
    session.execute("select es_register_invariant('n', '{account,account}', require => '{\"/balance\": {\"at_least\": 0.00}}', fold => 'balance', event_types => '{Debited,Credited,Debited}')")
    shown = rows(session, "select name, categories, event_types, handler, fold, require::text, source is null, registrant, tenant from eventstream.invariants order by name")
    assert shown == [
        ("balanced", ["post"], None, "public.balanced", None, None, False, "postgres", "default"),
        ("n", ["account"], ["Credited", "Debited"], None, "balance", '{"/balance": {"at_least": 0.00}}', True, "postgres", "default"),
    ]
    session.execute(REGISTER)
    session.execute("select es_register_invariant('balanced', '{post,paid}', 'balanced(eventstream.event[])')")
    session.execute("select es_unregister_invariant('n')")
    acts = rows(session, "select event_type, payload #>> '{after,categories}' from eventstream.administration where event_type like 'Invariant%' order by global_position")
    assert acts == [("InvariantRegistered", '["post"]'), ("InvariantRegistered", '["account"]'), ("InvariantAltered", '["paid", "post"]'), ("InvariantUnregistered", None)]
    assert rows(session, "select * from es_verify_audit()") == []


@pytest.fixture
def bank(database):
    with database.connect() as connection:
        connection.execute(FOLD)
        connection.execute(NEVER_BELOW)
        yield connection


def test_a_state_must_meet_it_after_each_append(bank):
    post(bank, "Credited", 10, "account-1")
    post(bank, "Debited", 10.00, "account-1")
    before = contents(bank)
    diag = refused(post, bank, "Debited", 0.01, "account-1")
    assert (diag.sqlstate, diag.message_primary) == ("ES019", 'invariant "never overdrawn" is broken: state /balance must be at least the number 0, and is the number -0.01')
    assert '"streams":["account-1"]' in diag.message_detail
    assert contents(bank) == before
    # Within one call only its end counts; in two it is judged after each.
    batch = "select es_append_events('account-1', %s)"
    bank.execute(batch, (Jsonb([{"type": "Debited", "payload": {"amount": 5}}, {"type": "Credited", "payload": {"amount": 5}}]),))
    assert refused(bank.execute, batch, (Jsonb([{"type": "Credited", "payload": {"amount": 5}}, {"type": "Debited", "payload": {"amount": 6}}]),)).sqlstate == "ES019"
    with bank.transaction():
        with pytest.raises(psycopg.Error), bank.transaction():
            post(bank, "Debited", 1, "account-1")
        post(bank, "Credited", 1, "account-1")
        post(bank, "Debited", 1, "account-1")
    # A missing value is none that meets it, nor is an event that cannot be folded.
    bank.execute("select es_register_invariant('has name', '{account}', require => '{\"/name\": {\"exists\": true}}', event_types => '{Named}')")
    assert refused(post, bank, "Named", 1, "account-1").message_primary.endswith("state /name must exist, and is missing")
    post(bank, "Credited", 1, "account-1")
    diag = refused(post, bank, "Wrong", 1, "account-1")
    assert diag.sqlstate == "ES019" and "cannot be folded" in diag.message_primary and "/missing" in diag.message_primary
    assert verify(bank) == []


def test_a_retry_is_not_judged_anew(bank):
    """What was recorded is answered as ever, whatever is asked by now."""
    event_id = value(bank, "select es_new_event_id()")
    version = post(bank, "Credited", 10, "account-1", event_id=event_id)
    bank.execute("select es_register_invariant('little', '{account}', require => '{\"/balance\": {\"at_most\": 5}}')")
    assert post(bank, "Credited", 10, "account-1", event_id=event_id) == version
    assert refused(post, bank, "Credited", 0, "account-1").sqlstate == "ES019"
    # An append that mends it is taken.
    post(bank, "Debited", 5, "account-1")


def test_a_row_that_a_restore_brings_is_known_to_sessions_from_before(database):
    """Alone: no other definition comes with it."""
    with database.connect() as session, database.connect() as restoring:
        session.execute(BALANCED)
        with session.transaction(force_rollback=True):
            post(session, "Debited", 1)
        row = {"tenant_id": 1, "name": "balanced", "categories": ["post"], "handler": "public.balanced", "source": Jsonb([]), "registrant": "postgres", "registrant_oid": 10, "search_path": "public"}
        restoring.execute(f"insert into _eventstream.invariants ({', '.join(row)}) values ({', '.join(['%s'] * len(row))})", list(row.values()))
        assert refused(post, session, "Debited", 1).sqlstate == "ES019"
        book(session, 1)


def test_event_types_say_after_which_a_state_is_judged(bank):
    bank.execute(NEVER_BELOW.replace("require", "event_types => '{Debited}', require"))
    post(bank, "Credited", -5, "account-1")
    assert refused(post, bank, "Debited", 1, "account-1").sqlstate == "ES019"
    post(bank, "Credited", 5, "account-1")
    post(bank, "Debited", 0, "account-1")


def test_late_events_and_other_folds_count_as_es_state_has_them(bank):
    bank.execute(FOLD.replace("'balance', 'account'", "'dated', 'account'").replace("initial_state", "fold_order => 'occurred_at', is_default => false, initial_state"))
    bank.execute("select es_register_invariant('dated', '{account}', fold => 'dated', require => '{\"/balance\": {\"at_most\": 10}}')")
    post(bank, "Credited", 10, "account-1", occurred_at="2024-02-01Z")
    assert refused(post, bank, "Credited", 1, "account-1", occurred_at="2024-01-01Z").message_primary.startswith('invariant "dated"')
    # The fold is gone: nothing can be judged.
    bank.execute("select es_unregister_fold('dated')")
    diag = refused(post, bank, "Credited", 0, "account-1")
    assert diag.sqlstate == "ES019" and "cannot be judged" in diag.message_primary and "dated" in diag.message_primary
    row = check(bank, "invariant dated")
    assert row.status == "critical" and "fold dated does not exist any more" in row.detail
    assert check(bank, "invariant never overdrawn") is None


def test_who_may_not_read_is_told_no_value(bank, database):
    clerk = database.role(f"{database.name}_clerk")
    bank.execute("select es_grant(%s, 'append')", (clerk,))
    with database.connect(clerk) as client:
        diag = refused(post, client, "Debited", 123, "account-1")
        assert diag.message_primary == 'invariant "never overdrawn" is broken: state /balance must be at least the number 0'
        assert "123" not in f"{diag.message_detail}{diag.message_hint}"


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_two_that_take_the_last_at_once_do_not_overdraw(bank, database, level):
    post(bank, "Credited", 5, "account-1")
    bank.execute(f"begin isolation level {level}")
    value(bank, "select 1")
    with database.connect() as other:
        post(other, "Debited", 5, "account-1")
    assert refused(post, bank, "Debited", 1, "account-1").sqlstate in ("ES019", "40001")
    bank.execute("rollback")
    assert value(bank, "select es_state('account-1') ->> 'balance'") == "0"


def test_a_tenant_without_invariants_notes_nothing(database):
    """What is due at a commit is due only where something is covered: PREPARE and commits of others are as they were."""
    with database.connect() as session:
        session.execute(BALANCED)
        session.execute(REGISTER)
        with session.transaction():
            post(session, "Debited", 1, "other-1")
            session.execute("set local eventstream.max_invariant_events = 1")
            for _ in range(5):
                post(session, "Debited", 1, "other-1")
        assert value(session, "select count(*) from es_read('other-1')") == 6


def test_a_dump_brings_invariants_and_a_restore_judges_nothing(session, database):
    """What was recorded before one was registered stays, is restored, and is judged no more; what comes then is."""
    session.execute("select es_unregister_invariant('balanced')")
    post(session, "Debited", 1)
    session.execute(REGISTER)
    copy = Database(database.server, f"{database.name[:50]}_copy").create(extension=False)
    try:
        run_psql(copy, run("pg_dump", env=database.server.address(database.name)))
        with copy.connect() as restored:
            assert contents(restored) == contents(session)
            assert refused(post, restored, "Debited", 1).sqlstate == "ES019"
            book(restored, 1)
            assert verify(restored) == [] and rows(restored, "select * from es_verify_audit()") == []
    finally:
        copy.drop()


SHOWS = """begin return case current_setting('test.shows', true) when 'on' then
    (select string_agg(e.stream || '@' || e.version || '=' || (e.payload ->> 'amount'), ' ' order by n)
     from unnest(events) with ordinality as e (global_position, stream, version, event_id, event_type, schema_version, payload, metadata, subject, occurred_at, recorded_at,
                                               category, tenant, recorded_by, salt, chain_hash, tags, n)) end; end"""


class Model:
    """What a transaction has appended and not rolled back, and the versions of streams."""

    def __init__(self, versions):
        self.committed, self.events, self.savepoints = versions, [], []

    def append(self, stream, kind, amount):
        version = self.committed.get(stream, 0) + sum(of == stream for of, *_ in self.events) + 1
        self.events.append((stream, version, kind, amount))

    def savepoint(self, name):
        self.savepoints.append((name, len(self.events)))

    def rollback_to(self, place):
        del self.events[self.savepoints[place][1] :], self.savepoints[place + 1 :]

    def release(self, place):
        del self.savepoints[place:]

    def judged(self):
        return [event for event in self.events if event[0].startswith("post")]

    def sums(self):
        return [sum(amount for *_, kind, amount in self.judged() if kind == wanted) for wanted in ("Debited", "Credited")]

    def commit(self):
        for stream, version, *_ in self.events:
            self.committed[stream] = version


def act(session, model, steps):
    """Takes the steps, in the database and in the model; what the commit says."""
    session.execute("begin")
    for step, *what in steps:
        if step == "append":
            session.execute("select es_append(%s, %s, %s)", (what[0], what[1], Jsonb({"amount": what[2]})))
            model.append(*what)
        elif step == "batch":
            session.execute("select es_append_streams(%s)", (Jsonb([{"stream": stream, "events": [{"type": kind, "payload": {"amount": amount}}]} for stream, kind, amount in what]),))
            for each in what:
                model.append(*each)
        elif step == "savepoint":
            session.execute(f"savepoint {what[0]}")
            model.savepoint(what[0])
        elif step == "fails":
            with pytest.raises(psycopg.Error):
                session.execute("select es_append('post-1', 'Debited', '{\"amount\": 1}'), 1 / 0")
            session.execute(f"rollback to {model.savepoints[what[0]][0]}")
            model.rollback_to(what[0])
        else:
            session.execute(f"{step} {model.savepoints[what[0]][0]}")
            (model.rollback_to if step == "rollback to" else model.release)(what[0])
    try:
        session.execute("commit")
    except psycopg.Error as error:
        return error.diag
    model.commit()
    return None


def random_steps(random):
    """Any order of calls, savepoints, rollbacks to them, releases and failures."""
    streams, steps, depth, names = ["post-1", "post-2", "post-3", "other-1"], [], 0, 0
    for _ in range(random.randint(1, 14)):
        chosen = random.choice(["append"] * 4 + ["batch", "savepoint", "rollback to", "release", "fails"])
        if chosen == "append":
            steps.append(("append", random.choice(streams), random.choice(["Debited", "Credited"]), random.randint(0, 2)))
        elif chosen == "batch":
            steps.append(("batch", *((stream, random.choice(["Debited", "Credited"]), random.randint(0, 2)) for stream in random.sample(streams, 2))))
        elif chosen == "savepoint":
            names += 1
            depth += 1
            steps.append(("savepoint", f"s{names}"))
        elif depth:
            place = random.randrange(depth)
            depth = place if chosen == "release" else place + 1
            steps.append((chosen, place))
    return steps


@pytest.mark.parametrize("seed", range(4))
def test_random_transactions_are_judged_as_a_model_says(session, seed):
    import random as randoms

    random = randoms.Random(seed)
    handler(session, SHOWS, name="shows")
    versions: dict = {}
    outcomes = {True: 0, False: 0}
    for number in range(40):
        session.execute(f"set default_transaction_isolation = '{random.choice(['read committed', 'repeatable read', 'serializable'])}'")
        steps = random_steps(random)
        # The handler that shows what it is given comes after the one that judges: first without that one.
        session.execute("set test.shows = on")
        session.execute("create or replace function balanced(events eventstream.event[]) returns text stable language sql as 'select null::text'")
        model = Model(dict(versions))
        said = act(session, model, steps)
        seen = " ".join(f"{stream}@{version}={amount}" for stream, version, _, amount in model.judged())
        assert (said.message_primary if said else None) == (f'invariant "shows" is broken: {seen}' if seen else None), (number, steps)
        if said is None:
            versions = model.committed
        session.execute("set test.shows = off")
        session.execute(BALANCED)
        model = Model(dict(versions))
        said = act(session, model, steps)
        debits, credits = model.sums()
        assert (said.message_primary if said else None) == (None if debits == credits else f'invariant "balanced" is broken: debits are {debits}, credits {credits}'), (number, steps)
        if said is None:
            versions = model.committed
        outcomes[said is None] += 1
    assert min(outcomes.values()) > 3
    assert dict(rows(session, "select stream, max(version) from eventstream.events where category in ('post', 'other') group by 1")) == versions
    assert verify(session) == []
