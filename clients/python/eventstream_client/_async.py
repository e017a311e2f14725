"""The client. setup.py writes the face without async from the one with it: same calls, same words."""

from __future__ import annotations

import asyncio
import copy
import datetime
import os
import random
import socket
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus as Status

from . import records
from ._waiting import AsyncBeat, AsyncPlaces, log
from .errors import Invalid, LeaseLost, VersionConflict, is_lost, is_undone, speaking
from .exact import dumps, loads
from .records import Append, Appended, Begun, CommandAnswer, Delivery, Event, Loaded, LogInfo, NewEvent, Page, Reject

Row = tuple[Any, ...]
Statement = tuple[str, Sequence[Any]]
Moment = datetime.datetime | str
#: What to do instead, where the stream is at another version: (events or payload, expected version), or None: the conflict is raised.
T = TypeVar("T")
Decided = tuple[T, int | None] | None
Anew = Callable[[VersionConflict], Awaitable[Decided[T]]]

EVENTS = "select row_to_json(e)::text, encode(e.chain_hash, 'hex') from {} e"
READ = EVENTS.format("es_read($1, $2::bigint, $3::bigint, $4, raw => $5, to_version => $6::bigint, event_types => $7::text[])")
READ_ALL = EVENTS.format("es_read_all($1::bigint, $2::bigint, $3::text[], $4::text[], $5::bigint, $6::uuid, $7::int, $8::text[])")
REVEAL = EVENTS.format("es_reveal($1, $2, $3::bigint, $4::bigint)")
QUERY = "select row_to_json(q.event)::text, encode((q.event).chain_hash, 'hex'), page from es_query($1::jsonb, $2::int, $3, $4::bigint) q"
FETCH = """select row_to_json(d)::text, encode((d.event).chain_hash, 'hex')
    from es_fetch($1, $2, $3::bigint, make_interval(secs => $4::float8), make_interval(secs => $5::float8)) d"""
COMMAND = """select es_command($1, $2, $3::jsonb, expected_version => $4::bigint, metadata => $5::jsonb, command_key => $6,
    occurred_at => $7::timestamptz, decider => $8, subject => $9)::text"""
BEGIN = """select es_begin_command($1, $2, $3::jsonb, make_interval(secs => $4::float8), make_interval(secs => $5::float8),
    make_interval(secs => $6::float8), $7)::text"""


async def _send(connection: psycopg.AsyncConnection[Row], statements: Sequence[Statement]) -> list[Row]:
    """What the last one gives. Several go out together and are one transaction, without a BEGIN, in one round trip."""
    failures, cursor = [], psycopg.AsyncRawCursor(connection)
    try:
        async with connection.pipeline() if len(statements) > 1 else nullcontext():
            try:
                for sql, values in statements:
                    cursor = await psycopg.AsyncRawCursor(connection).execute(sql, values)
            except psycopg.Error as error:  # the end of the pipeline has another to tell of what came after it
                failures.append(error)
    except psycopg.Error as error:
        failures.append(error)
    if failures:
        raise failures[0]
    return await cursor.fetchall() if cursor.description else []


