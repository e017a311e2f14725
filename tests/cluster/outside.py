"""tools/verify.py for tests: on the log as it is, and as a module, which is what somebody has who knows the rules."""

import importlib.util
import io
import re
import subprocess
import sys

from server import ROOT

PROGRAM = ROOT / "tools" / "verify.py"


def verifier():
    """The program as a module."""
    found = importlib.util.spec_from_file_location("verify", PROGRAM)
    module = importlib.util.module_from_spec(found)
    sys.modules["verify"] = module
    found.loader.exec_module(module)
    return module


#: The commands that it reads the output of.
EVENTS_AS_CSV, HEADS_AS_CSV = re.findall(r"copy \(.*?header\)", verifier().__doc__, re.DOTALL)


def copied(session, statement: str) -> bytes:
    with session.cursor() as cursor, cursor.copy(statement) as copy:
        return b"".join(copy)


def events_of(session, stream: str) -> list[dict]:
    """A stream's events, as the program reads them."""
    events = verifier().read_events(io.BytesIO(copied(session, EVENTS_AS_CSV)), "events")
    return [row for _, row, _ in events if row["stream"].decode() == stream]


def judge(events: bytes, *anchors) -> tuple[int, str]:
    """Exit status and output of the program on an export, against heads saved earlier."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "-", *(str(part) for path in anchors for part in ("--anchor", path))],
        input=events,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.returncode, done.stdout.decode()


def check_outside(session, *anchors) -> tuple[int, str]:
    """The same on the log as it is."""
    return judge(copied(session, EVENTS_AS_CSV), *anchors)
