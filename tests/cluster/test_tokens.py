"""A session works in the tenant that its token names, and talks itself into no other (row S2 of the requirements). What a token must look like is crates/core's; here is what a session may try
that has one, or none: settings, roles, savepoints, cursors, kept plans, handlers, several statements at once."""

from __future__ import annotations

import contextlib
import json
import random
import re
import time

import psycopg
import pytest
from database import Database, rows, value
from minting import ISSUER, LEEWAY, MARKS, Bank, filled, keep_out, mint_token, refused, use
from psycopg.types.json import Jsonb
from server import PORT



@pytest.fixture
def bank(database):
    return filled(database)


def marks(session: psycopg.Connection, statement: str = "select payload ->> 'mark' from es_read('account-1')") -> set[str]:
    return {mark for (mark,) in rows(session, statement)}


CALLS = [
    "select es_append('account-1', 'Opened', '{}')",
    "select * from es_read('account-1')",
    "select * from es_read_all(0)",
    "table eventstream.events",
    "table eventstream.streams",
    "table eventstream.audit",
    "table eventstream.grants",
    "select es_use_tenant('bank')",
    "select es_log_info()",
    "select es_last_append()",
    "select es_horizon()",
    "select * from es_verify()",
    "select es_grant('web', 'admin', 'bank')",
    "select es_create_subscription('s')",
    "table eventstream.projections",
    "table eventstream.health",
    "select es_maintain()",
]


def test_without_a_token_nothing_is_had_whatever_the_session_says(bank):
    ways = [
        [],
        ["set eventstream.tenant = 'bank'"],
        ["begin", "set local eventstream.tenant = 'bank'"],
        ["begin", "select set_config('eventstream.tenant', 'bank', true)"],
        ["discard all"],
        ["set role web"],
        ["reset all"],
        ["reset role"],
    ]
    for way in ways:
        for call in CALLS:
            with bank.connect() as session:
                for statement in way:
                    session.execute(statement)
                with refused("ES042") as raised:
                    session.execute(call)
                assert "es_use_token" in raised.value.diag.message_hint


def test_the_token_chooses_and_nothing_else(bank):
    for tenant, mark in MARKS.items():
        other = "bank" if tenant == "acme" else "acme"
        with bank.connect() as session:
            session.execute(f"set eventstream.tenant = '{other}'")
            with session.transaction():
                assert use(session, bank.token(tenant)) == tenant
                assert marks(session) == {mark}
                session.execute(f"set local eventstream.tenant = '{other}'")
                assert marks(session) == {mark}
                assert marks(session, "select payload ->> 'mark' from eventstream.events") == {mark}
                assert value(session, "select distinct tenant from eventstream.streams") == tenant
                assert value(session, "select es_use_tenant(%s)", tenant) == tenant
            for call in [f"select es_use_tenant('{other}')", f"select es_add_token_key('k', '\\x00', '{other}', 'x')", f"select es_grant('web', 'read', '{other}')"]:
                with refused("ES044", "ES005", "42501"), session.transaction():
                    use(session, bank.token(tenant))
                    session.execute(call)
    with bank.connect() as session, refused("ES044"), session.transaction():
        use(session, bank.token("acme"))
        session.execute("select es_use_tenant('bank')")


def test_it_is_over_with_its_transaction(bank):
    warned = []
    with bank.connect() as session:
        session.add_notice_handler(lambda notice: warned.append(notice.sqlstate))
        assert use(session, bank.token()) == "acme"
        assert warned == ["25P01"], "by itself it has no effect, and says so"
        with refused("ES042"):
            session.execute("select * from es_read('account-1')")
        for end in ["commit", "rollback", "prepare transaction 'token'"]:
            session.execute("begin")
            use(session, bank.token())
            assert marks(session) == {MARKS["acme"]}
            with contextlib.suppress(psycopg.errors.ObjectNotInPrerequisiteState, psycopg.errors.FeatureNotSupported):
                session.execute(end)
            if session.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                session.execute("rollback")
            with refused("ES042"):
                session.execute("table eventstream.events")


def test_several_statements_in_one_query_are_one_transaction_and_the_next_query_is_another(bank):
    token = bank.token()
    with bank.connect() as session:
        heard = []
        session.add_notice_handler(heard.append)
        with session.pipeline():
            session.execute("select es_use_token(%s)", (token,))
            got = session.execute("select payload ->> 'mark' from es_read('account-1')")
        assert {mark for (mark,) in got} == {MARKS["acme"]} and heard == []
        with refused("ES042"):
            session.execute("select es_read('account-1'); select 1")
        with refused("ES042"):
            # Within one query an explicit COMMIT ends it as well.
            session.execute("begin; commit; select es_read('account-1')")


def test_a_savepoint_takes_it_back_and_the_tenant_stays(bank):
    with bank.connect() as session:
        session.execute("begin")
        session.execute("savepoint before")
        use(session, bank.token("acme"))
        session.execute("declare c cursor for select payload ->> 'mark' from eventstream.events")
        session.execute("rollback to before")
        session.execute("savepoint again")
        with refused("ES042"):
            session.execute("select es_read('account-1')")
        session.execute("rollback to again")
        # A cursor may have seen the first tenant: no other one comes behind it.
        with refused("ES044"):
            use(session, bank.token("bank"))
        session.execute("rollback to again")
        use(session, bank.token("acme"))
        assert marks(session) == {MARKS["acme"]}
        # Another one of the same tenant, until it is rolled back.
        session.execute("savepoint narrow")
        use(session, bank.token("acme", categories=["order"]))
        with refused("42501"):
            session.execute("select es_read('account-1')")
        session.execute("rollback to narrow")
        assert marks(session) == {MARKS["acme"]}
        session.execute("savepoint kept")
        use(session, bank.token("acme", categories=["order"]))
        session.execute("release kept")
        with refused("42501"):
            session.execute("select es_read('account-1')")
        session.execute("rollback")


def test_a_cursor_that_was_opened_before_a_savepoint_gives_nothing_once_the_token_is_taken_back(bank):
    with bank.connect() as session:
        session.execute("begin")
        session.execute("declare c cursor for select payload ->> 'mark' from eventstream.events order by global_position")
        session.execute("savepoint s")
        use(session, bank.token("acme"))
        assert value(session, "fetch 1 from c") == MARKS["acme"]
        session.execute("rollback to s")
        with refused("ES042", "34000", "55000"):
            session.execute("fetch 1 from c")


