"""Each privilege opens what it is for and nothing beside it: managing shows no payloads, upkeep neither, reading locks nobody out, consuming is asked for, what is
narrowed to a category stays there, and nothing that PostgreSQL tells everybody (errors, NOTIFY, the last append) tells of others.

Kinds: role (only one privilege, narrowed), tenant (b is told nothing of a, and needs not choose because of a), reader of the answer (errors, views, NOTIFY).
"""

import contextlib

import psycopg
import pytest

from database import rows, value

SECRET = "SECRET-4711"
SETUP = f"""
select es_register_fold('things', 'thing', rules => '{{"on": {{}}}}');
select es_register_fold('vaults', 'vault', rules => '{{"on": {{}}}}');
select es_append('thing-1', 'Happened', '{{"n": 1}}');
select es_append('vault-1', 'Happened', '{{"n": "{SECRET}"}}');
create function spy(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$ begin raise warning 'seen: %', event.payload; return state; end $$;
create function upcast(payload jsonb, metadata jsonb) returns jsonb immutable language sql as $$ select payload $$;
create function strict_one(event eventstream.event) returns void language plpgsql as $$ begin perform (event.payload ->> 'n')::int; end $$;
create function logs(event eventstream.event) returns void language plpgsql as $$ begin perform public.es_append('audit-' || event.global_position, 'Seen', '{{}}'); end $$;
select es_create_projection('vaulted', 'strict_one(eventstream.event)', categories => '{{vault}}', max_retries => 0);
select es_create_projection('thinged', 'strict_one(eventstream.event)', categories => '{{thing}}');
select es_create_subscription('of_things', categories => '{{thing}}');
select es_create_subscription('of_vaults', categories => '{{vault}}');
"""
# The functions are the registrant's own.
OWN = """create function {role}_f(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$ begin raise warning 'seen: %', event.payload; return state; end $$;
create function {role}_u(payload jsonb, metadata jsonb) returns jsonb immutable language sql as $$ select payload $$;
create function {role}_h(event eventstream.event) returns void language plpgsql as $$ begin raise warning 'seen: %', event.payload; end $$;"""


@pytest.fixture
def world(quiet):
    with quiet.connect() as session:
        for statement in SETUP.strip().splitlines():
            session.execute(statement)
        session.execute("grant create on schema public to public")
    return quiet


@contextlib.contextmanager
def having(world, role: str, *privileges):
    """A session of a role with these privileges, (name) or (name, category), and what it is told."""
    world.role(role)
    with world.connect() as session:
        for privilege in privileges:
            name, category = (privilege, None) if isinstance(privilege, str) else privilege
            session.execute("select es_grant(%s, %s, category => %s)", (role, name, category))
    with world.connect(role) as session:
        session.told = []
        session.add_notice_handler(lambda notice: session.told.append(notice.message_primary))
        session.execute(OWN.format(role=role))
        yield session


def outcome(session, statement: str, *parameters) -> str | None:
    try:
        session.told.append(repr(session.execute(statement, parameters or None).fetchall()))
    except psycopg.Error as error:
        session.told.append(repr((error.diag.message_primary, error.diag.message_detail, error.diag.context)))
        return error.sqlstate
    return None


def calls(role: str, category: str) -> dict[str, str]:
    """What manage is for, of one category."""
    projection, subscription, fold = {"thing": ("thinged", "of_things", "things"), "vault": ("vaulted", "of_vaults", "vaults")}[category]
    return {
        "register fold": f"select es_register_fold('{role}_f', '{category}', '{role}_f(jsonb, eventstream.event)', is_default => false)",
        "replace fold": f"select es_register_fold('{fold}', '{category}', rules => '{{\"on\": {{}}}}')",
        "snapshot": f"select es_snapshot('{category}-1', '{fold}')",
        "projection": f"select es_create_projection('{role}_p', '{role}_h(eventstream.event)', categories => '{{{category}}}')",
        "state table": f"select es_create_state_table('{role}_t', '{category}', '[{{\"name\": \"n\", \"type\": \"text\", \"path\": \"/n\"}}]')",
        "run": f"select es_run_projection('{projection}')",
        "pause": f"select es_pause_projection('{projection}')",
        "resume": f"select es_resume_projection('{projection}')",
        "subscription": f"select es_create_subscription('{role}_s', categories => '{{{category}}}')",
        "seek": f"select es_seek_subscription('{subscription}', 0)",
        "drop subscription": f"select es_drop_subscription('{subscription}')",
        "drop projection": f"select es_drop_projection('{projection}')",
        "drop fold": f"select es_unregister_fold('{fold}')",
    }


