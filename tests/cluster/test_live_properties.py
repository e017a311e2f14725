"""Random projections over random appends, with failures that come and go, pauses, rebuilds and skips: at any moment each model is the
fold of the log up to its checkpoint, minus its dead letters.

`LIVE_RUNS` (4) runs of `LIVE_STEPS` (120) steps; EVENTSTREAM_SEED picks the first, and a failure names its own.
"""

import os
import random

import psycopg
import pytest
from database import Database, rows, value, verify
from models import Model, Models, Table
from psycopg.types.json import Jsonb
from server import Server, wait_until

RUNS = int(os.environ.get("LIVE_RUNS", "4"))
STEPS = int(os.environ.get("LIVE_STEPS", "120"))
FIRST = int(os.environ.get("EVENTSTREAM_SEED", "1"))

CATEGORIES = ["account", "order", "parcel"]
TYPES = ["Moved", "Stirred", "Shaken"]
#: A plain error, and one that ends the transaction.
FAILURES = {"plain": "ZZ003", "aborting": "40001"}
#: What a call may say while something fails or is being rebuilt.
EXPECTED = {*FAILURES.values(), "ES021", "ES022", "ES005"}

#: What makes a handler fail: by a token that somebody has poisoned for it.
POISON = """
create table poison (projection text, token text, how text, primary key (projection, token));
create function fail(how text) returns void language plpgsql as $$ begin
    if how = 'plain' then raise exception 'poisoned' using errcode = 'ZZ003'; end if;
    raise serialization_failure;
end $$
"""
TASTE = {
    "event": "perform public.fail(p.how) from public.poison p where p.projection = '{name}' and p.token = event.payload ->> 'token';",
    "batch": "perform public.fail(p.how) from public.poison p join unnest(events) e on p.token = e.payload ->> 'token' where p.projection = '{name}';",
}


@pytest.fixture(scope="module")
def impatient():
    """Workers that try again at once."""
    server = Server(
        "impatient", max_worker_processes=12, **{"eventstream.retry_pause": "10ms", "eventstream.max_retry_pause": "40ms"}
    ).create()
    yield server
    server.destroy()


def some(choice: random.Random, values: list[str]) -> list[str] | None:
    return choice.choice([None, choice.sample(values, choice.randint(1, len(values)))])