def test_a_second_tenant_waits_for_the_next_transaction(bank):
    with bank.connect() as session:
        with refused("ES044"), session.transaction():
            use(session, bank.token("acme"))
            use(session, bank.token("bank"))
        with session.transaction():
            use(session, bank.token("bank"))
            assert marks(session) == {MARKS["bank"]}


def test_no_role_leads_around_it(bank):
    bank.database.role("helper", "nologin")
    bank.database.role("front", "login noinherit")
    bank.database.role("boss", "superuser nologin")
    with bank.admin() as session:
        session.execute("grant web to front")
        session.execute("set role boss")
        session.execute("create schema code; grant usage on schema code to public")
        session.execute("create function code.definer() returns setof text language sql security definer as $$ select payload ->> 'mark' from eventstream.events $$")
        session.execute("create function code.chooser(t text) returns setof text language plpgsql security definer as "
                        "$$ begin perform es_use_tenant(t); return query select payload ->> 'mark' from eventstream.events; end $$")
        session.execute("create function code.setter(t text) returns setof text language sql security definer set eventstream.tenant = 'bank' as "
                        "$$ select payload ->> 'mark' from eventstream.events $$")
        session.execute("create function code.all_of_it() returns bigint language sql security definer as $$ select count(*) from es_verify() $$")
        session.execute("reset role")
    with bank.connect() as session:
        for call in ["code.definer()", "code.chooser('bank')", "code.setter('bank')", "code.all_of_it()"]:
            with refused("ES042"):
                session.execute(f"select {call}")
        with session.transaction():
            use(session, bank.token("acme"))
            assert marks(session, "select code.definer()") == {MARKS["acme"]}
            assert marks(session, "select code.setter('bank')") == {MARKS["acme"]}
            assert value(session, "select code.all_of_it()") == 0
        with refused("ES044"), session.transaction():
            use(session, bank.token("acme"))
            session.execute("select code.chooser('bank')")
    # The role of SET ROLE needs it where the session's user does not, and leaving the role does not take the tenant along.
    with bank.database.connect(user="front") as session:
        session.execute("set role web")
        with refused("ES042"):
            session.execute("table eventstream.events")
        with refused("ES042"):
            session.execute("select code.definer()")
        with session.transaction():
            session.execute("set local role web")
            use(session, bank.token("acme"))
            assert marks(session) == {MARKS["acme"]}
            session.execute("reset role")
            with refused("42501"), session.transaction():
                session.execute("table eventstream.events")
            assert marks(session, "select code.setter('bank')") == {MARKS["acme"]}
    # A function of the role's asks for the token of whoever calls it.
    with bank.admin() as session:
        session.execute("create function code.of_web() returns setof text language sql security definer as $$ select payload ->> 'mark' from eventstream.events $$")
        session.execute("alter function code.of_web() owner to web")
        with refused("ES042"):
            session.execute("select code.of_web()")
        with session.transaction():
            use(session, bank.token("bank"))
            assert marks(session, "select code.of_web()") == {MARKS["bank"]}


def test_the_session_s_user_who_brought_it_has_it_alone(bank):
    bank.database.role("second")
    with bank.admin() as session:
        session.execute("select es_grant('second', 'read', 'acme')")
        session.execute("select es_require_token('second')")
        with session.transaction():
            session.execute("set local session authorization web")
            use(session, bank.token("acme"))
            assert marks(session) == {MARKS["acme"]}
            session.execute("set local session authorization second")
            with refused("ES042"), session.transaction():
                session.execute("select es_read('account-1')")


def test_prepared_statements_and_kept_plans_show_the_tenant_of_each_token(bank):
    with bank.admin() as session:
        session.execute("create schema code; grant usage on schema code to public")
        session.execute("create function code.kept() returns text language plpgsql as "
                        "$$ begin return (select string_agg(distinct payload ->> 'mark', ',') from eventstream.events); end $$")
        session.execute("create function code.read() returns text language plpgsql as "
                        "$$ begin return (select string_agg(distinct payload ->> 'mark', ',') from es_read('account-1')); end $$")
    for mode in ["auto", "force_generic_plan", "force_custom_plan"]:
        with bank.connect() as session:
            session.execute(f"set plan_cache_mode = {mode}")
            session.execute("prepare p (int) as select distinct payload ->> 'mark' from eventstream.events where (payload ->> 'n')::int >= $1")
            for number in range(14):
                tenant = ("acme", "bank")[number % 2]
                with session.transaction():
                    use(session, bank.token(tenant))
                    assert marks(session, "execute p (1)") == {MARKS[tenant]}
                    assert marks(session, "select code.kept()") == marks(session, "select code.read()") == {MARKS[tenant]}
            with refused("ES042"):
                session.execute("execute p (1)")


def test_a_cursor_ends_with_its_token(bank):
    with bank.connect() as session, refused("ES042"), session.transaction():
        use(session, bank.dying("acme"))
        session.execute("declare c cursor for select payload ->> 'mark' from eventstream.events")
        session.execute("declare d cursor for select payload ->> 'mark' from es_read('account-1')")
        session.execute("declare e cursor for select payload ->> 'mark' from eventstream.events")
        assert {value(session, f"fetch 1 from {cursor}") for cursor in "cde"} == {MARKS["acme"]}
        time.sleep(3)
        for statement in ["fetch 1 from c", "fetch 1 from d", "move 1 in e", "select es_read('account-1')", "table eventstream.streams", "select es_append('account-1', 'Opened', '{}')"]:
            with refused("ES042") as raised, session.transaction():
                session.execute(statement)
            assert "does not count any more" in str(raised.value)
        session.execute("select es_horizon()")


def test_a_portal_and_a_loop_end_with_their_token(bank):
    with bank.connect() as session, refused("ES042"), session.transaction():
        use(session, bank.dying("acme"))
        session.execute("do $$ declare r record; begin for r in select * from eventstream.events, generate_series(1, 100) loop perform pg_sleep(0.05); end loop; end $$")
    # What a client executes in portions.
    with bank.connect() as session, refused("ES042"), session.transaction():
        use(session, bank.dying("acme"))
        with session.cursor(name="portions") as cursor:
            cursor.itersize = 1
            cursor.execute("select payload from eventstream.events")
            for _ in cursor:
                time.sleep(1.5)


