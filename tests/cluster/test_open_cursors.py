"""What is open when the rules change: a cursor, a loop or a portal that has read under other rules gives no more rows (40001 where what is protected changed, ES042 where its role needs a token since), by
whatever it reads, however much PostgreSQL has read ahead of it. What reads nothing of that kind goes on, and so does everything where nothing changed."""

import threading

import psycopg
import pytest
from database import Database, rows, value
from server import Server, wait_until

CANARY = "Canary 7391"
EVENTS = 1_500
PROTECT = "select es_protect('Named', pointers => '{/name}')"

SOURCES = {
    "a page of a stream": "select es_read('customer-1')",
    "a function in FROM": "select payload from es_read('customer-1')",
    "the whole log": "select es_read_all(0, 100000)",
    "backward": "select es_read_backward()",
    "a search": "select es_query('{}')",
    "a subject": "select es_read_subject('p-1')",
    "the view": "select payload from eventstream.events",
    "the view, sorted": "select payload from eventstream.events order by payload ->> 'name'",
    "a join": "select e.payload from eventstream.events e join eventstream.streams s using (stream)",
    "a state a row": "select es_state('customer-1') from generate_series(1, 1500)",
    "states that were asked for before": "select s from (select es_state('customer-1') as s from generate_series(1, 1500) offset 0) x order by s ->> 'name'",
    "a function of the session's own": "select told()",
    "scheduled commands": "select payload from eventstream.scheduled_commands order by command_key",
}


@pytest.fixture(scope="module")
def server():
    server = Server("open_cursors", **{"eventstream.max_workers": 0}).create()
    with server.connect("postgres") as admin:
        admin.execute("create role late login")
    yield server
    server.destroy()


@pytest.fixture
def database(server):
    database = Database(server, "open").create()
    with database.connect() as owner:
        owner.execute(f"""select es_append_events('customer-1', (select jsonb_agg(jsonb_build_object('type', 'Named', 'payload', jsonb_build_object('name', '{CANARY}'), 'subject', 'p-1')) from generate_series(1, {EVENTS})));
            create function keep(state jsonb, event eventstream.event) returns jsonb immutable language sql as $$ select state || event.payload $$;
            select es_register_fold('kept', 'customer', 'keep(jsonb, eventstream.event)');
            create function decide(state jsonb, command eventstream.command) returns jsonb stable language sql as $$ select '{{}}'::jsonb $$;
            select es_register_decider('said', 'customer', 'decide(jsonb, eventstream.command)');
            select es_schedule_command('customer-1', 'Named', '{{"name": "{CANARY}"}}', '2100-01-01Z', 'k' || i) from generate_series(1, 20) i;
            create function told() returns setof jsonb language plpgsql as $$ begin return query select payload from es_read_all(); end $$""")
    yield database
    database.drop()


def protect(owner):
    owner.execute(PROTECT)
    owner.execute("select es_protect('Named', pointers => '{/name}', kind => 'command')")


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_nothing_more_is_shown_of_what_was_read_before_a_rule(database, level):
    with database.connect() as owner, database.connect() as reader:
        rows(reader, "select es_state('customer-1')")
        reader.execute(f"begin isolation level {level}")
        for place, source in enumerate(SOURCES.values()):
            reader.execute(f"declare c{place} cursor for {source}; declare later{place} cursor for {source}")
            assert CANARY in str(rows(reader, f"fetch 1 from c{place}"))
        protect(owner)
        shown = {}
        for place, name in enumerate(SOURCES):
            try:
                with reader.transaction():
                    told = rows(reader, f"fetch 3 from c{place}") + rows(reader, f"fetch all from c{place}")
                shown[name] = str(told).count(CANARY)
            except psycopg.Error as error:
                assert error.sqlstate == "40001" and "run the query again" in error.diag.message_hint
            # What had read nothing yet, or was never begun, shows what it shows by the rule.
            told = rows(reader, f"fetch all from later{place}")
            assert told and CANARY not in str(told), name
        assert shown == {}
        reader.execute("rollback")


