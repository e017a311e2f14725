"""What the database refuses, in classes of what a program does about it. Other codes stay errors of psycopg."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg

from .exact import loads

BY_CODE: dict[str, type[EventstreamError]] = {}


class EventstreamError(Exception):
    """`sqlstate`, `message`, `detail` (an object, its numbers exact; {} where there is none) and `hint`, as the database said them; the driver's error is its __cause__."""

    def __init_subclass__(cls, codes: str) -> None:
        BY_CODE.update(dict.fromkeys(codes.split(), cls))

    def __init__(self, sqlstate: str, message: str, detail: dict[str, Any], hint: str | None) -> None:
        super().__init__(message)
        self.sqlstate, self.message, self.detail, self.hint = sqlstate, message, detail, hint

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.sqlstate, self.message, self.detail, self.hint)


class VersionConflict(EventstreamError, codes="ES001"):
    """Somebody was faster: `stream` was expected at the version `expected`, and is at `actual`."""

    def __init__(self, *said: Any) -> None:
        super().__init__(*said)
        self.stream, self.expected, self.actual = (self.detail.get(key) for key in ("stream", "expected_version", "actual_version"))


class CommandRefused(EventstreamError, codes="ES033"):
    """The decider says no: `code` is its reason for programs, the message the one for people."""

    @property
    def code(self) -> str | None:
        return self.detail.get("code")


class ConditionFailed(EventstreamError, codes="ES015"):
    """What the condition saw has changed: read and decide anew."""


class KeyReused(EventstreamError, codes="ES006 ES030"):
    """An event id, or a command's key, was used for something else: one intention, one key."""


class NotFound(EventstreamError, codes="ES002 ES010 ES012 ES020 ES036 ES040"):
    """There is no such stream, fold, snapshot, projection or subscription, decider, tenant."""


class Invalid(EventstreamError, codes="ES004 ES005 ES007 ES011 ES032 ES035"):
    """What was asked breaks a rule of names, arguments or limits; `detail` names the argument."""


class Closed(EventstreamError, codes="ES003 ES018 ES045"):
    """The stream, the period or the tenant takes no more."""


class RuleBroken(EventstreamError, codes="ES016 ES017 ES019"):
    """An event type's schema, a category's rule, or an invariant."""


class LeaseLost(EventstreamError, codes="ES024"):
    """What the lease held is delivered again: fetch anew."""


class AttemptLost(EventstreamError, codes="ES031"):
    """Another attempt of the operation has taken over, or ended it."""


class NotNow(EventstreamError, codes="ES008 ES009 ES022 ES023 ES026 ES070"):
    """The server cannot: no preload, a standby, a copy that is not activated, a rebuild or a wait that is not over, no record of an access."""


class PositionAhead(EventstreamError, codes="ES025"):
    """The position is none of this log, or lies beyond it: was the database restored?"""


class UserCodeFailed(EventstreamError, codes="ES013 ES014 ES021 ES034 ES037 ES038"):
    """A fold, an upcaster, a projection, a decider or a test is wrong."""


class TenantRefused(EventstreamError, codes="ES041 ES042 ES043 ES044"):
    """Which tenant is not said, or the token is missing, refused or another tenant's."""


class Guarded(EventstreamError, codes="ES050 ES051 ES052"):
    """Events and the log are not changed."""


@contextlib.contextmanager
def speaking() -> Iterator[None]:
    """Within it the database's refusals are ours; what has another code stays the driver's."""
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate not in BY_CODE:
            raise
        said = (error.diag.message_primary or "", _object(error.diag.message_detail), error.diag.message_hint)
        raise BY_CODE[error.sqlstate](error.sqlstate, *said) from error


def _object(detail: str | None) -> dict[str, Any]:
    """Users' code may raise our codes with a DETAIL of its own."""
    try:
        read = loads(detail or "{}")
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


#: Words by which a server, or a pooler, refuses a login: psycopg has no SQLSTATE then, and asking again does not help.
_NO_ENTRY = ("authentication failed", "does not exist", "no pg_hba.conf entry", "no password supplied", "not permitted to log in")


def is_lost(error: psycopg.Error) -> bool:
    """Whether the connection broke, or cannot be had now: what was asked may have been done or not."""
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and not any(words in str(error) for words in _NO_ENTRY)
    return state[:2] in ("08", "53") or state in ("25006", "57P01", "57P02", "57P03", "57P05")


def is_undone(error: psycopg.Error) -> bool:
    """Whether the transaction was rolled back for the sake of others, and is worth another try."""
    return error.sqlstate in ("40001", "40P01", "55P03")
