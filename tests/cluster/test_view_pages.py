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
                        found.append({
                            (tenant, name): pages(fresh, page.format(n=middle)) for name, page in PAGES.items()
                        })
    yield found
    database.drop()


@pytest.mark.parametrize("tenant", ["default", "small"])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_a_view_costs_what_it_returns(costs, tenant, page):
    taken = [each[tenant, page] for each in costs if (tenant, page) in each]
    assert len(taken) == 4 and max(taken) <= min(taken) + MORE and max(taken) < 250, f"pages: {taken}"


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