def test_a_cursor_that_goes_back(database):
    with database.connect() as owner, database.connect() as reader, reader.transaction():
        reader.execute("declare c scroll cursor for select payload from es_read('customer-1')")
        assert len(rows(reader, "fetch all from c")) == EVENTS
        protect(owner)
        with pytest.raises(psycopg.errors.SerializationFailure), reader.transaction():
            rows(reader, "fetch backward 5 from c")


def test_a_loop_and_what_a_commit_in_it_keeps(database):
    """A rule comes while the loop is at its 20th row: it has read ahead, and ends there."""
    for commit in ("", "commit;"):
        with database.connect() as owner, database.connect() as reader, database.connect() as holder:
            seen = f"""do $$ declare r record; n int := 0; begin for r in select es_read('customer-1') as e loop
                n := n + 1; raise notice '%', (r.e).payload; if n = 20 then perform pg_advisory_lock(7); perform pg_advisory_unlock(7); {commit} end if; end loop; end $$"""
            told = []
            reader.add_notice_handler(lambda notice: told.append(notice.message_primary))
            raised = []

            def loop():
                try:
                    reader.execute(seen)
                except psycopg.Error as error:
                    raised.append(error.sqlstate)

            holder.execute("select pg_advisory_lock(7)")
            thread = threading.Thread(target=loop)
            thread.start()
            wait_until(lambda: value(holder, "select count(*) from pg_locks where locktype = 'advisory' and not granted") == 1)
            protect(owner)
            holder.execute("select pg_advisory_unlock_all()")
            thread.join()
            assert raised == ["40001"] and str(told).count(CANARY) < 100
            owner.execute("select es_unprotect('Named'), es_unprotect('Named', kind => 'command')")


def test_what_reads_nothing_of_it_and_what_nothing_changed_for_goes_on(database):
    with database.connect() as owner, database.connect() as reader, reader.transaction():
        owner.execute(PROTECT)
        reader.execute("""declare plain cursor for select generate_series(1, 1500); declare streams cursor for select stream from eventstream.streams, generate_series(1, 1500);
            declare types cursor for select event_type from eventstream.events; declare masked cursor for select payload from es_read('customer-1'); declare page cursor for select es_read('customer-1')""")
        for cursor in ("plain", "streams", "types", "masked", "page"):
            rows(reader, f"fetch 1 from {cursor}")
        # The same again, a function, a role, a tenant's own rule, a fold and a partition: none of it is what these have read.
        owner.execute(PROTECT)
        owner.execute("""set client_min_messages = warning; create function other() returns int language sql as 'select 1'; create role other_role; drop role other_role; select es_create_tenant('other'); set eventstream.tenant = 'default';
            select es_register_fold('other', 'other', rules => '{"on": {}}'); set eventstream.tenant = 'other'; select es_protect('Named', pointers => '{/name}'); set eventstream.tenant = 'default'""")
        for cursor in ("masked", "page"):
            assert len(rows(reader, f"fetch 10 from {cursor}")) == 10
        owner.execute("select es_protect('Other', pointers => '{/name}')")
        for cursor in ("plain", "streams", "types"):
            assert len(rows(reader, f"fetch all from {cursor}")) == EVENTS - 1
        with pytest.raises(psycopg.errors.SerializationFailure), reader.transaction():
            rows(reader, "fetch all from page")


@pytest.mark.parametrize("level", ["read committed", "repeatable read"])
def test_what_begins_after_the_rule_goes_on(database, level):
    """The transaction has shown something under the rules of before; the session has not looked again since."""
    with database.connect() as owner, database.connect() as reader, reader.transaction():
        reader.execute(f"set transaction isolation level {level}")
        rows(reader, "select payload from es_read('customer-1', max_count => 1)")
        owner.execute(PROTECT)
        for place, source in enumerate(SOURCES.values()):
            reader.execute(f"declare c{place} cursor for {source}")
            assert CANARY not in str(rows(reader, f"fetch 1 from c{place}") + rows(reader, f"fetch 1 from c{place}")) or "scheduled" in source
        reader.execute("do $$ declare p jsonb; n int := 0; begin for p in select payload from es_read('customer-1') loop n := n + 1; end loop; assert n = 1500; end $$")


