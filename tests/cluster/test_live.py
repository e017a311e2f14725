"""Projections beside whatever else happens: late committers, failures of others."""

import json
import time

import psycopg
import pytest
from database import Database, rows, value
from models import Appenders, Model, Models, Table
from server import wait_until


@pytest.fixture
def live(new_server):
    """A server of its own, whose retries come soon, and a database."""
    server = new_server(
        "live", max_worker_processes=12, **{"eventstream.retry_pause": "100ms", "eventstream.max_retry_pause": "1s"}
    )
    return Database(server, "live").create()


def test_an_append_held_open_is_seen_in_its_place_and_once_and_whoever_waits_is_told_whose_it_is(live):
    models = Models(live, Model("one"), Model("many", "batch"), Table()).create()
    models.assert_exact()
    with live.connect() as late, live.connect() as reader, Appenders(live, pause=0) as others:
        others.wait_for(50)
        late.execute("begin")
        held = []
        for number in range(3):
            late.execute("select es_append('account-late', 'Moved', %s)", (json.dumps({"token": f"late {number}"}),))
            held.append(value(late, "select global_position from es_last_append()"))
        began = time.monotonic()
        others.wait_for(3000, 120)
        time.sleep(max(0.0, 3 - (time.monotonic() - began)))
        others.rest.set()
        last = value(reader, "select last_position from es_log_info()")
        assert last > held[-1] + 1000
        # What is behind it is not shown, whatever is committed; nor is a part of it.
        for model in models.models:
            with pytest.raises(psycopg.Error) as error:
                reader.execute("select es_wait_for(%s, up_to => %s, timeout => '1 second')", (model.name, last))
            assert error.value.sqlstate == "ES023"
            detail = json.loads(error.value.diag.message_detail)
            assert detail["pid"] == late.info.backend_pid, detail
            assert detail["global_position"] < held[0] <= detail["up_to"] == last, detail
            assert str(late.info.backend_pid) in str(error.value)
        assert models.differences(reader) == {}
        assert value(reader, "select max(position) from one_seen") < held[0]
        late.execute("commit")
        others.rest.clear()
        others.wait_for(200)
    models.assert_exact()
    with live.connect() as session:
        for model in ("one", "many"):
            assert rows(session, f"select token from {model}_seen where stream = 'account-late' order by n") == [
                ("late 0",),
                ("late 1",),
                ("late 2",),
            ]


def test_a_session_sees_its_own_append_also_while_others_append(live):
    """es_wait_for without a position: what the next statement reads contains the session's own last append."""
    Models(live, Model("one"), Table()).create()
    with Appenders(live, pause=0.002), live.connect() as session:
        for number in range(200):
            model = ("one", "totals")[number % 2]
            version = value(session, "select es_append('account-mine', 'Moved', %s)", json.dumps({"token": f"mine {number}"}))
            session.execute("select es_wait_for(%s)", (model,))
            if model == "one":
                seen = value(session, "select count(*) from one_seen where stream = 'account-mine'")
            else:
                seen = value(session, "select version from totals where stream = 'account-mine'")
            assert seen == version


# -- fifty projections, of which five fail ------------------------------------------------------------------------------------

FAIL_AT = "odd one"

SETUP = f"""
create function raises(event eventstream.event) returns void language plpgsql as $$ begin
    if event.payload ->> 'token' = '{FAIL_AT}' then raise exception 'no % here', event.payload ->> 'token' using errcode = 'ZZ001'; end if;
end $$;
create function loops(event eventstream.event) returns void language plpgsql as $$ begin
    if event.payload ->> 'token' = '{FAIL_AT}' then loop perform pg_sleep(0.01); end loop; end if;
end $$;
create function dropped(event eventstream.event) returns void language plpgsql as $$ begin end $$;
create table small (token text check (token <> '{FAIL_AT}'));
create function violates(event eventstream.event) returns void language plpgsql as $$ begin
    insert into public.small values (event.payload ->> 'token');
end $$;
create table guarded (token text);
grant insert on guarded to clerk;
create function revoked(event eventstream.event) returns void language plpgsql as $$ begin
    insert into public.guarded values (event.payload ->> 'token');
end $$
"""


