"""A role sees and writes what it was granted and nothing else, whichever function or view it tries and however it cheats
(rows S2 and S4 of the requirements, invariant 10). Functions and views are taken from the catalog, so new ones are covered."""

import json
import re
import uuid

import psycopg
import pytest
from database import Database, contents, near_edge, rows, value
from psycopg.types.json import Jsonb
from server import Server

SECRET = "SECRET-7f3a"
SECRET_ID = uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8057")
DEFAULT_ID = uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8058")

#: These compute from their arguments, or say nothing about any tenant; everybody may call them.
#: They give what they are given, in another form.
MAKERS = {"es_make_command", "es_make_event"}
PURE = MAKERS | {"es_require", "es_new_event_id", "es_ulid", "es_ulid_to_uuid", "es_stream_name", "es_day_end", "es_set_as_of", "es_last_append", "es_tests_done", "es_use_token"}

REFUSED = {"42501", "ES040", "ES041"}


@pytest.fixture
def books(database):
    """Two tenants with a secret each, and roles that are granted nothing yet."""
    for role in ("nobody_yet", "clerk", "other"):
        database.role(role)
    with database.connect() as session:
        session.execute("select es_create_tenant('vault')")
        session.execute("set eventstream.tenant = 'default'")
        for stream in ("account-1", "account-2", "order-1"):
            session.execute(
                "select es_append(%s, 'Opened', %s, metadata => %s, subject => %s, event_id => %s)",
                (stream, Jsonb({"is": SECRET}), Jsonb({"actor": SECRET}), SECRET, DEFAULT_ID),
            )
        session.execute("set eventstream.tenant = 'vault'")
        session.execute(
            "select es_append('account-1', %s, %s, metadata => %s, subject => %s, event_id => %s)",
            (SECRET, Jsonb({"is": SECRET}), Jsonb({"actor": SECRET}), SECRET, SECRET_ID),
        )
    return database


def admin(database):
    session = database.connect()
    session.execute("set eventstream.tenant = 'default'")
    return session


def grant(database, *arguments):
    with database.connect() as session:
        session.execute("set eventstream.tenant = 'default'")
        session.execute("select es_grant({})".format(", ".join(["%s"] * len(arguments))), arguments)


def state(database) -> dict:
    with database.connect() as session:
        return {
            table: rows(session, f"select t::text from _eventstream.{table} t order by 1")
            for table in ("events", "streams", "tenants", "grants", "stream_segments")
        }


def functions(session) -> list[tuple[str, list[tuple[str, str]]]]:
    """Every es_* function of the extension with the names and types of its input arguments."""
    found = rows(
        session,
        "select p.proname, coalesce(p.proargnames, '{}'), p.proargtypes::regtype[]::text[], p.pronargs from pg_proc p"
        " join pg_depend d on d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e'"
        " join pg_extension e on e.oid = d.refobjid and e.extname = 'eventstream'"
        " where p.proname like 'es\\_%' order by 1",
    )
    return [(name, list(zip(names[:count], types))) for name, names, types, count in found]


def views(session) -> list[str]:
    return [
        name
        for (name,) in rows(
            session,
            "select c.oid::regclass::text from pg_class c where c.relnamespace = 'eventstream'::regnamespace"
            " and c.relkind in ('v', 'm', 'r', 'p', 'f')",
        )
    ]


def argument(name: str, kind: str, tenant: str):
    """A value that would succeed for somebody who may."""
    events = [{"type": "Moved", "payload": {}}]
    by_name = {
        "stream": "account-1",
        "event_type": "Moved",
        "events": Jsonb(events),
        "appends": Jsonb([{"stream": "account-1", "events": events}]),
        "event_id": SECRET_ID if tenant == "vault" else DEFAULT_ID,
        "id": SECRET_ID if kind == "uuid" else "1",
        "tenant": tenant,
        "role": "nobody_yet",
        "privilege": "read",
        "category": "account",
        "subject": SECRET,
        "ulid": "01H455VB4PEX5VSKNK084SN02Q",
        "max_count": 10,
        "from_version": 1,
        "version": 1,
        "expected_version": None,
        "backward": False,
        "raw": False,
        "schema_version": 1,
        "from_schema_version": 1,
        "fold_order": "version",
        "snapshot_every": 100,
        "initial_state": Jsonb({}),
        "handler": "jsonb_concat(jsonb, jsonb)",
        "view_name": "accounts",
        "columns": Jsonb([{"name": "is", "type": "text", "path": "/is"}]),
        "reason": "because",
    }
    if name in by_name:
        return by_name[name]
    by_type = {
        "text": "account",
        "name": "nobody_yet",
        "jsonb": Jsonb({}),
        "bigint": 0,
        "integer": 1,
        "boolean": False,
        "uuid": SECRET_ID,
        "text[]": None,
        "timestamp with time zone": "2100-01-01" if name in ("until", "as_of", "known_at") else None,
        "interval": "1 second",
    }
    return by_type.get(kind)


