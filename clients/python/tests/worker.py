"""The Python client, driven by lines: what clients/tests asks of every client. `worker.py sync` or `worker.py async`. clients/node/test/worker.mjs is its like."""

import asyncio
import dataclasses
import inspect
import signal
import sys
import time
import uuid

import psycopg

import eventstream_client as es


def plain(value):
    """As JSON has it."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return str(value) if isinstance(value, uuid.UUID) else value


def say(**what):
    sys.stdout.buffer.write(es.dumps(what).encode() + b"\n")
    sys.stdout.buffer.flush()


def new_event(given):
    return es.NewEvent(**{**given, "event_id": uuid.UUID(given["event_id"])} if "event_id" in given else given)


def arguments(name, given):
    """Python's own types for what comes as JSON."""
    if name == "append":
        given["events"] = [new_event(one) for one in given["events"]]
    if name == "append_streams":
        given["appends"] = [es.Append(**{**one, "events": [new_event(event) for event in one.get("events", [])]}) for one in given["appends"]]
    return given


async def finished(value):
    """The value of whatever either face gives: awaited, or gone through."""
    if inspect.isasyncgen(value):
        return [one async for one in value]
    if inspect.isgenerator(value):
        return list(value)
    return await value if inspect.isawaitable(value) else value


class Worker:
    def __init__(self, kind):
        self.is_async = kind == "async"
        self.client = es.AsyncClient(patience=30) if self.is_async else es.Client(patience=30)

    def maybe_async(self, function):
        if not self.is_async:
            return function

        async def asynchronous(*given):
            return function(*given)

        return asynchronous

    async def call(self, target, name, given):
        if given.pop("anew", False):
            again = given["events"] if name == "append" else given["payload"]
            given["anew"] = self.maybe_async(lambda conflict: (again if name == "command" else [new_event(one) for one in again], conflict.actual))
        return await finished(getattr(target, name)(**arguments(name, given)))

    async def transaction(self, client, calls, breaks=False):
        """The answers of several calls in one transaction; `breaks` has it rolled back."""
        answers, scope = [], client.transaction()
        transaction = await scope.__aenter__() if self.is_async else scope.__enter__()
        try:
            for name, given in calls:
                answers.append(await self.call(transaction, name, given))
            if breaks:
                raise RuntimeError("it breaks")
        except BaseException as error:
            said = type(error), error, error.__traceback__
            await finished(scope.__aexit__(*said) if self.is_async else scope.__exit__(*said))
            raise
        await finished(scope.__aexit__(None, None, None) if self.is_async else scope.__exit__(None, None, None))
        return answers

    def handle(self, work_seconds, takes_all, delivery):
        payload, first = delivery.event.payload, delivery.attempt == 1
        if isinstance(payload, dict) and first and "fails" in payload:
            if payload["fails"] == "dead":
                raise es.Reject("for good", dead_letter=True, event=delivery if takes_all else None)
            if payload["fails"] == "later":
                raise es.Reject("later", retry_after=1)
            raise es.Reject("") if payload["fails"] == "unsaid" else RuntimeError("it fails the first time \udc80")
        say(event=[delivery.event.global_position, delivery.event.stream, delivery.event.version, delivery.attempt])
        time.sleep(work_seconds if not self.is_async else 0)

    async def consume(self, client, subscription, work_seconds=0, takes_all=False, takes_none=False, **more):
        def handler(batch):
            if takes_none:
                return
            for delivery in list(batch) if takes_all else batch:
                self.handle(float(work_seconds), takes_all, delivery)

        async def async_handler(batch):
            if takes_none:
                return
            for delivery in list(batch) if takes_all else batch:
                self.handle(float(work_seconds), takes_all, delivery)
                await asyncio.sleep(float(work_seconds))

        consumer = client.consumer(subscription, async_handler if self.is_async else handler, **more)
        if self.is_async:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, consumer.stop)
        else:
            signal.signal(signal.SIGTERM, consumer.stop)
        await finished(consumer.run())

    async def answer(self, line):
        asked = es.loads(line)
        given, acting = asked.get("given", {}), asked.get("acting")
        client = self.client.acting(**acting) if acting else self.client
        try:
            if asked["call"] in ("transaction", "consume"):
                return {"ok": plain(await getattr(self, asked["call"])(client, **given))}
            return {"ok": plain(await self.call(client, asked["call"], given))}
        except es.EventstreamError as error:
            said = {name: getattr(error, name) for name in ("sqlstate", "message", "detail", "hint")}
            own = {name: getattr(error, name) for name in ("stream", "expected", "actual", "code") if hasattr(error, name)}
            return {"error": {"kind": type(error).__name__, **said, **own}}
        except psycopg.Error as error:
            return {"error": {"kind": "driver", "sqlstate": error.sqlstate, "message": str(error)}}
        except (TypeError, ValueError, RuntimeError) as error:
            return {"error": {"kind": "mistake", "message": str(error)}}


async def main():
    worker = Worker(sys.argv[1])
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
        say(**await worker.answer(line.decode()))
    await finished(worker.client.close())


asyncio.run(main())