def test_of_fifty_projections_five_fail_and_show_how_and_forty_five_are_current(live):
    live.server.configure(**{"eventstream.handler_timeout": "1s", "eventstream.max_retry_pause": "1min"})
    live.server.reload()
    live.role("clerk")
    healthy = [Model(f"healthy_{number}", ("event", "batch")[number % 2]) for number in range(43)]
    healthy += [Table("healthy_table"), Model("healthy_filtered", event_types=["Moved"])]
    models = Models(live, *healthy).create()
    with live.connect() as session:
        session.execute(SETUP)
        session.execute("select es_grant('clerk', 'manage')")
        session.execute("select es_grant('clerk', 'read')")
        for name in ("raises", "loops", "dropped", "violates"):
            session.execute(f"select es_create_projection('{name}', '{name}(eventstream.event)', max_retries => 50)")
        with live.connect("clerk") as clerk:
            clerk.execute("select es_create_projection('revoked', 'revoked(eventstream.event)', max_retries => 50)")
    with Appenders(live, count=2, pause=0.01) as others, live.connect() as session:
        others.wait_for(100)
        models.wait(session)
        for name in ("raises", "loops", "dropped", "violates", "revoked"):
            session.execute("select es_wait_for(%s)", (name,))
        session.execute("revoke insert on guarded from clerk")
        session.execute("set eventstream.allow_drop = on; drop function dropped")
        session.execute("select es_append('account-odd', 'Moved', %s)", (json.dumps({"token": FAIL_AT}),))
        odd = value(session, "select global_position from es_last_append()")

        def failed():
            states = {
                name: others_
                for name, *others_ in rows(
                    session,
                    "select name, status, error_sqlstate, error_message, failed_position, retry_at > clock_timestamp() - interval '2 s'"
                    " from eventstream.projections where attempts > 0 or status = 'stopped'",
                )
            }
            stable = len(states) == 5 and all(
                states[name][3] == odd for name in ("raises", "loops", "violates") if name in states
            )
            return states if stable else None

        states = wait_until(failed, 60, "five projections to fail")
        # The others do not wait for them.
        others.wait_for(300)
        began = time.monotonic()
        models.wait(session, 30)
        assert time.monotonic() - began < 10, "forty-five projections wait for five"
        assert states["raises"] == ["retrying", "ZZ001", f"no {FAIL_AT} here", odd, True]
        assert states["loops"][:2] == ["retrying", "57014"] and states["loops"][3:] == [odd, True]
        assert states["violates"][:2] == ["retrying", "23514"] and states["violates"][3:] == [odd, True]
        assert "small" in states["violates"][2]
        assert states["revoked"][:2] == ["retrying", "42501"] and states["revoked"][4] is True
        assert "guarded" in states["revoked"][2] and states["revoked"][3] is not None
        # Nothing mends a function that is gone but a person: it is not tried again.
        assert states["dropped"][0] == "stopped" and "dropped" in states["dropped"][2], states["dropped"]
    models.assert_exact()


def test_a_mended_projection_goes_on_where_it_failed(live):
    """Each failure is repaired; afterwards nothing is missing and nothing is there twice."""
    model = Model("mended", before="if exists (select from public.switch where is_broken) then raise exception 'broken'; end if;")
    with live.connect() as session:
        session.execute("create table switch (is_broken bool)")
        session.execute("insert into switch values (false)")
    models = Models(live, model).create()
    with Appenders(live, count=2) as others, live.connect() as session:
        for number in range(4):
            others.wait_for(100)
            session.execute("update switch set is_broken = true")
            wait_until(lambda: value(session, "select attempts > 0 from eventstream.projections"), 30, "a failure")
            session.execute("update switch set is_broken = false")
            if number % 2:
                wait_until(lambda: value(session, "select attempts = 0 from eventstream.projections"), 30, "its retry")
            else:
                session.execute("select es_pause_projection('mended')")
                session.execute("select es_resume_projection('mended')")
    models.assert_exact()
