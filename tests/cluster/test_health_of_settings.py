"""Health judges what the server's sessions begin with, and not the session of whoever asks; what tokens were refused lately; and where else roles that need one may connect."""

import psycopg
import pytest
from database import Database, rows, value
from minting import Bank, refused, use
from operating import check, run_psql
from server import wait_until

DEMANDED = {"log_parameter_max_length": "0", "log_parameter_max_length_on_error": "0", "log_min_error_statement": "panic"}
OTHER = {"log_parameter_max_length": "-1", "log_parameter_max_length_on_error": "100", "log_min_error_statement": "error"}


@pytest.fixture
def quiet_log(new_server):
    """A server that is told no values."""
    server = new_server("told", **DEMANDED)
    database = Database(server, "told").create()
    with database.connect() as session:
        session.execute("select es_protect('Named', pointers => '{/name}')")
    return database


def found(database: Database, **options):
    with database.connect(**options) as session:
        return check(session, "protected fields")


#: What a session says of itself: in it, as it begins, and where whoever asks has something of his own.
@pytest.mark.parametrize("setting", DEMANDED)
def test_what_the_asker_sets_says_nothing(quiet_log, setting):
    good, bad = DEMANDED[setting], OTHER[setting]
    assert found(quiet_log).status == "ok"
    with quiet_log.connect() as session:
        session.execute(f"set {setting} = '{bad}'")
        assert check(session, "protected fields").status == "ok"
        with session.transaction():
            session.execute(f"set local {setting} = '{bad}'")
            assert check(session, "protected fields").status == "ok"
    assert found(quiet_log, options=f"-c {setting}={bad}").status == "ok"
    with quiet_log.connect() as session:
        session.execute(f"alter system set {setting} = '{bad}'")
        session.execute("select pg_reload_conf()")
        wait_until(lambda: found(quiet_log).status == "warning", 20, "the reload")
        session.execute(f"set {setting} = '{good}'")
        told = check(session, "protected fields")
        assert told.status == "warning" and f"{setting} = {good} is not set" in told.detail
    assert found(quiet_log, options=f"-c {setting}={good}").status == "warning"
    with quiet_log.connect() as session:
        session.execute(f"alter role postgres set {setting} = '{good}'")
    told = found(quiet_log)
    assert told.status == "warning" and f"{setting} = {good} is not set" in told.detail
    run_psql(quiet_log, told.fix)
    wait_until(lambda: found(quiet_log).status == "ok", 20, "the reload")
    with quiet_log.connect() as session:
        session.execute(f"alter role postgres reset {setting}")


#: Whose settings they are, how that is told, and what ends it.
WHOSE = [
    ("alter role app set {}", 'role "app" begins with {} = {}', 'alter role "app" reset {};'),
    ("alter role app in database told set {}", 'role "app" begins with {} = {}', 'alter role "app" in database "told" reset {};'),
    ("alter database told set {}", "{} = {} is not set", 'alter database "told" reset {};'),
    ("alter role all set {}", "{} = {} is not set", "alter role all reset {};"),
]


@pytest.mark.parametrize("setting", DEMANDED)
def test_what_is_set_for_roles_and_the_database_is_named(quiet_log, setting):
    quiet_log.role("app")
    good, bad = DEMANDED[setting], OTHER[setting]
    for statement, told, fix in WHOSE:
        with quiet_log.connect() as session:
            session.execute(statement.format(f"{setting} = '{bad}'"))
        health = found(quiet_log)
        shown = told.format(setting, bad if "begins" in told else good)
        assert health.status == "warning" and shown in health.detail, (statement, health)
        assert fix.format(setting) in health.fix.splitlines()
        run_psql(quiet_log, health.fix)
        assert found(quiet_log).status == "ok"
    # The narrower one counts.
    with quiet_log.connect() as session:
        session.execute(f"alter database told set {setting} = '{bad}'; alter role app set {setting} = '{good}'")
    health = found(quiet_log)
    assert "role" not in health.detail and "alter database" in health.fix
    with quiet_log.connect() as session:
        session.execute(f"alter database told set {setting} = '{good}'; alter role all set {setting} = '{bad}'; alter role app reset {setting}")
        assert check(session, "protected fields").status == "ok"
        # Nor does another database's say anything, or that of a role that cannot log in.
        session.execute(f"alter role all reset {setting}; alter database postgres set {setting} = '{bad}'; create role nobody nologin; alter role nobody set {setting} = '{bad}'")
        assert check(session, "protected fields").status == "ok"


def elsewhere(session) -> list[tuple]:
    return rows(session, "select name, status, detail, fix from eventstream.health where name ~ '^token' order by 1, 2, 3")


def test_roles_that_need_a_token_connect_to_no_other_database(new_server):
    """There they may set their own password and settings, which count for whoever comes next."""
    server = new_server("elsewhere")
    database = Database(server, "elsewhere").create()
    said = []
    with server.connect("postgres") as other:
        other.execute("create database next_door")
    with database.connect() as session:
        session.add_notice_handler(lambda notice: said.append((notice.severity, notice.message_primary, notice.message_hint)))
        session.execute(f'revoke temp on database "{database.name}" from public; create role web login; create role no_login')
        session.execute("select es_require_token('no_login')")
        assert said == []
        session.execute("select es_require_token('web')")
        ((severity, message, hint),) = said
        assert severity == "WARNING" and message.startswith('role "web" may connect to other databases of this server') and "eventstream.health" in hint
        ((name, status, detail, fix),) = elsewhere(session)
        assert (name, status) == ("token role web", "warning") and detail.endswith("next_door, postgres, template1"), detail
        # What it is about.
        with psycopg.connect(session.info.dsn, dbname="next_door", user="web", autocommit=True) as web:
            web.execute("alter role web set statement_timeout = '1h'")
        session.execute(fix)
        assert [row[:2] for row in elsewhere(session)] == [("tokens", "ok")]
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(session.info.dsn, dbname="next_door", user="web")
        said.clear()
        session.execute("select es_require_token('web', required => false), es_require_token('web')")
        assert said == []
        # Nor does another value for this database alone pass.
        session.execute("alter role web in database elsewhere set track_activities = on")
        assert ["pg_stat_activity shows what" in row[2] for row in elsewhere(session)] == [True]
        session.execute("alter role web in database elsewhere reset track_activities")
        assert [row[:2] for row in elsewhere(session)] == [("tokens", "ok")]


def test_many_tokens_that_are_refused_are_told(new_server):
    server = new_server("refused")
    bank = Bank(Database(server, "refused").create())
    with bank.admin() as admin:
        assert check(admin, "refused tokens") is None
        with bank.connect() as session:
            with refused("ES043"):
                use(session, "x")
            told = check(admin, "refused tokens")
            assert told.status == "ok" and "1 token was refused (ES043)" in told.detail
            for _ in range(65):
                with refused("ES043"):
                    use(session, "x")
            # Good ones are not counted.
            for _ in range(3):
                with session.transaction():
                    use(session, bank.token())
        told = check(admin, "refused tokens")
        assert told.status == "warning" and "66 tokens were refused (ES043)" in told.detail and "server's log" in told.detail
        assert "66" in run_psql(bank.database, told.fix)
        assert value(admin, "select value from eventstream.stats where name = 'tokens_refused'") == 66
    with bank.connect() as session, session.transaction():
        use(session, bank.token())
        assert check(session, "refused tokens") is None