class AsyncCalls:
    """What a client, and a transaction, can be asked."""

    async def _ask(self, sql: str, *values: Any, again: bool = True) -> list[Row]:
        raise NotImplementedError

    async def _one(self, sql: str, *values: Any, again: bool = True) -> Any:
        return (await self._ask(sql, *values, again=again))[0][0]

    async def _decided(self, send: Callable[[T, int | None], Awaitable[Any]], given: T, expected: int | None, anew: Anew[T] | None) -> Any:
        while True:
            try:
                return await send(given, expected)
            except VersionConflict as conflict:
                # A transaction is over with its first error: whoever began it begins again.
                decided = await anew(conflict) if anew is not None and isinstance(self, AsyncClient) else None
                if decided is None:
                    raise
                given, expected = decided

    async def append(
        self, stream: str, events: Iterable[NewEvent], *, expected_version: int | None = None, must_exist: bool = False, key: str | None = None,
        anew: Anew[Iterable[NewEvent]] | None = None) -> int:  # fmt: skip
        """Appends to one stream, all or nothing: its new version. The same `key` (of the order, of the payment) makes the same event ids, so that the same
        events are recorded once, however often and by whichever process they are sent. `anew` is asked where somebody was faster."""

        async def send(given: Iterable[NewEvent], expected: int | None) -> Any:
            text = dumps(records.written(stream, given, key))
            return await self._one("select es_append_events($1, $2::jsonb, $3::bigint, $4)", stream, text, expected, must_exist)

        return int(await self._decided(send, events, expected_version, anew))

    async def append_streams(self, appends: Iterable[Append], *, must_exist: bool = False, condition: Any = None, key: str | None = None) -> list[Appended]:
        """Appends to several streams, all or nothing; ConditionFailed where what `condition` saw has changed."""
        sql = "select stream, version, positions from es_append_streams($1::jsonb, $2, $3::jsonb)"
        rows = await self._ask(sql, records.appends(appends, key), must_exist, None if condition is None else dumps(condition))
        return [Appended(*row) for row in rows]

    async def condition(self, query: Mapping[str, Any]) -> Any:
        """How far the events that match are seen from now on: taken before reading, given to append_streams."""
        return loads(await self._one("select es_condition($1::jsonb)::text", dumps(dict(query))))

    async def read(
        self, stream: str, *, from_version: int | None = None, to_version: int | None = None, backward: bool = False, event_types: Sequence[str] | None = None,
        raw: bool = False, page_size: int = 500) -> AsyncIterator[Event]:  # fmt: skip
        """The events of a stream in order, a page at a time."""
        while True:
            rows = await self._ask(READ, stream, from_version, page_size, backward, raw, to_version, _texts(event_types))
            for event in records.events(rows):
                yield event
            if len(rows) < page_size or (backward and event.version == 1):
                return
            from_version = event.version + (-1 if backward else 1)

    async def read_all(
        self, after_position: int = 0, *, up_to: int | None = None, categories: Sequence[str] | None = None, event_types: Sequence[str] | None = None,
        tags: Sequence[str] | None = None, log_id: uuid.UUID | None = None, timeline: int | None = None, page_size: int = 1000) -> AsyncIterator[Event]:  # fmt: skip
        """The log in order, up to the horizon: what comes later has a higher position. Read by a filter, take `up_to` from horizon() first: it is the new checkpoint."""
        while True:
            rows = await self._ask(READ_ALL, after_position, page_size, _texts(categories), _texts(event_types), up_to, log_id, timeline, _texts(tags))
            for event in records.events(rows):
                yield event
            if len(rows) < page_size:
                return
            after_position = event.global_position

    async def horizon(self) -> int:
        return int(await self._one("select es_horizon()"))

    async def log_info(self) -> LogInfo:
        return LogInfo(*(await self._ask("select log_id, timeline, last_position, horizon from es_log_info()"))[0])

    async def load(self, stream: str, *, fold: str | None = None, for_update: bool = False) -> Loaded:
        """The state now, and the version that the next append expects. `for_update` locks the stream until the transaction ends."""
        ((state, version),) = await self._ask("select state::text, version from es_load($1, $2, $3)", stream, fold, for_update)
        return Loaded(loads(state), version)

    async def state(
        self, stream: str, *, as_of: Moment | None = None, known_at: Moment | None = None, version: int | None = None, fold: str | None = None) -> Any:  # fmt: skip
        """The state now, after a version, or as of a moment, as it was known at one."""
        if version is not None and (as_of or known_at):
            raise ValueError("a state is asked for by version or by moment, not by both")
        if version is not None:
            return loads(await self._one("select es_state_at_version($1, $2::bigint, $3)::text", stream, version, fold))
        if as_of or known_at:
            moments = records.moment(as_of or "infinity"), records.moment(known_at)
            return loads(await self._one("select es_state_at($1, $2::timestamptz, $3::timestamptz, $4)::text", stream, *moments, fold))
        return loads(await self._one("select es_state($1, $2)::text", stream, fold))

    async def query_page(self, criteria: Mapping[str, Any], *, max_count: int = 100, page: str | None = None, skip: int = 0) -> Page:
        """So many events that meet the criteria, and the page that goes on after them."""
        rows = await self._ask(QUERY, dumps(dict(criteria)), max_count, page, skip)
        return Page(records.events(rows), rows[-1][2] if rows else page)

    async def query(self, criteria: Mapping[str, Any], *, page_size: int = 100) -> AsyncIterator[Event]:
        """All events that meet the criteria, a page at a time."""
        page: str | None = None
        while True:
            found = await self.query_page(criteria, max_count=page_size, page=page)
            for event in found.events:
                yield event
            if len(found.events) < page_size:
                return
            page = found.next

    async def reveal(self, stream: str, reason: str, *, from_version: int = 1, page_size: int = 100) -> AsyncIterator[Event]:
        """The events of a stream with what is protected in clear, a page at a time; each page is on record, with the reason, before it is shown."""
        while True:
            rows = await self._ask(REVEAL, stream, reason, from_version, page_size)
            for event in records.events(rows):
                yield event
            if len(rows) < page_size:
                return
            from_version = event.version + 1

    async def command(
        self, stream: str, command_type: str, payload: Any, key: str | None, *, expected_version: int | None = None, metadata: Mapping[str, Any] | None = None,
        occurred_at: Moment | None = None, decider: str | None = None, subject: str | None = None, anew: Anew[Any] | None = None) -> CommandAnswer:  # fmt: skip
        """Has a command executed, once for each key: make the key before, keep it with the intention, and send the same again after whatever happens. None: no key,
        and nothing is sent again where nobody knows whether it was done. CommandRefused is the decider's no."""

        async def send(given: Any, expected: int | None) -> Any:
            more = dumps(dict(metadata or {})), key, records.moment(occurred_at), decider, subject
            return await self._one(COMMAND, stream, command_type, dumps(given), expected, *more, again=key is not None)

        return records.command_answer(await self._decided(send, payload, expected_version, anew))

    async def begin_command(
        self, operation: str, key: str, request: Any, *, lease: float = 300, wait: float = 0, keep: float | None = None, subject: str | None = None) -> Begun:  # fmt: skip
        """What is to be done about an operation outside of the database; times in seconds."""
        return records.begun(await self._one(BEGIN, operation, key, dumps(request), lease, wait, keep, subject))

    async def complete_command(self, attempt_token: uuid.UUID, result: Any) -> None:
        await self._one("select es_complete_command($1::uuid, $2::jsonb)", attempt_token, dumps(result))

    async def fail_command(self, attempt_token: uuid.UUID, error: Any, *, retryable: bool = True) -> None:
        await self._one("select es_fail_command($1::uuid, $2::jsonb, $3)", attempt_token, dumps(error), retryable)

    async def extend_command(self, attempt_token: uuid.UUID, seconds: float) -> None:
        await self._one("select es_extend_command($1::uuid, make_interval(secs => $2::float8))", attempt_token, seconds)

    async def command_event_id(self, attempt_token: uuid.UUID, number: int) -> uuid.UUID:
        """The id of the number-th event of the operation, the same in every attempt."""
        return uuid.UUID(str(await self._one("select es_command_event_id($1::uuid, $2::bigint)", attempt_token, number)))