READS = {"register fold", "replace fold", "drop fold", "snapshot", "projection", "state table"}
VIEWS = ("projections", "subscriptions", "dead_letters", "health", "progress", "folds", "snapshots", "events", "streams")


def test_manage_alone_shows_no_payload(world):
    with having(world, "m", "manage") as m:
        for name, statement in calls("m", "vault").items():
            assert (outcome(m, statement) == "42501") == (name in READS), name
            m.execute("select 1")
        assert outcome(m, "select es_register_upcaster('Happened', 1, 'm_u(jsonb, jsonb)')") == "42501"
        assert outcome(m, "select es_unregister_upcaster('Happened', 1)") == "42501"
    with having(world, "n", "manage") as n, world.connect() as session:
        session.execute("select es_create_projection('again', 'strict_one(eventstream.event)', categories => '{vault}', max_retries => 0)")
        session.execute("select es_run_projection('again')")
        assert SECRET in value(session, "select error_message from eventstream.projections where name = 'again'")
        for view in ("projections", "subscriptions", "dead_letters"):
            assert outcome(n, f"select * from eventstream.{view}") is None
        assert outcome(n, "select es_run_projection('again')") == "ES021"
        for statement in ("select es_skip_event('again', (select failed_position from eventstream.projections where name = 'again'), 'why')", "select * from eventstream.dead_letters"):
            assert outcome(n, statement) is None, statement
        assert not [said for said in n.told if SECRET in said]


def test_manage_that_is_narrowed_stays_in_its_category(world):
    with having(world, "m", ("manage", "thing"), "read") as m:
        for name, statement in calls("m", "vault").items():
            assert outcome(m, statement) == "42501", name
        assert outcome(m, "select es_register_fold('vaults', 'thing', rules => '{\"on\": {}}')") == "42501", "that of another category"
        assert outcome(m, "select es_create_projection('all', 'm_h(eventstream.event)')") == "42501"
        assert outcome(m, "select es_create_subscription('all')") == "42501"
        assert outcome(m, "select es_run_projection()") == "42501"
        assert outcome(m, "select es_register_upcaster('Happened', 1, 'm_u(jsonb, jsonb)')") == "42501"
        assert rows(m, "select name from eventstream.projections") == [("thinged",)]
        assert rows(m, "select name from eventstream.subscriptions") == [("of_things",)]
        assert outcome(m, "select * from eventstream.health") == "42501"
        for name, statement in calls("m", "thing").items():
            if name == "drop fold":
                assert outcome(m, statement) == "2BP01", "the state table made above is folded by it"
                assert outcome(m, "select es_drop_projection('m_t')") is None
            assert outcome(m, statement) is None, (name, m.told[-1])


def test_what_is_made_of_a_category_asks_for_reading_that_one(world):
    with having(world, "m", "manage", ("read", "thing")) as m:
        for name, statement in calls("m", "vault").items():
            if name in READS:
                assert outcome(m, statement) == "42501", name
        assert outcome(m, "select es_alter_projection('vaulted', '{\"handler\": \"m_h(eventstream.event)\"}')") == "42501"
        assert outcome(m, calls("m", "thing")["projection"]) is None
    with having(world, "r", "read") as r:
        columns = '[{"name": "n", "type": "text", "path": "/n"}]'
        assert outcome(r, "select es_create_temporal_view('r_v', 'thing', %s)", columns) == "42501"
        assert outcome(r, "select es_create_state_table('r_t', 'thing', %s, if_not_exists => true)", columns) == "42501"
        assert outcome(r, "select eventstream.state_table_is_there('x', 'public.x', 'thing', %s, null, 'async', true)", columns) == "42501"


def test_upkeep_is_a_privilege_of_its_own(world):
    upkeep = ("select * from es_maintain()", "select es_prune_snapshots()")
    with having(world, "m", "manage", "read") as m:
        assert [outcome(m, statement) for statement in upkeep] == ["42501", "42501"]
    with having(world, "u", "upkeep") as u:
        assert [outcome(u, statement) for statement in upkeep] == [None, None]
        for name, statement in calls("u", "thing").items():
            assert outcome(u, statement) == "42501", name
        assert outcome(u, "select * from es_read('vault-1')") == "42501"


