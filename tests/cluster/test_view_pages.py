"""The views of events, as tools for reports page through them: the newest event, the next ones after a position. They cost what they return,
for a tenant with few events in a long log too, before the tables were analyzed and afterwards; and the answers are those of the whole view, also
for a role that may read some categories only, and with a condition that must not see what it may not."""

import pytest
from costs import MORE, grow, pages, rare
from database import Database, near_edge, rows, value

SMALL, LARGE = 6_000, 60_000

PAGES = {
    "the newest": "select * from eventstream.events order by global_position desc limit 1",
    "the next": "select * from eventstream.events where global_position > {n} order by 1 limit 10",
    "the next, as a subquery": "select * from (select * from eventstream.events) e where global_position > {n} order by global_position limit 10",
    "some columns": "select global_position, stream from eventstream.events where global_position < {n} order by global_position desc limit 10",
    "within the limit of a page": "select stream, global_position from eventstream.events order by 2 limit 10 offset 20",
    "audit": "select * from eventstream.audit order by global_position desc limit 5",
    "by type": "select * from eventstream.events where event_type = 'Seen' and global_position <= 100 order by global_position limit 3",
}

#: They ask for few events, which an index finds: what a condition is worth the planner knows from statistics.
FEW = {
    "of a stream": "select * from eventstream.events where stream = 'rare3-1' order by global_position desc limit 5",
    "of a stream, as a subquery": "select * from (select *, stream as s from eventstream.events) e where s = 'rare3-1' order by global_position limit 5",
    "of an event": "select * from eventstream.events where event_id = '{event}' order by global_position desc limit 5",
    "of a category": "select * from eventstream.events where category = 'rare3' order by global_position desc limit 5",
    "of a subject": "select * from eventstream.events where subject = 'anna' order by global_position desc limit 5",
    "audit of a subject": "select * from eventstream.audit where subject = 'anna' order by global_position desc limit 5",
}


@pytest.fixture(scope="module")
def costs(quiet_server):
    database = Database(quiet_server, "view_pages").create()
    found = []
    with database.connect() as session:
        rows(session, "select es_create_tenant('small')")
        session.execute("set eventstream.durability = 'session'")
        for tenant in ("small", "default"):
            rows(session, f"select set_config('eventstream.tenant', '{tenant}', false)")
            rare(session, [f"rare{number}" for number in range(10)])
            session.execute("select es_append('rare3-1', 'Seen', '1', subject => 'anna')")
        for events in (SMALL, LARGE - SMALL):
            grow(session, events)
            for analyzed in (False, True):
                if analyzed:
                    session.execute("analyze")
                for tenant in ("default", "small"):
                    with database.connect() as fresh:
                        fresh.execute(f"set eventstream.tenant = '{tenant}'")
                        # The plan that serves every call, too.
                        fresh.execute("set plan_cache_mode = force_generic_plan")
                        middle = value(fresh, "select 20")
                        event = value(fresh, "select event_id from es_read('rare3-1') limit 1")
                        found.append({
                            (tenant, name): pages(fresh, page.format(n=middle, event=event)) for name, page in (PAGES | FEW).items()
                        })
    yield found
    database.drop()


@pytest.mark.parametrize("tenant", ["default", "small"])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_a_view_costs_what_it_returns(costs, tenant, page):
    taken = [each[tenant, page] for each in costs if (tenant, page) in each]
    assert len(taken) == 4 and max(taken) <= min(taken) + MORE and max(taken) < 250, f"pages: {taken}"


@pytest.mark.parametrize("tenant", ["default", "small"])
@pytest.mark.parametrize("page", FEW)
def test_a_page_of_few_events_costs_what_they_do(costs, tenant, page):
    taken = [each[tenant, page] for each in costs if (tenant, page) in each][1:]
    assert len(taken) == 3 and max(taken) <= min(taken) + MORE and max(taken) < 250, f"pages: {taken}"


def test_a_page_of_a_role_that_may_read_little_looks_at_no_stream_of_others(quiet):
    """It goes by the tenant's log, and passes an event that it may not read at the price of its row: a few pages for a hundred."""
    with quiet.connect() as session:
        session.execute("set eventstream.durability = 'session'")
        rare(session)
        grow(session, 12_000)
        session.execute("analyze")
        reader = quiet.role("reader_of_little")
        rows(session, "select es_grant('reader_of_little', 'read', category => 'rare')")
    with quiet.connect(user=reader) as narrow:
        page = "select stream, category from eventstream.events order by global_position desc limit 5"
        assert rows(narrow, page) == [(f"rare-{number}", "rare") for number in (3, 2, 1, 0)]
        assert pages(narrow, page) < 3_000


