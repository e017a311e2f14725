"""Writers that behave as clients do at their worst, and remember what was acknowledged.

Each writer is a session of its own that dawdles with its transaction open, rolls back, uses savepoints, and appends batches
to one and to several streams. Every event carries a token in its payload, by which tests compare what was acknowledged
with what was seen.
"""

from __future__ import annotations

import random
import threading
import time

import psycopg
from psycopg.types.json import Jsonb

from database import Database


def element(token: str, event_type: str = "Moved") -> dict:
    return {"type": event_type, "payload": {"token": token}}


class Writers:
    def __init__(self, database: Database, count: int = 16, streams: int = 40, rare_every: float = 0):
        self.database = database
        self.count = count
        self.streams = [f"account-{number}" for number in range(streams)]
        self.rare_every = rare_every
        self.committed: set[str] = set()
        self.rare: set[str] = set()
        self.rolled_back: set[str] = set()
        self.errors: list[BaseException] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self) -> "Writers":
        for number in range(self.count):
            thread = threading.Thread(target=self._write, args=(number,), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a writer hangs"

    def _write(self, number: int) -> None:
        choice = random.Random(number)
        counter = 0

        def token() -> str:
            nonlocal counter
            counter += 1
            return f"{number}-{counter}"

        next_rare = time.monotonic() + choice.random() * self.rare_every
        try:
            with self.database.connect() as session:
                while not self._stop.is_set():
                    if self.rare_every and time.monotonic() > next_rare:
                        next_rare += self.rare_every
                        self._rarely(session, choice, token())
                    else:
                        self._once(session, choice, token)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.errors.append(error)

    def _note(self, tokens: list[str], committed: bool) -> None:
        with self._lock:
            (self.committed if committed else self.rolled_back).update(tokens)

    def _one(self, session: psycopg.Connection, stream: str, token: str) -> None:
        session.execute("select es_append(%s, 'Moved', %s)", (stream, Jsonb({"token": token})))

    def _rarely(self, session: psycopg.Connection, choice: random.Random, token: str) -> None:
        """A rare event whose transaction stays open for a while: the one that a filtered reader must not pass by."""
        with session.transaction():
            session.execute("select es_append(%s, 'Rare', %s)", (f"rare-{token}", Jsonb({"token": token})))
            time.sleep(choice.uniform(0.01, 0.1))
        self._note([token], True)
        with self._lock:
            self.rare.add(token)

    def _once(self, session: psycopg.Connection, choice: random.Random, token) -> None:
        stream = choice.choice(self.streams)
        kind = choice.choices(
            ["one", "batch", "streams", "dawdle", "roll back", "savepoint", "long"], [40, 10, 10, 16, 12, 10, 2]
        )[0]
        if kind == "one":
            tokens = [token()]
            self._one(session, stream, tokens[0])
            self._note(tokens, True)
        elif kind == "batch":
            tokens = [token() for _ in range(choice.randint(2, 6))]
            session.execute("select es_append_events(%s, %s)", (stream, Jsonb([element(t) for t in tokens])))
            self._note(tokens, True)
        elif kind == "streams":
            chosen = choice.sample(self.streams, choice.randint(2, 4))
            tokens = [token() for _ in chosen]
            appends = [{"stream": name, "events": [element(t)]} for name, t in zip(chosen, tokens)]
            session.execute("select * from es_append_streams(%s)", (Jsonb(appends),))
            self._note(tokens, True)
        elif kind in ("dawdle", "long"):
            tokens = [token(), token()]
            with session.transaction():
                self._one(session, stream, tokens[0])
                time.sleep(choice.uniform(0.2, 0.5) if kind == "long" else choice.uniform(0.001, 0.03))
                self._one(session, stream, tokens[1])
            self._note(tokens, True)
        elif kind == "roll back":
            tokens = [token()]
            with session.transaction(force_rollback=True):
                self._one(session, stream, tokens[0])
                time.sleep(choice.uniform(0, 0.02))
            self._note(tokens, False)
        else:
            before, undone, after = token(), token(), token()
            with session.transaction():
                self._one(session, stream, before)
                with session.transaction(force_rollback=True):
                    self._one(session, stream, undone)
                    time.sleep(choice.uniform(0, 0.01))
                self._one(session, stream, after)
            self._note([before, after], True)
            self._note([undone], False)


class Reader:
    """Follows the log in a thread of its own until it has passed `last`; `step(session, checkpoint)` is the way it reads."""

    def __init__(self, database: Database, step):
        self.database = database
        self.step = step
        self.seen: list[tuple] = []
        self.checkpoints: list[int] = [0]
        self.error: BaseException | None = None
        self._last: int | None = None
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def start(self, after_position: int = 0) -> "Reader":
        self.checkpoints = [after_position]
        self._thread.start()
        return self

    def finish(self, last_position: int) -> None:
        self._last = last_position
        self._thread.join(120)
        assert not self._thread.is_alive(), f"the reader stays at {self.checkpoints[-1]} of {last_position}"
        if self.error is not None:
            raise self.error

    def _follow(self) -> None:
        try:
            with self.database.connect() as session:
                while True:
                    last = self._last
                    events, checkpoint = self.step(session, self.checkpoints[-1])
                    self.seen += events
                    if checkpoint != self.checkpoints[-1]:
                        self.checkpoints.append(checkpoint)
                    elif last is not None and not events:
                        return
                    else:
                        time.sleep(0.001)
        except BaseException as error:  # noqa: BLE001 - raised in finish
            self.error = error
