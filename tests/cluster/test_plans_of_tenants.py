"""What EXPLAIN (ANALYZE) tells a role of one tenant about the others: nothing, in any view, whatever switches of the planner the role sets, and
whatever it asks for. PostgreSQL counts what a statement reads (rows, rows removed, pg_stat_xact_all_tables), so the views read no more than the
tenant's own rows. Tenant a has at least 200 of everything, b a handful."""

import json
import uuid

import psycopg
import pytest
from database import Database, near_edge, rows, value
from server import Server

THEIRS, OWN = 200, 150
#: The server's, or every tenant's: refused to whoever is neither superuser nor a member of pg_monitor.
REFUSED = {"horizon_holders", "stats"}

RULES = '{"on": {"Moved": [{"add": {"/n": "/n"}}]}}'

FILL = """
select es_append_streams((
    select jsonb_agg(jsonb_build_object('stream', '{category}-' || n, 'events', jsonb_build_array(
        jsonb_build_object('type', '{category}Moved', 'payload', '{{"n": 1}}'::jsonb, 'subject', '{category}' || n),
        jsonb_build_object('type', '{category}Moved', 'payload', '{{"n": 1}}'::jsonb))))
    from generate_series(1, {count}) n))
"""


def fill(session, tenant, count):
    rows(session, f"select set_config('eventstream.tenant', '{tenant}', false)")
    session.execute(FILL.format(category=tenant, count=count))
    near_edge(session, 1, 2**24 + 1024 * (1 if tenant == "a" else 8))
    session.execute(FILL.format(category=tenant, count=count))
    for number in range(count):
        session.execute("select es_register_fold(%s, category => %s, rules => %s)", (f"{tenant}{number}", f"{tenant}{number}", RULES))
        session.execute("select es_register_upcaster(%s, 1, 'public.same(jsonb, jsonb)')", (f"{tenant}Type{number}",))
        session.execute("select es_create_event_type(%s)", (f"{tenant}Type{number}",))
        session.execute("select es_alter_category(%s, '{\"actor\": \"required\"}')", (f"{tenant}{number}",))
        session.execute("select es_register_decider(%s, %s, 'public.decide(jsonb, eventstream.command)')", (f"{tenant}{number}", f"{tenant}{number}"))
        session.execute("select es_register_invariant(%s, array[%s], require => '{\"/n\": {\"at_least\": 0}}')", (f"{tenant}{number}", f"{tenant}{number}"))
        session.execute("select es_schedule_command(%s, %s, '{}', '2100-01-01Z', %s)", (f"{tenant}{number}-1", f"{tenant}command{number}", f"{tenant}key{number}"))
        session.execute("select es_begin_command(%s, %s, '{}')", (f"{tenant}operation{number}", f"{tenant}key{number}"))
        session.execute("select es_close_period(array[%s], '2024-01-01Z', 'x', tag => %s)", (f"{tenant}{number}", f"{tenant}:{number}"))
        session.execute("select es_protect(%s, pointers => '{/a}')", (f"{tenant}Hidden{number}",))
        session.execute("select es_create_projection(%s, 'handle(eventstream.event)')", (f"{tenant}{number}",))
        session.execute("select es_create_subscription(%s)", (f"{tenant}{number}",))
        session.execute("select es_grant('some_role', 'read', category => %s)", (f"{tenant}{number}",))
    session.execute("select es_register_fold('counts', category => %s, rules => %s)", (tenant, RULES))
    for number in range(1, count + 1):
        session.execute("select es_snapshot(%s, fold => 'counts')", (f"{tenant}-{number}",))
    session.execute(
        "insert into _eventstream.dead_letters (tenant_id, projection_id, global_position, stream, version, event_type, attempts, reason)"
        " select p.tenant_id, p.id, p.id, %s, 1, 'x', 1, 'x' from _eventstream.projections p where p.name like %s",
        (f"{tenant}-1", f"{tenant}%"),
    )
    session.execute(
        "update _eventstream.projection_progress g set status = 'rebuilding', rebuild_to = 100, rebuild_began = now()"
        " from _eventstream.projections p where p.id = g.projection_id and p.name like %s",
        (f"{tenant}%",),
    )


@pytest.fixture(scope="module")
def two():
    server = Server("plans", **{"eventstream.max_workers": 0, "autovacuum": "off"}).create()
    database = Database(server, "plans").create()
    database.make_partitions_small()
    database.role("some_role")
    database.role("of_b")
    with database.connect() as session:
        session.execute("set eventstream.durability = 'session'; set check_function_bodies = off")
        session.execute("create function same(payload jsonb, metadata jsonb) returns jsonb immutable language sql as 'select $1'")
        session.execute("create function handle(e eventstream.event) returns void language sql as ''")
        session.execute("create function decide(state jsonb, command eventstream.command) returns jsonb stable language sql as 'select null::jsonb'")
        for tenant in ("a", "b", *(f"other{number}" for number in range(THEIRS))):
            session.execute("select es_create_tenant(%s)", (tenant,))
        fill(session, "a", THEIRS)
        fill(session, "b", 4)
        for privilege in ("read", "manage", "audit"):
            session.execute("select es_grant('of_b', %s)", (privilege,))
        assert value(session, "select count(*) from _eventstream.stream_segments") > THEIRS
    yield database
    server.destroy()


def nodes(plan):
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def told(session, statement):
    """Each node's rows, and rows that it removed, in all of its loops."""
    plan = value(session, f"explain (analyze, timing off, format json) {statement}")
    found = []
    for node in nodes((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]):
        figures = [figure for name, figure in node.items() if name == "Actual Rows" or name.startswith("Rows Removed")]
        found.append((node["Node Type"], node.get("Relation Name"), sum(figures) * max(node["Actual Loops"], 1) + node.get("Heap Fetches", 0)))
    return found


