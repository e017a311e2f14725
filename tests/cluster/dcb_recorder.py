"""A recorder of Python eventsourcing's DCB interface over our functions, as thin as it can be: what its suite asks of a recorder is asked of them."""

from __future__ import annotations

import contextlib
import time
import uuid

import psycopg
from database import rows, value
from eventsourcing.dcb.api import DCBAppendCondition, DCBEvent, DCBQuery, DCBReadResponse, DCBRecorder, DCBSequencedEvent, DCBSubscription
from eventsourcing.persistence import IntegrityError
from psycopg.types.json import Jsonb

READ = """
select e.global_position, e.event_type, e.payload #>> '{}', e.tags
from (select distinct on (r.global_position) r.* from jsonb_array_elements(%s) item cross join lateral es_read_all(
          after_position => %s, max_count => %s, event_types => (select array_agg(t) from jsonb_array_elements_text(item -> 'event_types') t),
          tags => (select array_agg(t) from jsonb_array_elements_text(item -> 'tags') t)) r order by r.global_position) e
order by 1 limit %s
"""

READ_BACK = """
select e.global_position, e.event_type, e.payload #>> '{}', e.tags
from (select distinct on (r.global_position) r.* from jsonb_array_elements(%s) item cross join lateral es_read_backward(
          before_position => %s, max_count => %s, event_types => (select array_agg(t) from jsonb_array_elements_text(item -> 'event_types') t),
          tags => (select array_agg(t) from jsonb_array_elements_text(item -> 'tags') t)) r order by r.global_position) e
order by 1 desc limit %s
"""


def query_of(query: DCBQuery | None) -> dict:
    items = [
        {key: list(names) for key, names in (("event_types", item.types), ("tags", item.tags)) if names} for item in (query.items if query else [])
    ]
    return {"items": items} if items and all(items) else {"all": True}


class Response(DCBReadResponse):
    def __init__(self, events, head):
        self.events, self.last = iter(events), head

    @property
    def head(self):
        return self.last

    def __next__(self):
        return next(self.events)


class Recorder(DCBRecorder):
    """Each append begins a stream of its own: this interface has none."""

    def __init__(self, connection: psycopg.Connection):
        self.connection = connection

    def read(self, query=None, *, after=None, limit=None):
        if limit == 0:
            return Response([], None)
        # The end first: what it shows is settled, and everything up to there is read.
        head = value(self.connection, "select es_horizon()")
        most = min(limit or 100_000, 100_000)
        found = rows(self.connection, READ, Jsonb(query_of(query).get("items", [{}])), after or 0, most, most)
        events = [DCBSequencedEvent(DCBEvent(type=kind, data=text.encode(), tags=tags or []), position) for position, kind, text, tags in found]
        return Response(events, events[-1].position if limit and events else head)

    def head(self):
        """The last position; None of an empty log."""
        return value(self.connection, "select nullif(es_horizon(), 0)")

    def read_back(self, query=None, *, at=None, limit=None):
        """The newest first, from that position on, itself included."""
        if limit == 0:
            return Response([], None)
        head, most = self.head(), limit or 100_000
        found = rows(self.connection, READ_BACK, Jsonb(query_of(query).get("items", [{}])), at and at + 1, most, most)
        events = [DCBSequencedEvent(DCBEvent(type=kind, data=text.encode(), tags=tags or []), position) for position, kind, text, tags in found]
        return Response(events, events[-1].position if limit and events else head)

    def append(self, events, condition=None):
        plain = None
        if condition is not None:
            plain = Jsonb({"query": query_of(condition.fail_if_events_match), "after": condition.after or 0})
        elements = [{"type": event.type, "payload": event.data.decode(), "tags": list(event.tags)} for event in events]
        try:
            appended = value(
                self.connection,
                "select positions from es_append_streams(%s, condition => %s)",
                Jsonb([{"stream": f"dcb-{uuid.uuid4()}", "expected_version": 0, "events": elements}]),
                plain,
            )
        except psycopg.Error as error:
            if error.sqlstate == "ES015":
                raise IntegrityError(str(error)) from error
            raise
        return appended[-1]

    def subscribe(self, query=None, *, after=None):
        return Subscription(self, query, after)


class Subscription(DCBSubscription):
    def __next__(self):
        while not self._has_been_stopped:
            with contextlib.suppress(StopIteration):
                event = next(self._recorder.read(self._query, after=self._last_position, limit=1))
                self._last_position = event.position
                return event
            time.sleep(0.02)
        raise StopIteration


__all__ = ["DCBAppendCondition", "Recorder"]
