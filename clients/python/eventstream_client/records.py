"""What goes in and comes out: events, answers, and how they are read from the database's texts."""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from .exact import dumps, loads

T = TypeVar("T")
#: What derived event ids are made in: uuid5(this, "stream\nkey\nnumber"), in every language's client.
IDS = uuid.UUID("2f1d5e0a-7c55-5c0b-9f63-6f1f0c1b7a10")
#: As expected_version: the stream has no events yet.
NO_STREAM = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event as it is read. Numbers in payload and metadata are int or Decimal."""

    global_position: int
    stream: str
    version: int
    event_id: uuid.UUID
    event_type: str
    schema_version: int
    payload: Any
    metadata: dict[str, Any]
    subject: str | None
    #: The moments as the database writes them; as datetime they are `occurred_at` and `recorded_at`.
    occurred: str
    recorded: str
    category: str
    tenant: str
    recorded_by: str
    chain_hash: str
    tags: list[str] | None

    @property
    def occurred_at(self) -> datetime.datetime:
        """ValueError where datetime has no such moment: before the year 1, or after 9999."""
        return datetime.datetime.fromisoformat(self.occurred)

    @property
    def recorded_at(self) -> datetime.datetime:
        return datetime.datetime.fromisoformat(self.recorded)


@dataclasses.dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to be appended. Without an event_id it is given one, so that the append can be sent again."""

    type: str
    payload: Any
    metadata: dict[str, Any] | None = None
    event_id: uuid.UUID | None = None
    occurred_at: datetime.datetime | None = None
    schema_version: int | None = None
    subject: str | None = None
    tags: Sequence[str] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Append:
    """The events for one stream of append_streams. Without events it is a check that the stream is at expected_version, and stays there."""

    stream: str
    events: Sequence[NewEvent] = ()
    expected_version: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Appended:
    stream: str
    version: int
    positions: list[int]


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """`version` is the next append's expected_version."""

    state: Any
    version: int


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """`next` goes on after the last of `events`; without events it is the page that was asked for, which goes on when more has come."""

    events: list[Event]
    next: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Delivery:
    """An event of a subscription; `attempt` is 1 the first time."""

    event: Event
    attempt: int
    lease_id: uuid.UUID


class Reject(Exception):
    """Raised by a handler: the event (the one that it took last, unless another is named) goes back, and comes again after `retry_after` seconds, or ends as a dead letter."""

    def __init__(self, reason: str, *, event: Delivery | None = None, retry_after: float | None = None, dead_letter: bool = False) -> None:
        super().__init__(reason)
        self.event, self.retry_after, self.dead_letter = event, retry_after, dead_letter


@dataclasses.dataclass(frozen=True, slots=True)
class CommandAnswer:
    stream: str
    version: int
    versions: dict[str, int]
    global_position: int | None
    event_ids: list[uuid.UUID]
    result: Any
    #: It was executed before, and this is the answer of then.
    replayed: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Begun:
    """`outcome` is execute, replay or in_progress; `attempt_token` is there to execute, `result` or `error` in a replay."""

    outcome: str
    attempt: int | None
    attempt_token: uuid.UUID | None
    lease_until: str | None
    result: Any
    error: Any


@dataclasses.dataclass(frozen=True, slots=True)
class LogInfo:
    """Store log_id and timeline beside a position, and give them to read_all: a position means something in its own log only."""

    log_id: uuid.UUID
    timeline: int
    last_position: int
    horizon: int


def _made(kind: type[T], read: dict[str, Any], **changes: Any) -> T:
    """Fields that a newer server has besides are passed over."""
    return kind(**{name: read.get(name) for name in kind.__slots__} | changes)  # type: ignore[attr-defined]


def event(read: dict[str, Any], chain_hash: str) -> Event:
    changes = {"event_id": uuid.UUID(read["event_id"]), "occurred": read["occurred_at"], "recorded": read["recorded_at"], "chain_hash": chain_hash}
    return _made(Event, read, **changes)


def events(rows: Iterable[tuple[Any, ...]]) -> list[Event]:
    return [event(loads(row[0]), row[1]) for row in rows]


def delivery(row: tuple[Any, ...]) -> Delivery:
    read = loads(row[0])
    return Delivery(event(read["event"], row[1]), read["attempt"], uuid.UUID(read["lease_id"]))


def command_answer(text: str) -> CommandAnswer:
    read = loads(text)
    return _made(CommandAnswer, read, event_ids=[uuid.UUID(one) for one in read["event_ids"] or []])


def begun(text: str) -> Begun:
    read = loads(text)
    return _made(Begun, read, attempt_token=read["attempt_token"] and uuid.UUID(read["attempt_token"]))


def moment(value: datetime.datetime | str | None) -> str | None:
    """As text, which has its zone whatever the session's is."""
    if not isinstance(value, datetime.datetime):
        return value
    if value.tzinfo is None:
        raise ValueError(f"{value} has no zone: it would be another moment in every session")
    return value.isoformat()


def derived_id(stream: str, key: str, number: int) -> uuid.UUID:
    """The id of the number-th event (from 1) that is appended to the stream under a key."""
    return uuid.uuid5(IDS, f"{stream}\n{key}\n{number}")


def written(stream: str, given: Iterable[NewEvent], key: str | None) -> list[dict[str, Any]]:
    """As es_append_events takes them. Each has its id by now: the same events sent again are recognised."""
    found = []
    for number, one in enumerate(given, start=1):
        fields = {field.name: getattr(one, field.name) for field in dataclasses.fields(NewEvent)}
        fields["event_id"] = str(one.event_id or (uuid.uuid4() if key is None else derived_id(stream, key, number)))
        fields["occurred_at"] = moment(one.occurred_at)
        fields["tags"] = None if one.tags is None else list(one.tags)
        found.append({name: value for name, value in fields.items() if value is not None or name == "payload"})
    return found


def appends(given: Iterable[Append], key: str | None) -> str:
    rows = ({"stream": one.stream, "expected_version": one.expected_version, "events": written(one.stream, one.events, key)} for one in given)
    return dumps([{name: value for name, value in row.items() if value is not None} for row in rows])