def test_a_held_cursor_outlives_no_token(bank):
    with bank.connect() as session:
        with refused("0A000"), session.transaction():
            use(session, bank.token())
            session.execute("declare c cursor with hold for select payload ->> 'mark' from eventstream.events")
        with refused("0A000"):
            session.execute("declare c cursor with hold for select payload ->> 'mark' from eventstream.events")
        with refused("0A000"), session.transaction():
            use(session, bank.token())
            session.execute("do $$ begin execute 'declare c cursor with hold for select 1'; end $$")
    # Declared before the token, by a role that needs none, over what asks for one when the commit runs it.
    bank.database.role("front", "login noinherit")
    with bank.admin() as session:
        keep_out(session)
        session.execute("grant web to front; create schema code; grant usage on schema code to public")
        session.execute("create function code.of_web() returns setof text language sql security definer as $$ select payload ->> 'mark' from eventstream.events $$")
        session.execute("alter function code.of_web() owner to web")
    with bank.database.connect(user="front") as session:
        with refused("0A000"), session.transaction():
            session.execute("declare c cursor with hold for select code.of_web()")
            use(session, bank.token())
        with refused("ES042"):
            # Without one, its commit fails.
            session.execute("begin; declare c cursor with hold for select code.of_web(); commit")


def test_what_a_session_appended_last_is_told_within_its_tenant(bank):
    with bank.connect() as session:
        with session.transaction():
            use(session, bank.token("acme"))
            session.execute("select es_append('secret-name', 'Opened', '{}')")
            assert value(session, "select stream from es_last_append()") == "secret-name"
        with session.transaction():
            use(session, bank.token("bank"))
            assert value(session, "select stream from es_last_append()") is None
        with session.transaction():
            use(session, bank.token("acme"))
            assert value(session, "select stream from es_last_append()") == "secret-name"
        with refused("ES042"):
            session.execute("select es_last_append()")


def test_temporal_views_and_states_are_the_token_s(bank):
    for tenant in MARKS:
        with bank.admin(tenant) as session:
            session.execute("""select es_register_fold('mark', 'account', rules => '{"on": {"Opened": [{"set": {"/mark": "/mark"}}]}}')""")
    with bank.admin("acme") as session:
        session.execute("""select es_create_temporal_view('marks', 'account', columns => '[{"name": "mark", "type": "text", "path": "/mark"}]')""")
        session.execute("grant select on marks to public; grant execute on all functions in schema public to public")
    with bank.connect() as session:
        session.execute("set plan_cache_mode = force_generic_plan")
        for number in range(8):
            tenant = ("acme", "bank")[number % 2]
            with session.transaction():
                use(session, bank.token(tenant))
                assert marks(session, "select mark from marks") == {MARKS[tenant]}
                assert value(session, "select es_state('account-1') ->> 'mark'") == MARKS[tenant]
        with refused("ES042"):
            session.execute("table marks")


def test_handlers_need_none_and_choose_no_other_tenant(bank):
    with bank.admin("acme") as session:
        session.execute("create table public.seen (mark text, tenant text); grant insert, select on seen to web")
        session.execute("create function public.see(event eventstream.event) returns void language plpgsql as $$ begin "
                        "insert into public.seen values (event.payload ->> 'mark', (select string_agg(distinct tenant, ',') from eventstream.streams)); end $$")
        session.execute("create function public.stray(event eventstream.event) returns void language plpgsql as $$ begin "
                        "perform set_config('eventstream.tenant', 'bank', true); "
                        "insert into public.seen values ('stray', (select string_agg(distinct tenant, ',') from eventstream.streams)); end $$")
        session.execute("create function public.flee(event eventstream.event) returns void language plpgsql as $$ begin perform es_use_tenant('bank'); end $$")
    with bank.connect() as session:
        with session.transaction():
            use(session, bank.token("acme"))
            session.execute("select es_create_projection('see', 'public.see(eventstream.event)', mode => 'inline', after_position => (select last_position from es_log_info()))")
            session.execute("select es_create_projection('stray', 'public.stray(eventstream.event)', mode => 'inline', after_position => (select last_position from es_log_info()))")
        # The token narrows what the caller may do, and not what the registrant may.
        with session.transaction():
            use(session, bank.token("acme", privileges=["append"]))
            session.execute("select es_append('account-1', 'Opened', %s)", (Jsonb({"mark": "new"}),))
    with bank.admin("acme") as session:
        assert rows(session, "select * from public.seen order by 1") == [("new", "acme"), ("stray", "acme")]
        session.execute("select es_drop_projection('see'), es_drop_projection('stray')")
    with bank.connect() as session, refused("ES044"), session.transaction():
        use(session, bank.token("acme"))
        session.execute("select es_create_projection('flee', 'public.flee(eventstream.event)', mode => 'inline', after_position => (select last_position from es_log_info()))")
        session.execute("select es_append('account-1', 'Opened', '{}')")


def test_workers_and_scheduled_commands_act_in_their_tenant(bank):
    with bank.admin("acme") as session:
        session.execute("create table public.seen (tenant text); grant insert, select on seen to web")
        session.execute("create function public.see(event eventstream.event) returns void language plpgsql as $$ begin "
                        "insert into public.seen select distinct tenant from eventstream.streams; end $$")
        session.execute("""select es_register_fold('mark', 'account', rules => '{"on": {}}')""")
        session.execute("create function public.decide(state jsonb, command eventstream.command) returns jsonb language sql stable as "
                        """$$ select jsonb_build_array(jsonb_build_object('type', 'Decided', 'payload', jsonb_build_object('mark', (select string_agg(distinct tenant, ',') from eventstream.streams)))) $$""")
    with bank.connect() as session, session.transaction():
        use(session, bank.token("acme"))
        session.execute("select es_create_projection('see', 'public.see(eventstream.event)')")
        session.execute("""select es_register_decider('decide', 'account', 'public.decide(jsonb, eventstream.command)', commands => '{"Do": {}}')""")
        session.execute("select es_command('account-9', 'Do', '{}')")
        assert value(session, "select payload ->> 'mark' from es_read('account-9')") == "acme"
        session.execute("select es_schedule_command('account-10', 'Do', '{}', clock_timestamp(), command_key => 'k-1')")
    with bank.admin("acme") as session:
        for _ in range(200):
            decided = value(session, "select payload ->> 'mark' from es_read('account-10')")
            if decided and value(session, "select count(*) from public.seen"):
                break
            time.sleep(0.1)
        assert decided == "acme" and value(session, "select string_agg(distinct tenant, ',') from public.seen") == "acme"
        assert value(session, "select metadata ->> 'actor' from es_read('account-10')") == "clerk-7"