def call(session, name, arguments, tenant):
    placeholders = ", ".join(f"{argument_name} => %s::{kind}" for argument_name, kind in arguments)
    values = [argument(argument_name, kind, tenant) for argument_name, kind in arguments]
    return (
        rows(session, f"select t::text from {name}({placeholders}) t", *values)
        if values
        else rows(session, f"select t::text from {name}() t")
    )


def attempt(work):
    """(rows, None) or (None, the error)."""
    try:
        return work(), None
    except psycopg.Error as error:
        return None, error


def everything_said(result, error) -> str:
    diag = error.diag if error is not None else None
    return repr(result) + (
        "" if diag is None else repr((diag.message_primary, diag.message_detail, diag.message_hint, diag.context))
    )


# -- nothing granted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tenant", [None, "default", "vault"])
def test_without_a_grant_no_function_reads_or_writes_anything(books, tenant):
    before = state(books)
    with books.connect("nobody_yet") as session:
        if tenant is not None:
            session.execute(f"set eventstream.tenant = '{tenant}'")
        listed = functions(session)
        assert len(listed) >= 25
        wrong = []
        for name, arguments in listed:
            result, error = attempt(lambda: call(session, name, arguments, tenant or "default"))
            said = everything_said(result, error)
            # What the caller gave (the subject) may be named in a message; what is stored may not.
            if name not in MAKERS and SECRET in (said if "subject" not in dict(arguments) else repr(result)):
                wrong.append((name, "leaks", said))
            if name in PURE:
                continue
            if error is None:
                wrong.append((name, "is allowed", result))
            elif error.sqlstate not in REFUSED:
                wrong.append((name, "fails otherwise", error.sqlstate, str(error)))
        assert wrong == []
    assert state(books) == before


@pytest.mark.parametrize("tenant", [None, "default", "vault"])
def test_without_a_grant_no_view_shows_anything(books, tenant):
    with books.connect("nobody_yet") as session:
        if tenant is not None:
            session.execute(f"set eventstream.tenant = '{tenant}'")
        listed = views(session)
        assert {"eventstream.events", "eventstream.streams", "eventstream.grants", "eventstream.horizon_holders"} <= set(
            listed
        )
        for view in listed:
            result, error = attempt(lambda: rows(session, f"select t::text from {view} t"))
            if error is None:
                assert result == [], view
            else:
                assert error.sqlstate in REFUSED, (view, str(error))
            assert SECRET not in everything_said(result, error), view


def test_a_refusal_names_tenant_and_privilege_in_its_detail(books):
    with books.connect("nobody_yet") as session:
        session.execute("set eventstream.tenant = 'default'")
        for statement, privilege in (
            ("select es_append('account-1', 'Moved', '{}')", "append"),
            ("select * from es_read('account-1')", "read"),
            ("select * from es_verify()", "audit"),
            ("select es_grant('other', 'read')", "admin"),
        ):
            with pytest.raises(psycopg.Error) as refused:
                session.execute(statement)
            assert refused.value.sqlstate == "42501"
            detail = json.loads(refused.value.diag.message_detail)
            assert detail["tenant"] == "default"
            assert detail["privilege"] == privilege


def privileges(session) -> list[tuple]:
    """Everything in _eventstream that somebody other than its owner has any privilege on."""
    return rows(
        session,
        """
        select 'schema', n.nspname, a.grantee::regrole::text, a.privilege_type
        from pg_namespace n, aclexplode(n.nspacl) a
        where n.nspname = '_eventstream' and a.grantee <> n.nspowner
        union all
        select 'relation', c.oid::regclass::text, case a.grantee when 0 then 'public' else a.grantee::regrole::text end, a.privilege_type
        from pg_class c, aclexplode(c.relacl) a
        where c.relnamespace = '_eventstream'::regnamespace and a.grantee <> c.relowner
        union all
        select 'column', c.oid::regclass::text, case x.grantee when 0 then 'public' else x.grantee::regrole::text end, x.privilege_type
        from pg_class c join pg_attribute a on a.attrelid = c.oid, aclexplode(a.attacl) x
        where c.relnamespace = '_eventstream'::regnamespace and x.grantee <> c.relowner
        """,
    )


def tables_and_sequences(session) -> list[str]:
    return [
        name
        for (name,) in rows(
            session,
            "select oid::regclass::text from pg_class where relnamespace = '_eventstream'::regnamespace"
            " and relkind in ('r', 'p', 'S', 'v')",
        )
    ]


