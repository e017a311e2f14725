"""es_query: what criteria find is what plain SQL over the shown events finds, in both directions, on every page, whoever asks; pages go on without a gap while others append, and
a page that is not exactly this query's is none.

Asked of the kinds: isolation (REPEATABLE READ, SERIALIZABLE, appends between pages, an append that is open below), transaction (own appends, savepoints, rolled back rotations), session
(settings), role (none, narrowed, pg_read_all_data), tenant, size (partitions, long criteria, 300 streams of a prefix), time (ranges, zones), number and text, DDL (upcasters, an
operator's indexes), copies (dump, template, standby), death (cancel), load (appends beside), verification. Costs are in test_query_costs. EVENTSTREAM_SEED=<number> asks the same again."""

import datetime
import decimal
import functools
import json
import os
import random
import threading
import time

import psycopg
import pytest
from database import Database, all_at_once, forced, near_edge, partitions, raised, rows, value, verify
from hostile import HOSTILE
from operating import run_psql
from psycopg.types import json as of_psycopg
from server import run

SEED = int(os.environ.get("EVENTSTREAM_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
SIZE = 1024
DAY = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
TAGS = ["order:1", "order:2", "all", "rare", "ž:1"]
TYPES = ["Placed", "Paid", "Old", "New", "Newest"]
CATEGORIES = ["order", "bill", "note", "orders"]
SUBJECTS = ["ann", "bob", "ž"]
CORRELATIONS = ["c-1", "c-2", "x" * 255, "%_'\\"]
AMOUNTS = ["0", "1", "1.00", "100.00", "100.000000000000000000001", "99.999999999999999999999", "-5", "12345678901234567890.5", "1e2"]


def dumps(document):
    """JSON in which decimals keep their digits."""
    marked = json.dumps(document, default=lambda number: f"\x00{number}\x00")
    return marked.replace('"\\u0000', "").replace('\\u0000"', "")


#: As psycopg's, with decimals.
Jsonb = functools.partial(of_psycopg.Jsonb, dumps=dumps)


@pytest.fixture
def session(database):
    with database.connect() as connection:
        yield connection


def refused(call, *args, **more):
    with pytest.raises(psycopg.Error) as error:
        call(*args, **more)
    return error.value


def append(session, stream, event_type="Placed", payload="{}", **more):
    named = "".join(f", {name} => %s" for name in more)
    return value(session, f"select es_append(%s, %s, %s{named})", stream, event_type, payload, *more.values())


def query(session, criteria, **more):
    """Rows of position and page."""
    named = "".join(f", {name} => %s" for name in more)
    given = criteria if isinstance(criteria, str) else Jsonb(criteria)
    return rows(session, f"select (event).global_position, page from es_query(%s{named})", given, *more.values())


def found(session, criteria, **more):
    return [position for position, _ in query(session, criteria, **more)]


def all_pages(session, criteria, count=7, between=lambda: None):
    positions, page = [], None
    while True:
        part = query(session, criteria, max_count=count, page=page)
        if not part:
            return positions
        assert len(part) <= count and not {position for position, _ in part} & set(positions)
        positions += [position for position, _ in part]
        page = part[-1][1]
        between()


def fill(database, session, draw, events=120):
    database.make_partitions_small(SIZE)
    session.execute("create function to_new(p jsonb, m jsonb) returns jsonb immutable language sql return p || jsonb_build_object('amount', p -> 'sum', 'now', 'new')")
    session.execute("create function to_newest(p jsonb, m jsonb) returns jsonb immutable language sql return p || '{\"now\": \"newest\"}'")
    with database.connect() as writer:
        for part in range(3):
            if part:
                near_edge(writer, 20, 2**24 + (part - 1) * SIZE)
            for _ in range(events):
                metadata = draw.choice(({}, {}, {"correlation_id": draw.choice(CORRELATIONS)}, {"actor": "a", "deep": {"n": [1, 2.50]}}, {"correlation_id": 7}, {"correlation_id": "x" * 256}))
                amount = draw.choice(AMOUNTS)
                payload = draw.choice((f'{{"amount": {amount}, "currency": "EUR"}}', f'{{"sum": {amount}, "tags": [{{"k": 1}}, {{"k": "two"}}]}}', f'{{"amount": "{amount}"}}', "[1, null]"))
                event_type = draw.choice(TYPES[:4]) if payload.startswith("{") else "Paid"
                append(
                    writer, f"{draw.choice(CATEGORIES)}-{draw.randrange(9)}", event_type, payload, metadata=Jsonb(metadata),
                    tags=draw.sample(TAGS, draw.choice((0, 0, 1, 2, 3))) or None, subject=draw.choice((None, None, *SUBJECTS)),
                    occurred_at=DAY + datetime.timedelta(hours=draw.randrange(100), microseconds=draw.randrange(2)),
                )  # fmt: skip
        assert len(partitions(writer)) == (3 if events > 20 else 2)
    session.execute("select es_register_upcaster('Old', 1, 'to_new(jsonb, jsonb)', to_event_type => 'New')")
    session.execute("select es_register_upcaster('New', 2, 'to_newest(jsonb, jsonb)', to_event_type => 'Newest')")


#: What each criterion means in plain SQL over the shown events, e, and the stored types, s.
OLDER = {"New": ["Old:1"], "Newest": ["Old:1", "New:2"]}


def of_types(types):
    """Also what is stored under older names."""
    stored = [older for name in types for older in OLDER.get(name, [])]
    return "(s.event_type = any (%s) or s.event_type || ':' || s.schema_version = any (%s))", [types, stored]


COMPARED = {"less_than": "<", "at_most": "<=", "more_than": ">", "at_least": ">="}


def in_sql(criteria):
    """A condition, and its parameters."""
    parts, parameters = ["true"], []

    def add(condition, *given):
        parts.append(f"({condition})")
        parameters.extend(given)

    for key, column in (("streams", "e.stream"), ("categories", "e.category"), ("subjects", "e.subject")):
        if key in criteria:
            add(f"coalesce({column} = any (%s), false)", criteria[key])
    if "stream_prefix" in criteria:
        add("left(e.stream, length(%s)) = %s", criteria["stream_prefix"], criteria["stream_prefix"])
    if "event_types" in criteria:
        condition, given = of_types(criteria["event_types"])
        add(condition, *given)
    if "tags" in criteria:
        add("coalesce(e.tags, '{}') @> %s", criteria["tags"])
    if "items" in criteria:
        items, given = [], []
        for item in criteria["items"]:
            condition, types = of_types(item["event_types"]) if "event_types" in item else ("true", [])
            items.append(f"{condition} and coalesce(e.tags, '{{}}') @> %s")
            given += [*types, item.get("tags", [])]
        add(" or ".join(items), *given)
    for key in ("occurred", "recorded"):
        for bound, sign in (("from", ">="), ("until", "<="), ("before", "<")):
            if bound in criteria.get(key, {}):
                add(f"e.{key}_at {sign} %s::timestamptz", criteria[key][bound])
    if "metadata" in criteria:
        add("e.metadata @> %s", Jsonb(criteria["metadata"]))
    if "correlation_id" in criteria:
        add("coalesce(e.metadata -> 'correlation_id' = to_jsonb(%s::text), false)", criteria["correlation_id"])
    for pointer, condition in criteria.get("payload", {}).items():
        path = pointer.split("/")[1:]
        condition = condition if isinstance(condition, dict) else {"equals": condition}
        for test, operand in condition.items():
            at = "(e.payload #> %s)"
            if test == "exists":
                add(f"({at} is not null) = %s", path, operand)
            elif test == "equals":
                add(f"coalesce({at} = %s, false)", path, Jsonb(operand))
            elif test == "differs":
                add(f"coalesce({at} <> %s, true)", path, Jsonb(operand))
            elif isinstance(operand, str):
                add(f"coalesce(jsonb_typeof({at}) = 'string' and (e.payload #>> %s) collate \"C\" {COMPARED[test]} %s, false)", path, path, operand)
            else:
                add(f"case when jsonb_typeof({at}) = 'number' then (e.payload #>> %s)::numeric {COMPARED[test]} %s else false end", path, path, operand)
    return " and ".join(parts), parameters


PLAIN = """select e.global_position from eventstream.events s join es_read_all(0, 100000) e using (global_position)
           where e.category = any (%s) and {} order by e.global_position {}"""


def drawn(draw, first, last):
    """Random criteria."""

    def some(values, most=3):
        return draw.sample(values, draw.randint(1, min(most, len(values))))

    def moment():
        return (DAY + datetime.timedelta(hours=draw.randrange(-5, 105), microseconds=draw.randrange(2))).isoformat()

    def recorded():
        return (first + (last - first) * draw.random()).isoformat()

    number = decimal.Decimal
    makers = {
        "streams": lambda: some([f"{category}-{n}" for category in CATEGORIES for n in range(10)], 8),
        "stream_prefix": lambda: draw.choice(("order", "order-", "order-1", "b", "bill-", "zzz", "orders-7", "o")),
        "categories": lambda: some([*CATEGORIES, "nothing"]),
        "event_types": lambda: some(TYPES),
        "items": lambda: [
            draw.choice(({"tags": some(TAGS, 2)}, {"event_types": some(TYPES, 2)}, {"tags": some(TAGS, 2), "event_types": some(TYPES, 2)})) for _ in range(draw.randint(1, 4))
        ],
        "tags": lambda: some(TAGS),
        "subjects": lambda: some([*SUBJECTS, "nobody"]),
        "occurred": lambda: draw.choice(({"from": moment()}, {"until": moment()}, {"from": moment(), "before": moment()}, {"from": moment(), "until": moment()})),
        "recorded": lambda: draw.choice(({"from": recorded()}, {"before": recorded()}, {"from": recorded(), "until": recorded()})),
        "metadata": lambda: draw.choice(({"actor": "a"}, {}, {"deep": {"n": [2.5]}}, {"correlation_id": "c-1"}, {"correlation_id": 7})),
        "correlation_id": lambda: draw.choice((*CORRELATIONS, "none", "x")),
        "payload": lambda: draw.choice((
            {"/amount": {draw.choice(list(COMPARED)): number(draw.choice(AMOUNTS))}},
            {"/amount": {draw.choice(list(COMPARED)): draw.choice(AMOUNTS)}},
            {"/amount": {draw.choice(("equals", "differs")): number(draw.choice(AMOUNTS))}},
            {"/amount": number("1.0"), "/currency": "EUR"},
            {"/now": draw.choice(("new", "newest")), "/tags/0/k": {"exists": draw.choice((True, False))}},
            {"/tags/1/k": {"equals": "two", "at_least": "t"}},
            {"/amount": {"at_least": number("1.000"), "at_most": number("100.0")}},
            {"/1": {"exists": True}},
        )),
    }  # fmt: skip
    chosen = draw.sample(list(makers), draw.choice((1, 1, 1, 2, 2, 3, 4)))
    criteria = {key: makers[key]() for key in chosen}
    if draw.random() < 0.6:
        criteria["order"] = draw.choice(("forward", "backward"))
    return criteria


@pytest.fixture
def readers(database, session):
    """Who asks, and what they may read."""
    wide, narrow = (database.role(f"{name}_{database.name[-8:]}".lower()) for name in ("wide", "narrow"))
    session.execute("select es_grant(%s, 'read')", (wide,))
    for category in ("order", "bill"):
        session.execute("select es_grant(%s, 'read', category => %s)", (narrow, category))
    return {None: CATEGORIES, wide: CATEGORIES, narrow: ["order", "bill"]}


def test_random_criteria_find_what_plain_sql_finds(database, session, readers):
    draw = random.Random(SEED)
    print("EVENTSTREAM_SEED", SEED)
    fill(database, session, draw)
    first, last = rows(session, "select min(recorded_at), max(recorded_at) from eventstream.events")[0]
    sessions = {role: database.connect(user=role) if role else session for role in readers}
    hits, seen = 0, set()
    for _ in range(250):
        criteria = drawn(draw, first, last)
        role = draw.choice(list(readers))
        condition, parameters = in_sql(criteria)
        order = "desc" if criteria.get("order") == "backward" else "asc"
        expected = [p for (p,) in rows(session, PLAIN.format(condition, order), readers[role], *parameters)]
        count = draw.choice((1, 3, 10, 50)) if len(expected) < 40 else draw.choice((7, 50, 1000))
        assert all_pages(sessions[role], criteria, count) == expected, (criteria, role, count)
        skip = draw.randrange(len(expected) + 2)
        assert found(sessions[role], criteria, max_count=5, skip=skip) == expected[skip : skip + 5], (criteria, skip)
        hits += bool(expected)
        seen |= {(key, bool(expected)) for key in criteria}
    assert hits > 80
    assert {key for key, has in seen if has} >= {"streams", "stream_prefix", "categories", "event_types", "items", "tags", "subjects", "occurred", "recorded", "payload", "metadata", "correlation_id"}
    for connection in sessions.values():
        connection.close()


def a_few(session, count=6, category="order"):
    for number in range(count):
        append(session, f"{category}-{number % 2}", tags=["all"], metadata=Jsonb({"correlation_id": "c-1"}), subject="ann")


def page_of(session, criteria, **more):
    return query(session, criteria, max_count=2, **more)[-1][1]


def is_refused(session, criteria, page):
    error = refused(query, session, criteria, page=page)
    assert error.diag.message_primary == "the page is none of this query" and error.diag.message_detail == '{"argument":"page"}', error
    return error.sqlstate == "ES032"


def test_an_answer_is_pages_and_events(session):
    a_few(session)
    answer = rows(session, "select page, (event).* from es_query('{\"streams\": [\"order-1\"], \"payload\": {\"/x\": {\"exists\": false}}}', 2)")
    assert [row[2:4] for row in answer] == [("order-1", 1), ("order-1", 2)] and len(answer[0][0]) == 80
    events = "select (event).global_position, (event).stream, ((event).metadata)->>'correlation_id', (event).tags, (event).tenant, (event).chain_hash from es_query('{}')"
    assert rows(session, events) == rows(
        session, "select global_position, stream, metadata->>'correlation_id', tags, tenant, chain_hash from es_read_all()"
    )
    assert found(session, {}, max_count=3, skip=2) == found(session, {})[2:5]
    # null is as if it were not there.
    assert found(session, {"tags": None, "order": None, "payload": None, "occurred": None}) == found(session, {})


def test_no_bit_of_a_page_may_be_another(session):
    a_few(session)
    criteria = {"tags": ["all"]}
    page = page_of(session, criteria)
    assert len(found(session, criteria, page=page)) == 4
    for place in range(len(page)):
        for bit in range(7):
            other = page[:place] + chr(ord(page[place]) ^ 1 << bit) + page[place + 1 :]
            if "\0" not in other:
                assert is_refused(session, criteria, other), (place, bit)
    for other in ("", " ", "0" * 80, page.upper(), page + "0", page[:-1], page + " ", " " + page[1:], "é" * 40, page * 1000, "x" * 1_000_000, f"{0:016x}{page[16:]}", "f" * 80):
        assert is_refused(session, criteria, other)


def test_a_page_is_of_its_query_tenant_and_reader(database, session):
    a_few(session)
    session.execute("select es_create_tenant('acme')")
    session.execute("set eventstream.tenant = 'acme'")
    a_few(session)
    session.execute("set eventstream.tenant = 'default'")
    criteria = {"tags": ["all"], "occurred": {"from": "2020-01-01T00:00:00Z"}}
    page = page_of(session, criteria)
    for other in ({}, {"tags": ["all"]}, {**criteria, "order": "backward"}, {**criteria, "payload": {"/x": {"exists": False}}},
                  {**criteria, "occurred": {"from": "2020-01-01T00:00:01Z"}}, {**criteria, "tags": ["all", "all"]}, {**criteria, "streams": ["order-1"]}):  # fmt: skip
        assert is_refused(session, other, page), other
    # In another order of keys, and written otherwise, it is the same document.
    assert found(session, '{"occurred": {"from": "2020-01-01T00:00:00Z"},   "tags": ["all"]}', page=page) == found(session, criteria)[2:]
    # And so it is with what says nothing, and with the same moment in another zone.
    for same in ({**criteria, "order": "forward"}, {**criteria, "order": None, "streams": None, "payload": None}, {**criteria, "occurred": {"from": "2020-01-01T02:00:00+02:00", "before": None}}):
        assert found(session, same, page=page) == found(session, criteria)[2:], same
    session.execute("set eventstream.tenant = 'acme'")
    assert is_refused(session, criteria, page)
    of_acme = page_of(session, criteria)
    session.execute("set eventstream.tenant = 'default'")
    assert is_refused(session, criteria, of_acme)
    roles = {name: database.role(f"{name}_{database.name[-8:]}".lower()) for name in ("wide", "other", "narrow")}
    for name, category in (("wide", None), ("other", "order"), ("other", "bill"), ("narrow", "order")):
        session.execute("select es_grant(%s, 'read', category => %s, tenant => 'default')", (roles[name], category))
    with database.connect(user=roles["wide"]) as wide, database.connect(user=roles["other"]) as other, database.connect(user=roles["narrow"]) as narrow:
        # Whoever may read as much may go on: the page is of what is read, and not of who reads it.
        assert found(wide, criteria, page=page) == found(session, criteria)[2:]
        assert is_refused(other, criteria, page) and is_refused(narrow, criteria, page)
        of_narrow = page_of(narrow, criteria)
        assert found(narrow, criteria, page=of_narrow) == found(session, criteria)[2:]
        assert is_refused(other, criteria, of_narrow) and is_refused(wide, criteria, of_narrow)
        session.execute("select es_grant(%s, 'read', category => 'bill', tenant => 'default')", (roles["narrow"],))
        assert is_refused(narrow, criteria, of_narrow) and found(other, criteria, page=page_of(narrow, criteria)) == found(session, criteria)[2:]


def test_a_page_outlives_one_change_of_its_key_and_not_two(database, session):
    a_few(session)
    session.execute("select es_create_tenant('acme')")
    session.execute("set eventstream.tenant = 'acme'")
    a_few(session)
    of_acme = page_of(session, {})
    session.execute("set eventstream.tenant = 'default'")
    pages = [page_of(session, {})]
    for _ in range(3):
        assert value(session, "select now() - changed between '0' and interval '1 minute' or changed > now() from es_rotate_page_key() changed")
        pages.append(page_of(session, {}))
        assert len(set(pages)) == len(pages)
        for page in pages[-2:]:
            assert len(found(session, {}, page=page)) == 4
        for page in pages[:-2]:
            assert is_refused(session, {}, page)
    # A change that is rolled back is none.
    with pytest.raises(ZeroDivisionError), session.transaction():
        session.execute("select es_rotate_page_key()")
        session.execute("select es_rotate_page_key()")
        assert is_refused_within(session, pages[-1])
        raise ZeroDivisionError
    assert len(found(session, {}, page=pages[-1])) == 4
    # Others' pages, and their keys, stay.
    session.execute("set eventstream.tenant = 'acme'")
    assert len(found(session, {}, page=of_acme)) == 4
    acts = "select event_type from eventstream.administration where event_type = 'PageKeyChanged'"
    assert rows(session, acts) == []
    session.execute("set eventstream.tenant = 'default'")
    assert len(rows(session, acts)) == 3 and rows(session, "select * from es_verify_audit()") == []
    keys = [key for (key,) in rows(session, "select encode(unnest(array[key, previous]), 'hex') from _eventstream.page_keys")]
    told = str(rows(session, "select to_jsonb(e) from eventstream.administration e")).lower()
    assert len([key for key in keys if key]) == 3 and not any(key in told for key in keys if key)


def is_refused_within(session, page):
    session.execute("savepoint s")
    try:
        return is_refused(session, {}, page)
    finally:
        session.execute("rollback to s")


def test_a_key_is_changed_by_admins_and_read_by_nobody(database, session):
    a_few(session)
    reader = database.role(f"reader_{database.name[-8:]}".lower(), "login", "pg_read_all_data", "pg_monitor")
    admin = database.role(f"admin_{database.name[-8:]}".lower())
    session.execute("select es_grant(%s, 'read')", (reader,))
    session.execute("select es_grant(%s, 'admin')", (admin,))
    session.execute("analyze _eventstream.page_keys")
    with database.connect(user=reader) as connection:
        page = page_of(connection, {})
        assert rows(connection, "select * from _eventstream.page_keys") == []
        assert rows(connection, "select * from pg_statistic where starelid = '_eventstream.page_keys'::regclass and (stavalues1 is not null and staattnum in (2, 3))") == []
        assert refused(rows, connection, "select es_rotate_page_key()").sqlstate == "42501"
        assert refused(connection.execute, "insert into _eventstream.page_keys values (2, '')").sqlstate in ("42501", "ES050")
        with database.connect(user=admin) as other:
            value(other, "select es_rotate_page_key()")
            assert refused(query, other, {}).sqlstate == "42501"
        assert len(found(connection, {}, page=page)) == 4
    for statement in ("delete from _eventstream.page_keys", "truncate _eventstream.page_keys", "update _eventstream.page_keys set key = previous"):
        assert refused(session.execute, statement).sqlstate == "ES050", statement


@pytest.mark.parametrize("racers", [8])
def test_keys_that_are_changed_at_once_follow_each_other(database, session, racers):
    a_few(session)
    session.execute("select es_rotate_page_key()")
    page = page_of(session, {})

    def change(_):
        with database.connect() as connection:
            value(connection, "select es_rotate_page_key()")

    assert raised(all_at_once(racers, change)) == []
    assert is_refused(session, {}, page)
    assert len(rows(session, "select from eventstream.administration where event_type = 'PageKeyChanged'")) == racers + 1


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
@pytest.mark.parametrize("order", ["forward", "backward"])
def test_pages_neither_skip_nor_repeat_while_others_append(database, session, order, level):
    """Four writers whose transactions are open for a while, and commit in another order than that of their positions."""
    a_few(session, 30)
    stop = threading.Event()
    draw = random.Random(SEED)

    def write(number):
        with database.connect() as writer:
            while not stop.is_set():
                with writer.transaction():
                    for _ in range(draw.randint(1, 3)):
                        append(writer, f"order-w{number}-{draw.randrange(5)}", tags=["all"], subject="ann", metadata=Jsonb({"correlation_id": "c-1"}))
                    time.sleep(draw.random() / 50)

    writers = [threading.Thread(target=write, args=(number,), daemon=True) for number in range(4)]
    for writer in writers:
        writer.start()
    answers = {}
    try:
        for name, criteria in (("all", {}), ("tag", {"tags": ["all"]}), ("id", {"correlation_id": "c-1"}), ("subject", {"subjects": ["ann"]}),
                               ("stream", {"streams": ["order-0", "order-w1-1", "order-w2-1"]}), ("category", {"categories": ["order"]})):  # fmt: skip
            with database.connect() as reader:
                reader.autocommit = False
                reader.execute(f"set transaction isolation level {level}")
                reader.execute("select 1")
                begun = value(session, "select es_horizon()")
                positions, page = [], None
                deadline = time.monotonic() + 1.5
                while time.monotonic() < deadline:
                    part = query(reader, {**criteria, "order": order}, max_count=5, page=page)
                    if not part and order == "backward":
                        break
                    positions += [position for position, _ in part]
                    page = part[-1][1] if part else page
                answers[name] = (criteria, begun, positions)
                reader.rollback()
    finally:
        stop.set()
        for writer in writers:
            writer.join(20)
    for name, (criteria, begun, positions) in answers.items():
        expected = found(session, {**criteria, "order": order}, max_count=100_000)
        assert positions and len(set(positions)) == len(positions)
        if order == "forward":
            assert positions == expected[: len(positions)], name
        else:
            # From the first page's horizon down to the beginning, without a gap.
            assert positions == [position for position in expected if position <= positions[0]] and positions[0] >= max(p for p in expected if p <= begun), name


def test_what_is_not_settled_is_found_later_and_never_passed(database, session):
    a_few(session)
    with database.connect() as open_below, database.connect() as above:
        open_below.autocommit = False
        append(open_below, "order-9", tags=["all"])
        append(above, "order-8", tags=["all"])
        assert len(found(session, {"tags": ["all"]})) == 6
        page = query(session, {"tags": ["all"]})[-1][1]
        assert found(session, {"tags": ["all"]}, page=page) == [] == found(above, {"streams": ["order-8"]})
        open_below.commit()
        assert [name for (name,) in rows(session, "select (event).stream from es_query('{\"tags\": [\"all\"]}', page => %s)", page)] == ["order-9", "order-8"]
    with session.transaction():
        append(session, "order-7")
        # Its own are not settled before they are committed.
        assert found(session, {"streams": ["order-7"]}) == []
    assert len(found(session, {"streams": ["order-7"]})) == 1


def test_payloads_are_judged_as_they_are_shown(session):
    append(session, "order-1", "Old", '{"secret": 1, "sum": 5}')
    session.execute("create function hide(p jsonb, m jsonb) returns jsonb immutable language sql return p - 'secret' || '{\"shown\": true}'")
    session.execute("select es_register_upcaster('Old', 1, 'hide(jsonb, jsonb)', to_event_type => 'New')")
    assert found(session, {"payload": {"/secret": {"exists": True}}}) == [] != found(session, {"payload": {"/shown": True}})
    assert len(found(session, {"event_types": ["New"], "payload": {"/sum": {"at_least": 5}}})) == 1
    # An upcaster that fails is told of, as by every reader.
    session.execute("create or replace function hide(p jsonb, m jsonb) returns jsonb immutable language plpgsql as $$ begin raise exception 'no'; end $$")
    assert refused(query, session, {}).sqlstate == "P0001"
    assert refused(query, session, {"payload": {"/x": 1}}).sqlstate == "P0001"


@pytest.mark.parametrize("order", ["forward", "backward"])
@pytest.mark.parametrize("criteria", [{}, {"metadata": {}}, {"payload": {"/n": {"at_least": 1}}}, {"correlation_id": "c-1"}, {"tags": ["all"], "metadata": {}}])
def test_an_upcaster_that_fails_behind_a_page_does_not_fail_it(session, criteria, order):
    events = 700
    session.execute(
        "select es_append_events('order-1', (select jsonb_agg(jsonb_build_object('type', 'Old', 'payload', jsonb_build_object('n', n), 'tags', '[\"all\"]'::jsonb, 'metadata', '{\"correlation_id\": \"c-1\"}'::jsonb) order by n) from generate_series(1, %s::int) n))",
        (events,),
    )
    made = "create or replace function fail(p jsonb, m jsonb) returns jsonb immutable language plpgsql as $$ begin if p -> 'n' = '{}' then raise exception 'no'; end if; return p; end $$"
    session.execute(made.format(0))
    session.execute("select es_register_upcaster('Old', 1, 'fail(jsonb, jsonb)', to_event_type => 'New')")
    for count, skip in ((1, 0), (2, 0), (63, 0), (64, 1), (65, 0), (300, 3), (512, 0), (600, 50)):
        last = count + skip
        session.execute(made.format(last + 1 if order == "forward" else events - last))
        assert len(found(session, {**criteria, "order": order}, max_count=count, skip=skip)) == count
        assert refused(found, session, {**criteria, "order": order}, max_count=count + 1, skip=skip).sqlstate == "P0001"


def test_what_a_reader_may_not_read_is_not_found(database, session):
    a_few(session)
    a_few(session, category="bill")
    narrow = database.role(f"narrow_{database.name[-8:]}".lower())
    nobody = database.role(f"nobody_{database.name[-8:]}".lower())
    auditor = database.role(f"auditor_{database.name[-8:]}".lower())
    session.execute("select es_grant(%s, 'read', category => 'bill')", (narrow,))
    session.execute("select es_grant(%s, 'audit')", (auditor,))
    with database.connect(user=narrow) as connection:
        for criteria in ({}, {"tags": ["all"]}, {"correlation_id": "c-1"}, {"subjects": ["ann"]}, {"stream_prefix": "o"}, {"streams": ["order-1", "bill-1"]},
                         {"items": [{"event_types": ["Placed"]}]}, {"categories": ["order", "bill"]}, {"metadata": {"correlation_id": "c-1"}}, {"payload": {"/x": {"exists": False}}}):  # fmt: skip
            names = rows(connection, "select distinct (event).category from es_query(%s, 1000)", Jsonb(criteria))
            assert names == ([] if criteria == {"stream_prefix": "o"} else [("bill",)]), criteria
        for criteria in ({"streams": ["order-1"]}, {"categories": ["order"]}, {"stream_prefix": "order-"}):
            assert found(connection, criteria) == []
        assert refused(query, connection, {"categories": ["$audit"]}).sqlstate == "42501"
    with database.connect(user=nobody) as connection:
        # Rights first: nothing is told of what is wrong with the arguments.
        for criteria, page in (({}, None), ({"wrong": 1}, None), ({}, "x")):
            assert refused(query, connection, criteria, page=page).sqlstate == "42501"
    with database.connect(user=auditor) as connection:
        acts = rows(connection, "select (event).event_type from es_query('{\"categories\": [\"$audit\"], \"payload\": {\"/kind\": \"grant\"}}')")
        assert acts == [("PrivilegeGranted",)] * 2
        assert refused(query, connection, {}).sqlstate == "42501"
        assert page_of(connection, {"categories": ["$audit"]})
    assert found(session, {"stream_prefix": "$audit"}) == [] == found(session, {"metadata": {"nothing": 1}})


WRONG = [
    ('null', "criteria must not be NULL"),
    ("[]", "criteria must be a JSON object"),
    ("1", "criteria must be a JSON object"),
    ('{"like": 1}', "criteria.like is not a key that can stand here"),
    ('{"Tags": []}', "criteria.Tags is not a key that can stand here"),
    ('{"tags": []}', "criteria.tags must have at least one element, or not be there"),
    ('{"tags": [""]}', "criteria.tags[0] must not be empty"),
    ('{"tags": "all"}', "criteria.tags must be an array of strings, not a string"),
    ('{"tags": [1]}', "criteria.tags[0] must be a string, not a number"),
    ('{"tags": [null]}', "criteria.tags[0] must be a string, not null"),
    ('{"tags": ["\\u0001c-1"]}', "criteria.tags[0] must"),
    ('{"streams": []}', "criteria.streams must have at least one element"),
    ('{"streams": ["nodash"]}', "invalid stream name"),
    ('{"stream_prefix": ""}', "criteria.stream_prefix must have 1 to 512 bytes, not 0"),
    ('{"stream_prefix": 1}', "criteria.stream_prefix must be a string, not a number"),
    ('{"categories": ["a-b"]}', "criteria.categories[0] must not contain '-'"),
    ('{"categories": ["$audit", "order"]}', "criteria.categories must be all reserved, or none of them"),
    ('{"event_types": [" "]}', "criteria.event_types[0] must"),
    ('{"subjects": [""]}', "criteria.subjects[0] must not be empty"),
    ('{"items": []}', "criteria.items must have at least one element"),
    ('{"items": [{}]}', "criteria.items[0] must have event_types, or tags"),
    ('{"items": [{"tags": []}]}', "criteria.items[0].tags must have at least one element"),
    ('{"items": [{"other": []}]}', "criteria.items[0].other is not a key that can stand here"),
    ('{"correlation_id": ""}', "criteria.correlation_id must have 1 to 255 bytes, not 0"),
    ('{"correlation_id": 7}', "criteria.correlation_id must be a string, not a number"),
    ('{"metadata": []}', "criteria.metadata must be an object"),
    ('{"metadata": "x"}', "criteria.metadata must be an object"),
    ('{"payload": []}', "criteria.payload must be an object, not an array"),
    ('{"payload": {}}', "criteria.payload must name a value"),
    ('{"payload": {"x": 1}}', 'criteria.payload["x"] must be a JSON Pointer'),
    ('{"payload": {"/x": {"like": 1}}}', 'criteria.payload["/x"]."like" is no comparison'),
    ('{"payload": {"/x": {"at_least": true}}}', 'criteria.payload["/x"].at_least must be a number or a string, not a boolean'),
    ('{"payload": {"/x": {"exists": 1}}}', 'criteria.payload["/x"].exists must be true or false, not a number'),
    ('{"payload": {"/x": [1]}}', 'criteria.payload["/x"] must be a string'),
    ('{"occurred": {}}', "criteria.occurred must have from, until or before"),
    ('{"occurred": {"from": "yesterday"}}', "criteria.occurred.from must be a moment with date, time and zone"),
    ('{"occurred": {"from": "2026-01-01"}}', "criteria.occurred.from must be a moment with date, time and zone"),
    ('{"occurred": {"from": "infinity"}}', "criteria.occurred.from must be a moment with date, time and zone"),
    ('{"recorded": {"until": "2026-01-01T00:00Z", "before": "2026-01-01T00:00Z"}}', "criteria.recorded must have until or before, not both"),
    ('{"recorded": {"since": "2026-01-01T00:00Z"}}', "criteria.recorded.since is not a key that can stand here"),
    ('{"recorded": "2026-01-01T00:00Z"}', "criteria.recorded must be an object, not a string"),
    ('{"order": "sideways"}', 'criteria.order must be forward or backward, not "sideways"'),
    ('{"order": "Forward"}', "criteria.order must be forward or backward"),
]


def test_hints_say_what_can_be_done_here(session):
    assert refused(query, session, '{"items": [{}]}').diag.message_hint == "An event may be any one where there are no items: leave them out."
    assert refused(rows, session, "select es_condition('{\"items\": [{}]}')").diag.message_hint == 'Every event of the tenant is meant by {"all": true}.'
    assert refused(rows, session, "select * from es_read_all(categories => '{$audit,a}')").diag.message_primary.startswith("categories must be all reserved")


@pytest.mark.parametrize("criteria, words", WRONG)
def test_what_can_be_no_criterion_is_refused_by_name(database, criteria, words):
    with database.connect() as session:
        error = refused(rows, session, "select * from es_query(%s)", None if criteria == "null" else criteria)
    assert error.sqlstate in ("ES005", "ES004") and str(error).startswith(words), error


def test_what_is_too_much_is_refused(session):
    append(session, "order-1")
    for criteria, words in (
        ({"streams": [f"a-{n}" for n in range(101)]}, "criteria.streams must have at most 100 elements, not 101"),
        ({"tags": [f"n:{n}" for n in range(33)]}, "criteria.tags must have at most 32 tags, not 33"),
        ({"items": [{"tags": [f"n:{n}"]} for n in range(101)]}, "criteria.items must have at most 100 elements, not 101"),
        ({"payload": {f"/{n}": 1 for n in range(33)}}, "criteria.payload must have at most 32 pointers, not 33"),
        ({"payload": {"/a" * 65: 1}}, "criteria.payload["),
        ({"correlation_id": "x" * 256}, "criteria.correlation_id must have 1 to 255 bytes, not 256"),
        ({"stream_prefix": "x" * 513}, "criteria.stream_prefix must have 1 to 512 bytes, not 513"),
        ({"metadata": {"a": "x" * 70_000}}, "criteria must have at most 65536 bytes as text"),
        ({"subjects": ["x" * 256]}, "criteria.subjects[0] must have at most 255 bytes"),
    ):
        error = refused(query, session, criteria)
        assert error.sqlstate == "ES005" and str(error).startswith(words), error
    # 80 kB that would print as much as all memory; nested deeper than a stack.
    huge = '{"payload": {"/a": {"equals": [' + ",".join(["1e131071"] * 5_000) + "]}}}"
    assert "65536 bytes" in str(refused(query, session, huge))
    deep = '{"metadata": {"a": ' + "[" * 6000 + "]" * 6000 + "}}"
    assert query(session, deep) == []
    for more, words in (
        ({"max_count": 0}, "max_count must be 1 to 100000, not 0"), ({"max_count": 100_001}, "max_count must be"), ({"max_count": -1}, "max_count must be"), ({"max_count": None}, "max_count must not be NULL"),
        ({"skip": -1}, "skip must be 0 to 1000000, not -1"), ({"skip": 2**63 - 1}, "skip must be"), ({"skip": None}, "skip must not be NULL"),
    ):  # fmt: skip
        error = refused(query, session, {}, **more)
        assert error.sqlstate == "ES005" and str(error).startswith(words), error
    assert len(query(session, {}, page=None)) == 1
    # What is exact stays so, also where a float would be another number.
    append(session, "order-2", payload='{"n": 0.1000000000000000055511151231257827}')
    assert found(session, '{"payload": {"/n": 0.1}}') == [] != found(session, '{"payload": {"/n": 0.10000000000000000555111512312578270}}')


def test_correlation_ids_are_looked_for_as_they_are(database, session):
    ids = ["c-1", "C-1", " c-1", "x" * 255, "x" * 256, "é", "a\tb", "'; drop table x; --"]
    for number, name in enumerate(ids):
        append(session, f"order-{number}", metadata=Jsonb({"correlation_id": name}))
    append(session, "order-n", metadata=Jsonb({"correlation_id": 1}))
    append(session, "order-e", metadata=Jsonb({"correlation_id": ""}))
    append(session, "order-o", metadata=Jsonb({"inner": {"correlation_id": "c-1"}}))
    for name in ids:
        if len(name) <= 255:
            assert rows(session, "select (event).metadata ->> 'correlation_id' from es_query(%s)", Jsonb({"correlation_id": name})) == [(name,)]
    # By containment all are.
    assert len(found(session, {"metadata": {"correlation_id": "x" * 256}})) == 1 == len(found(session, {"metadata": {"correlation_id": 1}}))
    # In a session whose metadata say it, in batches, and of decisions of handlers.
    session.execute("set eventstream.metadata = '{\"correlation_id\": \"of-session\"}'")
    append(session, "order-1")
    session.execute("select es_append_events('order-1', '[{\"type\": \"A\", \"payload\": {}}, {\"type\": \"B\", \"payload\": {}, \"metadata\": {\"correlation_id\": \"own\"}}]')")
    assert len(found(session, {"correlation_id": "of-session"})) == 2 and len(found(session, {"correlation_id": "own"})) == 1
    # No tag is one, and readers of tags are not shown it.
    assert rows(session, "select from eventstream.events where tags is not null") == []
    assert refused(append, session, "order-1", tags=["\x01c-1"]).sqlstate == "ES005"
    assert refused(rows, session, "select * from es_read_all(tags => array[e'\\x01c-1'])").sqlstate == "ES005"
    # What is rolled back is not there, and what follows it is.
    with pytest.raises(ZeroDivisionError), session.transaction():
        append(session, "order-1", metadata=Jsonb({"correlation_id": "again"}))
        raise ZeroDivisionError
    append(session, "order-1", metadata=Jsonb({"correlation_id": "again"}))
    assert len(found(session, {"correlation_id": "again"})) == 1 and verify(session) == []


FORCED = {
    "one deleted": ("delete from _eventstream.event_tags where tag = chr(1) || 'c-1' and global_position in (select min(global_position) from _eventstream.event_tags)", "1 tag is not found"),
    "changed": ("update _eventstream.event_tags set tag = chr(1) || 'c-2' where tag = chr(1) || 'c-1'", "not found where tags are looked for"),
    "made up": ("insert into _eventstream.event_tags select 1, chr(1) || 'c-3', max(global_position) from _eventstream.events where tenant_id = 1", "1 tag is looked for at this position"),
    "as a tag": ("update _eventstream.event_tags set tag = 'c-1' where tag = chr(1) || 'c-1'", "looked for at this position"),
    "unlisted": ("delete from _eventstream.tag_partitions", "a tag is not found in this partition"),
}


@pytest.mark.parametrize("what", FORCED)
def test_verification_finds_a_correlation_id_that_is_not_looked_for(database, session, what):
    append(session, "order-1", metadata=Jsonb({"correlation_id": "c-1"}))
    append(session, "order-1", metadata=Jsonb({"correlation_id": "c-1"}))
    append(session, "order-1", metadata=Jsonb({"correlation_id": 5}))
    assert verify(session) == [] == rows(session, "select problem from es_verify_stream('order-1')")
    statement, words = FORCED[what]
    with forced(session):
        session.execute(statement)
    assert any(words in problem for *_, problem in verify(session)), verify(session)
    if what in ("one deleted", "changed"):
        assert any("not found" in problem for (problem,) in rows(session, "select problem from es_verify_stream('order-1')"))


def test_a_copy_finds_what_the_original_does_and_takes_none_of_its_pages(database, session):
    fill(database, session, random.Random(SEED), 30)
    asked = [{"correlation_id": "c-1"}, {"tags": ["all"]}, {"subjects": ["ann"]}, {"event_types": ["Newest"], "order": "backward"}, {"stream_prefix": "order-"}]
    answers = [found(session, criteria, max_count=1000) for criteria in asked]
    assert all(answers)
    page = page_of(session, {})
    server = database.server
    made = [Database(server, f"{database.name[:40]}_dump").create(extension=False), Database(server, f"{database.name[:40]}_template")]
    session.close()
    try:
        dump = run("pg_dump", env=server.address(database.name))
        with database.connect() as other:
            keys = [key for (key,) in rows(other, "select encode(key, 'hex') from _eventstream.page_keys")]
        text = dump if isinstance(dump, str) else dump.stdout
        assert not any(key in text for key in keys)
        run_psql(made[0], dump)
        with server.connect("postgres") as admin:
            for _ in range(100):
                try:
                    admin.execute(f'create database "{made[1].name}" template "{database.name}"')
                    break
                except psycopg.errors.ObjectInUse:
                    time.sleep(0.1)
        for copy in made:
            with copy.connect() as there:
                assert [found(there, criteria, max_count=1000) for criteria in asked] == answers
                assert is_refused(there, {}, page), copy.name
                own = page_of(there, {})
                assert all_pages(there, {}, 50) == found(there, {}, max_count=1000) and verify(there) == []
                there.execute("select es_activate()")
                assert len(query(there, {}, page=own)) > 0
            with database.connect() as original:
                assert is_refused(original, {}, own), copy.name
                assert len(query(original, {}, page=page)) > 0
    finally:
        for copy in made:
            copy.drop()


def test_on_a_standby_pages_go_on(new_server):
    primary = new_server("query_primary")
    database = Database(primary, "q").create()
    with database.connect() as session:
        a_few(session, 20)
        session.execute("select es_rotate_page_key()")
        page = page_of(session, {"tags": ["all"]})
        standby = new_server.adopt(primary.make_standby("query_standby"))
        lsn = value(session, "select pg_current_wal_insert_lsn()")
        with standby.connect("q") as reader:
            for _ in range(200):
                if value(reader, "select pg_last_wal_replay_lsn() >= %s::pg_lsn", lsn):
                    break
                time.sleep(0.05)
            assert found(reader, {"tags": ["all"]}, page=page) == found(session, {"tags": ["all"]}, page=page)
            assert found(session, {"tags": ["all"]}, page=page_of(reader, {"tags": ["all"]})) == found(session, {"tags": ["all"]}, page=page)
            assert all_pages(reader, {"order": "backward"}) == found(session, {"order": "backward"})
            assert refused(rows, reader, "select es_rotate_page_key()").sqlstate == "ES009"


def test_without_preload_it_says_so(new_server):
    server = new_server("query_bare", shared_preload_libraries="")
    database = Database(server, "q").create()
    with database.connect() as session:
        assert refused(query, session, {}).sqlstate == "ES008"


def test_a_page_beyond_the_log_is_told(database, session):
    a_few(session)
    page = query(session, {})[-1][1]
    with forced(session):
        session.execute("select setval('_eventstream.positions', 2)")
    assert refused(query, session, {}, page=page).sqlstate == "ES025"


def test_a_question_that_nothing_answers_ends_when_it_is_to(database, session):
    session.execute(
        "select count(*) from generate_series(1, 40) n, es_append_events('order-' || n, (select jsonb_agg(jsonb_build_object('type', 'A', 'payload', jsonb_build_object('n', i))) from generate_series(1, 1000) i))"
    )
    for criteria in ({"payload": {"/n": -1}}, {"event_types": ["None"]}, {"occurred": {"before": "1990-01-01T00:00Z"}}, {"stream_prefix": "order-", "event_types": ["None"]}):
        assert found(session, criteria) == []
        session.execute("set statement_timeout = '3 ms'")
        assert refused(query, session, criteria).sqlstate == "57014", criteria
        session.execute("set statement_timeout = 0")
    with database.connect() as other:
        canceller = threading.Timer(0.02, other.cancel)
        canceller.start()
        assert refused(query, other, {"payload": {"/n": {"less_than": 0}}}, skip=1_000_000).sqlstate == "57014"
        canceller.join()
        assert len(found(other, {"streams": ["order-1"]}, max_count=5)) == 5


def test_many_streams_of_a_prefix(database, session):
    database.make_partitions_small(SIZE)
    with database.connect() as writer:
        for start in (0, 150):
            writer.execute("select count(*) from generate_series(%s::int, %s::int) n, es_append('order-' || lpad(n::text, 3, '0'), 'A', '{}')", (start, start + 149))
            near_edge(writer, 50) if start == 0 else None
        append(writer, "orders-1")
        append(writer, "order-\U0010fffd-1")
        plain = "select global_position from eventstream.events where starts_with(stream, %s) order by 1"
        for prefix in ("order", "order-", "order-0", "order-1", "order-29", "orders", "o", "order-\U0010fffd", "x", "order-150", "-", "%"):
            expected = [position for (position,) in rows(writer, plain, prefix)]
            assert all_pages(writer, {"stream_prefix": prefix}, 90) == expected, prefix
            assert found(writer, {"stream_prefix": prefix, "order": "backward", "streams": ["order-001", "order-200"]}) == [
                position for (position,) in rows(writer, plain.replace(" order", " and stream in ('order-001', 'order-200') order") + " desc", prefix)
            ]


def test_indexes_of_others_and_upkeep_change_nothing(database, session):
    fill(database, session, random.Random(SEED), 40)
    asked = [{"subjects": ["ann", "bob"]}, {"correlation_id": "c-1"}, {"tags": ["all"], "order": "backward"}, {"streams": ["order-1", "bill-2"]}]
    before = [all_pages(session, criteria) for criteria in asked]
    for shape in ("(tenant_id, subject, global_position)", "(tenant_id, subject, global_position desc) where subject is not null", "using brin (tenant_id, subject, global_position)",
                  "(tenant_id, subject, global_position) where subject is null", "(tenant_id, subject, global_position) where subject is not null and version > 1",
                  "(tenant_id, subject, global_position) where recorded_from is not null"):  # fmt: skip
        session.execute(f"create index on _eventstream.events_1 {shape if shape.startswith('using') else 'using btree ' + shape}")
    for index in ("events_1_subject_idx", "event_tags_1_key_idx", "events_1_version_idx", "page_keys_pkey", "streams_name_key"):
        session.execute(f"reindex index concurrently _eventstream.{index}")
    session.execute("vacuum full _eventstream.events_1")
    assert [all_pages(session, criteria) for criteria in asked] == before
    with database.connect() as other:
        assert [all_pages(other, criteria) for criteria in asked] == before


def test_settings_of_a_session_change_no_answer(database, session):
    fill(database, session, random.Random(SEED), 20)
    asked = [{"payload": {"/amount": {"at_least": decimal.Decimal("1.00")}}}, {"occurred": {"from": "2026-01-02T00:00:00+01:00"}}, {"stream_prefix": "order-"}, {"metadata": {"deep": {"n": [2.5]}}}]
    with database.connect() as other:
        known = {name for (name,) in rows(other, "select name from pg_settings where context = 'user' or context = 'superuser'")}
        pages = [query(other, criteria, max_count=3) for criteria in asked]
        for name, setting in HOSTILE.items():
            if name in known and name not in ("client_encoding", "standard_conforming_strings"):
                other.execute("select set_config(%s, %s, false)", (name, setting))
        for criteria, before in zip(asked, pages):
            assert query(other, criteria, max_count=3) == before
            assert found(other, criteria, page=before[-1][1]) == found(session, criteria)[3:]