def test_what_was_appended_in_time_is_judged_when_the_token_is_over(bank):
    with bank.admin("acme") as session:
        session.execute("create function public.judge(events eventstream.event[]) returns text language plpgsql stable as $$ "
                        "declare tenants text; r record; begin select string_agg(distinct tenant, ',') into tenants from eventstream.streams; "
                        "for r in select * from es_read('account-1'), generate_series(1, 100) loop null; end loop; "
                        "if tenants <> 'acme' then return 'sees ' || tenants; end if; return null; end $$")
        session.execute("select es_register_invariant('judge', '{account}', 'public.judge(eventstream.event[])')")
        session.execute("alter function public.judge(eventstream.event[]) owner to postgres")
    with bank.connect() as session:
        session.execute("begin")
        use(session, bank.dying("acme"))
        session.execute("select es_append('account-1', 'Opened', '{}')")
        time.sleep(3)
        session.execute("commit")
    with bank.admin("acme") as session:
        assert value(session, "select max(version) from es_read('account-1')") == 4


def test_a_standby_asks_for_a_token_and_takes_one(new_server):
    primary = new_server("tokens")
    made = Bank(Database(primary, "books").create())
    with made.connect() as session, session.transaction():
        use(session, made.token())
        session.execute("select es_append('account-1', 'Opened', '{\"mark\": \"x\"}')")
    standby = new_server.adopt(primary.make_standby("tokens_standby"))
    with standby.connect("books", made.role) as session:
        with refused("ES042"):
            session.execute("table eventstream.events")
        with session.transaction():
            use(session, made.token())
            assert marks(session) == {"x"}
        with refused("ES043"), session.transaction():
            use(session, made.token("acme", key=made.keys["bank"]))


def test_who_acts_is_who_the_token_names(bank):
    with bank.connect() as session, session.transaction():
        session.execute("""set local eventstream.metadata = '{"actor": "pool", "ticket": "T-1"}'""")
        use(session, bank.token("acme", sub="clerk-8"))
        session.execute("select es_append('actor-1', 'Opened', '{}')")
        session.execute("""select es_append('actor-1', 'Opened', '{}', metadata => '{"actor": "mallory", "more": 1.10}')""")
        session.execute("""select es_append_events('actor-1', '[{"type": "Opened", "payload": {}, "metadata": {"actor": "eve"}}]')""")
        session.execute("select es_close_stream('actor-1', 'done')")
        found = rows(session, "select metadata::text from es_read('actor-1') order by version")
        assert {json.loads(metadata)["actor"] for (metadata,) in found} == {"clerk-8"}
        assert json.loads(found[1][0])["ticket"] == "T-1" and '"more": 1.10' in found[1][0]
        session.execute("select es_create_subscription('s')")
    with bank.admin("acme") as session:
        act = value(session, "select metadata ->> 'actor' from eventstream.administration where event_type = 'SubscriptionCreated'")
        assert act == "clerk-8"


def test_a_token_narrows_and_never_widens(bank):
    with bank.connect() as session:
        with session.transaction():
            use(session, bank.token("acme", privileges=["read"], categories=["account"]))
            assert marks(session) == marks(session, "select payload ->> 'mark' from eventstream.events") == {MARKS["acme"]}
            for call in ["es_append('account-1', 'Opened', '{}')", "es_read('order-1')", "es_create_subscription('s')"]:
                with refused("42501"), session.transaction():
                    session.execute(f"select {call}")
        with session.transaction():
            use(session, bank.token("acme", categories=["order"]))
            session.execute("select es_append('order-1', 'Opened', '{}')")
            assert rows(session, "select stream from eventstream.events") == [("order-1",)]
            with refused("42501"), session.transaction():
                session.execute("table eventstream.audit")
        with session.transaction():
            use(session, bank.token("acme", categories=["order"]))
            assert rows(session, "select stream from es_read_all(0)") == [("order-1",)]
        with refused("42501"), session.transaction():
            # What the role was not granted, no token gives.
            use(session, bank.token("acme", privileges=["admin"]))
            session.execute("select es_grant('web', 'admin')")


def test_what_a_token_leaves_out_is_not_said_to_lack_a_grant(bank):
    """Whoever follows the hint gets on: what the role has needs no grant, what it lacks does; a function, a view, a narrowed and a wrong category."""
    left_out = [
        ({"privileges": ["read"]}, "select es_append('account-1', 'Opened', '{}')", "append", "account"),
        ({"privileges": ["append"]}, "select * from es_read('account-1')", "read", "account"),
        ({"privileges": ["append"]}, "table eventstream.events", "read", None),
        ({"categories": ["acount"]}, "select es_append('account-1', 'Opened', '{}')", "append", "account"),
        ({"categories": ["account"]}, "table eventstream.audit", "audit", None),
        ({"categories": ["account"]}, "select es_create_subscription('s')", "manage", None),
        ({"privileges": ["manage", "read"]}, "table eventstream.projections", "manage", None),
    ]
    with bank.connect() as session:
        for narrowing, statement, privilege, category in left_out:
            with refused("42501") as raised, session.transaction():
                use(session, bank.token("acme", **narrowing))
                session.execute(statement)
            diag = raised.value.diag
            assert diag.message_primary.startswith(f'the token of this transaction leaves out the privilege "{privilege}" of role "web" in tenant "acme"'), diag.message_primary
            assert json.loads(diag.message_detail) == {"role": "web", "privilege": privilege, "tenant": "acme", "category": category}
            assert "es_grant" not in diag.message_hint and "new transaction" in diag.message_hint
        with refused("42501") as raised, session.transaction():
            use(session, bank.token("acme", privileges=["reveal"]))
            session.execute("select es_reveal('account-1', 'T-1')")
        assert raised.value.diag.message_primary == 'role "web" lacks the privilege "reveal" in tenant "acme" for category "account"'
        assert "es_grant" in raised.value.diag.message_hint
        with session.transaction():
            # Whoever may not read is not told what a fold says, and appends as ever.
            use(session, bank.token("acme", privileges=["append"]))
            session.execute("select es_append('account-1', 'Opened', '{}')")
    with bank.admin() as session:
        session.execute("select es_register_fold('f', 'account', rules => '{\"on\": {\"Opened\": []}, \"otherwise\": \"error\"}', initial_state => '{}'), es_alter_category('account', '{\"foldable\": \"required\"}')")
    with bank.connect() as session:
        with session.transaction():
            use(session, bank.token("acme", privileges=["append"]))
            session.execute("select es_append('account-1', 'Opened', '{}')")
        with refused("ES017") as raised, session.transaction():
            use(session, bank.token("acme", privileges=["append"]))
            session.execute("select es_append('account-1', 'Other', '{}')")


