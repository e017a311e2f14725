"""A runner that dies with kill -9 at any step of its loop leaves every read model equal to the log, up to its checkpoint, exactly.

The server is the build with test points (src/pg/process/test_point.rs), in which a runner kills itself when it comes to a named step for the
nth time; the death of one process makes PostgreSQL restart all the others. `KILLS` (22) rounds; `KILLS=200` runs it for long.
"""

import os
import random
import signal

import psycopg
import server as servers
from database import Database, value, verify
from models import Appenders, Model, Models, Table
from server import wait_until

KILLS = int(os.environ.get("KILLS", "22"))

#: Each step of a runner's loop, and how often it is passed at most before the death.
STEPS = {
    "locked": 40,
    "read": 40,
    "applying": 200,
    "applied": 40,
    "writing rows": 10,
    "noted": 40,
    "committed": 40,
    "reported": 40,
    "failure noted": 3,
    "page kept": 1,
    "published": 1,
}

#: Fails by itself now and then: one event, or, with a serialization failure, the whole transaction.
FRAGILE = """
    case nextval('public.tries') % 50
        when 0 then raise exception 'not this time';
        when 25 then raise serialization_failure;
        else null;
    end case;
"""


def deaths(server: servers.Server) -> int:
    return server.log.read_text(errors="replace").count("was terminated by signal 9")


def die_at(server: servers.Server, step: str | None, nth: int = 1) -> None:
    server.configure(eventstream_test__die_at=step and f"{step}:{nth}")
    server.process.send_signal(signal.SIGHUP)


def survives(database: Database, work, seconds: float = 60):
    """What `work(session)` gives, tried again where a crash took its session."""

    def attempt():
        try:
            with database.connect(connect_timeout=5) as session:
                return [work(session)]
        except psycopg.OperationalError:
            return None

    return wait_until(attempt, seconds, "a session that lives long enough", every=0.1)[0]


def test_a_runner_killed_at_each_step_leaves_every_model_exact(new_server):
    assert servers.PROGRAMS_WITH_TEST_POINTS.exists(), "run `tools/test MAJOR backend` first: it makes the build with test points"
    server = new_server(
        "kills",
        programs=servers.PROGRAMS_WITH_TEST_POINTS,
        max_worker_processes=12,
        **{"eventstream.retry_pause": "10ms", "eventstream.max_retry_pause": "50ms"},
    )
    database = Database(server, "kills").create()
    with database.connect() as session:
        session.execute("create sequence tries")
    models = Models(
        database,
        Model("one"),
        Model("many", "batch", batch_size=20),
        Model("fragile", before=FRAGILE, max_retries=1000),
        Model("fragile_batch", "batch", before=FRAGILE, max_retries=1000),
        Table(),
    ).create()
    choice = random.Random(int(os.environ.get("EVENTSTREAM_SEED", "1")))
    died = dict.fromkeys(STEPS, 0)
    with Appenders(database, pause=0.005) as appenders:
        for number in range(KILLS):
            step = list(STEPS)[number % len(STEPS)]
            before = deaths(server)
            die_at(server, step, choice.randint(1, STEPS[step]))
            if step in ("page kept", "published"):
                survives(database, rebuild)
            wait_until(lambda: deaths(server) > before, 60, f"a runner to die at {step!r}")
            die_at(server, None)
            wrong = survives(database, models.differences)
            assert wrong == {}, f"after the death at {step!r} (kill {number})"
            died[step] += deaths(server) - before
            # Between two rounds the models go on.
            appenders.wait_for(10)
    models.assert_exact(120)
    with database.connect() as session:
        assert verify(session) == []
        assert value(session, "select count(*) from eventstream.dead_letters") == 0
        events = value(session, "select count(*) from eventstream.events")
    assert all(died.values()) or len(STEPS) > KILLS
    print(f"{sum(died.values())} runners killed ({died}), {events} events")


def rebuild(session: psycopg.Connection) -> None:
    try:
        session.execute("select es_rebuild_projection('totals')")
    except psycopg.Error as error:
        # The one of the round before goes on.
        if error.sqlstate != "ES022":
            raise
