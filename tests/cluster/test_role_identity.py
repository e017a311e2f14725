"""What was granted to a role, and what runs as it, is the role's and not its name's: another role of that name gets nothing, a renamed one loses nothing; and
where code runs as a role, nobody may put something into it who does not have that role's rights.

Kinds: role (dropped, renamed, made again, from another database, group owner, member), copies (a restored dump, where oids are others'), code of others.
"""

import contextlib

import psycopg
import pytest

from database import Database, rows, value
from server import WORK, run

HOLDERS = """
select es_register_fold('rules', 'thing', rules => '{"on": {}}');
select es_append('thing-1', 'Happened', '{"n": 1}');
"""


@contextlib.contextmanager
def raised(*sqlstates: str):
    with pytest.raises(psycopg.Error) as error:
        yield error
    assert error.value.sqlstate in sqlstates, error.value


def reads(database, role) -> bool:
    """Whether the role may read, as a session of its own finds."""
    with database.connect(role) as session:
        try:
            return rows(session, "select stream from es_read('thing-1')") == [("thing-1",)]
        except psycopg.errors.InsufficientPrivilege:
            return False


def elsewhere(database, *statements: str) -> None:
    """From another database, where no hook of ours sees it."""
    with database.server.connect("postgres") as admin:
        for statement in statements:
            admin.execute(statement)


@pytest.fixture
def world(quiet):
    quiet.role("analyst")
    with quiet.connect() as session:
        for statement in HOLDERS.strip().splitlines():
            session.execute(statement)
        session.execute("select es_grant('analyst', p) from unnest('{read,manage,append}'::text[]) p")
        session.execute("create schema analyst authorization analyst")
    return quiet


def noted(session):
    """Role and oid of grants and of registrations, as a dump would carry them."""
    return rows(session, "select distinct role, role_oid is null from _eventstream.grants union select registrant, registrant_oid is null from _eventstream.folds order by 1, 2")


def test_what_is_done_to_a_role_here_is_noted_in_the_same_transaction(world):
    """So that a dump that is taken next names no namesake."""
    with world.connect("analyst") as analyst:
        analyst.execute("create function analyst.f(s jsonb, e eventstream.event) returns jsonb immutable language sql as 'select s'")
        analyst.execute("select es_register_fold('theirs', 'thing', handler => 'analyst.f(jsonb, eventstream.event)', initial_state => '{}')")
    with world.connect() as session:
        session.execute("create role unrelated; drop role unrelated")
        assert ("analyst", False) in noted(session)
        with session.transaction() as transaction:
            session.execute("alter role analyst rename to renamed")
            assert ("renamed", False) in noted(session) and ("analyst", False) not in noted(session)
            raise psycopg.Rollback(transaction)
        assert ("analyst", False) in noted(session) and ("renamed", False) not in noted(session)
        session.execute("reassign owned by analyst to current_user; drop owned by analyst; drop role analyst")
        assert ("analyst", True) in noted(session) and ("analyst", False) not in noted(session)
        session.execute("create role analyst login")
        assert not reads(world, "analyst")


@pytest.mark.parametrize("where", ["here", "in another database"])
def test_a_role_made_again_under_a_name_has_none_of_its_rights(world, where):
    with world.connect("analyst") as open_session, world.connect() as session:
        assert value(open_session, "select count(*) from es_read('thing-1')") == 1
        assert reads(world, "analyst")
        again = ("drop role analyst", "create role analyst login")
        session.execute("drop schema analyst")
        if where == "here":
            for statement in again:
                session.execute(statement)
        else:
            elsewhere(world, *again)
        assert not reads(world, "analyst")
        assert rows(session, "select distinct role, role_exists from eventstream.grants") == [("analyst", False)]
        (dead,) = rows(session, "select status, detail, fix from eventstream.health where name = 'grants'")
        assert dead[0] == "warning" and "analyst" in dead[1] and dead[2].startswith("select")
        assert len(rows(session, dead[2])) == 3
        # What is granted to the new one is the new one's, and upkeep, which notes the old one's end, takes nothing from it.
        session.execute("select es_grant('analyst', 'read')")
        assert reads(world, "analyst")
        rows(session, "select * from es_maintain()")
        assert reads(world, "analyst")
        # It takes the place of the dead one's: revoking by the name, as health says of the others, must not take it along.
        assert rows(session, "select privilege, role_exists from eventstream.grants order by 1") == [("append", False), ("manage", False), ("read", True)]
        # Forgotten as it was granted.
        for privilege in ("manage", "append"):
            session.execute("select es_revoke('analyst', %s)", (privilege,))
        session.execute("select es_revoke('analyst', 'read')")
        assert rows(session, "select * from eventstream.grants") == []
        assert value(session, "select status from eventstream.health where name = 'grants'") is None