def log_of(bank) -> str:
    return bank.database.server.log.read_text(errors="replace")


def test_a_refused_token_says_nothing_and_the_log_says_why(bank):
    audience, now = bank.audience, int(time.time())
    log_id, incarnation = audience.split("/")
    stranger = mint_token.new_key()
    cases = [
        (bank.token("acme", key=bank.keys["bank"]), "its signature is none of the key that it names"),
        (bank.token("acme", key=stranger), "its signature is none of the key that it names"),
        (bank.token("acme", kid="k2"), "no key of that kid is registered for the tenant that it names"),
        (bank.token("nowhere", key=bank.keys["acme"]), "no key of that kid is registered for the tenant that it names"),
        (bank.token("default", key=bank.keys["acme"]), "no key of that kid is registered for the tenant that it names"),
        (bank.token("bank", key=bank.keys["acme"]), "its signature is none of the key that it names"),
        (bank.token("acme", iss="https://evil.example.org"), "its iss must be the issuer that its key was registered for"),
        (bank.token("acme", aud=log_id), "its aud must be this log"),
        (bank.token("acme", aud=f"{log_id}/{int(incarnation) + 1}"), "its aud must be this log"),
        (bank.token("acme", iat=now - 100, exp=now - LEEWAY - 5), "it expired"),
        (bank.token("acme", iat=now + LEEWAY + 60, exp=now + LEEWAY + 100), "it counts only in"),
        (bank.token("acme", lifetime=901), "more than eventstream.token_max_lifetime allows (900 s)"),
        (bank.token("acme", sub=None), "its sub must not be missing"),
        (mint_token.signed(bank.keys["acme"], '{"alg": "none", "typ": "eventstream+jwt", "kid": "k1"}', "{}"), "its alg must be EdDSA"),
        ("x" * 9000, "it is longer than 8192 bytes"),
        ("", "it does not have three parts"),
    ]
    with bank.connect() as session:
        told = []
        session.add_notice_handler(lambda notice: told.append(notice.message_primary))
        session.execute("set client_min_messages = debug5")
        words = set()
        for token, reason in cases:
            told.clear()
            before = len(log_of(bank))
            with refused("ES043") as raised, session.transaction():
                use(session, token)
            words.add((raised.value.diag.message_primary, raised.value.diag.message_detail, raised.value.diag.message_hint))
            assert not [line for line in told if "refused:" in line], told
            said = log_of(bank)[before:]
            assert reason in said, reason
            if "kid" in reason or "signature" in reason:
                # By which key to look for, and of whom.
                assert re.search(r'of key "k\d" and tenant "\w+", is refused: ', said), said
            with refused("ES042"):
                session.execute("select es_read('account-1')")
        assert len(words) == 1, "all refusals read the same"


def test_a_key_that_is_revoked_counts_no_more_also_where_it_is_in_use(bank):
    token = bank.token("acme")
    with bank.connect() as session:
        session.execute("begin")
        use(session, token)
        assert marks(session) == {MARKS["acme"]}
        with bank.admin("acme") as admin:
            admin.execute("select es_revoke_token_key('k1')")
        with refused("ES042"):
            session.execute("select es_read('account-1')")
        session.execute("rollback")
        with refused("ES043"), session.transaction():
            use(session, token)
        # The other tenant's of that name is another one.
        with session.transaction():
            use(session, bank.token("bank"))
        with bank.admin("acme") as admin:
            admin.execute("select es_add_token_key('k1', %s, 'acme', %s)", (mint_token.public(bank.keys["bank"]), ISSUER))
        with refused("ES043"), session.transaction():
            use(session, token)


def test_a_token_in_a_statement_s_text_is_refused_and_hidden(bank):
    token = bank.token("acme")
    statements = [
        f"select es_use_token('{token}')",
        f"do $$ begin perform es_use_token('{token}'); end $$",
        f"select 1; select es_use_token('{token}')",
    ]
    with bank.admin() as admin:
        admin.execute("alter role web set track_activities = on")
    with bank.connect() as session, bank.admin() as watcher:
        session.execute("prepare p (text) as select es_use_token($1)")
        for statement in [*statements, f"execute p ('{token}')"]:
            with refused("ES005") as raised:
                session.execute(statement)
            assert "bound as a parameter" in str(raised.value)
            shown = value(watcher, "select query from pg_stat_activity where pid = %s", session.info.backend_pid)
            assert token not in shown and "es_use_token" in shown
    assert token not in log_of(bank)


ROLES = [
    ("superuser login", None, "is a superuser"),
    ("createrole login", None, "has CREATEROLE"),
    ("createdb login", None, "has CREATEDB"),
    ("login", 'grant temp on database "{database}" to "{role}"', "has TEMP on database"),
    ("login", 'grant create on database "{database}" to "{role}"', "has CREATE on database"),
    ("login", 'create schema own; grant create on schema own to "{role}"', "has CREATE on schema own"),
    ("login", 'create table public.own (); alter table own owner to "{role}"', "owns table public.own"),
    ("login", 'grant pg_monitor to "{role}"', "is a member of pg_monitor, which needs no token"),
    ("replication login", None, "has REPLICATION"),
    ("bypassrls login", None, "has BYPASSRLS"),
    ("login", 'create schema own authorization "{role}"', "owns schema own"),
    ("login", 'create function public.own() returns int language sql as \'select 1\'; alter function own() owner to "{role}"', "owns function public.own()"),
    ("login", 'create type public.own as (n int); alter type own owner to "{role}"', "owns type public.own"),
    ("login", 'select lo_create(4711); alter large object 4711 owner to "{role}"', "owns large object 4711"),
    ("login", 'grant create on tablespace pg_default to "{role}"', "has CREATE on tablespace pg_default"),
    ("login", 'grant set on parameter log_statement to "{role}"', "may SET parameter log_statement"),
    ("login", 'grant alter system on parameter eventstream.token_max_lifetime to "{role}"', 'may ALTER SYSTEM SET parameter "eventstream.token_max_lifetime"'),
]