def test_a_reader_locks_no_stream_and_consumes_nothing(world):
    with having(world, "r", "read") as r:
        assert outcome(r, "select * from es_load('thing-1')") is None
        assert outcome(r, "select * from es_load('thing-1', for_update => true)") == "42501"
        assert outcome(r, "select * from es_fetch('of_things', 'r')") == "42501"
    with having(world, "c", ("consume", "thing"), ("read", "thing"), ("append", "vault")) as c:
        assert outcome(c, "select * from es_load('thing-1', for_update => true)") == "42501"
        (lease,) = {lease for (lease,) in rows(c, "select lease_id from es_fetch('of_things', 'c')")}
        assert outcome(c, "select * from es_fetch('of_vaults', 'c')") == "42501"
        # What it holds is not for who may only read, nor for who consumes something else.
        held = ("select es_extend_lease(%s, by => '1 second')", "select es_nack(%s, 1, 'why')", "select es_ack(%s)")
        with having(world, "q", "read") as q, having(world, "v", ("consume", "vault"), "read") as v:
            for statement in held:
                assert [outcome(one, statement, lease) for one in (q, v)] == ["42501", "42501"], statement
        assert outcome(c, "select es_extend_lease(%s, by => '1 second')", lease) is None
        assert outcome(c, "select es_ack(%s)", lease) is None
    with having(world, "e", ("consume", "thing"), "read") as e:
        assert outcome(e, "select * from es_fetch('of_vaults', 'e')") == "42501", "reading it is not consuming it"
    with having(world, "d", "consume") as d:
        assert outcome(d, "select * from es_fetch('of_things', 'd')") == "42501", "payloads are for readers"


def test_waiting_tells_a_reader_of_another_category_no_payload(world):
    with having(world, "r", ("read", "thing")) as r, world.connect() as session:
        session.execute("select es_run_projection('vaulted')")
        with pytest.raises(psycopg.Error) as error:
            session.execute("select es_wait_for('vaulted', timeout => '10ms')")
        assert error.value.sqlstate == "ES021" and SECRET in str(error.value)
        assert outcome(r, "select es_wait_for('vaulted', timeout => '10ms')") == "ES021"
        session.execute("select es_alter_projection('vaulted', '{\"max_retries\": 6}'), es_resume_projection('vaulted')")
        session.execute("select es_run_projection('vaulted')")
        with pytest.raises(psycopg.Error) as error:
            session.execute("select es_wait_for('vaulted', timeout => '10ms')")
        assert error.value.sqlstate == "ES023" and SECRET in str(error.value)
        assert outcome(r, "select es_wait_for('vaulted', timeout => '10ms')") == "ES023"
        assert not [said for said in r.told if SECRET in said]


def test_the_last_append_is_the_callers_own(world):
    with world.connect() as session:
        session.execute("select es_create_projection('log', 'logs(eventstream.event)', categories => '{thing}', mode => 'inline')")
        session.execute("select es_append('thing-1', 'Happened', '{}')")
        assert rows(session, "select stream from eventstream.streams where stream like 'audit-%' order by 1") != []
        last = rows(session, "select stream, version, event_ids from es_last_append()")[0]
        assert last[:2] == ("thing-1", 2)
        assert value(session, "select stream from es_event(%s)", last[2][0]) == "thing-1"


def test_a_grant_to_public_in_one_tenant_makes_no_other_tenants_role_choose(world):
    with world.connect() as session:
        session.execute("select es_create_tenant('b')")
        session.execute("set eventstream.tenant = 'default'")
        world.role("client")
        session.execute("select es_grant('client', 'read'), es_grant('client', 'append')")
        with world.connect("client") as client:
            client.execute("select es_append('thing-1', 'Happened', '{}')")
            session.execute("select es_grant('public', 'read', tenant => 'b')")
            client.execute("select es_append('thing-1', 'Happened', '{}')")
            assert value(client, "select distinct tenant from es_read('thing-1')") == "default"
            # It may still choose.
            client.execute("set eventstream.tenant = 'b'")
            assert rows(client, "select * from es_read('thing-1')") == []


def test_a_grant_to_public_in_one_tenant_neither_stops_nor_takes_those_who_have_only_such(world):
    """What `default` grants to public is had by those who name no tenant; what another one grants, by those who name it: whatever admins of others do."""
    with world.connect() as session:
        session.execute("select es_create_tenant('a'), es_create_tenant('b')")
        session.execute("set eventstream.tenant = 'default'; select es_append('thing-1', 'Happened', '{}')")
        world.role("passer_by")
        with world.connect("passer_by") as client, world.connect("passer_by") as of_b:
            of_b.execute("set eventstream.tenant = 'b'")

            def refused():
                with pytest.raises(psycopg.Error) as error:
                    rows(client, "select * from es_read('thing-1')")
                return error.value.sqlstate

            assert refused() == "42501"
            session.execute("select es_grant('public', 'read', tenant => 'b')")
            assert rows(of_b, "select * from es_read('thing-1')") == []
            assert refused() == "ES041"
            session.execute("select es_grant('public', 'read', tenant => 'a')")
            assert rows(of_b, "select * from es_read('thing-1')") == []
            assert refused() == "ES041"
            session.execute("select es_grant('public', 'read', tenant => 'default')")
            assert value(client, "select distinct tenant from es_read('thing-1')") == "default"
            session.execute("select es_revoke('public', 'read', tenant => 'a')")
            assert rows(of_b, "select * from es_read('thing-1')") == []
            assert value(client, "select distinct tenant from es_read('thing-1')") == "default"


