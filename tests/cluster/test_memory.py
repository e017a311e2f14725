"""What a caller makes large never takes the server down where memory is bounded: every es_* function, with each argument that can be large,
by a role without any grant, by one that may everything, and by a superuser; and what code of users makes large. Rust's memory ends with an
abort, after which PostgreSQL ends all sessions: so what is large is refused before it is copied, or stays in PostgreSQL's memory,
where it is an error.
"""

import pathlib
import resource

import psycopg
import pytest
from database import Database, rows, value
from server import Server

#: A session may take so much more than it had when it began: enough to read each argument below, and not for Rust to copy it, too.
ROOM = 330 << 20

#: What is large, by type; made once, where memory is not bounded.
LARGE = {
    "text": "repeat('x', 200000000)",
    "text[]": "array_fill('x'::text, array[5000000])",
    "text[] of long ones": "array[repeat('x', 200000000)]",
    "jsonb": "('[' || repeat('0,', 2500000) || '0]')::jsonb",
    "jsonb of events": """('[' || repeat('{"type": "A", "payload": {}},', 400000) || '{"type": "A", "payload": {}}]')::jsonb""",
    "jsonb text": "jsonb_build_object('type', repeat('x', 120000000), 'on_error', repeat('x', 120000000))",
    "bytea": "convert_to(repeat('x', 200000000), 'UTF8')",
}

#: Arguments at the ends of their ranges.
ENDS = {
    "int4": ["2147483647", "(-2147483648)", "0", "(-1)"],
    "int8": ["9223372036854775807", "(-9223372036854775808)", "0", "(-1)"],
    "interval": ["interval '178000000 years'", "interval '-178000000 years'", "interval '2147483647 days'"],
    "timestamptz": ["timestamptz 'infinity'", "timestamptz '-infinity'", "timestamptz '294276-12-31 23:59:59+00'"],
    "date": ["date 'infinity'", "date '-infinity'", "date '5874897-12-31'", "date '4713-01-01 BC'"],
    "uuid": ["uuid 'ffffffff-ffff-ffff-ffff-ffffffffffff'"],
    "bool": [],
    "name": [],
    "regprocedure": ["0::regprocedure"],
    "regclass": ["0::regclass"],
}

#: What an argument is that is not the one under test.
PLAIN = {
    "text": "'account-1'",
    "text[]": "array['account']",
    "jsonb": """'{"a": 1}'::jsonb""",
    "bytea": "''::bytea",
    "int4": "1",
    "int8": "1",
    "interval": "interval '1 ms'",
    "timestamptz": "now()",
    "date": "date '2024-10-31'",
    "uuid": "uuid '01890a5d-ac96-774b-bcce-b302099a8057'",
    "bool": "true",
    "name": "'nobody'::name",
    "regprocedure": "'pg_catalog.now()'::regprocedure",
    "regclass": "'pg_catalog.pg_class'::regclass",
}

#: Values that let a call get as far as to the argument under test.
BY_NAME = {
    "event_type": "'Opened'",
    "category": "'account'",
    "name": "'account'",
    "projection": "'account'",
    "fold": "'account'",
    "privilege": "'read'",
    "mode": "'async'",
    "on_error": "'stop'",
    "time_zone": "'UTC'",
    "fold_order": "'version'",
    "role": "'unprivileged'::name",
    "tenant": "'default'",
}

FUNCTIONS = """
select n.nspname || '.' || p.proname, p.proretset,
       coalesce((select array_agg(coalesce(p.proargnames[i], 'arg') || ':' || format_type(p.proargtypes[i - 1], null) order by i)
                 from generate_series(1, p.pronargs) i), '{}')
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
     join pg_depend d on d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
     join pg_extension e on e.oid = d.refobjid and e.extname = 'eventstream'
where n.nspname <> '_eventstream' and p.prokind = 'f' and p.prorettype <> 'trigger'::regtype
order by 1, p.oid
"""