@pytest.mark.parametrize(("attributes", "statement", "fault"), ROLES)
def test_a_role_that_could_leave_something_behind_is_not_let_in(bank, attributes, statement, fault):
    role = bank.database.role("loose", attributes)
    with bank.admin() as session:
        if statement:
            session.execute(statement.format(database=bank.database.name, role=role))
        with refused("ES005") as raised:
            session.execute("select es_require_token('loose')")
        assert fault in str(raised.value), raised.value
        hint = raised.value.diag.message_hint
        if "superuser" in attributes:
            # It may be the only one.
            assert "alter role" not in hint and "create role" in hint, hint
        else:
            assert hint.startswith("Take that from it first: "), hint
        assert ("other roles lose" in hint) == ("from public" in hint), hint
        assert empty_statements(session, role) == []
        session.execute('drop owned by "loose"')


def empty_statements(session: psycopg.Connection, role: str) -> list[str]:
    """What the role has for which nobody is told how to take it away."""
    return [what for what, statement in rows(session, "select what, statement from _eventstream.token_role_faults(%s::regrole, true)", role) if not statement]


def test_what_it_has_in_another_database_is_said_with_where_to_take_it_away(bank):
    role = bank.database.role("elsewhere", "login")
    other = Database(bank.database.server, "elsewhere").create()
    with other.connect() as there, bank.admin() as session:
        there.execute(f"create schema own authorization {role}")
        with refused("ES005") as raised:
            session.execute("select es_require_token(%s)", (role,))
        assert f"owns objects in database {other.name}" in str(raised.value)
        hint = raised.value.diag.message_hint
        assert hint == f"Take that from it first: -- in a session of database {other.name}:\nreassign owned by {role} to current_user;"
        assert empty_statements(session, role) == []
        there.execute(hint.removeprefix("Take that from it first: "))
        session.execute("select es_require_token(%s)", (role,))
        there.execute(f"create schema another authorization {role}")
        ((_, status, detail, fix),) = [row for row in health(session) if row[0] == f"token role {role}" and row[1] == "critical"]
        assert other.name in detail and other.name in fix
        there.execute(fix)
        assert [row for row in health(session) if row[1] == "critical"] == []
        session.execute("select es_require_token(%s, required => false)", (role,))
    other.drop()


def test_such_a_role_sets_nothing_for_the_whole_server(bank):
    with bank.admin() as session:
        session.execute("grant alter system on parameter log_statement to web with grant option")
        assert [row[0] for row in health(session) if row[1] == "critical"] == ["token role web"]
    with bank.connect() as session:
        for statement in ("alter system set log_statement = 'all'", "alter system reset all", "grant set on parameter log_statement to public", "revoke set on parameter log_statement from public"):
            with refused("0A000") as raised:
                session.execute(statement)
            assert "where a token is needed" in str(raised.value)
    with bank.admin() as session:
        session.execute("revoke alter system on parameter log_statement from web")
        session.execute("alter system set log_statement = 'none'")
        session.execute("alter system reset log_statement")


def test_a_group_that_needs_one_may_be_a_role_s(bank):
    for role in ("group_of_web", "member_of_web"):
        bank.database.role(role)
    with bank.admin() as session:
        session.execute("grant group_of_web to member_of_web")
        with refused("ES005"):
            session.execute("select es_require_token('member_of_web')")
        session.execute("select es_require_token('group_of_web')")
        assert value(session, "select es_require_token('member_of_web')") == "member_of_web needs a token"
        assert value(session, "select es_require_token('member_of_web')") == "member_of_web needs a token"
        settings = "select count(*) from pg_db_role_setting s join pg_roles r on r.oid = s.setrole where r.rolname = 'member_of_web' and s.setconfig @> '{track_activities=off}'"
        assert value(session, settings) == 1
        assert value(session, "select es_require_token('member_of_web', required => false)") == "member_of_web needs no token"
        assert value(session, settings) == 0
        with refused("ES005"):
            session.execute("select es_require_token('member_of_web', required => false)")
        with refused("ES005"):
            session.execute("select es_require_token('nobody_there')")


def test_only_who_may_everything_says_who_needs_one(bank):
    bank.database.role("tenants_admin")
    with bank.admin() as session:
        session.execute("select es_grant('tenants_admin', 'admin', 'acme')")
    with bank.database.connect(user="tenants_admin") as session:
        for call in ["es_require_token('web', required => false)", "es_require_token('tenants_admin')"]:
            with refused("42501"):
                session.execute(f"select {call}")
        with refused("42501"):
            session.execute("select es_add_token_key('k9', %s, 'bank', %s)", (mint_token.public(bank.keys["bank"]), ISSUER))
        session.execute("select es_add_token_key('k9', %s, null, %s)", (mint_token.public(bank.keys["bank"]), ISSUER))
    with bank.connect() as session, session.transaction():
        use(session, bank.token("acme", kid="k9", key=bank.keys["bank"]))
        with refused("42501"):
            session.execute("select es_require_token('web', required => false)")


def noticed(session: psycopg.Connection) -> list[str]:
    heard: list[str] = []
    session.add_notice_handler(lambda notice: heard.append(notice.message_primary))
    return heard


def test_a_key_that_is_another_tenants_too_is_named_to_who_may_see_it(bank):
    bank.database.role("keys_admin")
    key = mint_token.public(bank.keys["bank"])
    add = "select es_add_token_key(%s, %s, %s, %s)"
    with bank.admin() as session:
        notices = noticed(session)
        session.execute(add, ("k7", key, "acme", ISSUER))
        assert notices == ['key "k7" is registered for tenant "bank", too: whoever has its private half makes tokens of each']
        notices.clear()
        # Another key of the tenant's own is nobody else's.
        session.execute(add, ("k8", mint_token.public(mint_token.new_key()), "acme", ISSUER))
        session.execute(add, ("k9", key, "default", ISSUER))
        assert notices == ['key "k9" is registered for tenants "acme", "bank", too: whoever has its private half makes tokens of each']
        session.execute("select es_grant('keys_admin', 'admin', 'acme')")
    with bank.database.connect(user="keys_admin") as session:
        notices = noticed(session)
        session.execute(add, ("k10", key, None, ISSUER))
        assert notices == []


