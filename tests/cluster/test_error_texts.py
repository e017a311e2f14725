"""What users' code says in its errors and notices holds payloads: it is told to roles that may read them, and to nobody else, wherever it is
shown. Others are told the SQLSTATE, and where it was. The server's log has it: that is the administrators'."""

import psycopg
import pytest
from database import Database, rows, value
from server import Server

SECRET = "4711 secret"

SETUP = f"""
create function refuse(e eventstream.event) returns void language plpgsql as
$$ begin raise warning 'about to refuse %', e.payload; raise exception 'no: %', e.payload using detail = e.payload::text, hint = e.payload::text; end $$;
create function clear() returns void language plpgsql as $$ begin raise exception 'not emptied: {SECRET}'; end $$;
create function fold(state jsonb, e eventstream.event) returns jsonb immutable language plpgsql as
$$ begin raise exception 'cannot fold %', e.payload; end $$;
"""

#: What each asks; `told` where a role that may read must find the text (so the test can fail).
ASKED = {
    "select * from eventstream.health": True,
    "select * from eventstream.projections": True,
    "select * from eventstream.dead_letters": True,
    "select * from eventstream.subscriptions": False,
    "select * from eventstream.progress": False,
    "select * from eventstream.folds": False,
    "select * from es_maintain()": True,
    "select es_run_projection('stops')": True,
    "select es_run_projection('retries')": True,
    "select es_run_projection()": True,
    "select es_wait_for('stops', timeout => '1 s')": True,
    "select es_wait_for('retries', timeout => '200 ms')": True,
    "select es_retry_dead_letter((select min(id) from eventstream.dead_letters where projection is not null))": True,
    "select es_rebuild_projection('stops')": True,
    "select es_skip_event('retries', 1)": False,
    "select es_alter_projection('stops', '{\"batch_size\": 7}')": False,
    "select es_verify_snapshots(thorough => true)": False,
    "select * from es_verify()": False,
    "select es_metrics()": False,
}

ROLES = {
    "managing": ["manage"],
    "keeping_up": ["upkeep"],
    "auditing": ["audit"],
    "reading_others": ["manage", "upkeep", "audit", ("read", "other")],
    "reading": ["manage", "upkeep", "audit", ("read", "account")],
}


@pytest.fixture(scope="module")
def failing():
    server = Server("texts", **{"eventstream.max_workers": 0, "eventstream.stale_after": "1ms", "eventstream.retry_pause": "1ms"}).create()
    database = Database(server, "texts").create()
    with database.connect() as session:
        session.execute("set check_function_bodies = off")
        session.execute(SETUP)
        session.execute("select es_append('account-1', 'A', %s)", (f'{{"a": "{SECRET}"}}',))
        for name, more in (
            ("stops", "max_retries => 0, reset => 'clear()'"),
            ("retries", "max_retries => 1000"),
            ("skips", "max_retries => 0, on_error => 'skip'"),
        ):
            session.execute(f"select es_create_projection('{name}', 'refuse(eventstream.event)', categories => '{{account}}', {more})")
            session.execute(f"select es_run_projection('{name}')")
        session.execute("select es_register_fold('sum', 'account', handler => 'fold(jsonb, eventstream.event)', snapshot_every => 1)")
        session.execute("select es_create_subscription('consumed', categories => '{account}')")
        lease = value(session, "select lease_id from es_fetch('consumed', 'me', 10)")
        position = value(session, "select global_position from eventstream.events limit 1")
        session.execute("select es_nack(%s, %s, %s)", (lease, position, f"no: {SECRET}"))
        for role, privileges in ROLES.items():
            database.role(role)
            for privilege in privileges:
                name, category = privilege if isinstance(privilege, tuple) else (privilege, None)
                session.execute("select es_grant(%s, %s, category => %s)", (role, name, category))
        database.role("monitoring", "login", "pg_monitor")
    yield database
    server.destroy()


def told(session, statement):
    """Everything that the client is told: rows, notices, errors."""
    said = []
    session.add_notice_handler(lambda notice: said.append(" ".join(filter(None, (notice.message_primary, notice.message_detail, notice.message_hint, notice.context)))))
    try:
        said.append(str(rows(session, statement)))
    except psycopg.Error as error:
        diag = error.diag
        said += [str(part) for part in (error.sqlstate, diag.message_primary, diag.message_detail, diag.message_hint, diag.context)]
    return "\n".join(said)


@pytest.mark.parametrize("role", [*ROLES, "monitoring"])
def test_texts_of_errors_are_told_to_those_who_may_read_them(failing, role):
    wrong = []
    for statement, must in ASKED.items():
        with failing.connect(user=role, autocommit=False) as session:
            session.execute("set eventstream.tenant = 'default'")
            said = told(session, statement)
            session.rollback()
        is_told = SECRET in said
        if is_told != (must if role == "reading" else False) and not (role == "reading" and is_told):
            wrong.append((statement, said))
    assert wrong == []


def test_others_are_told_the_sqlstate_and_where_to_look(failing):
    with failing.connect(user="managing") as session:
        detail = value(session, "select detail from eventstream.health where name = 'projection stops'")
        assert "P0001" in detail and "at the event at global position 1" in detail and "eventstream.projections" in detail
        assert value(session, "select detail from eventstream.health where name like 'attempts of%%'").endswith("by eventstream.projections")
    with failing.connect(user="keeping_up") as session:
        said = told(session, "select * from es_maintain()")
        assert 'fold "sum" takes no snapshot of stream "account-1" at version 1: P0001' in said
    with failing.connect(user="managing") as session:
        said = told(session, "select es_retry_dead_letter((select min(id) from eventstream.dead_letters where projection is not null))")
        assert said.startswith("P0001") and "roles that may read" in said
