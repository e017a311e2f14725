"""What tests of an operator's views ask of a database: its health, and the statements that mend it, executed as they are printed."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

from database import Database, numbers, rows
from server import BIN, as_account, wait_until

HANDLER = """create or replace function {name}(event eventstream.event) returns void language plpgsql as
$$ begin
    if event.payload ? 'refuse' and not exists (select from mended) then raise exception 'refused: %', event.stream; end if;
    insert into seen values ('{name}', event.global_position);
end $$"""


def check(session, name: str) -> SimpleNamespace | None:
    """A check of eventstream.health; None where there is none of that name."""
    found = rows(session, "select tenant, status, detail, fix from eventstream.health where name = %s", name)
    assert len(found) <= 1, found
    return SimpleNamespace(**dict(zip(("tenant", "status", "detail", "fix"), found[0]))) if found else None


def wait_for_status(session, name: str, status: str, seconds: float = 20) -> SimpleNamespace:
    found = []

    def has_it():
        found[:] = [check(session, name)]
        return found[0] is not None and found[0].status == status

    try:
        wait_until(has_it, seconds, f"check {name} to be {status}", every=0.1)
    except TimeoutError as error:
        raise AssertionError(f"{error}: {found}") from None
    return found[0]


def run_psql(database: Database, text: str, user: str = "postgres") -> str:
    """Pastes text into psql; fails where any statement does."""
    done = subprocess.run(
        [str(BIN / "psql"), "-X", "-v", "ON_ERROR_STOP=1", "-d", database.name, "-U", user],
        input=text,
        capture_output=True,
        text=True,
        **as_account(env=database.server.address(database.name)),
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    return done.stdout


def make_handlers(session, *names: str) -> None:
    """Handlers that note what they see, and refuse events that say so until there is a row in mended."""
    session.execute("create table if not exists seen (handler text, global_position bigint)")
    session.execute("create table if not exists mended (at timestamptz default now())")
    for name in names:
        session.execute(HANDLER.format(name=name))


def create_projection(session, name: str, **settings) -> None:
    make_handlers(session, name)
    given = "".join(f", {key} => {value!r}" for key, value in settings.items())
    session.execute(f"select es_create_projection('{name}', '{name}(eventstream.event)'{given})")


def seen(session, name: str) -> list[int]:
    """Which events of the log it has seen: 1 is the first."""
    return numbers(session, [position for (position,) in rows(session, "select global_position from seen where handler = %s order by 1", name)])