class _AsyncConnections:
    """Those that are idle, and how many there may be. Each call has one for itself."""

    def __init__(self, conninfo: str, most: int) -> None:
        self._conninfo = conninfo
        self._idle: list[psycopg.AsyncConnection[Row]] = []
        self._places = AsyncPlaces(most)

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[psycopg.AsyncConnection[Row]]:
        async with self._places:
            # No statement is prepared on a session that is another one after each commit, behind a pooler.
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True, prepare_threshold=None)
            try:
                yield connection
            finally:
                if connection.info.transaction_status == Status.IDLE:
                    self._idle.append(connection)
                else:
                    await connection.close()
                    if connection.broken:
                        await self.close()

    async def close(self) -> None:
        """Those that are idle: after a restart of the server none of them lives."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()


class AsyncClient(AsyncCalls):
    """The database at `conninfo` (as libpq has it; what is not said there comes from PGHOST and the like). Calls that were rolled back for others' sake, or whose connection broke,
    are sent again for `patience` seconds. Each call is a transaction, unless it stands in transaction()."""

    def __init__(self, conninfo: str = "", *, patience: float = 30, max_connections: int = 10) -> None:
        self._connections = _AsyncConnections(conninfo, max_connections)
        self._patience = patience
        self._first: Callable[[], list[Statement]] = list

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._connections.close()

    def acting(self, *, token: str | Callable[[], str] | None = None, tenant: str | None = None, metadata: Mapping[str, Any] | None = None) -> AsyncClient:
        """The same connections, on which each transaction begins with the token (or what a function says is the token by now), or with the tenant, and whose events have these
        metadata by default."""

        def first() -> list[Statement]:
            said = [
                ("select es_use_token($1)", token() if callable(token) else token),
                ("select set_config('eventstream.tenant', $1, true)", tenant),
                ("select set_config('eventstream.metadata', $1, true)", None if metadata is None else dumps(dict(metadata))),
            ]
            return [(sql, (value,)) for sql, value in said if value is not None]

        other = copy.copy(self)
        other._first = first
        return other

    async def _ask(self, sql: str, *values: Any, again: bool = True) -> list[Row]:
        end, pause = time.monotonic() + self._patience, 0.05
        while True:
            try:
                with speaking():
                    async with self._connections.lent() as connection:
                        return await _send(connection, [*self._first(), (sql, values)])
            except psycopg.Error as error:
                if not (is_undone(error) or (again and is_lost(error))) or time.monotonic() + pause > end:
                    raise
            await asyncio.sleep(random.uniform(pause / 2, pause))
            pause = min(2 * pause, 2)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncTransaction]:
        """Several calls in one transaction, which begins with the token. Nothing in it is sent again: where it breaks, do all of it again, with the same keys and event ids."""
        async with self._connections.lent() as connection:
            try:
                with speaking():
                    await _send(connection, [("begin", ()), *self._first()])
                    yield AsyncTransaction(connection)
                    await _send(connection, [("commit", ())])
            finally:
                if connection.info.transaction_status in (Status.INTRANS, Status.INERROR):
                    await connection.rollback()

    def consumer(
        self, subscription: str, handler: Callable[[AsyncBatch], Awaitable[None]], *, name: str | None = None, max_count: int = 100, lease: float = 30,
        wait: float = 5, retry_after: Sequence[float] = ()) -> AsyncConsumer:  # fmt: skip
        """What consumes a subscription: run() it. See AsyncConsumer. Times are seconds; `retry_after` has one for each attempt, the last one for all further ones; without,
        the server's pauses grow by themselves."""
        name = name or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        return AsyncConsumer(self, handler, (subscription, name, max_count, lease, wait), retry_after)