def test_rules_of_the_transaction_itself(database):
    with database.connect() as owner:
        owner.execute("begin; declare c cursor for select es_read('customer-1'); fetch 1 from c")
        owner.execute(PROTECT)
        with pytest.raises(psycopg.errors.SerializationFailure):
            rows(owner, "fetch 5 from c")
        owner.execute("rollback")
        # One by one, by a loop over what there is.
        owner.execute("""select es_append('other-1', 'T' || i, '{"name": 1}') from generate_series(1, 100) i;
            do $$ declare t text; begin for t in select distinct event_type from eventstream.events loop perform es_protect(t, pointers => '{/name}'); end loop; end $$""")
        assert value(owner, "select count(*) from eventstream.protections") == 101


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_a_role_that_needs_a_token_since(database, level):
    with database.connect() as owner:
        owner.execute("set client_min_messages = warning; revoke temp on database open from public; select es_create_tenant('acme'); select es_grant('late', 'read', tenant => 'acme')")
        owner.execute("set eventstream.tenant = 'acme'; select es_append('customer-' || i, 'Named', '{}') from generate_series(1, 600) i; reset eventstream.tenant")
        with database.connect(user="late") as late:
            late.execute(f"set eventstream.tenant = 'acme'; begin isolation level {level}")
            sources = ["select stream from eventstream.events", "select stream from eventstream.streams order by stream", "select es_read_all()", "select stream from es_read_all()"]
            for place, source in enumerate([*sources, "select generate_series(1, 100)"]):
                late.execute(f"declare c{place} cursor for {source}")
                assert len(rows(late, f"fetch 1 from c{place}")) == 1
            owner.execute("select es_require_token('late')")
            for place in range(len(sources)):
                with pytest.raises(psycopg.Error) as error, late.transaction():
                    rows(late, f"fetch 1 from c{place}")
                assert error.value.sqlstate == "ES042"
            assert len(rows(late, f"fetch all from c{len(sources)}")) == 99
            late.execute("rollback")
        owner.execute("select es_require_token('late', false)")


SLOW = {
    "a loop": "for n in select generate_series(1, 3) loop state := state || jsonb_build_object('n', n); end loop;",
    "a SQL function": "state := one_of(state);",
    "a query": "state := (select jsonb_build_object('n', count(*)) from pg_class);",
}


@pytest.mark.parametrize("body", SLOW.values(), ids=SLOW)
def test_a_fold_that_hears_of_new_rules_while_it_works_goes_on(database, body):
    """It was refused as if it had called an es_ function: the hook looked the new rules up inside of it."""
    with database.connect() as owner, database.connect() as session:
        owner.execute("""select es_append('slow-1', 'Happened', '{}');
            create function one_of(state jsonb) returns jsonb stable language sql as $$ select state || '{"n": 1}' from generate_series(1, 3) $$""")
        # Whatever it looks at in the catalog has it hear what others have committed.
        owner.execute(f"""create function slow(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$ declare n int; begin
            perform pg_sleep(1.5);
            execute 'select count(*) from pg_description';
            {body}
            return state;
            end $$;
            select es_register_fold('slow', 'slow', 'slow(jsonb, eventstream.event)')""")
        session.execute("select es_read('customer-1', 1, 1)")
        found = []
        folding = threading.Thread(target=lambda: found.append(outcome_of(session, "select es_state('slow-1')")))
        folding.start()
        wait_until(lambda: value(owner, "select count(*) from pg_stat_activity where wait_event = 'PgSleep'") == 1, 10, "the fold at work")
        protect(owner)
        folding.join()
        assert found == ["answered"]


def outcome_of(session, statement: str) -> str:
    try:
        session.execute(statement).fetchall()
    except psycopg.Error as error:
        return f"{error.sqlstate} {error}"
    return "answered"