@pytest.mark.parametrize("defaults", [False, True], ids=["plainly", "under default privileges that grant everything"])
def test_application_roles_have_no_privilege_on_any_table_or_sequence(shared_server, defaults):
    database = Database(shared_server, f"privileges_{defaults}").create(extension=False)
    database.role("app")
    try:
        with database.connect() as session:
            if defaults:
                for kind in ("tables", "sequences", "functions", "types", "schemas"):
                    session.execute(f"alter default privileges grant all on {kind} to app")
                    session.execute(f"alter default privileges grant all on {kind} to public")
            session.execute("create extension eventstream")
            database.make_partitions_small()
            near_edge(session, 2)
            for _ in range(5):
                session.execute("select es_append('account-1', 'Opened', '{}')")
            rows(session, "select * from es_maintain()")
            assert privileges(session) == []
            listed = tables_and_sequences(session)
            assert len(listed) >= 10
            for privilege in ("select", "insert", "update", "delete", "truncate", "references", "trigger"):
                allowed = rows(
                    session,
                    "select c.oid::regclass::text from pg_class c where relnamespace = '_eventstream'::regnamespace"
                    " and relkind in ('r', 'p', 'v') and has_table_privilege('app', c.oid, %s)",
                    privilege,
                )
                assert allowed == [], privilege
            # Views are for reading only, and what lies behind them refuses.
            writable = rows(
                session,
                "select c.oid::regclass::text from pg_class c where relnamespace = 'eventstream'::regnamespace"
                " and relkind = 'v' and has_table_privilege('app', c.oid, 'insert, update, delete, truncate, trigger')",
            )
            assert writable == []
        with database.connect("app") as session:
            for table in listed:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    session.execute(f"select * from {table}")
    finally:
        database.drop()


# -- something granted ----------------------------------------------------------------------------------------------