def test_consumers_that_acknowledge_nothing_starve_nobody(world):
    """A reader's 200 names with the longest leases left an honest consumer 10 of 640 events."""
    with world.connect() as session:
        session.execute("select es_append('thing-' || n, 'Happened', '{}') from generate_series(1, 640) n")
    with having(world, "c", "consume", "read") as ghosts, having(world, "h", "consume", "read") as honest:
        with pytest.raises(psycopg.Error) as error:
            ghosts.execute("select * from es_fetch('of_things', 'ghost', lease => '24 hours')")
        assert error.value.sqlstate == "ES005" and "1 hour" in str(error.value)
        # One that works is there, and what it holds is not taken from it.
        (lease,) = {lease for (lease,) in rows(honest, "select lease_id from es_fetch('of_things', 'honest', max_count => 50)")}
        assert outcome(honest, "select es_ack(%s)", lease) is None
        for number in range(200):
            ghosts.execute("select * from es_fetch('of_things', %s, lease => '1 hour')", (f"ghost-{number}",))
        seen = 50
        while found := rows(honest, "select lease_id from es_fetch('of_things', 'honest', max_count => 1000)"):
            honest.execute("select es_ack(%s)", (found[0][0],))
            seen += len(found)
        assert seen >= 200, seen
        # And what they hold is free again within a minute.
        with world.connect() as session:
            ((long, all_of_them),) = rows(session, LEASES_OF_GHOSTS)
        assert long == 0 and all_of_them >= 8, (long, all_of_them)


LEASES_OF_GHOSTS = """select count(*) filter (where lease_until > clock_timestamp() + interval '1 minute'), count(*)
                      from _eventstream.subscription_leases where consumer like 'ghost-%'"""


@pytest.mark.parametrize("ghosts_of_all", [1, 8, 200])
def test_ghosts_that_come_first_hold_nothing_for_long(world, ghosts_of_all):
    """Eight names that came first with leases of an hour held all slots: an honest consumer got 0 of 640 events until those ended."""
    with world.connect() as session:
        session.execute("select es_append('thing-' || n, 'Happened', '{}') from generate_series(1, 640) n")
    with having(world, "c", "consume", "read") as ghosts, having(world, "h", "consume", "read") as honest:
        for number in range(ghosts_of_all):
            ghosts.execute("select * from es_fetch('of_things', %s, max_count => 10000, lease => '1 hour')", (f"ghost-{number}",))
        with world.connect() as session:
            ((long, all_of_them),) = rows(session, LEASES_OF_GHOSTS)
            assert long == 0 and all_of_them >= 1, (long, all_of_them)
            # A minute later (the ghosts are as present as before, and come again).
            session.execute("update _eventstream.subscription_slots set lease_until = lease_until - interval '1 minute'")
            session.execute("update _eventstream.subscription_leases set lease_until = lease_until - interval '1 minute'")
        streams = set()
        for _ in range(40):
            found = rows(honest, "select lease_id, (event).stream, lease_until - clock_timestamp() > '50 minutes' from es_fetch('of_things', 'honest', max_count => 100, lease => '1 hour')")
            if found:
                honest.execute("select es_ack(%s)", (found[0][0],))
            # One that works has leases as long as it asks for.
            assert all(is_long == bool(streams) for _, _, is_long in found)
            streams |= {stream for _, stream, _ in found}
            ghosts.execute("select * from es_fetch('of_things', 'ghost-0', max_count => 10000, lease => '1 hour')")
        assert len(streams) >= 200, len(streams)


def test_a_consumer_that_shows_that_it_works_keeps_its_lease(world):
    """A slow worker says so with es_extend_lease before its first batch, and from then on has leases as long as it asks for."""
    long = "select lease_id, lease_until - clock_timestamp() > '50 minutes' from es_fetch('of_things', 'slow', max_count => 1, lease => '1 hour')"
    with having(world, "c", "consume", "read") as slow:
        with world.connect() as session:
            session.execute("select es_append('thing-' || n, 'Happened', '{}') from generate_series(1, 3) n")
        ((lease, is_long),) = rows(slow, long)
        assert not is_long
        slow.execute("select es_extend_lease(%s, '58 minutes')", (lease,))
        until = "select lease_until - clock_timestamp() > '50 minutes' from _eventstream.subscription_leases where lease_id = %s"
        with world.connect() as session:
            assert value(session, until, lease)
        assert rows(slow, long)[0][1]
