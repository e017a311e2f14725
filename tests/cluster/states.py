"""A fold that adds numbers, and what tests ask of its states and snapshots."""

from __future__ import annotations

import json

from database import Database, rows, value

HANDLER = """create or replace function {name}(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as
$$ begin
    if event.payload ? 'refuse' then raise exception 'refused at %', event.version; end if;
    return jsonb_build_object('sum', (state ->> 'sum')::numeric + {factor} * (event.payload ->> 'n')::numeric);
end $$"""
INITIAL = '{"sum": 0}'



def append(session, stream: str, count: int) -> None:
    """Events with n = 1, so that the sum is the version."""
    events = json.dumps([{"type": "Added", "payload": {"n": 1}}] * count)
    session.execute("select es_append_events(%s, %s::jsonb)", (stream, events))


def register(session, fold: str = "total", category: str = "account", every: int = 10, factor: int = 1, **options) -> None:
    name = f"{fold}_of"
    session.execute(HANDLER.format(name=name, factor=factor))
    session.execute(
        "select es_register_fold(%s, %s, %s::regprocedure, initial_state => %s, snapshot_every => %s, is_default => %s)",
        (fold, category, f"{name}(jsonb, eventstream.event)", INITIAL, every, options.get("is_default", True)),
    )


def maintain(session) -> dict[str, int]:
    return dict(rows(session, "select task, done from es_maintain()"))


def maintain_until_done(session, most_calls: int = 200) -> int:
    """How many snapshots were taken."""
    taken = 0
    for _ in range(most_calls):
        now = maintain(session)["snapshots taken"]
        if now == 0:
            return taken
        taken += now
    raise AssertionError(f"es_maintain still took snapshots after {most_calls} calls")


def snapshots(session, fold: str = "total") -> dict[str, list[int]]:
    """The versions of the stored snapshots, by stream."""
    found: dict[str, list[int]] = {}
    for stream, version in rows(
        session, "select stream, version from eventstream.snapshots where fold = %s order by 1, 2", fold
    ):
        found.setdefault(stream, []).append(version)
    return found


def count(session, name: str) -> int:
    return value(session, "select value from eventstream.stats where name = %s", name)


def warnings_of(connection) -> list[str]:
    """The texts of WARNINGs that come from now on."""
    texts: list[str] = []
    connection.add_notice_handler(
        lambda notice: texts.append(notice.message_primary) if notice.severity_nonlocalized == "WARNING" else None
    )
    return texts


def problems(session, thorough: bool = False) -> list[tuple]:
    return rows(session, "select stream, fold, version, problem from es_verify_snapshots(thorough => %s)", thorough)


def answered(database: Database, stream: str, version: int | None = None) -> tuple[int, list[str], int]:
    """What a fresh session answers, the warnings it gives, and how many events it folds for it."""
    with database.connect() as session:
        texts = warnings_of(session)
        before = count(session, "events_folded")
        call = "es_state(%s)" if version is None else "es_state_at_version(%s, %s)"
        state = value(session, f"select {call}", *([stream] if version is None else [stream, version]))
        return state["sum"], texts, count(session, "events_folded") - before