TYPES = {
    "integer": "int4", "bigint": "int8", "boolean": "bool", "timestamp with time zone": "timestamptz", "character varying": "text",
}


@pytest.fixture(scope="module")
def bounded_database():
    server = Server("bounded", **{"eventstream.max_workers": 0, "log_statement": "none"}).create()
    database = Database(server, "memory").create()
    for role in ("unprivileged", "privileged"):
        database.role(role)
    with database.connect() as owner:
        owner.execute("create table large (kind text, value text, list text[], document jsonb, bytes bytea)")
        owner.execute("grant select on large to public")
        for kind, made in LARGE.items():
            column = {"text": "value", "bytea": "bytes"}.get(kind, "list" if kind.startswith("text[]") else "document")
            owner.execute(f"insert into large (kind, {column}) values ('{kind}', {made})")
        for privilege in ("read", "append", "manage", "audit", "admin"):
            owner.execute("select es_grant('privileged', %s)", (privilege,))
        owner.execute(
            """select es_register_fold('account', 'account', rules => '{"on": {}}', initial_state => '{}', is_default => true)"""
        )
        owner.execute("select es_append('account-1', 'Opened', '{}')")
    with database.connect() as fresh:
        fresh.execute("select es_stream_version('account-1')")
        taken = int(pathlib.Path(f"/proc/{fresh.info.backend_pid}/statm").read_text().split()[0]) * resource.getpagesize()
    server.stop()
    # What the server is started under is every session's.
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, hard))
    try:
        server.start()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    yield database
    server.destroy()


class Session:
    """A session, begun anew where its last call ended it."""

    def __init__(self, database: Database, user: str):
        self.database, self.user, self.connection = database, user, None

    def run(self, statement: str) -> str:
        """The SQLSTATE, or 00000."""
        if self.connection is None or self.connection.closed:
            self.connection = self.database.connect(self.user)
            self.connection.execute("set statement_timeout = '20s'")
        try:
            self.connection.execute("begin")
            self.connection.execute(statement)
            return "00000"
        except psycopg.Error as error:
            return error.sqlstate or "lost"
        finally:
            if not self.connection.closed:
                self.connection.execute("rollback")


def calls(owner: psycopg.Connection):
    """Each function with each argument that can be large or lies at an end of its range."""
    for name, returns_set, arguments in rows(owner, FUNCTIONS):
        arguments = [argument.split(":", 1) for argument in arguments]
        kinds = [TYPES.get(kind, kind) for _, kind in arguments]
        plain = [BY_NAME.get(argument, PLAIN.get(kind, f"null::{kind}")) for (argument, _), kind in zip(arguments, kinds)]
        for place, kind in enumerate(kinds):
            column = {"text": "value", "text[]": "list", "jsonb": "document", "bytea": "bytes"}.get(kind)
            values = list(ENDS.get(kind, []))
            if column:
                values += [f"(select {column} from large where kind = '{large}')" for large in LARGE if large.split(" ")[0] == kind]
            for given in values:
                call = f"{name}({', '.join([*plain[:place], given, *plain[place + 1:]])})"
                yield f"select count(*) from {call}" if returns_set else f"select {call} is null"


def alive(witness: psycopg.Connection, database: Database) -> None:
    assert value(witness, "select 1") == 1
    assert "terminated by signal" not in database.server.log.read_text(errors="replace")


@pytest.mark.parametrize("user", ["unprivileged", "privileged", "postgres"])
def test_no_argument_is_too_large(bounded_database, user):
    session, seen = Session(bounded_database, user), {}
    with bounded_database.connect() as witness:
        statements = list(calls(witness))
        assert len(statements) > 200
        for statement in statements:
            state = session.run(statement)
            seen.setdefault(state, []).append(statement)
            assert state != "lost", statement
        alive(witness, bounded_database)
    print({state: len(found) for state, found in seen.items()})
    assert "XX000" not in seen, seen["XX000"]
    # 57014: nothing loops over what it was given.
    assert "57014" not in seen, seen["57014"]
    if user == "unprivileged":
        assert "42501" in seen