class Play:
    """One run: what was made, and what can be done next."""

    def __init__(self, database: Database, session: psycopg.Connection, seed: int):
        self.database, self.session = database, session
        self.choice = random.Random(seed)
        self.made, self.tokens, self.refused, self.done = 0, 0, 0, []
        #: Every pair of a projection and a token that was ever poisoned.
        self.poisoned: set[tuple[str, str]] = set()
        self.models: list[Model | Table] = []
        session.execute(POISON)
        for _ in range(self.choice.randint(3, 6)):
            self.create()

    def create(self) -> None:
        self.made += 1
        mode = self.choice.choices(["async", "inline"], [3, 1])[0]
        kind = self.choice.choice(["event", "batch", "table"])
        name = f"{kind}_{mode}_{self.made}"
        if kind == "table":
            model = Table(name, mode)
        else:
            model = Model(
                name,
                kind,
                mode,
                TASTE[kind].format(name=name),
                categories=some(self.choice, CATEGORIES),
                event_types=some(self.choice, TYPES),
                batch_size=self.choice.choice([1, 2, 7, 50, 500]),
                on_error=self.choice.choice(["stop", "skip"]),
                max_retries=self.choice.randint(0, 2),
            )
        # An inline one catches up with what is there already, and nothing of that is poisoned for it.
        self.models.append(model.create(self.session))

    def one(self, *modes: str) -> Model | Table:
        found = [model for model in self.models if not modes or model.mode in modes]
        return self.choice.choice(found or self.models)

    def call(self, statement: str, *parameters) -> bool:
        """False where it was refused, as a failing projection may."""
        try:
            self.session.execute(statement, parameters)
            return True
        except psycopg.Error as error:
            if error.sqlstate not in EXPECTED:
                raise
            self.refused += 1
            return False

    # -- steps ----------------------------------------------------------------------------------------------------

    def event(self) -> dict:
        self.tokens += 1
        return {"type": self.choice.choices(TYPES, [4, 1, 1])[0], "payload": {"token": f"t{self.tokens}"}}

    def stream(self) -> str:
        return f"{self.choice.choices(CATEGORIES, [3, 1, 1])[0]}-{self.choice.randrange(8)}"

    def append(self) -> None:
        streams = {self.stream() for _ in range(self.choice.randint(1, 4))}
        appends = [{"stream": one, "events": [self.event() for _ in range(self.choice.randint(1, 12))]} for one in sorted(streams)]
        self.call("select count(*) from es_append_streams(%s)", Jsonb(appends))

    def append_and_undo(self) -> None:
        statement = "select es_append_events(%s, %s)"
        self.session.execute("begin")
        went_well = self.call(statement, self.stream(), Jsonb([self.event()]))
        if went_well:
            self.session.execute("savepoint before")
            self.call(statement, self.stream(), Jsonb([self.event(), self.event()]))
            self.session.execute("rollback to before")
            self.call(statement, self.stream(), Jsonb([self.event()]))
        # Where the last append was refused, a commit is a rollback.
        self.session.execute(self.choice.choice(["commit", "rollback"]))

    def poison(self) -> None:
        """One of the next events, so that whatever was applied stays applied."""
        model = self.one()
        token, how = f"t{self.tokens + self.choice.randint(1, 30)}", self.choice.choice(list(FAILURES))
        self.poisoned.add((model.name, token))
        self.session.execute("insert into poison values (%s, %s, %s) on conflict do nothing", (model.name, token, how))

    def poison_the_past(self) -> None:
        """Met by the next rebuild."""
        model, token = self.one(), f"t{self.choice.randint(1, max(1, self.tokens))}"
        how = self.choice.choice(list(FAILURES))
        self.poisoned.add((model.name, token))
        self.session.execute("insert into poison values (%s, %s, %s) on conflict do nothing", (model.name, token, how))

    def mend(self) -> None:
        self.session.execute("delete from poison where projection = %s", (self.one().name,))

    def pause(self) -> None:
        self.call("select es_pause_projection(%s)", self.one().name)

    def resume(self) -> None:
        self.call("select es_resume_projection(%s)", self.one().name)

    def rebuild(self) -> None:
        self.call("select es_rebuild_projection(%s)", self.one().name)

    def run(self) -> None:
        self.call("select es_run_projection(%s, %s)", self.choice.choice([None, self.one("async").name]), self.choice.choice([None, 1, 3]))

    def alter(self) -> None:
        settings = {
            "batch_size": self.choice.choice([1, 3, 500]),
            "max_retries": self.choice.randint(0, 3),
            "on_error": self.choice.choice(["stop", "skip"]),
        }
        self.call("select es_alter_projection(%s, %s)", self.one().name, Jsonb(settings))

    def skip(self) -> None:
        for name, position in rows(
            self.session, "select name, failed_position from eventstream.projections where attempts > 0 and failed_position is not null"
        ):
            # Refused where it was mended, or failed elsewhere, meanwhile.
            self.call("select es_skip_event(%s, %s, 'not wanted')", name, position)

    def replace(self) -> None:
        model = self.one()
        if len(self.models) > 2 and self.choice.random() < 0.5:
            self.models.remove(model)
            self.session.execute("select es_drop_projection(%s, true)", (model.name,))
            self.create()

    def wait(self) -> None:
        try:
            self.session.execute("select es_wait_for(%s, timeout => '300 ms')", (self.one().name,))
        except psycopg.Error as error:
            assert error.sqlstate in ("ES021", "ES023"), error

    WEIGHTS = {
        append: 30, append_and_undo: 10, poison: 8, poison_the_past: 2, mend: 6, pause: 5, resume: 10, rebuild: 4, run: 6,
        alter: 4, skip: 5, replace: 2, wait: 8,
    }  # fmt: skip

    def step(self) -> None:
        what = self.choice.choices(list(self.WEIGHTS), list(self.WEIGHTS.values()))[0]
        self.done.append(what.__name__)
        what(self)
        self.check()

    def check(self) -> None:
        wrong = Models(self.database, *self.models).differences(self.session)
        assert wrong == {}, f"{wrong} after {self.done[-10:]}; {self.state()}"
        dead = rows(
            self.session,
            "select d.projection, e.payload ->> 'token' from eventstream.dead_letters d join eventstream.events e using (global_position)",
        )
        assert set(dead) <= self.poisoned, f"dead without a fault of its own, after {self.done[-10:]}"

    def state(self) -> list[tuple]:
        return rows(self.session, "select name, status, global_position, attempts, failed_position, error_message from eventstream.projections")

    def finish(self) -> None:
        """Everything is mended: everything becomes current, and what has died stays dead."""
        self.session.execute("delete from poison")
        dead = rows(self.session, "select projection, global_position from eventstream.dead_letters order by 1, 2")
        for model in self.models:
            self.session.execute("select es_resume_projection(%s)", (model.name,))
        wait_until(
            lambda: value(self.session, "select count(*) from _eventstream.projection_progress where status = 'rebuilding'") == 0,
            30,
            "the rebuilds",
        )
        Models(self.database, *self.models).assert_exact()
        after = rows(self.session, "select projection, global_position from eventstream.dead_letters order by 1, 2")
        assert set(dead) <= set(after) or "rebuild" in self.done
        assert verify(self.session) == []


@pytest.mark.parametrize("seed", range(FIRST, FIRST + RUNS))
def test_each_model_is_the_fold_of_the_log_minus_its_dead_letters(impatient, seed):
    database = Database(impatient, f"play_{seed}").create()
    try:
        with database.connect() as session:
            play = Play(database, session, seed)
            for _ in range(STEPS):
                play.step()
            play.finish()
            dead = value(session, "select count(*) from eventstream.dead_letters")
        print(f"seed {seed}: {play.tokens} events, {len(play.models)} projections, {dead} dead letters, {play.refused} calls refused")
    finally:
        database.drop()
