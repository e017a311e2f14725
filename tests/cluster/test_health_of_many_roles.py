"""What health asks of the server's roles costs what there are of them, and not their pairs: counted in the rows that the plans of its statements go through."""

import json

import pytest
from database import Database, rows, value
from operating import check, run_psql
from test_health_of_settings import DEMANDED

#: So many rows for each role, of all of health's statements together.
EACH = 60


@pytest.fixture
def many(new_server):
    server = new_server("many", **DEMANDED)
    database = Database(server, "many").create()
    with database.connect() as session:
        session.execute("select es_protect('Named', pointers => '{/name}')")
        session.execute('revoke temp on database many from public')
    return database


def made(session, first, last, *statements):
    """Roles, by their numbers, and what is said of each."""
    each = "; ".join(("create role r%1$s login", *statements))
    session.execute(f"do $$ begin for i in {first}..{last} loop execute format('{each}', i); end loop; end $$")


def gone_through(plan) -> int:
    """Rows that a plan's nodes gave, or looked at for nothing."""
    own = plan["Actual Rows"] + sum(plan.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Join Filter", "Index Recheck"))
    return round(own * plan["Actual Loops"]) + sum(gone_through(below) for below in plan.get("Plans", ()))


def cost(database) -> int:
    """Of what a session asks that has made no plan before."""
    plans = []
    with database.connect() as session:
        session.execute("load 'auto_explain'; set auto_explain.log_min_duration = 0; set auto_explain.log_nested_statements = on")
        session.execute("set auto_explain.log_analyze = on; set auto_explain.log_timing = off; set auto_explain.log_format = json; set auto_explain.log_level = notice")
        session.add_notice_handler(lambda notice: plans.append(notice.message_primary))
        session.execute("select * from eventstream.health")
    looks = [json.loads(plan[plan.index("{") :]) for plan in plans if "plan:" in plan]
    assert any("pg_db_role_setting" in look["Query Text"] for look in looks)
    return sum(gone_through(look["Plan"]) for look in looks)


def test_settings_of_many_roles(many):
    with many.connect() as session:
        made(session, 1, 2000, "alter role r%1$s set search_path = x", "alter role r%1$s set work_mem = 10000")
        assert check(session, "protected fields").status == "ok"
    assert cost(many) < 2_000 * EACH
    with many.connect() as session:
        made(session, 2001, 2300, "alter role r%1$s set log_parameter_max_length = 7")
        told = check(session, "protected fields")
        assert told.status == "warning" and told.detail.count("begins with") == 20
        lines = told.fix.splitlines()
        assert len(lines) == 22 and sum(line.startswith("alter role") for line in lines) == 20 and lines.count("select pg_reload_conf();") == 1
        assert "-- and 280 more: look again then, and the next ones are named" in lines
        run_psql(many, told.fix)
        assert "-- and 260 more" in check(session, "protected fields").fix
    assert cost(many) < 2_300 * EACH


def test_roles_that_need_a_token_among_many(many):
    with many.connect() as session:
        session.execute("set client_min_messages = error; select es_create_tenant('a')")
        made(session, 1, 1500)
        made(session, 1501, 1600, "alter role r%1$s set track_activities = off")
        session.execute("select es_require_token('r' || i), es_grant('r' || i, 'read', tenant => 'a') from generate_series(1501, 1600) i")
        session.execute("grant r1501 to r1; create role between; grant r1502 to between; grant between to r2, r3; alter role r3 noinherit; grant r1503 to r1504")
        told = rows(session, "select name, detail from eventstream.health where detail ~ 'is had without one by'")
        assert [(name, detail.split("without one by ")[1]) for name, detail in told] == [("token role r1501", "r1"), ("token role r1502", "r2")]
    assert cost(many) < 1_600 * EACH


def test_roles_that_read_the_tables_among_many(many):
    with many.connect() as session:
        made(session, 1, 300, "grant pg_read_all_data to r%1$s")
        made(session, 301, 1500)
        session.execute("create role between; grant r7 to between; create role beneath login; grant between to beneath")
        told = check(session, "protected tables")
        assert "301 roles that can log in read" in told.detail and len(told.fix.splitlines()) == 21
        session.execute("revoke pg_read_all_data from " + ", ".join(f"r{i}" for i in range(1, 301) if i != 7))
        told = check(session, "protected tables")
        assert told.detail.startswith("2 roles that can log in read") and '"beneath", "r7"' in told.detail and told.fix == 'revoke pg_read_all_data from "r7";'
        assert value(session, "select count(*) from pg_auth_members where roleid = 'pg_read_all_data'::regrole") == 1
        session.execute("grant pg_read_all_data to " + ", ".join(f"r{i}" for i in range(1, 301) if i != 7))
    assert cost(many) < 1_500 * EACH
