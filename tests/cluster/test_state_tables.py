"""State tables are rebuilt under the eyes of their readers: each read sees all the old rows or all the new, nothing that users have
put on the table is touched, a rebuild that dies goes on, and whatever changes the states rebuilds the table by itself.
"""

import threading
import time

import psycopg
import pytest
from database import Database, all_at_once, rows, value
from models import Appenders, Crowd
from psycopg.types.json import Jsonb
from server import kill_9, wait_until

STREAMS = 300
COLUMNS = [
    {"name": "generation", "type": "int", "path": "/generation"},
    {"name": "events", "type": "bigint", "path": "/events"},
    {"name": "last", "type": "text", "path": "/last"},
]


def register(session, generation: int) -> None:
    """A fold whose every state says which definition it is of: registering it moves every row."""
    rules = {
        "on": {
            "Moved": [
                {"set": {"/generation": {"value": generation}}},
                {"increment": "/events"},
                {"set": {"/last": "/token"}},
            ]
        }
    }
    session.execute("select es_register_fold('tally', 'account', rules => %s, initial_state => '{}')", (Jsonb(rules),))


def fill(session, streams: int = STREAMS, each: int = 3, category: str = "account") -> None:
    for first in range(0, streams, 100):
        appends = [
            {
                "stream": f"{category}-{number}",
                "events": [{"type": "Moved", "payload": {"token": f"t{n}"}} for n in range(each)],
            }
            for number in range(first, min(first + 100, streams))
        ]
        session.execute("select count(*) from es_append_streams(%s)", (Jsonb(appends),))


def differences(session, table: str = "totals") -> list[tuple]:
    """Rows that are not what the category's states are; both are read in one snapshot."""
    return rows(
        session,
        f"select * from {table} t full join es_category_state('account') s using (stream)"
        " where (t.version, t.generation, t.events, t.last) is distinct from"
        " (s.version, (s.state ->> 'generation')::int, (s.state ->> 'events')::bigint, s.state ->> 'last') limit 5",
    )


def wait_until_rebuilt(session, seconds: float = 60) -> None:
    wait_until(
        lambda: value(session, "select count(*) from _eventstream.projection_progress where status = 'rebuilding'") == 0,
        seconds,
        "the rebuild",
    )
    session.execute("select es_wait_for('totals', timeout => %s)", (f"{seconds} seconds",))


@pytest.fixture
def tables(new_server):
    server = new_server("tables", max_worker_processes=12, **{"eventstream.retry_pause": "100ms"})
    database = Database(server, "tables").create()
    with database.connect() as session:
        register(session, 1)
        fill(session)
        session.execute("select es_create_state_table('totals', 'account', %s)", (Jsonb(COLUMNS),))
        wait_until_rebuilt(session)
        assert differences(session) == []
    return database


class Readers(Crowd):
    """Read the whole table in a loop; each read must be of one generation and without a gap."""

    def __init__(self, database: Database, count: int = 2, streams: int = STREAMS):
        super().__init__(count)
        self.database, self.streams = database, streams
        self.generations: list[list[int]] = [[] for _ in range(count)]
        self.longest, self.reads = 0.0, 0

    def _run(self, number: int) -> None:
        seen = self.generations[number]
        try:
            with self.database.connect() as session:
                while not self.done.is_set():
                    began = time.monotonic()
                    streams, generations = session.execute(
                        "select count(*), array_agg(distinct generation) from totals"
                    ).fetchone()
                    self.longest = max(self.longest, time.monotonic() - began)
                    self.reads += 1
                    assert streams >= self.streams, f"a gap: {streams} of {self.streams} rows"
                    assert len(generations) == 1, f"a mixture of generations {generations}"
                    if seen[-1:] != generations:
                        seen += generations
        except BaseException as error:  # noqa: BLE001 - raised at the end
            self.errors.append(error)


def test_each_read_sees_all_rows_of_one_generation_while_the_fold_changes_again_and_again(tables):
    with tables.connect() as session, Readers(tables) as readers, Appenders(tables, count=2, streams=STREAMS, pause=0.01) as others:
        for generation in range(2, 8):
            others.wait_for(20)
            register(session, generation)
            wait_until(
                lambda: value(session, "select min(generation) from totals") == generation, 60, "the new generation"
            )
        others.done.set()
    assert all(seen == list(range(1, 8)) for seen in readers.generations), readers.generations
    # Nobody waits for a rebuild: it takes row locks, which readers do not see.
    assert readers.longest < 2, readers.longest
    with tables.connect() as session:
        wait_until_rebuilt(session)
        assert differences(session) == []
    print(f"{readers.reads} reads, the longest took {readers.longest * 1000:.0f} ms")


