"""What is read of the log by category, by tenant or by a follower that has little to read costs what it returns, however long the log is.
Work is counted in pages that are looked at, not in seconds: the same at a log and at one of ten times its length."""

import threading

import pytest
from costs import MORE, grow, pages, rare
from database import Database, rows, value

SMALL, LARGE = 6_000, 60_000
RARE = "{" + ",".join(f"rare{number}" for number in range(15)) + "}"

READS = {
    "one category": "select * from es_read_all(0, 100, '{rare}')",
    "one category, by type": "select * from es_read_all(0, 100, '{rare}', '{Seen}')",
    "a category and one that is not there": "select * from es_read_all(0, 100, '{rare,none}')",
    "fifteen categories": f"select * from es_read_all(0, 100, '{RARE}')",
    "a busy category and a rare one": "select * from es_read_all(0, 20, '{busy0,rare}')",
    "backward, one category": "select * from es_read_backward(null, 100, '{rare}')",
    "backward, fifteen categories": f"select * from es_read_backward(null, 100, '{RARE}')",
    "a rare tag": "select * from es_read_all(0, 100, tags => '{rare}')",
    "a rare tag and one that every event bears": "select * from es_read_all(0, 100, tags => '{busy,rare}')",
    "a page of what bears two tags": "select * from es_read_all(0, 20, tags => '{busy,third:1}')",
    "backward, a rare tag and one that every event bears": "select * from es_read_backward(null, 100, tags => '{busy,rare}')",
    "backward, a page of what bears a tag": "select * from es_read_backward(null, 20, tags => '{busy}')",
    "a query of a rare category": "select * from es_query('{\"categories\": [\"rare\"]}')",
    "a query of a rare tag, in busy categories": "select * from es_query('{\"tags\": [\"rare\"], \"categories\": [\"busy0\", \"rare\"]}')",
    "a query of a tag that every event bears, in a rare category": "select * from es_query('{\"tags\": [\"busy\"], \"categories\": [\"rare\"]}')",
    "the same backward": "select * from es_query('{\"tags\": [\"busy\"], \"categories\": [\"rare\"], \"order\": \"backward\"}')",
    "a query of a tag that every event bears, of a prefix": "select * from es_query('{\"tags\": [\"busy\"], \"stream_prefix\": \"rare-\"}')",
    "a query of four streams": "select * from es_query('{\"streams\": [\"rare-1\", \"rare-2\", \"rare1-1\", \"none-1\"]}')",
    "a query of items": "select * from es_query('{\"items\": [{\"tags\": [\"rare\"]}, {\"tags\": [\"rare1\", \"busy\"], \"event_types\": [\"Seen\"]}]}')",
    "a query of a correlation id": "select * from es_query('{\"correlation_id\": \"one\"}')",
    "a query of a subject": "select * from es_query('{\"subjects\": [\"somebody\"], \"payload\": {\"/n\": 1}}')",
    "a page of what bears a tag, by a query": "select * from es_query('{\"tags\": [\"busy\"], \"order\": \"backward\"}', 20)",
    "a tag that is not there": "select * from es_read_all(0, 100, tags => '{busy,none}')",
    "the subscriptions": "select * from eventstream.subscriptions",
    "the projections": "select * from eventstream.projections",
    "health": "select * from eventstream.health",
    "small tenant, all": "select * from es_read_all(0, 100)",
    "small tenant, backward": "select * from es_read_backward(null, 100)",
    "small tenant, a category": "select * from es_read_all(0, 100, '{rare}')",
}


@pytest.fixture(scope="module")
def costs(quiet_server):
    """What each read costs in a log, in one of ten times its length whose plans were made before it grew, and with plans made afterwards."""
    database = Database(quiet_server, "costs").create()
    with database.connect() as session, database.connect() as small_tenant:
        rows(session, "select es_create_tenant('small')")
        small_tenant.execute("set eventstream.tenant = 'small'")
        session.execute("set eventstream.tenant = 'default'")
        for connection in (session, small_tenant):
            connection.execute("set eventstream.durability = 'session'")
            rare(connection)
        rare(session, [f"rare{number}" for number in range(15)])
        session.execute("select es_append('rare-1', 'Seen', '{\"n\": 1}', metadata => '{\"correlation_id\": \"one\"}', subject => 'somebody')")
        session.execute("select es_create_subscription('far', categories => '{rare}')")
        session.execute("select es_create_subscription('far of many', categories => %s)", (RARE,))
        session.execute("create function handle(e eventstream.event) returns void language sql as 'select'")
        session.execute("select es_create_projection('waits', 'handle(eventstream.event)', categories => '{rare}')")
        session.execute("select es_pause_projection('waits')")
        session.execute("select es_create_projection('at the end', 'handle(eventstream.event)', categories => '{rare}')")
        rows(session, "select es_run_projection('at the end')")
        found = []
        for events in (SMALL, LARGE - SMALL):
            grow(session, events)
            session.execute("vacuum analyze")
            with database.connect() as fresh, database.connect() as fresh_small:
                fresh.execute("set eventstream.tenant = 'default'")
                fresh_small.execute("set eventstream.tenant = 'small'")
                for main, small in ((session, small_tenant), (fresh, fresh_small)):
                    found.append({
                        name: pages(small if name.startswith("small") else main, read) for name, read in READS.items()
                    })
    yield found
    database.drop()


