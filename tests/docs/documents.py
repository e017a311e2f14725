"""Runs the SQL of a document and compares what comes out with what the document says.

The rules for README.md and docs/*.md:

- A block ```sql is run, in order, in one psql session a document (psql -X -q, time zone UTC), in a fresh database.
- A block ```text that follows it (blank lines between) is its output: results and errors, in the order in which they come.
  A block without one must run without an error.
- ```sql no-run is shown and not run. Tests limit how many there are.

What differs at each run is normalised on both sides, and nothing else:

- uuids, hashes (16 hex digits or more: with a letter, after \\x, or before …), integers of 18 digits or more (the
  system identifier);
- times with a fraction of a second (recorded_at and the like; times that a caller gave have none and are compared);
- widths: runs of blanks and of dashes, because a column is as wide as its widest value; blanks at line ends.
"""

import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
_VOLATILE = [
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<uuid>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{1,6}\+00\b"), "<time>"),
    (re.compile(r"(?<![0-9a-f])\d{18,}(?![0-9a-f])"), "<number>"),
    (re.compile(r"\\x[0-9a-f]{16,}\b|\b[0-9a-f]{16,}…|\b(?=[0-9]*[a-f])[0-9a-f]{16,}\b"), "<hex>"),
    (re.compile(r"-{2,}"), "--"),
    (re.compile(r"[ \t]+"), " "),
]


class Block:
    """A fenced block of a document."""

    def __init__(self, match, text):
        self.info = match["info"].strip()
        self.text = match["text"]
        self.line = text.count("\n", 0, match.start()) + 1
        self.start, self.end = match.span("text")


def blocks(document_text):
    """All fenced blocks, in order."""
    return [Block(match, document_text) for match in _FENCE.finditer(document_text)]


def examples(document_text):
    """Pairs of an SQL block that is run, and its output block or None."""
    found = blocks(document_text)
    for place, block in enumerate(found):
        if block.info != "sql":
            continue
        following = found[place + 1] if place + 1 < len(found) else None
        if following is not None:
            # What stands between two blocks, without the closing fence of the first and the opening of the second.
            between = document_text[block.end : following.start].split("\n", 1)[1].rsplit("```", 1)[0]
            if following.info != "text" or between.strip():
                following = None
        yield block, following


def normalise(output):
    """What is compared: see the top of this file."""
    for pattern, stands_for in _VOLATILE:
        output = pattern.sub(stands_for, output)
    return "\n".join(line.strip() for line in output.strip().splitlines())


class Session:
    """One psql session that blocks are fed to."""

    _END = "-- end of the block --"

    def __init__(self, environment):
        # stdbuf: without it, what psql prints to a pipe comes after the errors that it follows.
        self._psql = subprocess.Popen(
            ["stdbuf", "-oL", "psql", "-X", "-q"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment | {"PGTZ": "UTC"},
            text=True,
            encoding="utf-8",
        )

    def run(self, sql):
        """Runs a block and returns everything that psql printed."""
        self._psql.stdin.write(f"{sql}\n\\echo '{self._END}'\n")
        self._psql.stdin.flush()
        lines = []
        for line in self._psql.stdout:
            if line.rstrip("\n") == self._END:
                return "".join(lines)
            lines.append(line)
        raise AssertionError("psql ended within a block:\n" + "".join(lines))

    def close(self):
        self._psql.stdin.close()
        self._psql.wait(timeout=10)
        self._psql.stdout.close()