def views(session):
    return [name for (name,) in rows(session, "select relname from pg_class where relnamespace = 'eventstream'::regnamespace and relkind = 'v' order by 1")]


def switches(session):
    names = [name for (name,) in rows(session, "select name from pg_settings where name like 'enable_%' order by 1")]
    yield "nothing set", []
    for name in names:
        yield name, [f"set {name} = off"]
    yield "everything off", [f"set {name} = off" for name in names]
    yield "no index", [f"set enable_{name} = off" for name in ("indexscan", "indexonlyscan", "bitmapscan", "nestloop")]
    yield "no join but one", [f"set enable_{name} = off" for name in ("nestloop", "mergejoin", "memoize", "indexscan", "bitmapscan")]
    yield "only merges", [f"set enable_{name} = off" for name in ("nestloop", "hashjoin", "material", "sort")]
    yield "dear pages", ["set random_page_cost = 100000", "set cpu_index_tuple_cost = 1000"]
    yield "parallel", ["set parallel_setup_cost = 0", "set parallel_tuple_cost = 0", "set min_parallel_table_scan_size = 0",
                       "set min_parallel_index_scan_size = 0"]
    yield "generic plans", ["set plan_cache_mode = force_generic_plan"]


KEYS = {
    "events": ["stream", "event_id", "event_type", "subject", "category", "global_position"],
    "administration": ["stream", "event_id", "global_position"],
    "audit": ["stream", "event_id", "event_type", "subject", "global_position"],
    "streams": ["stream", "category", "first_position", "last_position"],
    "snapshots": ["stream"],
    "dead_letters": ["id", "stream", "global_position"],
    "projections": ["name"],
    "subscriptions": ["name"],
    "folds": ["name", "category"],
    "upcasters": ["event_type"],
    "event_types": ["event_type"],
    "proof": ["stream", "event_id", "event_type", "subject", "global_position"],
    "protections": ["event_type"],
    "categories": ["category"],
    "deciders": ["name", "category"],
    "invariants": ["name"],
    "commands": ["operation", "command_key"],
    "scheduled_commands": ["stream", "command_key", "command_type", "category"],
    "periods": ["id", "category", "tag"],
    "grants": ["category"],
}


@pytest.mark.parametrize("view", KEYS)
def test_explain_does_not_tell_what_another_tenant_has(two, view):
    """The same for what only a has as for what nobody has. Before anything is analyzed: estimates, and with them the plan, know all tenants' values,
    as docs/privileges.md says."""
    with two.connect() as session:
        session.execute("set eventstream.tenant = 'a'")
        columns = ", ".join(f"max({key}::text) filter (where {key}::text <> 'counts')" for key in KEYS[view])
        theirs = rows(session, f"select {columns} from eventstream.{view}")[0]
        switched = [each for each in switches(session) if each[0] in ("nothing set", "everything off", "no index", "no join but one")]
    for switch, statements in switched:
        with two.connect(user="of_b") as session:
            session.execute("set eventstream.tenant = 'b'")
            for statement in statements:
                session.execute(statement)
            for key, there in zip(KEYS[view], theirs, strict=True):
                assert there is not None
                nobody = str(uuid.uuid4()) if key == "event_id" else "9999999" if there.isdigit() else "nobody"
                for ending in ("",) if switch != "nothing set" else ("", f" order by {key} limit 2"):
                    ask = f"select * from eventstream.{view} where {key} = '{{}}'{ending}"
                    figures = [sorted(figure for _, relation, figure in told(session, ask.format(wanted)) if relation) for wanted in (there, nobody)]
                    assert figures[0] == figures[1], (switch, ask, there, told(session, ask.format(there)), told(session, ask.format(nobody)))


@pytest.mark.parametrize("analyzed", [False, True])
def test_explain_counts_no_rows_of_other_tenants(two, analyzed):
    with two.connect() as session:
        session.execute("vacuum analyze" if analyzed else "select")
        names = views(session)
        assert len(names) >= 12
        asked = list(switches(session))
    wrong, refused = [], set()
    for switch, statements in asked:
        with two.connect(user="of_b") as session:
            session.execute("set eventstream.tenant = 'b'")
            for statement in statements:
                session.execute(statement)
            for view in names:
                for select in ("select * from eventstream.{}", "select count(*) from eventstream.{}"):
                    try:
                        found = told(session, select.format(view))
                    except psycopg.errors.InsufficientPrivilege:
                        refused.add(view)
                        continue
                    assert found
                    wrong += [(switch, view, select, node) for node in found if node[2] > OWN]
    assert refused == REFUSED
    assert wrong == [], f"{len(wrong)}: {wrong[:10]}"


def test_statistics_of_the_transaction_count_no_rows_of_other_tenants(two):
    with two.connect(user="of_b", autocommit=False) as session:
        session.execute("set eventstream.tenant = 'b'; set enable_indexscan = off; set enable_bitmapscan = off; set enable_nestloop = off")
        session.commit()
        for view in ("events", "streams", "administration", "audit", "snapshots", "dead_letters"):
            rows(session, f"select * from eventstream.{view}")  # who may what is kept
        # What was counted by now may stay with the session for a second; from here on it is gone.
        session.execute("select pg_stat_force_next_flush()")
        session.rollback()
        for view in ("events", "streams", "administration", "audit", "snapshots", "dead_letters"):
            rows(session, f"select * from eventstream.{view}")
            read = rows(session, "select relname, seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_xact_all_tables where schemaname = '_eventstream'")
            assert [each for each in read if (each[1] or 0) > OWN] == []
            session.execute("select pg_stat_force_next_flush()")
            session.rollback()