def test_a_role_is_followed_when_it_is_renamed_and_its_namesake_is_another(bank):
    with bank.admin() as session:
        session.execute("alter role web rename to web_two")
    bank.database.roles[bank.database.roles.index("web")] = "web_two"
    with bank.database.connect(user="web_two") as session:
        with refused("ES042"):
            session.execute("table eventstream.events")
        with session.transaction():
            use(session, bank.token())
            assert marks(session) == {MARKS["acme"]}
    bank.database.role("web")
    with bank.database.connect(user="web") as session, refused("42501"):
        session.execute("table eventstream.events")


def test_acts_of_tokens_are_kept_and_the_books_agree(bank):
    with bank.admin("acme") as session:
        session.execute("select es_revoke_token_key('k1')")
        told = rows(session, "select event_type, payload -> 'after' ->> 'kid' from eventstream.administration where event_type ~ 'Token' order by version")
        assert told == [("TokenKeyAdded", "k1"), ("TokenKeyRevoked", None)]
        session.execute("set eventstream.tenant = 'default'")
        assert rows(session, "select event_type, payload -> 'after' ->> 'privilege' from eventstream.administration where event_type ~ 'Token'") == [("TokenRoleGranted", "token")]
        assert rows(session, "select * from es_verify_audit()") == []


def test_who_needs_none_may_use_one_and_is_held_to_it(bank):
    with bank.admin("bank") as session:
        with session.transaction():
            use(session, bank.token("acme"))
            assert marks(session) == {MARKS["acme"]}
            assert {tenant for (tenant,) in rows(session, "select tenant from es_chain_heads()")} == {"acme"}
        assert marks(session) == {MARKS["bank"]}


def test_every_tenant_is_granted_to_roles_that_need_a_token_only(bank):
    bank.database.role("plain")
    bank.database.role("token_role")
    with bank.admin("acme") as session:
        for role in ("plain", "token_role", "public"):
            with refused("ES005"):
                session.execute("select es_grant(%s, 'read', '*')", (role,))
        session.execute("select es_require_token('token_role')")
        assert value(session, "select es_grant('token_role', 'read', '*')") == "granted read in tenant * to token_role"
        session.execute("select es_grant('token_role', 'append', '*', category => 'order')")
        shown = rows(session, "select role, privilege, category from eventstream.grants where tenant = '*' and role = 'token_role' order by 2, 3")
        assert shown == [("token_role", "append", "order"), ("token_role", "read", None), ("token_role", "token", None)]
        with refused("ES005") as raised:
            session.execute("select es_require_token('token_role', required => false)")
        assert "es_revoke" in raised.value.diag.message_hint
        # Who has its rights by membership has these only with a token.
        session.execute("grant token_role to plain")
    with bank.database.connect(user="token_role") as session:
        for tenant, mark in MARKS.items():
            with session.transaction():
                use(session, bank.token(tenant))
                assert marks(session) == {mark}
                session.execute("select es_append('order-1', 'Opened', '{}')")
                with refused("42501"), session.transaction():
                    session.execute("select es_append('account-1', 'Opened', '{}')")
        with refused("ES042"):
            session.execute("table eventstream.events")
    with bank.database.connect(user="plain") as session:
        for way in ["select 1", "set eventstream.tenant = 'acme'", "set eventstream.tenant = 'bank'"]:
            session.execute(way)
            with refused("42501"):
                session.execute("table eventstream.events")
    with bank.database.connect(user="plain") as session, refused("42501"), session.transaction():
        session.execute("select es_grant('token_role', 'admin', '*')")
    with bank.admin("acme") as session:
        session.execute("select es_create_tenant('later')")
        session.execute("select es_add_token_key('k1', %s, 'later', %s)", (mint_token.public(bank.keys["acme"]), ISSUER))
    with bank.database.connect(user="token_role") as session, session.transaction():
        assert use(session, bank.token("later", key=bank.keys["acme"])) == "later"
        session.execute("select es_append('order-1', 'Opened', '{}')")
    with bank.admin("acme") as session:
        session.execute("select es_revoke('token_role', 'read', '*'), es_revoke('token_role', 'append', '*', 'order')")
        with refused("ES005"):
            session.execute("select es_revoke('token_role', 'read', '*')")
        session.execute("select es_require_token('token_role', required => false)")
        session.execute("set eventstream.tenant = 'default'")
        assert rows(session, "select * from es_verify_audit()") == []
    with bank.database.connect(user="token_role") as session, refused("42501"):
        session.execute("table eventstream.events")


def health(session: psycopg.Connection) -> list[tuple]:
    return rows(session, "select name, status, detail, fix from eventstream.health where name ~ '^token' order by 1, 2, 3")


def test_health_goes_on_looking_at_what_the_roles_have(bank):
    bank.database.role("group_of_web", "nologin")
    with bank.admin() as session:
        keep_out(session)
        assert [row[:2] for row in health(session)] == [("tokens", "ok")]
        for statement, fault in [
            (f'grant temp on database "{bank.database.name}" to web', "has TEMP on database"),
            ("create schema own; grant create on schema own to public", "has CREATE on schema own"),
            ("create table public.own (); alter table public.own owner to web", "owns table public.own"),
            ("grant group_of_web to web", "is a member of group_of_web, which needs no token"),
            ("alter role web createdb", "has CREATEDB"),
            ("grant set on parameter log_statement to public", "may SET parameter log_statement"),
            ("grant alter system on parameter log_statement to web", "may ALTER SYSTEM SET parameter log_statement"),
            ("alter role web reset track_activities", "pg_stat_activity shows what"),
        ]:
            session.execute(statement)
            ((name, status, detail, fix),) = health(session)
            assert name == "token role web" and status in ("critical", "warning") and fault in detail
            session.execute(fix)
            assert [row[:2] for row in health(session)] == [("tokens", "ok")], fault


