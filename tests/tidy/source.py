"""What the tidy tests read: the tracked files, and Rust source taken apart into code and string literals."""

import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def tracked_files() -> list[pathlib.Path]:
    """The files git knows or would add, so that a new file is checked before its first commit. Whoever owns the checkout."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [path for name in sorted(set(listed.split("\0"))) if name and (path := ROOT / name).is_file()]


def files(suffix: str, *folders: str) -> list[pathlib.Path]:
    found = [
        path for path in tracked_files() if path.suffix == suffix and any(path.is_relative_to(ROOT / f) for f in folders)
    ]
    assert found, f"no {suffix} file in {folders}: the test would check nothing"
    return found


def name(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def is_test(path: pathlib.Path) -> bool:
    """Tests stand outside the implementation: in a folder or a file of that name."""
    return bool({"tests", "pg_test", "benches", "fuzz"} & set(path.relative_to(ROOT).parts)) or path.stem == "tests"


TOKEN = re.compile(
    r"""
    (?P<line_comment> //[^\n]* )
  | (?P<block_comment> /\* )
  | (?P<raw> [bc]?r(?P<hashes>\#*)" )
  | (?P<text> [bc]?"(?: [^"\\] | \\. )*" )
  | (?P<char> b?'(?: [^'\\\n] | \\[^\n]{1,9}? )' )
    """,
    re.VERBOSE | re.DOTALL,
)


def take_apart(source: str) -> tuple[str, list[tuple[int, str]]]:
    """Rust source as (code without comments and literals, its string literals with their lines)."""
    code, literals, at = [], [], 0
    while match := TOKEN.search(source, at):
        code.append(source[at : match.start()])
        line = source.count("\n", 0, match.start()) + 1
        end = match.end()
        # An identifier that ends in r or b before a quote is no prefix: `for"` does not occur, but be exact.
        if match["block_comment"]:
            depth = 1
            while depth:
                mark = re.compile(r"/\*|\*/").search(source, end)
                assert mark, f"line {line}: a comment without its end"
                depth += 1 if mark.group() == "/*" else -1
                end = mark.end()
        elif match["raw"]:
            close = '"' + match["hashes"]
            stop = source.index(close, end)
            literals.append((line, source[end:stop]))
            end = stop + len(close)
        elif match["text"]:
            literals.append((line, match["text"].split('"', 1)[1][:-1]))
        # Lines keep their numbers.
        code.append(" " + "\n" * source.count("\n", match.start(), end))
        at = end
    code.append(source[at:])
    return "".join(code), literals


def code_of(path: pathlib.Path) -> str:
    return take_apart(path.read_text())[0]


def literals_of(path: pathlib.Path) -> list[tuple[int, str]]:
    return take_apart(path.read_text())[1]


def found_in(code: str, pattern: str) -> list[tuple[int, re.Match]]:
    return [(code.count("\n", 0, match.start()) + 1, match) for match in re.finditer(pattern, code)]