DEFINITIONS = """
select 'index', indexdef from pg_indexes where tablename = 'totals'
union all select 'constraint', conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) from pg_constraint
    where 'totals'::regclass in (conrelid, confrelid)
union all select 'grants', relacl::text from pg_class where oid = 'totals'::regclass
union all select 'column grants', attname || attacl::text from pg_attribute where attrelid = 'totals'::regclass and attacl is not null
union all select 'owner, options', relowner::regrole || coalesce(reloptions::text, '') from pg_class where oid = 'totals'::regclass
union all select 'view', pg_get_viewdef('rich'::regclass)
union all select 'trigger', pg_get_triggerdef(oid) from pg_trigger where tgrelid = 'totals'::regclass and not tgisinternal
union all select 'comment', obj_description('totals'::regclass)
union all select 'statistics', stxname::text from pg_statistic_ext where stxrelid = 'totals'::regclass
union all select 'oid', 'totals'::regclass::oid::text
order by 1, 2
"""

LOADED = """
create table kinds (last text primary key);
insert into kinds select 't' || n from generate_series(0, 9) n;
alter table totals add constraint of_a_kind foreign key (last) references kinds;
alter table totals add constraint not_negative check (events >= 0);
alter table totals add constraint one_each unique (stream, version);
create index totals_by_events on totals (events) where events > 1;
create statistics totals_related on events, last from totals;
grant select on totals to auditor;
grant select (stream) on totals to clerk;
create table notes (stream text references totals, note text);
insert into notes values ('account-7', 'mind this one');
create view rich as select stream, events from totals where events >= 3;
create table changes (n bigint generated always as identity, stream text, was int, is_now int);
create function note_change() returns trigger language plpgsql as $$ begin
    insert into public.changes (stream, was, is_now) values (new.stream, old.generation, new.generation);
    return new;
end $$;
create trigger noted after update on totals for each row execute function note_change();
comment on table totals is 'how far each account is';
"""


def test_what_users_put_on_a_table_is_as_before_a_rebuild_and_still_works(tables):
    for role in ("auditor", "clerk"):
        tables.role(role)
    with tables.connect() as session:
        session.execute(LOADED)
        before = rows(session, DEFINITIONS)
        for generation in (2, 3):
            register(session, generation)
            wait_until(lambda: value(session, "select min(generation) from totals") == generation, 60, "the rebuild")
        session.execute("select es_rebuild_projection('totals')")
        wait_until_rebuilt(session)
        assert rows(session, DEFINITIONS) == before
        # The view shows the new rows, the trigger saw each row change twice and no more, the rows referred to are there.
        assert value(session, "select count(*) from rich") == STREAMS
        assert rows(session, "select was, is_now, count(*) from changes group by 1, 2 order by 1") == [
            (1, 2, STREAMS),
            (2, 3, STREAMS),
        ]
        for statement, sqlstate in (
            ("delete from totals where stream = 'account-7'", "23503"),
            ("update totals set events = -1 where stream = 'account-8'", "23514"),
            ("update totals set last = 'unknown' where stream = 'account-8'", "23503"),
        ):
            with pytest.raises(psycopg.Error) as refused:
                session.execute(statement)
            assert refused.value.sqlstate == sqlstate
        with tables.connect("auditor") as auditor, tables.connect("clerk") as clerk:
            assert value(auditor, "select count(*) from totals") == value(clerk, "select count(stream) from totals") == STREAMS
        assert differences(session) == []


def test_a_row_that_a_constraint_refuses_stops_the_table_as_it_was_and_goes_on_when_the_constraint_is_gone(tables):
    with tables.connect() as session:
        session.execute("alter table totals add constraint old_ones check (generation < 2)")
        before = rows(session, "select * from totals order by stream")
        register(session, 2)
        failed = "select error_sqlstate from eventstream.projections where name = 'totals' and attempts > 0"
        wait_until(lambda: value(session, failed) == "23514", 30, "the refusal")
        assert rows(session, "select * from totals order by stream") == before
        session.execute("alter table totals drop constraint old_ones")
        session.execute("select es_resume_projection('totals')")
        wait_until(lambda: value(session, "select min(generation) from totals") == 2, 30, "the rebuild")
        wait_until_rebuilt(session)
        assert differences(session) == []