@pytest.mark.parametrize("where", ["here", "in another database"])
def test_a_renamed_role_keeps_what_it_was_granted(world, where):
    with world.connect() as session:
        if where == "here":
            session.execute("alter role analyst rename to senior")
        else:
            elsewhere(world, "alter role analyst rename to senior")
        world.roles.append("senior")
        assert reads(world, "senior")
        assert rows(session, "select distinct role, role_exists from eventstream.grants") == [("senior", True)]
        # A new one under the old name is another.
        world.role("analyst")
        assert not reads(world, "analyst")
        with raised("ES005"):
            session.execute("select es_revoke('analyst', 'read')")
        session.execute("select es_revoke('senior', 'read')")
        assert not reads(world, "senior")
        rows(session, "select * from es_maintain()")
        assert value(session, "select count(*) from _eventstream.grants where role = 'senior'") == 2


REGISTERED = {
    "fold": (
        "create function {s}.f(state jsonb, event eventstream.event) returns jsonb immutable language sql as $$ select jsonb_build_object('who', current_user) $$",
        "select es_register_fold('f', 'thing', '{s}.f(jsonb, eventstream.event)')",
        "select es_state('thing-1')",
    ),
    "upcaster": (
        "create function {s}.f(payload jsonb, metadata jsonb) returns jsonb immutable language sql as $$ select payload $$",
        "select es_register_upcaster('Happened', 1, '{s}.f(jsonb, jsonb)')",
        "select count(*) from es_read('thing-1')",
    ),
    "projection": (
        "create function {s}.f(event eventstream.event) returns void language sql as $$ select null::void $$",
        "select es_create_projection('p', '{s}.f(eventstream.event)', max_retries => 0)",
        "select es_run_projection('p')",
    ),
    "state table": ("select 1", "select es_create_state_table('{s}.p', 'thing', '[]')", "select es_run_projection('{s}.p')"),
}


def outcome(session, statement: str) -> str | None:
    """The error, also where a projection keeps it."""
    try:
        session.execute(statement)
    except psycopg.Error as error:
        return str(error)
    return value(session, "select error_message from eventstream.projections where attempts > 0 or status = 'stopped'")


@pytest.mark.parametrize("kind", ["fold", "upcaster", "projection"])
def test_what_a_dropped_role_registered_does_not_run_as_the_next_of_its_name(world, kind):
    function, registration, use = (text.format(s="analyst") for text in REGISTERED[kind])
    with world.connect() as session:
        with world.connect("analyst") as analyst:
            analyst.execute(function)
            analyst.execute(registration)
        # A renamed one goes on.
        session.execute("alter role analyst rename to senior")
        world.roles.append("senior")
        assert outcome(session, use) is None
        session.execute("reassign owned by senior to postgres; drop owned by senior; drop role senior")
        world.role("senior")
        world.role("analyst")
        session.execute("select es_grant(r, p) from unnest('{senior,analyst}'::text[]) r, unnest('{read,manage,append}'::text[]) p")
        session.execute("grant usage on schema analyst to public")
        session.execute("select es_append('thing-1', 'Happened', '{\"n\": 2}')")
        for _ in range(2):
            assert "does not exist any more" in (outcome(session, use) or ""), kind
            # Also when its end was noted.
            rows(session, "select * from es_maintain()")


def test_in_a_restored_copy_names_count_until_it_is_activated(world, quiet_server):
    copy = Database(quiet_server, f"copy_of_{world.name}"[:60])
    dump = WORK / f"{copy.name}.sql"
    try:
        run("pg_dump", "-f", dump, env=quiet_server.address(world.name))
        # As in another cluster: the oids in the dump are nobody's here, or somebody else's.
        elsewhere(world, "alter role analyst rename to old_analyst")
        world.roles.append("old_analyst")
        world.role("analyst")
        copy.create(extension=False)
        run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", dump, env=quiet_server.address(copy.name))
        assert reads(copy, "analyst") and not reads(copy, "old_analyst")
        assert reads(world, "old_analyst") and not reads(world, "analyst")
        with copy.connect() as session:
            session.execute("select es_activate()")
            session.execute("alter role analyst rename to senior")
            world.roles.append("senior")
            world.role("analyst")
        assert reads(copy, "senior") and not reads(copy, "analyst")
        with copy.connect() as session:
            assert rows(session, "select * from es_verify_audit()") == []
    finally:
        dump.unlink(missing_ok=True)
        copy.drop()


# -- whose code runs as whom -----------------------------------------------------------------------------------------


@pytest.fixture
def team(world):
    """A group with a senior and a junior in it; only the senior may write to the books."""
    for role in ("team", "senior", "junior"):
        world.role(role)
    with world.connect() as session:
        session.execute("grant team to senior; grant team to junior; create schema team authorization team")
        session.execute("create table books (who text); grant insert, select on books to senior")
        session.execute("select es_grant('senior', p) from unnest('{read,manage,append}'::text[]) p")
    return world