def test_a_grant_for_one_tenant_opens_that_one_only(books):
    grant(books, "clerk", "read", "vault")
    with books.connect("clerk") as clerk:
        # The only tenant of the role needs no saying.
        assert rows(clerk, "select tenant, payload->>'is' from es_read('account-1')") == [("vault", SECRET)]
        assert rows(clerk, "select stream, tenant from eventstream.events") == [("account-1", "vault")]
        assert rows(clerk, "select stream from eventstream.streams") == [("account-1",)]
        assert rows(clerk, "select stream, tenant from es_read_all()") == [("account-1", "vault")]
        assert value(clerk, "select es_stream_version('order-1')") == 0
        for statement in (
            "select es_append('account-1', 'Moved', '{}')",
            "select * from es_verify()",
            "select * from es_chain_heads()",
            "select * from eventstream.grants",
            "select es_grant('clerk', 'append')",
            "select es_create_tenant('mine')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                clerk.execute(statement)
        for way in ("set eventstream.tenant = 'default'", "select es_use_tenant('default')"):
            result, error = attempt(lambda: (clerk.execute(way), rows(clerk, "select * from es_read('account-1')")))
            assert error is not None and error.sqlstate in REFUSED, way
            clerk.execute("reset eventstream.tenant")


def test_a_grant_for_one_category_opens_that_one_only(books):
    grant(books, "clerk", "read", "default", "account")
    grant(books, "clerk", "append", "default", "order")
    with books.connect("clerk") as clerk:
        assert rows(clerk, "select stream from es_read_all()") == [("account-1",), ("account-2",)]
        assert rows(clerk, "select stream from es_read_backward()") == [("account-2",), ("account-1",)]
        assert sorted(rows(clerk, "select stream from eventstream.events")) == [("account-1",), ("account-2",)]
        assert sorted(rows(clerk, "select stream from eventstream.streams")) == [("account-1",), ("account-2",)]
        assert sorted(rows(clerk, "select stream from es_event(%s)", DEFAULT_ID)) == [("account-1",), ("account-2",)]
        assert sorted(rows(clerk, "select stream from es_read_subject(%s)", SECRET)) == [("account-1",), ("account-2",)]
        assert rows(clerk, "select version from es_read('account-1')") == [(1,)]
        assert value(clerk, "select es_append('order-1', 'Placed', '{}')") == 2
        for statement in (
            "select * from es_read('order-1')",
            "select es_stream_version('order-1')",
            "select * from es_stream('order-1')",
            "select * from es_read_all(categories => '{order}')",
            "select es_append('account-1', 'Moved', '{}')",
            """select es_append_events('account-1', '[{"type": "Moved", "payload": 1}]')""",
            """select * from es_append_streams('[{"stream": "order-1", "events": [{"type": "Moved", "payload": 1}]},
               {"stream": "account-1", "events": [{"type": "Moved", "payload": 1}]}]')""",
            "select es_close_stream('account-1', 'mine')",
        ):
            result, error = attempt(lambda: rows(clerk, statement))
            if error is None:
                assert result == [], statement
            else:
                assert error.sqlstate == "42501", (statement, str(error))
        assert rows(clerk, "select stream from es_read_all(categories => '{order, account}')") == [
            ("account-1",),
            ("account-2",),
        ]
    with admin(books) as session:
        assert value(session, "select es_stream_version('order-1')") == 2
        assert value(session, "select es_stream_version('account-1')") == 1


def test_grants_reach_members_of_the_granted_role_and_public_reaches_all(books):
    books.role("tellers", "nologin")
    books.role("ann", "login", "tellers")
    books.role("bob", "login noinherit", "tellers")
    grant(books, "tellers", "read", "default")
    with books.connect("ann") as ann:
        assert len(rows(ann, "select * from es_read_all()")) == 3
    with books.connect("bob") as bob:
        _, error = attempt(lambda: rows(bob, "select * from es_read_all()"))
        assert error is not None and error.sqlstate in REFUSED, "NOINHERIT: only after SET ROLE"
        bob.execute("set role tellers")
        assert len(rows(bob, "select * from es_read_all()")) == 3
    grant(books, "public", "read", "default")
    with books.connect("nobody_yet") as anyone:
        assert len(rows(anyone, "select * from es_read_all()")) == 3


def test_a_role_that_may_use_several_tenants_must_say_which(books):
    grant(books, "clerk", "read", "default")
    grant(books, "clerk", "read", "vault")
    with books.connect("clerk") as clerk:
        with pytest.raises(psycopg.Error) as required:
            rows(clerk, "select * from es_read('account-1')")
        assert required.value.sqlstate == "ES041"
        with clerk.transaction():
            clerk.execute("select es_use_tenant('vault')")
            assert rows(clerk, "select tenant from es_read('account-1')") == [("vault",)]
        with pytest.raises(psycopg.Error) as required:
            rows(clerk, "select * from es_read('account-1')")
        assert required.value.sqlstate == "ES041", "es_use_tenant holds for the transaction only"
        clerk.execute("set eventstream.tenant = 'default'")
        assert rows(clerk, "select tenant from es_read('account-1')") == [("default",)]
        clerk.execute("set eventstream.tenant = 'no such tenant'")
        with pytest.raises(psycopg.Error) as unknown:
            rows(clerk, "select * from es_read('account-1')")
        assert unknown.value.sqlstate in REFUSED


def test_a_tenant_that_exists_and_one_that_does_not_look_the_same_to_a_stranger(books):
    grant(books, "clerk", "read", "default")
    with books.connect("clerk") as clerk:
        answers = []
        for tenant in ("vault", "no such tenant"):
            with pytest.raises(psycopg.Error) as refused, clerk.transaction():
                clerk.execute("select es_use_tenant(%s)", (tenant,))
            answers.append((refused.value.sqlstate, str(refused.value).replace(tenant, "…")))
        assert answers[0] == answers[1]


def test_revoke_takes_effect_in_a_session_that_is_open(books):
    grant(books, "clerk", "read", "default")
    grant(books, "clerk", "append", "default")
    with books.connect("clerk") as clerk, admin(books) as session:
        for privilege, statement in (
            ("append", "select es_append('account-1', 'Moved', '{}')"),
            ("read", "select version from es_read('account-2')"),
        ):
            for _ in range(3):
                clerk.execute(statement)
            session.execute("select es_revoke('clerk', %s)", (privilege,))
            result, error = attempt(lambda: rows(clerk, statement))
            assert error is not None and error.sqlstate in REFUSED, privilege
            session.execute("select es_grant('clerk', %s)", (privilege,))
            clerk.execute(statement)


def test_a_revoke_that_is_rolled_back_changes_nothing(books):
    grant(books, "clerk", "read", "default")
    with books.connect("clerk") as clerk, admin(books) as session:
        assert len(rows(clerk, "select * from es_read('account-1')")) == 1
        with session.transaction(force_rollback=True):
            session.execute("select es_revoke('clerk', 'read')")
            assert len(rows(clerk, "select * from es_read('account-1')")) == 1
        assert len(rows(clerk, "select * from es_read('account-1')")) == 1


def test_a_grant_that_is_rolled_back_gives_nothing_to_a_session_that_used_it(books):
    books.role("steward")
    grant(books, "steward", "admin", "default")
    with books.connect("steward") as steward:
        steward.execute("set eventstream.tenant = 'default'")
        with steward.transaction(force_rollback=True):
            steward.execute("select es_grant('steward', 'read')")
            assert len(rows(steward, "select * from es_read('account-1')")) == 1
        _, error = attempt(lambda: rows(steward, "select * from es_read('account-1')"))
        assert error is not None and error.sqlstate == "42501"


def test_leaving_a_role_takes_effect_in_a_session_that_is_open(books):
    books.role("tellers", "nologin")
    books.role("ann", "login", "tellers")
    grant(books, "tellers", "read", "default")
    with books.connect("ann") as ann, admin(books) as session:
        assert len(rows(ann, "select * from es_read('account-1')")) == 1
        session.execute("revoke tellers from ann")
        _, error = attempt(lambda: rows(ann, "select * from es_read('account-1')"))
        assert error is not None and error.sqlstate in REFUSED


def test_a_role_that_takes_the_name_of_a_dropped_one_is_seen_in_the_grants(books):
    """Grants are by name; the view says where a name stands for nobody, so that it is noticed before somebody takes it."""
    books.role("leaver")
    grant(books, "leaver", "read", "default")
    with admin(books) as session:
        session.execute("drop role leaver")
        assert rows(session, "select role, role_exists from eventstream.grants where role = 'leaver'") == [("leaver", False)]


def test_admin_of_one_tenant_grants_there_and_nowhere_else(books):
    books.role("steward")
    grant(books, "steward", "admin", "default")
    with books.connect("steward") as steward:
        steward.execute("select es_grant('clerk', 'read')")
        with pytest.raises(psycopg.Error) as refused:
            steward.execute("select es_grant('steward', 'read', 'vault')")
        assert refused.value.sqlstate in REFUSED
        with pytest.raises(psycopg.Error) as refused:
            steward.execute("select es_revoke('clerk', 'read', 'vault')")
        assert refused.value.sqlstate in REFUSED
    with books.connect("clerk") as clerk:
        assert len(rows(clerk, "select * from es_read('account-1')")) == 1


# -- cheating -------------------------------------------------------------------------------------------------------

LEAK = """
create function pg_temp.leak(seen text) returns bool language plpgsql cost 0.0000001 as $$
begin
    raise notice 'leak: %', seen;
    return true;
end $$
"""


def test_a_leaky_function_in_where_sees_nothing_of_others(books):
    grant(books, "clerk", "read", "default", "order")
    shown = ("stream", "category", "payload", "global_position", "event_id")
    with books.connect("clerk") as clerk:
        notices = []
        clerk.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary))
        clerk.execute(LEAK)
        columns = rows(
            clerk,
            "select attrelid::regclass::text, attname from pg_attribute where attrelid = any (%s::regclass[]) and attnum > 0",
            views(clerk),
        )
        mine = rows(clerk, "select {} from eventstream.events".format(", ".join(f"{column}::text" for column in shown)))
        assert len(mine) == 1
        # A column of one table can be looked at before the join, and in any order with the view's own conditions.
        for setting in (
            "reset all",
            "set enable_indexscan = off",
            "set enable_bitmapscan = off",
            "set enable_hashjoin = off",
        ):
            clerk.execute(setting)
            for view, column in [*columns, *((view, view.partition(".")[2]) for view in views(clerk))]:
                notices.clear()
                result, error = attempt(
                    lambda: rows(clerk, f"select count(*) from {view} where pg_temp.leak({column}::text)")
                )
                if error is not None:
                    assert error.sqlstate == "42501" and notices == [], (view, column, notices)
                assert [notice for notice in notices if "account-" in notice or "vault" in notice] == [], (view, column)
            notices.clear()
            for column in shown:
                rows(clerk, f"select count(*) from eventstream.events where pg_temp.leak('{column}=' || {column}::text)")
            assert sorted(notices) == sorted(f"leak: {column}={text}" for column, text in zip(shown, mine[0]))