def test_health_names_what_is_had_without_a_token(bank):
    """Tables and members: what a token does not hold. Settings: what each transaction begins with."""
    bank.database.role("front", "login noinherit")
    with bank.admin() as session:
        keep_out(session)
        assert rows(session, "select name from eventstream.health where name ~ 'of role'") == []
        session.execute("""select es_register_fold('ledger', 'account', rules => '{"on": {"Opened": [{"set": {"/mark": "/mark"}}]}}', initial_state => '{}')""")
        session.execute("""select es_create_state_table('marks', 'account', '[{"name": "mark", "type": "text", "path": "/mark"}]')""")
        for statement, problem, named in [
            ("grant select on marks to web", "may read state tables", "public.marks of tenant acme"),
            ("grant select (mark) on marks to public", "may read state tables", "public.marks of tenant acme"),
            ("alter role front inherit; grant web to front", "is had without one by front", "front"),
        ]:
            session.execute(statement)
            ((name, status, detail, fix),) = health(session)
            assert (name, status) == ("token role web", "warning") and problem in detail and named in detail
            session.execute(fix)
            assert [row[:2] for row in health(session)] == [("tokens", "ok")], statement
        # Whoever works for one tenant alone may have its table, and who needs one may be a member.
        session.execute("grant select on marks to web; grant web to front")
        for privilege in ("read", "append", "command", "consume", "manage", "audit"):
            session.execute(f"select es_revoke('web', '{privilege}', 'bank')")
        session.execute("revoke web from front")
        assert [row[:2] for row in health(session)] == [("tokens", "ok")]
        session.execute("alter role web set statement_timeout = '5s'")
        ((status, detail),) = rows(session, "select status, detail from eventstream.health where name = 'settings of role web'")
        assert status == "ok" and detail.endswith("by who administers the database, or by the role itself before it needed one") and "statement_timeout=5s" in detail


def test_under_a_token_nothing_is_told_of_what_other_tenants_do(bank):
    """Health, tasks and whatever else counts."""
    told = "select name, tenant, detail from eventstream.health"
    with bank.admin() as admin:
        names = {name for name, _, _ in rows(admin, told)}
        admin.execute("select es_create_subscription('s')")
        assert {"conflicts", "workers", "horizon", "partitions"} <= names
    with bank.connect() as session, session.transaction():
        use(session, bank.token())
        assert {(name, tenant) for name, tenant, _ in rows(session, told)} == {("subscription s", "acme")}
        assert rows(session, "select name from eventstream.progress") == []


def test_what_tells_of_every_tenant_is_not_for_who_is_held_to_one(bank):
    """Also where somebody granted everything there is; a superuser that uses a token is held to it, too."""
    asks = ["select es_metrics()", "select es_activate()", "select es_require_token('postgres')", "table eventstream.stats", "table eventstream.horizon_holders"]
    with bank.admin() as owner:
        owner.execute(f"grant execute on all functions in schema public, _eventstream to {bank.role}; grant select on all tables in schema eventstream to {bank.role}")
    for connect in (bank.connect, bank.admin):
        for ask in asks:
            with connect() as session, refused("42501") as caught, session.transaction():
                use(session, bank.token())
                session.execute(ask)
            assert "every tenant" in caught.value.diag.message_primary, ask
    with bank.connect() as session:
        for ask in asks:
            with refused("ES042"):
                session.execute(ask)


def test_nobody_is_told_to_make_an_admin_of_a_login_that_needs_a_token(bank):
    with bank.connect() as session, refused("42501") as caught, session.transaction():
        use(session, bank.token())
        session.execute("select es_grant('postgres', 'read')")
    assert "es_grant" not in caught.value.diag.message_hint and "needs no token" in caught.value.diag.message_hint


def test_refusals_are_counted(bank):
    with bank.admin() as session:
        counted = "select value from eventstream.stats where name = 'tokens_refused'"
        before = value(session, counted)
        with bank.connect() as other, refused("ES043"):
            use(other, "x")
        assert value(session, counted) == before + 1


def test_a_copy_that_was_activated_takes_no_token_of_the_original(bank):
    copy = f"{bank.database.name}_copy"
    with bank.database.server.connect("postgres") as admin:
        admin.execute(f'create database "{copy}" template "{bank.database.name}"')
    try:
        with bank.database.server.connect(copy) as session:
            session.execute("set eventstream.tenant = 'default'")
            assert value(session, "select incarnation from es_log_info()") == 0
            session.execute("select es_activate()")
            assert value(session, "select incarnation from es_log_info()") == 1
        with bank.database.server.connect(copy, bank.role) as session:
            with refused("ES042"):
                session.execute("table eventstream.events")
            with refused("ES043"), session.transaction():
                use(session, bank.token())
            with session.transaction():
                use(session, bank.token(aud=bank.audience.replace("/0", "/1")))
                assert marks(session) == {MARKS["acme"]}
    finally:
        with bank.database.server.connect("postgres") as admin:
            admin.execute(f'drop database "{copy}" with (force)')


def test_a_role_that_comes_through_the_network_without_tls_is_named(new_server):
    # An address of this machine that nobody else listens on.
    address = f"127.{random.randrange(1, 255)}.{random.randrange(1, 255)}.{random.randrange(1, 255)}"
    server = new_server("tokens_tls", listen_addresses=address)
    made = Bank(Database(server, "books").create())
    with made.admin() as session:
        keep_out(session)
        assert [row[:2] for row in health(session)] == [("tokens", "ok")]
        with psycopg.connect(host=address, port=PORT, dbname="books", user=made.role):
            ((name, status, detail, fix),) = health(session)
            assert (name, status) == ("token role web", "warning") and "1 connection through the network without TLS" in detail
            assert len(rows(session, fix)) == 1


def test_without_preload_nobody_comes_in(new_server):
    server = new_server("tokens_alone", preload=False)
    made = Bank(Database(server, "books").create())
    with made.connect() as session:
        with refused("ES042"):
            session.execute("table eventstream.events")
        with refused("ES008"), session.transaction():
            use(session, made.token())


def test_who_is_shown_events_in_clear_is_on_record_by_the_token(bank):
    with bank.admin("acme") as session:
        session.execute("select es_grant('web', 'reveal')")
    with bank.connect() as session, session.transaction(force_rollback=True):
        use(session, bank.token("acme", sub="case-worker-3", jti="token-77"))
        assert len(rows(session, "select * from es_reveal('account-1', 'CASE-1')")) == 3
        with refused("ES042", "ES002", "42501", "ES044"), session.transaction():
            session.execute("select es_use_tenant('bank')")
    with bank.admin("acme") as session:
        assert rows(session, "select actor, stream, reason from eventstream.access_log") == [("case-worker-3", "account-1", "CASE-1")]
        recorded = value(session, "select payload ->> 'token_id' from _eventstream.events where event_type = 'EventsRevealed'")
        assert recorded == "token-77"
    with bank.admin("bank") as session:
        assert rows(session, "table eventstream.access_log") == []