@pytest.mark.parametrize("name", ["eventstream.tenant", "eventstream.as_of", "eventstream.known_at", "eventstream.metadata", "search_path"])
def test_no_setting_is_too_large(bounded_database, name):
    session = Session(bounded_database, "privileged")
    with bounded_database.connect() as witness:
        session.run("select 1")
        state = session.run(
            f"do $$ begin perform set_config('{name}', (select value from large where kind = 'text'), true);"
            """ perform es_read('account-1'); perform es_register_fold('b', 'account', rules => '{"on": {}}', initial_state => '{}'); end $$"""
        )
        assert state not in ("lost", "XX000")
        alive(witness, bounded_database)


HANDLERS = {
    "an error": "raise exception '%', repeat('x', 200000000)",
    "a detail": "raise exception using message = 'm', detail = repeat('x', 200000000)",
}


@pytest.mark.parametrize("made", HANDLERS)
def test_no_error_of_a_handler_is_too_large(bounded_database, made):
    name = made.replace(" ", "_")
    with bounded_database.connect() as witness:
        witness.execute(
            f"create function {name}(event eventstream.event) returns void language plpgsql as $$ begin {HANDLERS[made]}; end $$"
        )
        witness.execute(f"select es_create_projection('{name}', '{name}(eventstream.event)', on_error => 'skip', max_retries => 0)")
        session = Session(bounded_database, "postgres")
        assert session.run(f"select es_run_projection('{name}')") in ("00000", "53200")
        witness.execute(f"select es_drop_projection('{name}')")
        alive(witness, bounded_database)


def test_no_payload_of_an_upcaster_is_too_large(bounded_database):
    with bounded_database.connect() as witness:
        witness.execute(
            "create function grow(payload jsonb, metadata jsonb) returns jsonb language sql immutable as"
            " $$ select jsonb_build_object('a', repeat('x', 60000000)) $$"
        )
        witness.execute("select es_register_upcaster('Grown', 1, 'grow(jsonb, jsonb)')")
        witness.execute(
            """select es_register_fold('grown', 'grown', rules => '{"on": {"Grown": [{"set": {"/a": "/a"}}]}}', initial_state => '{}')"""
        )
        witness.execute("select es_append('grown-1', 'Grown', '{}')")
        assert Session(bounded_database, "postgres").run("select es_state('grown-1', fold => 'grown')") == "ES014"
        alive(witness, bounded_database)


def test_states_of_a_table_are_too_large_together(bounded_database):
    """Fourteen megabytes each, which one small event makes: they are filled, filled again, and followed, in less memory than all of them take."""
    with bounded_database.connect() as witness:
        witness.execute(
            "create function large_state(state jsonb, event eventstream.event) returns jsonb language sql immutable as"
            " $$ select jsonb_build_object('sum', event.version, 'text', repeat('x', 14000000)) $$"
        )
        witness.execute("select es_register_fold('large', 'large', handler => 'large_state(jsonb, eventstream.event)', initial_state => '{}')")
        witness.execute("""select es_append('large-' || number, 'Opened', '{}') from generate_series(1, 30) number""")
        columns = '[{"name": "sum", "type": "numeric", "path": "/sum"}]'
        witness.execute("select es_create_state_table('larges', 'large', %s::jsonb, fold => 'large')", (columns,))
        for turn in range(1, 3):
            for _ in range(100):
                session = Session(bounded_database, "postgres")
                assert session.run("select 1") == "00000"
                session.connection.execute("set statement_timeout = '100s'")
                session.connection.execute("select es_run_projection('larges')")
                if value(witness, "select count(*) from larges where version = %s", turn) == 30:
                    break
            assert rows(witness, "select count(*), min(sum), max(sum) from larges") == [(30, turn, turn)]
            witness.execute("""select es_append('large-' || number, 'Opened', '{}') from generate_series(1, 30) number""")
        alive(witness, bounded_database)