def test_an_event_id_of_another_tenant_tells_nothing(books):
    grant(books, "clerk", "read", "default")
    grant(books, "clerk", "append", "default")
    unknown = uuid.uuid4()
    with books.connect("clerk") as clerk:
        assert (
            rows(clerk, "select * from es_event(%s)", SECRET_ID) == rows(clerk, "select * from es_event(%s)", unknown) == []
        )
        assert rows(clerk, "select * from eventstream.events where event_id = %s", SECRET_ID) == []
        # As the id of an own event it behaves as any fresh one does: same type and payload as the other tenant's, or not.
        answers = []
        for event_id in (SECRET_ID, unknown):
            version = value(
                clerk,
                "select es_append('account-1', %s, %s, event_id => %s)",
                SECRET,
                Jsonb({"is": SECRET}),
                event_id,
            )
            answers.append((version, value(clerk, "select replayed from es_last_append()")))
        assert answers == [(2, False), (3, False)]


def test_plans_made_for_one_role_or_tenant_do_not_serve_another(books):
    grant(books, "clerk", "read", "vault")
    grant(books, "other", "read", "default", "order")
    with books.connect() as session:
        session.execute("prepare everything as select count(*) from eventstream.events")
        session.execute("prepare stream as select count(*) from es_read('account-1')")
        answers = []
        for _ in range(7):
            for role, tenant in (
                ("postgres", "default"),
                ("clerk", "vault"),
                ("other", "default"),
                ("nobody_yet", "default"),
            ):
                session.execute(f"set session authorization {role}")
                session.execute(f"set eventstream.tenant = '{tenant}'")
                seen = []
                for name in ("everything", "stream"):
                    result, error = attempt(lambda: value(session, f"execute {name}"))
                    seen.append(result if error is None else error.sqlstate)
                answers.append((role, *seen))
                session.execute("reset session authorization")
        assert set(answers) <= {
            ("postgres", 3, 1),
            ("clerk", 1, 1),
            ("other", 1, "42501"),
            ("other", 1, 0),
            ("nobody_yet", "42501", "42501"),
            ("nobody_yet", 0, "42501"),
        }
        assert len(set(answers)) == 4