@pytest.fixture
def two_partitions(quiet):
    quiet.make_partitions_small()
    with quiet.connect() as session:
        session.execute("create table leaked (stream text)")
        session.execute(
            "create function leak(stream text) returns bool language plpgsql cost 0.0000001 as"
            " $$ begin insert into leaked values (stream); return true; end $$"
        )
        rows(session, "select es_create_tenant('other')")
        near_edge(session, 20)
        for number in range(40):
            for tenant in ("default", "other"):
                session.execute(f"set eventstream.tenant = '{tenant}'")
                session.execute("select es_append(%s, 'Moved', '{}')", (f"cat{number % 3}-{number % 7}",))
        reader = quiet.role("reader_of_pages")
        session.execute("grant insert on leaked to reader_of_pages")
        session.execute("set eventstream.tenant = 'default'")
        rows(session, "select es_grant('reader_of_pages', 'read', category => 'cat1')")
        yield session, reader


def test_pages_are_those_of_the_whole_view(quiet, two_partitions):
    session, reader = two_partitions
    assert value(session, "select count(distinct tableoid) from _eventstream.events") == 2
    with quiet.connect(user=reader) as narrow, quiet.connect() as other:
        other.execute("set eventstream.tenant = 'other'")
        for connection in (session, narrow, other):
            whole = rows(connection, "select * from eventstream.events")
            whole.sort(key=lambda row: row[0])
            assert whole
            edges = [0, whole[0][0], whole[len(whole) // 2][0], whole[-1][0], 10**12]
            for n in edges:
                for direction, comparison in (("asc", ">"), ("desc", "<")):
                    for limit, offset in ((1, 0), (7, 3), (1000, 0), (0, 0)):
                        query = (
                            f"select * from eventstream.events where global_position {comparison} %s"
                            f" order by global_position {direction} limit {limit} offset {offset}"
                        )
                        wanted = [row for row in (whole if direction == "asc" else whole[::-1]) if (row[0] > n if comparison == ">" else row[0] < n)]
                        assert rows(connection, query, n) == wanted[offset : offset + limit]
            # Ties, other orders, orders by more, joins, aggregates: planned as ever.
            assert rows(connection, "select global_position from eventstream.events order by stream, global_position limit 5") == [
                (row[0],) for row in sorted(whole, key=lambda row: (row[1], row[0]))[:5]
            ]
            assert rows(connection, "select global_position from eventstream.events order by global_position desc nulls last, stream limit 3") == [
                (row[0],) for row in whole[::-1][:3]
            ]
            assert rows(connection, "select e.global_position from eventstream.events e join eventstream.events f using (global_position) order by 1 limit 2") == [
                (row[0],) for row in whole[:2]
            ]
            assert value(connection, "select count(*) from (select * from eventstream.events order by global_position limit 3) x") == 3
            assert rows(connection, "select distinct category from eventstream.events order by 1 limit 1")


def test_a_condition_sees_no_more_than_the_role_may_read(quiet, two_partitions):
    session, reader = two_partitions
    with quiet.connect(user=reader) as narrow:
        for direction in ("", "desc"):
            assert len(rows(narrow, f"select * from eventstream.events where leak(stream) order by global_position {direction} limit 1000")) == 13
    seen = {stream for (stream,) in rows(session, "select stream from leaked")}
    assert seen and all(stream.startswith("cat1-") for stream in seen)
    assert value(session, "select count(*) from leaked") == 26


JOINS = {
    "everything with everything": "cross join _eventstream.streams s",
    "of another": "join _eventstream.streams s on s.id <> e.stream_id",
    "also of none": "right join _eventstream.streams s on s.id = e.stream_id and s.tenant_id <> e.tenant_id",
    "its own": "join _eventstream.streams s on s.id = e.stream_id",
}


@pytest.mark.parametrize("join", JOINS)
def test_views_of_others_over_the_same_tables_keep_their_rows(two_partitions, join):
    session, _ = two_partitions
    session.execute(
        "create view theirs with (security_barrier) as select e.global_position, s.name, s.id, s.tenant_id, e.tenant_id as of_event"
        f" from _eventstream.events e {JOINS[join]}"
    )
    whole = rows(session, "select * from theirs")
    assert whole
    assert sorted(rows(session, "select * from theirs order by global_position limit 100000"), key=str) == sorted(whole, key=str)
    positions = sorted((row[:1] for row in whole), key=lambda row: (row[0] is None, row[0] or 0))
    assert rows(session, "select global_position from theirs order by global_position limit 50") == positions[:50]


def test_what_is_computed_while_planning_is_the_sessions(two_partitions):
    session, _ = two_partitions
    session.execute(
        "create function digits() returns int immutable language plpgsql as"
        " $$ begin perform set_config('extra_float_digits', '-3', false); return 1; end $$"
    )
    session.execute("set extra_float_digits = 0; set bytea_output = 'escape'; set intervalstyle = 'iso_8601'; set datestyle = 'german'")
    constants = r"(0.1::float8 + 0.2::float8)::text, '\x61'::bytea::text, '1 day'::interval::text, '2024-10-13'::date::text"
    expected = rows(session, f"select {constants}")
    assert expected[0][:2] == ("0.3", "a")
    for end in ("", " from eventstream.events order by global_position limit 1"):
        assert rows(session, f"select {constants}{end}") == expected
    rows(session, "select digits(), stream from eventstream.events order by global_position limit 1")
    assert value(session, "show extra_float_digits") == "-3"
    assert value(session, "select (n / 3::float8)::text from generate_series(1, 1) n") == "0.333333333333"
