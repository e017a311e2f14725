"""Files that comments and documents name are there."""

import io
import re
import tokenize

from source import ROOT, name, tracked_files

#: What could be a file of the repository: its path, the end of it, or its bare name.
FILE = re.compile(r"(?<![\w/.*<>{}$%~-])(?:[\w-]+/)*[\w.-]*\w\.(?:rs|sql|py|md|spec|sh)\b(?![\w(*-]|\.\w)")
#: What is none of ours.
OTHERS = {
    "self.sql": "a field in Rust", "target/bench/last.md": "written by each run of bench/",
    "payments.py": "a program of the reader's", "charge.py": "a program of the reader's", "consumer.py": "a program of the reader's", "tail.py": "a program of the reader's",
    "metrics.py": "a program of the reader's", "bank.py": "a program of the reader's", "mailer.py": "a program of the reader's", "_sync.py": "made by clients/python/setup.py",
    "R__folds.sql": "a migration of the reader's, named as Flyway wants it",
}  # fmt: skip
#: What says nothing but to people, or in messages: all of it is read; of the others their comments.
WHOLE = {".md", ".rs", ".sql", ".spec"}
COMMENT = re.compile(r"(?m)(?:^|(?<=\s))#[^\n]*")


def of_script(text: str) -> str:
    """Its comments, each where it stands."""
    return "\n".join(" ".join(COMMENT.findall(line)) for line in text.split("\n"))


def of_python(text: str) -> str:
    """Its comments and docstrings, each where it stands."""
    lines, before = [""] * (text.count("\n") + 2), tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        is_docstring = token.type == tokenize.STRING and before in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
        if token.type == tokenize.COMMENT or is_docstring:
            for nth, line in enumerate(token.string.split("\n")):
                lines[token.start[0] - 1 + nth] += " " + line
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            before = token.type
    return "\n".join(lines)


def said(suffix: str, text: str) -> str:
    return text if suffix in WHOLE else of_python(text) if suffix == ".py" else of_script(text)


def unknown(suffix: str, text: str, there: set[str]) -> list[tuple[int, str]]:
    """The files that a text names and that are not there, with their lines."""
    ends = {path[at:] for path in there for at in (0, *(match.end() for match in re.finditer("/", path)))}
    lines = said(suffix, text).split("\n")
    return [(nth, word) for nth, line in enumerate(lines, 1) for word in FILE.findall(line) if word not in ends and word not in OTHERS]


def spoken() -> dict[str, tuple[str, str]]:
    """Suffix and text of each file that says something."""
    scripts = {path for path in tracked_files() if path.parent == ROOT / "tools" and not path.suffix} | {ROOT / "Makefile", ROOT / "sql/ORDER"}
    found = [path for path in tracked_files() if path.suffix in {*WHOLE, ".py"} or path in scripts]
    return {name(path): (path.suffix, path.read_text()) for path in found}


def test_files_that_are_named_exist():
    there = {name(path) for path in tracked_files()}
    assert not [f"{path}:{line}: there is no {word}" for path, (suffix, text) in spoken().items() for line, word in unknown(suffix, text, there)]


def test_a_name_without_its_file_would_be_found():
    there = {"src/ops/health/mod.rs", "sql/log/views.sql", "docs/reference.md"}
    assert unknown(".md", "src/ops/health/mod.rs, health/mod.rs,\nhealth.rs and reference.md", there) == [(2, "health.rs")]
    assert unknown(".rs", '"See docs/gone.md."\n/// As gone.rs says.\n//! log/views.sql', there) == [(1, "docs/gone.md"), (2, "gone.rs")]
    assert unknown(".sql", "-- of 40_partitions.sql\ncomment on table a is\n'see gone.md';", there) == [(1, "40_partitions.sql"), (3, "gone.md")]
    assert unknown(".py", 'def f():\n    """See gone.py."""\n    return "left.py"  # views.sql', there) == [(2, "gone.py")]
    assert unknown("", "cp gone.sh x\n# gone.sh", there) == [(2, "gone.sh")]