def test_security_definer_functions_act_as_their_owner(books):
    grant(books, "clerk", "append", "default")
    grant(books, "clerk", "read", "default")
    with books.connect() as session:
        session.execute("grant create on schema public to clerk, nobody_yet")
    with books.connect("clerk") as clerk:
        clerk.execute(
            "create function deposit() returns bigint language sql security definer set search_path = public, pg_temp"
            " as $$ select es_append('account-1', 'Deposited', '{}') $$"
        )
    with books.connect("nobody_yet") as stranger:
        assert value(stranger, "select deposit()") == 2, "the owner of the wrapper may append"
        stranger.execute(
            "create function peek() returns bigint language sql security definer set search_path = public, pg_temp"
            " as $$ select count(*) from es_read('account-1') $$"
        )
    with books.connect("clerk") as clerk:
        _, error = attempt(lambda: value(clerk, "select peek()"))
        assert error is not None and error.sqlstate in REFUSED, "the owner of the wrapper may not read"
    with admin(books) as session:
        _, error = attempt(lambda: value(session, "select peek()"))
        assert error is not None and error.sqlstate in REFUSED
        # Who it was is on record: the session's user, not the wrapper's owner.
        assert rows(session, "select recorded_by from es_read('account-1', 2)") == [("nobody_yet",)]


HIJACK = """
create schema hostile;
create function hostile.hijack() returns void language plpgsql as $$ begin raise exception 'HIJACKED as %', current_user; end $$;
create function hostile.eq(bigint, bigint) returns bool language plpgsql as $$ begin perform hostile.hijack(); return true; end $$;
create function hostile.eq(text, text) returns bool language plpgsql as $$ begin perform hostile.hijack(); return true; end $$;
create function hostile.eq(uuid, uuid) returns bool language plpgsql as $$ begin perform hostile.hijack(); return true; end $$;
create function hostile.eq(bigint, int) returns bool language plpgsql as $$ begin perform hostile.hijack(); return true; end $$;
create function hostile.eq(jsonb, jsonb) returns bool language plpgsql as $$ begin perform hostile.hijack(); return true; end $$;
create operator hostile.= (leftarg = bigint, rightarg = bigint, function = hostile.eq);
create operator hostile.= (leftarg = text, rightarg = text, function = hostile.eq);
create operator hostile.= (leftarg = uuid, rightarg = uuid, function = hostile.eq);
create operator hostile.= (leftarg = bigint, rightarg = int, function = hostile.eq);
create operator hostile.= (leftarg = jsonb, rightarg = jsonb, function = hostile.eq);
create operator hostile.> (leftarg = bigint, rightarg = bigint, function = hostile.eq);
create operator hostile.>= (leftarg = bigint, rightarg = bigint, function = hostile.eq);
create operator hostile.< (leftarg = bigint, rightarg = bigint, function = hostile.eq);
create operator hostile.<= (leftarg = bigint, rightarg = bigint, function = hostile.eq);
create function hostile.nextval(regclass) returns bigint language plpgsql as $$ begin perform hostile.hijack(); return 1; end $$;
create function hostile.setval(regclass, bigint) returns bigint language plpgsql as $$ begin perform hostile.hijack(); return 1; end $$;
create function hostile.clock_timestamp() returns timestamptz language plpgsql as $$ begin perform hostile.hijack(); return null; end $$;
create function hostile.now() returns timestamptz language plpgsql as $$ begin perform hostile.hijack(); return null; end $$;
create function hostile.max(bigint) returns bigint language plpgsql as $$ begin perform hostile.hijack(); return null; end $$;
create function hostile.format(text, bigint) returns text language plpgsql as $$ begin perform hostile.hijack(); return null; end $$;
create function hostile.substring(text, text) returns text language plpgsql as $$ begin perform hostile.hijack(); return null; end $$;
create table hostile.events (like pg_class);
create table hostile.streams (like pg_class);
create table hostile.tenants (like pg_class);
create table hostile.grants (like pg_class);
create domain hostile.bigint_ as bigint;
"""