def test_a_rebuild_that_is_killed_in_the_middle_goes_on_where_it_was(tables):
    with tables.connect() as session:
        # More pages than fit a step, each state slow.
        fill(session, 1500, 1, "slow")
        session.execute(
            "create function slowly(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as"
            " $$ begin perform pg_sleep(0.002); return jsonb_build_object('events', event.version); end $$"
        )
        session.execute("select es_register_fold('slow', 'slow', 'slowly(jsonb, eventstream.event)'::regprocedure, snapshot_every => 1000)")
        session.execute(
            "select es_create_state_table('slow_totals', 'slow', %s)",
            (Jsonb([{"name": "events", "type": "bigint", "path": "/events"}]),),
        )
        session.execute("select es_wait_for('slow_totals', timeout => '60 s')")
        before = rows(session, "select * from slow_totals order by 1")
        assert len(before) == 1500
        session.execute("checkpoint")
        session.execute("select es_rebuild_projection('slow_totals')")
        began = value(session, "select rebuild_began from _eventstream.projection_progress where rebuild_to is not null")
        kept = []
        for _ in range(2):
            least = max(kept, default=0)
            state = wait_until(
                lambda: rows(
                    session,
                    "select rebuild_done, status from _eventstream.projection_progress g join _eventstream.projections p"
                    " on p.id = g.projection_id where name = 'slow_totals' and rebuild_done > %s",
                    least,
                ),
                30,
                "the rebuild to come a way",
                every=0.005,
            )
            assert state[0][1] == "rebuilding"
            assert value(session, "select done from eventstream.progress where name = 'slow_totals'") >= state[0][0]
            # What the runner committed without waiting for the disk.
            session.execute("select pg_switch_wal(); checkpoint")
            (victim,) = rows(
                session,
                "select pid from pg_stat_activity where backend_type = 'eventstream runner' and query like 'projection%' limit 1",
            ) or [(None,)]
            assert victim is not None, "no runner was at it"
            kill_9(victim[0] if isinstance(victim, tuple) else victim)
            wait_until(lambda: "terminated by signal 9" in tables.server.log.read_text(), 10, "the crash")
            time.sleep(0.2)
            tables.server.wait_for_connections()
            session = tables.connect()
            done, since, count = rows(
                session,
                "select rebuild_done, rebuild_began, (select count(*) from _eventstream.rebuilt_states r where r.projection_id = p.id)"
                " from _eventstream.projection_progress g join _eventstream.projections p on p.id = g.projection_id"
                " where name = 'slow_totals'",
            )[0]
            assert since == began and done >= state[0][0] and count >= state[0][0], "the rebuild began anew"
            assert rows(session, "select * from slow_totals order by 1") == before
            kept.append(done)
        wait_until(lambda: value(session, "select count(*) from eventstream.progress") == 0, 60, "the rebuild")
        assert rows(session, "select * from slow_totals order by 1") == before
        assert value(session, "select count(*) from _eventstream.rebuilt_states") == 0
        session.close()


def test_an_upcaster_rebuilds_the_table_and_its_removal_too(tables):
    with tables.connect() as session:
        before = rows(session, "select stream, last from totals order by 1")
        session.execute(
            "create function newer(payload jsonb, metadata jsonb) returns jsonb immutable language sql"
            " begin atomic select jsonb_build_object('token', 'new ' || (payload ->> 'token')); end"
        )
        session.execute("select es_register_upcaster('Moved', 1, 'newer(jsonb, jsonb)')")
        wait_until(lambda: value(session, "select count(*) from totals where last = 'new t2'") == STREAMS, 30, "the rebuild")
        assert differences(session) == []
        session.execute("select es_unregister_upcaster('Moved', 1)")
        wait_until(lambda: rows(session, "select stream, last from totals order by 1") == before, 30, "the second rebuild")
        assert differences(session) == []


@pytest.mark.parametrize("change", ["fold", "upcaster"])
def test_an_inline_table_is_of_one_generation_after_its_fold_or_an_upcaster_changed_while_clients_append(tables, change):
    with tables.connect() as session:
        session.execute("select es_create_state_table('inside', 'account', %s, mode => 'inline')", (Jsonb(COLUMNS),))
        assert differences(session, "inside") == []
        if change == "upcaster":
            session.execute(
                "create function newer(payload jsonb, metadata jsonb) returns jsonb immutable language sql"
                " begin atomic select jsonb_build_object('token', 'new ' || (payload ->> 'token')); end"
            )
        with Appenders(tables, count=3, streams=STREAMS) as others:
            others.wait_for(50)
            if change == "fold":
                register(session, 2)
            else:
                session.execute("select es_register_upcaster('Moved', 1, 'newer(jsonb, jsonb)')")
            others.wait_for(50)
        wait_until(lambda: differences(session, "inside") == [], 10, "the inline table to be of the new definition")
        if change == "fold":
            assert value(session, "select min(generation) from inside") == 2


def test_of_two_rebuilds_at_once_one_is_refused(tables):
    # No runner gets in between: it might be done before the second call looks.
    tables.server.configure(**{"eventstream.max_workers": 0})
    tables.server.reload()
    with tables.connect() as session, tables.connect() as watcher:
        session.execute("begin")
        session.execute("select es_rebuild_projection('totals')")

        def second(_):
            with tables.connect() as other:
                other.execute("select es_rebuild_projection('totals')")

        waiting = threading.Thread(target=lambda: outcome.extend(all_at_once(1, second)), daemon=True)
        outcome: list = []
        waiting.start()
        wait_until(
            lambda: value(watcher, "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"), 10, "the second to wait"
        )
        # Still in the transaction of the first.
        with pytest.raises(psycopg.Error) as refused, session.transaction():
            session.execute("select es_rebuild_projection('totals')")
        assert refused.value.sqlstate == "ES022"
        session.execute("commit")
        waiting.join(30)
        assert [getattr(error, "sqlstate", error) for error in outcome] == ["ES022"]
        tables.server.configure(**{"eventstream.max_workers": None})
        tables.server.reload()
        wait_until_rebuilt(session)
        assert differences(session) == []