@pytest.mark.parametrize("kind", ["fold", "upcaster", "projection"])
def test_a_groups_function_does_not_run_with_the_rights_of_one_of_its_members(team, kind):
    function, registration, use = (text.format(s="team") for text in REGISTERED[kind])
    with team.connect("senior") as senior, team.connect() as session:
        senior.execute("set role team")
        senior.execute(function)
        senior.execute("reset role")
        with raised("ES005") as error:
            senior.execute(registration)
        assert "team" in str(error.value) and "a member of it" in str(error.value)
        # The other way round there is nothing to gain: who may change it has the registrant's rights.
        name = function.split("(")[0].removeprefix("create function ")
        arguments = registration[registration.index("team.f(") + len("team.f") : registration.index(")'") + 1]
        session.execute(f"alter function {name}{arguments} owner to senior")
        senior.execute(registration)
        assert outcome(session, use) is None
        # Given to the group afterwards, it runs no more.
        session.execute(f"alter function {name}{arguments} owner to team")
        session.execute("select es_append('thing-1', 'Happened', '{\"n\": 2}')")
        assert "is of role team by now" in (outcome(session, use) or "")
        # A role that has the registrant's rights may own it.
        team.role("director")
        session.execute(f"grant senior to director; alter function {name}{arguments} owner to director")
        session.execute("select es_resume_projection(name) from eventstream.projections")
        assert outcome(session, use) is None


COLUMNS = '[{"name": "n", "type": "numeric", "path": "/n"}]'


def test_a_state_table_given_to_a_group_is_not_written_as_one_of_its_members(team):
    with team.connect("senior") as senior, team.connect("junior") as junior, team.connect() as session:
        session.execute("grant create on schema team to senior; grant usage on schema team to junior")
        senior.execute("select es_create_state_table('team.things', 'thing', %s)", (COLUMNS,))
        assert outcome(session, "select es_run_projection('team.things')") is None
        session.execute("alter table team.things owner to team")
        junior.execute("create function team.note() returns trigger language plpgsql as $$ begin insert into public.books values (current_user); return new; end $$")
        junior.execute("create trigger note before insert or update on team.things for each row execute function team.note()")
        session.execute("select es_append('thing-2', 'Happened', '{\"n\": 2}')")
        session.execute("select es_run_projection('team.things')")
        assert "is not a table of role senior any more" in value(session, "select error_message from eventstream.projections")
        assert rows(session, "select * from books") == []


# -- what writes a state table ---------------------------------------------------------------------------------------


def test_what_writes_a_state_table_is_kept_as_columns_and_not_as_statements(world):
    with world.connect("analyst") as analyst, world.connect() as session:
        analyst.execute("set search_path = analyst, public")
        analyst.execute("select es_create_state_table('things', 'thing', %s)", (COLUMNS,))
        kept = rows(session, "select attname from pg_attribute where attrelid = '_eventstream.projections'::regclass and attnum > 0 and not attisdropped")
        assert not {name for (name,) in kept} & {"upsert", "prune", "prune_rest"}
        everything = value(session, "select p::text from _eventstream.projections p")
        assert "insert into" not in everything and "delete from" not in everything
        session.execute("select es_run_projection('things')")
        assert rows(session, "select stream from analyst.things") == [("thing-1",)]
        # Whatever is written into the row, by force: it is a table's name, and columns, or refused.
        session.execute("set eventstream.allow_drop = on; alter table _eventstream.projections disable trigger all")
        session.execute("set eventstream.allow_drop = off")
        for column, planted in (
            ("table_name", "analyst.things set n = 0; drop table analyst.things; --"),
            ("table_name", "analyst.gone"),
            ("columns", '[{"name": "n", "type": "numeric); drop table analyst.things; --", "path": "/n"}]'),
            ("columns", '[{"name": "n\\") values (1); drop table analyst.things; --", "type": "numeric", "path": "/n"}]'),
        ):
            session.execute("begin")
            session.execute(f"update _eventstream.projections set {column} = %s", (planted,))
            session.execute("select es_alter_projection('things', '{\"max_retries\": 0}')")
            session.execute("select es_append('thing-3', 'Happened', '{\"n\": 3}')")
            session.execute("commit")
            session.execute("select es_run_projection('things')")
            status, sqlstate = rows(session, "select status, error_sqlstate from _eventstream.projection_progress")[0]
            # No name of a table, no such table, no such type, no such column.
            assert status == "stopped" and sqlstate in {"42602", "55000", "0A000", "ES005", "42703"}, (planted, status, sqlstate)
            assert rows(session, "select stream, n from analyst.things") == [("thing-1", None)]
            session.execute("update _eventstream.projections set table_name = 'analyst.things', columns = %s", (COLUMNS,))
            session.execute("select es_resume_projection('things')")
            session.execute("update _eventstream.projection_progress set global_position = (select max(global_position) from _eventstream.events)")