def test_what_a_caller_puts_in_the_search_path_or_pg_temp_is_not_taken(books):
    grant(books, "clerk", "append", "default")
    grant(books, "clerk", "read", "default")
    grant(books, "clerk", "audit", "default")
    grant(books, "clerk", "upkeep", "default")
    with books.connect() as session:
        session.execute(f'grant create, temporary on database "{books.name}" to clerk')
    with books.connect("clerk") as clerk:
        clerk.execute(HIJACK)
        for table in (
            "events",
            "events_1",
            "streams",
            "tenants",
            "grants",
            "stream_segments",
            "positions",
            "log_identities",
        ):
            clerk.execute(f"create temp table {table} (id bigint, name text, tenant_id bigint, version bigint)")
            clerk.execute(f"insert into {table} values (1, 'account-1', 1, 999)")
        clerk.execute("create type pg_temp.event as (version bigint)")
        clerk.execute("set search_path = pg_temp, hostile, pg_catalog, public")
        with admin(books) as session:
            near_edge(session, 3)
        # Twice, so that both the first planning and the kept plans are tried; over an edge, so that a partition is made.
        for turn in range(4):
            assert value(clerk, "select public.es_append('account-1', 'Moved', '{}')") == 2 + 3 * turn
            assert (
                value(clerk, 'select public.es_append_events(\'account-1\', \'[{"type": "Moved", "payload": 1}]\')')
                == 3 + 3 * turn
            )
            clerk.execute(
                'select * from public.es_append_streams(\'[{"stream": "account-1", "events": [{"type": "Moved", "payload": 1}]}]\')'
            )
            for statement in (
                "select count(*) from public.es_read('account-1')",
                "select public.es_stream_version('account-1')",
            ):
                assert value(clerk, statement) == 4 + 3 * turn, statement
            for statement in (
                "select * from public.es_read_all()",
                "select * from public.es_read_backward()",
                f"select * from public.es_event('{DEFAULT_ID}')",
                f"select * from public.es_read_subject('{SECRET}')",
                "select * from public.es_stream('account-1')",
                "select * from public.es_log_info()",
                "select * from public.es_chain_heads()",
                "select * from public.es_maintain()",
                "select * from eventstream.events",
                "select * from eventstream.streams",
                "select * from eventstream.grants",
            ):
                assert rows(clerk, statement), statement
            assert rows(clerk, "select * from public.es_verify()") == []
            assert rows(clerk, "select * from public.es_verify_stream('account-1')") == []


def test_code_of_the_callers_left_behind_does_not_run_with_more_rights(books):
    """A trigger of the caller's on a table of his own, fired in the transaction that appends, runs as the caller."""
    grant(books, "clerk", "append", "default")
    with books.connect() as session:
        session.execute("grant create on schema public to clerk")
    with books.connect("clerk") as clerk:
        clerk.execute("create table public.noted (who text)")
        clerk.execute(
            "create function public.note() returns trigger language plpgsql as $$ begin"
            " insert into public.witness select current_user; return null; end $$;"
            " create table public.witness (who text);"
            " create constraint trigger late after insert on public.noted deferrable initially deferred"
            " for each row execute function public.note()"
        )
        with clerk.transaction():
            clerk.execute("insert into public.noted values ('x')")
            clerk.execute("declare kept cursor with hold for select current_user")
            clerk.execute("select es_append('account-1', 'Moved', '{}')")
        assert rows(clerk, "select who from public.witness") == [("clerk",)]
        assert rows(clerk, "fetch all from kept") == [("clerk",)]


