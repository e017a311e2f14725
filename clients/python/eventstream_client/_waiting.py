"""What waits, once for threads and once for tasks: places for connections, and the beat that keeps a lease while a handler works."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable

from .errors import LeaseLost

log = logging.getLogger("eventstream_client")
Places = threading.Semaphore
AsyncPlaces = asyncio.Semaphore


class Beat:
    """Calls `work` every so many seconds, in a thread, until the block ends or the lease is lost, which `lost` tells then."""

    def __init__(self, seconds: float, work: Callable[[], object]) -> None:
        self.lost: LeaseLost | None = None
        self._seconds, self._work = seconds, work
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Beat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        while self.lost is None and not self._ended.wait(self._seconds):
            try:
                self._work()
            except LeaseLost as error:
                self.lost = error
            except Exception as error:
                log.warning("the lease was not made longer: %s", error)


class AsyncBeat:
    """As Beat, in a task."""

    def __init__(self, seconds: float, work: Callable[[], Awaitable[object]]) -> None:
        self.lost: LeaseLost | None = None
        self._seconds, self._work = seconds, work

    async def __aenter__(self) -> AsyncBeat:
        self._task = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _beat(self) -> None:
        while self.lost is None:
            await asyncio.sleep(self._seconds)
            try:
                await self._work()
            except LeaseLost as error:
                self.lost = error
            except Exception as error:
                log.warning("the lease was not made longer: %s", error)