@pytest.mark.parametrize("read", READS)
def test_a_filtered_read_costs_what_it_returns(costs, read):
    small, _, grown, fresh = (each[read] for each in costs)
    assert grown <= small + MORE and fresh <= small + MORE, f"pages: {[each[read] for each in costs]}"


def test_a_consumer_that_has_nothing_to_read_looks_at_nothing(quiet):
    """es_fetch of a rare category from its first position on, and at the end; its slots are moved on."""
    with quiet.connect() as session:
        session.execute("set eventstream.durability = 'session'")
        session.execute("select es_create_subscription('idle', categories => '{rare}')")
        session.execute("select es_create_subscription('idle of two', categories => '{rare,none}')")
        fetch = "select * from es_fetch('{}', 'me', 100)"
        taken = {}
        for events in (SMALL, LARGE - SMALL):
            grow(session, events)
            session.execute("vacuum analyze")
            for name in ("idle", "idle of two"):
                taken.setdefault(name, []).append(pages(session, fetch.format(name)))
        grow(session, 51_000)
        rows(session, fetch.format("idle"))
        for name, (small, large) in taken.items():
            assert large <= small + MORE, f"{name}: {taken}"
        moved = value(session, "select max(global_position) from _eventstream.subscription_slots")
        assert moved >= 100_000, "slots without events stay where they were"


def test_who_follows_by_type_looks_at_each_event_once(quiet):
    """There is no index by type: what is not wanted is passed once, by es_fetch and by a projection, and costs nothing from then on."""
    with quiet.connect() as session:
        session.execute("set eventstream.durability = 'session'")
        session.execute("create function handle(e eventstream.event) returns void language sql as 'select'")
        for name, categories in (("by type", None), ("in a category", "{busy0}"), ("in two", "{busy0,busy1}")):
            session.execute("select es_create_subscription(%s, categories => %s, event_types => '{None}')", (name, categories))
            session.execute(
                "select es_create_projection(%s, 'handle(eventstream.event)', categories => %s, event_types => '{None}')", (name, categories)
            )
        asked = {"the subscriptions": "select * from eventstream.subscriptions", "the projections": "select * from eventstream.projections"}
        for name in ("by type", "in a category", "in two"):
            asked[f"fetch {name}"] = f"select * from es_fetch('{name}', 'me', 100)"
            asked[f"run {name}"] = f"select es_run_projection('{name}')"
        taken = {}
        for events in (SMALL, LARGE - SMALL):
            grow(session, events)
            session.execute("vacuum analyze")
            for name, statement in reversed(asked.items()):
                taken.setdefault(name, []).append(pages(session, statement))
        for name, (small, large) in taken.items():
            assert large <= small + MORE, f"{name}: {taken}"


def test_a_consumer_that_waits_beside_busy_appenders_hardly_looks(database):
    """While others append what it does not want, it looks at the index a hundred times a second at most, and at nothing else."""
    with database.connect() as session, database.connect() as appender:
        for name in ("waits", "waits for two"):
            categories = ["rare"] if name == "waits" else ["rare", "none"]
            session.execute("select es_create_subscription(%s, categories => %s)", (name, categories))
            over = threading.Event()

            def append():
                while not over.is_set():
                    appender.execute("select es_append('busy-1', 'Moved', '{}')")

            busy = threading.Thread(target=append)
            busy.start()
            try:
                looked_at = pages(session, f"select * from es_fetch('{name}', 'me', 100, wait => '1s')")
            finally:
                over.set()
                busy.join()
            # Two looks of the whole call, and 100 to 160 at the index, of a few pages each.
            assert looked_at < 1_500, f"{name}: {looked_at} pages in a second"


def test_several_categories_are_read_in_the_order_of_the_log(quiet):
    """As the whole log filtered by hand, from any place, for any number of them, both ways, by pages of any size; more than are merged at
    once too."""
    with quiet.connect() as session:
        session.execute("set eventstream.durability = 'session'")
        for _ in range(2):
            grow(session, 3_000, busy=200)
        whole = rows(session, "select global_position, category from es_read_all(0, 100000)")
        for count in (1, 2, 15, 190):
            wanted = [f"busy{number}" for number in range(0, count)] + ["none", "busy0"]
            expected = [position for position, category in whole if category in wanted]
            for after, most in ((0, 100_000), (0, 7), (1_234, 501), (5_990, 1_000)):
                read = rows(session, "select global_position from es_read_all(%s, %s, %s)", after, most, wanted)
                assert [position for (position,) in read] == [each for each in expected if each > after][:most]
            for before, most in ((10**9, 100_000), (4_321, 1_001), (100, 3)):
                read = rows(session, "select global_position from es_read_backward(%s, %s, %s)", before, most, wanted)
                assert [position for (position,) in read] == [each for each in expected[::-1] if each < before][:most]