def test_an_error_in_the_middle_of_an_append_leaves_the_callers_rights(books):
    """The switch to the owner's rights ends with the call, however it ends."""
    grant(books, "clerk", "append", "default")
    with books.connect("clerk") as clerk:
        for statement in (
            "select es_append('account-1', 'Moved', '{}', expected_version => 77)",
            "select es_append('nodash', 'Moved', '{}')",
            "select es_append('account-1', 'Other', '{}', event_id => '%s')" % DEFAULT_ID,
        ):
            with clerk.transaction(force_rollback=True):
                with pytest.raises(psycopg.Error), clerk.transaction():
                    clerk.execute(statement)
                assert value(clerk, "select current_user") == "clerk"
                assert value(clerk, "select current_setting('search_path')") == '"$user", public'
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    clerk.execute("select * from _eventstream.events")


# -- settings -------------------------------------------------------------------------------------------------------

GUARDED = {
    "eventstream.durability": "session",
    "eventstream.partition_size": "1048576",
    "eventstream.max_payload_bytes": "50000000",
    "eventstream.max_batch_events": "1000000",
    "eventstream.max_json_depth": "999",
    "eventstream.max_number_digits": "19999",
    "eventstream.max_future_skew": "1000 days",
}


@pytest.fixture(scope="module")
def unloaded_server():
    server = Server("unloaded", preload=False).create()
    yield server
    server.destroy()


@pytest.mark.parametrize("setting", GUARDED)
def test_only_a_superuser_changes_a_guarded_setting_once_the_library_is_loaded(books, setting):
    with books.connect("clerk") as clerk:
        before = value(clerk, f"show {setting}")
        for statement in (f"set {setting} = '{GUARDED[setting]}'", f"set local {setting} = '{GUARDED[setting]}'"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                clerk.execute(statement)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            clerk.execute(f"select set_config('{setting}', '{GUARDED[setting]}', false)")
        assert value(clerk, f"show {setting}") == before
    with (
        pytest.raises(psycopg.Error),
        books.server.connect(
            books.name, "clerk", options=f"-c {setting}={GUARDED[setting].replace(' ', chr(92) + ' ')}"
        ) as clerk,
    ):
        clerk.execute("select 1")


@pytest.mark.parametrize("setting", GUARDED)
def test_set_before_the_library_is_loaded_it_has_no_effect(unloaded_server, setting):
    name = "before_" + setting.partition(".")[2]
    database = Database(unloaded_server, name).create()
    database.role("clerk")
    grant(database, "clerk", "append", "default")
    try:
        with database.connect("clerk") as fresh:
            fresh.execute("select es_append('account-1', 'Opened', '{}')")
            default = value(fresh, f"show {setting}")
        with database.connect("clerk") as clerk:
            # Not loaded in this session yet: PostgreSQL takes any value under a name it does not know.
            clerk.execute(f"set {setting} = '{GUARDED[setting]}'")
            clerk.execute("select es_append('account-1', 'Opened', '{}')")
            assert value(clerk, f"show {setting}") == default
        with database.connect("clerk", options=f"-c {setting}={GUARDED[setting].replace(' ', chr(92) + ' ')}") as clerk:
            clerk.execute("select es_append('account-1', 'Opened', '{}')")
            assert value(clerk, f"show {setting}") == default
    finally:
        database.drop()


NEEDING_THE_HORIZON = [
    "select * from es_read_all()",
    "select es_horizon()",
    "select es_settled_until()",
    "select * from eventstream.horizon_holders",
]


def test_without_preload_what_needs_the_horizon_says_what_to_configure(unloaded_server):
    database = Database(unloaded_server, "horizonless").create()
    try:
        with database.connect() as session:
            assert value(session, "select es_append('account-1', 'Opened', '{}')") == 1
            assert value(session, "select count(*) from es_read('account-1')") == 1
            for statement in NEEDING_THE_HORIZON:
                with pytest.raises(psycopg.Error) as refused:
                    session.execute(statement)
                assert refused.value.sqlstate == "ES008", statement
                assert re.search(r"shared_preload_libraries\s*=\s*'?.*eventstream", refused.value.diag.message_hint)
            assert contents(session)
    finally:
        database.drop()


def test_prepare_transaction_is_refused_after_an_append_with_and_without_preload(new_server):
    for preload in (True, False):
        server = new_server(f"prepared_{preload}", preload=preload, max_prepared_transactions=5)
        database = Database(server, "books").create()
        with database.connect() as session:
            session.execute("begin")
            session.execute("select es_append('account-1', 'Opened', '{}')")
            with pytest.raises(psycopg.Error) as refused:
                session.execute("prepare transaction 'later'")
            assert refused.value.sqlstate == "0A000"
            session.execute("rollback")
            assert value(session, "select count(*) from pg_prepared_xacts") == 0
            assert value(session, "select es_stream_version('account-1')") == 0
            session.execute("begin")
            session.execute("select count(*) from es_read('account-1')")
            session.execute("prepare transaction 'reader'")
            session.execute("commit prepared 'reader'")
