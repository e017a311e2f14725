"""The client of eventstream for Python: Client, and AsyncClient for asyncio. README.md begins with a program."""

from ._async import AsyncBatch, AsyncClient, AsyncConsumer, AsyncTransaction
from ._sync import Batch, Client, Consumer, Transaction
from .errors import (  # fmt: skip
    AttemptLost, Closed, CommandRefused, ConditionFailed, EventstreamError, Guarded, Invalid, KeyReused, LeaseLost,
    NotFound, NotNow, PositionAhead, RuleBroken, TenantRefused, UserCodeFailed, VersionConflict,
)
from .exact import dumps, loads
from .records import Append, Appended, Begun, CommandAnswer, Delivery, Event, Loaded, LogInfo, NO_STREAM, NewEvent, Page, Reject, derived_id

__all__ = [
    "Append", "Appended", "AsyncBatch", "AsyncClient", "AsyncConsumer", "AsyncTransaction", "AttemptLost", "Batch", "Begun", "Client",
    "Closed", "CommandAnswer", "CommandRefused", "ConditionFailed", "Consumer", "Delivery", "Event", "EventstreamError", "Guarded",
    "Invalid", "KeyReused", "LeaseLost", "Loaded", "LogInfo", "NO_STREAM", "NewEvent", "NotFound", "NotNow", "Page", "PositionAhead",
    "Reject", "RuleBroken", "TenantRefused", "Transaction", "UserCodeFailed", "VersionConflict", "derived_id", "dumps", "loads",
]  # fmt: skip