class AsyncTransaction(AsyncCalls):
    """See AsyncClient.transaction."""

    def __init__(self, connection: psycopg.AsyncConnection[Row]) -> None:
        #: For statements of your own in the same transaction.
        self.connection = connection

    async def _ask(self, sql: str, *values: Any, again: bool = True) -> list[Row]:
        with speaking():
            return await _send(self.connection, [(sql, values)])


class AsyncBatch(Iterator[Delivery]):
    """The events that a handler is given: what it takes from it, and does not raise at, is processed."""

    def __init__(self, deliveries: Sequence[Delivery], beat: AsyncBeat) -> None:
        self._deliveries, self._beat = deliveries, beat
        self.taken, self.is_ended = 0, False

    def __next__(self) -> Delivery:
        if self._beat.lost is not None:
            raise self._beat.lost
        if self.taken == len(self._deliveries):
            self.is_ended = True
            raise StopIteration
        self.taken += 1
        return self._deliveries[self.taken - 1]


class AsyncConsumer:
    """Fetches, has the handler process, acknowledges, until stop() is called; comes back by itself when the server was away. The handler goes through the events that it is given with
    `for`, and raises where it cannot process one: that event's stream is put aside, and the handler is called again with the rest. One that took them all before it raised gets them
    again one by one, unless it raised Reject with the event. The lease is made longer while it works."""

    def __init__(
        self, client: AsyncClient, handler: Callable[[AsyncBatch], Awaitable[None]], fetch: tuple[str, str, int, float, float], retry_after: Sequence[float]) -> None:  # fmt: skip
        self._client, self._once = client, copy.copy(client)
        self._once._patience = 0
        self._handler, self._fetch, self._retry_after = handler, fetch, retry_after
        self._is_stopping = False

    def stop(self, *_: object) -> None:
        """Ends run() after the batch that it has, or the wait that it is in; may be called by a signal's handler."""
        self._is_stopping = True

    async def run(self) -> None:
        pause = 0.1
        while not self._is_stopping:
            try:
                await self._consume()
                pause = 0.1
            except LeaseLost as error:
                log.warning("%s", error)  # what it held comes again
            except psycopg.Error as error:
                if not (is_lost(error) or is_undone(error)):
                    raise
                log.warning("%s; again in %.1f s", error, pause)
                until = time.monotonic() + random.uniform(pause / 2, pause)
                while not self._is_stopping and time.monotonic() < until:
                    await asyncio.sleep(0.1)
                pause = min(2 * pause, 30)

    async def _consume(self) -> None:
        deliveries = [records.delivery(row) for row in await self._once._ask(FETCH, *self._fetch)]
        if not deliveries:
            return
        lease_id, lease = deliveries[0].lease_id, self._fetch[3]

        async def extend() -> None:
            await self._once._one("select es_extend_lease($1::uuid, make_interval(secs => $2::float8))", lease_id, lease)

        # The first lease of a consumer is a minute at most, whatever it asks for.
        async with AsyncBeat(min(float(lease), 60) / 3, extend) as beat:
            is_any_left = await self._process(deliveries, beat)
        if is_any_left:
            await self._client._one("select es_ack($1::uuid)", lease_id)

    async def _process(self, left: list[Delivery], beat: AsyncBeat) -> bool:
        """Whether there is something to acknowledge."""
        processed, at_once = 0, len(left)
        while left:
            batch = AsyncBatch(left[:at_once], beat)
            try:
                await self._handler(batch)
                place, failure = batch.taken, None
            except Exception as error:
                if error is beat.lost:
                    raise
                named = error.event if isinstance(error, Reject) else None
                if batch.is_ended and batch.taken > 1 and named is None:
                    at_once = 1
                    continue
                place, failure = left.index(named) if named else max(batch.taken - 1, 0), error
            if failure is None and place == 0:
                raise RuntimeError("the handler took none of its events")
            processed += place
            left = left[place:] if failure is None else await self._put_aside(left[place:], failure)
        return processed > 0

    async def _put_aside(self, left: list[Delivery], failure: Exception) -> list[Delivery]:
        """Gives the first back; what is left without its stream."""
        delivery = left[0]
        event, is_asked = delivery.event, isinstance(failure, Reject)
        pause, dead_letter = (failure.retry_after, failure.dead_letter) if isinstance(failure, Reject) else (None, False)
        if pause is None and self._retry_after:
            pause = self._retry_after[min(delivery.attempt, len(self._retry_after)) - 1]
        log.warning("%s, version %s, attempt %s: %r", event.stream, event.version, delivery.attempt, failure, exc_info=None if is_asked else failure)
        reason = (str(failure) if is_asked else repr(failure)).replace("\0", "").encode(errors="backslashreplace").decode()
        nack = "select es_nack($1::uuid, $2::bigint, $3, make_interval(secs => $4::float8), $5)"
        try:
            await self._client._one(nack, delivery.lease_id, event.global_position, reason, pause, dead_letter)
        except Invalid as error:
            if error.detail.get("argument") != "global_position":
                raise
            log.warning("%s", error)  # the lease does not hold it any more, after a nack whose answer was lost
        return [one for one in left[1:] if one.event.stream != event.stream]


def _texts(names: Sequence[str] | None) -> list[str] | None:
    """A string is a sequence of strings: one that stands where a list should is a mistake."""
    if isinstance(names, str):
        raise TypeError(f"a list of names is wanted, not {names!r}")
    return None if names is None else list(names)
