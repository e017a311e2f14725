"""What mypy sees of a program: the right is let through, and each wrong one is an error (an ignore that is not needed is one, too)."""

import asyncio
import datetime
import decimal
import uuid
from collections.abc import Iterable

import eventstream_client as es


def handle(events: es.Batch) -> None:
    for delivery in events:
        position: int = delivery.event.global_position
        moment: datetime.datetime = delivery.event.occurred_at
        print(position, moment, delivery.attempt + 1)


def again(conflict: es.VersionConflict) -> tuple[Iterable[es.NewEvent], int | None] | None:
    return ([es.NewEvent("Added", {"amount": decimal.Decimal("1.50")})], conflict.actual) if conflict.actual else None


def main() -> None:
    with es.Client("dbname=books", patience=5) as client:
        version: int = client.append("account-1", [es.NewEvent("Added", {})], expected_version=es.NO_STREAM, anew=again)
        answer: es.CommandAnswer = client.acting(token=lambda: "…").command("account-1", "Add", {"amount": 1}, "key")
        ids: list[uuid.UUID] = answer.event_ids
        events: list[es.Event] = list(client.read("account-1", from_version=version))
        with client.transaction() as transaction:
            transaction.append_streams([es.Append("account-2", [es.NewEvent("Added", {})])])
            transaction.consumer("mailer", handle)  # type: ignore[attr-defined]
        client.consumer("mailer", handle, retry_after=[5, 60]).run()
        client.append("account-1", [{"type": "Added"}])  # type: ignore[list-item]
        client.append("account-1", [es.NewEvent("Added", {})], expected_version="1")  # type: ignore[arg-type]
        client.command("account-1", "Add", {})  # type: ignore[call-arg]
        print(ids, events)


async def async_handle(events: es.AsyncBatch) -> None:
    for delivery in events:
        await asyncio.sleep(delivery.attempt)


async def async_main() -> None:
    async with es.AsyncClient() as client:
        version: int = await client.append("account-1", [es.NewEvent("Added", {})])
        async for event in client.read_all(version):
            print(event.payload)
        async with client.transaction() as transaction:
            loaded: es.Loaded = await transaction.load("account-1", for_update=True)
            print(loaded.version)
        await client.consumer("mailer", async_handle).run()
        client.consumer("mailer", handle)  # type: ignore[arg-type]
