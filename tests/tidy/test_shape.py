"""Functions that fit a screen, and no file that nothing leads to."""

import re

import pytest

from source import ROOT, code_of, files, is_test, name, take_apart, tracked_files

LONGEST_FUNCTION = 70


def end_of(code: str, at: int) -> int:
    """Of what opens at `at`."""
    opens = code[at]
    closes = {"{": "}", "(": ")", "[": "]"}[opens]
    depth = 0
    for end in range(at, len(code)):
        depth += {opens: 1, closes: -1}.get(code[end], 0)
        if not depth:
            return end
    raise AssertionError(f"{code[at : at + 40]!r} has no end")


def functions(code: str) -> list[tuple[int, str, int]]:
    """Line, name and length of each function that has a body, of each macro, and of each closure (wherever it stands); `code` has no literals and
    no comments."""
    found = []

    def add(start: int, name: str, body: int) -> None:
        found.append((code.count("\n", 0, start) + 1, name, code.count("\n", start, end_of(code, body)) + 1))

    for match in re.finditer(r"\bfn\s+(\w+)", code):
        at, inside = match.end(), 0
        # The body, or the end of a declaration: a semicolon also stands in the type of an array.
        while at < len(code) and (inside or code[at] not in "{;"):
            inside += {"(": 1, "[": 1, ")": -1, "]": -1}.get(code[at], 0)
            at += 1
        if code[at : at + 1] == "{":
            add(match.start(), match[1], at)
    for match in re.finditer(r"\bmacro_rules!\s*(\w+)\s*[{(\[]", code):
        add(match.start(), f"{match[1]}!", match.end() - 1)
    for match in re.finditer(r"\|[^|;{}]*\|\s*(?:->\s*[^{;|]+)?\{", code):
        add(match.start(), "a closure", match.end() - 1)
    return found


def sql_functions(sql: str) -> list[tuple[int, str, int]]:
    """The same of functions and DO blocks in SQL: the length is that of the body."""
    bodies = r"(?s)\b(?:create (?:or replace )?(?:function|procedure) ([\w.]+)(?:(?!;\n).)*?(?:\bas|\bbegin atomic)|(do)(?: language \w+)?)\b\s*"
    found = []
    for match in re.finditer(bodies, sql):
        at = match.end()
        if quoted := re.match(r"\$\w*\$", sql[at:]):
            at += quoted.end()
            end = sql.index(quoted.group(), at)
        elif match.group().rstrip().endswith("begin atomic"):
            end = sql.index("\nend;", at)
        else:
            continue
        body = sql[at:end].strip("\n")
        found.append((sql.count("\n", 0, match.start()) + 1, match[1] or match[2], body.count("\n") + 1))
    return found


def too_long(path, found: list[tuple[int, str, int]]) -> list[str]:
    return [f"{name(path)}:{line}: {what} has {lines} lines, more than {LONGEST_FUNCTION}" for line, what, lines in found if lines > LONGEST_FUNCTION]


def test_functions_fit_a_screen():
    """One that does not does more than one thing: what these are called is what the parts are called."""
    assert not [long for path in files(".rs", "src", "crates") if not is_test(path) for long in too_long(path, functions(code_of(path)))]
    assert not [long for path in files(".sql", "sql") for long in too_long(path, sql_functions(path.read_text()))]


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ('fn a(b: [u8; 2]) -> [u8; 2] {\n    if c { "}" }\n}', [(1, "a", 3)]),
        ("trait T {\n    fn d(&self);\n    fn e() {}\n}", [(3, "e", 1)]),
        ("macro_rules! m {\n    () => {\n    };\n}", [(1, "m!", 4)]),
        ("static S: L = L::new(|a, b| -> u8 {\n    1\n});\nif a || b {\n}", [(1, "a closure", 3)]),
        ("static S: L = L::new(|| {\n    1\n});", [(1, "a closure", 3)]),
    ],
)
def test_a_long_function_would_be_found(code, found):
    assert functions(take_apart(code)[0]) == found


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("\ncreate function a.f()\nlanguage plpgsql\nas $$\nbegin\n    x;\nend;\n$$;", [(2, "a.f", 3)]),
        ("create function f() begin atomic\n    select 1;\n    select 2;\nend;", [(1, "f", 2)]),
        ("do $do$\nbegin\n    x;\nend $do$;", [(1, "do", 3)]),
        ("create function f() language c as 'MODULE_PATHNAME', 'f';\ncomment on function f() is $$a\nb\nc$$;", []),
    ],
)
def test_a_long_function_of_sql_would_be_found(sql, found):
    assert sql_functions(sql) == found


def declared(sources: dict[str, str]) -> set[str]:
    """The files that `mod name;` leads to, with or without a `#[path]`, from the texts of Rust files by their paths."""
    found = set()
    for path, text in sources.items():
        folder, _, file = path.rpartition("/")
        stem = file.removesuffix(".rs")
        # A test of its own is the root of a crate, as lib.rs is.
        is_root = stem in ("mod", "lib", "main") or re.search(r"(^|/)(tests|benches)$", folder)
        below = folder if is_root else f"{folder}/{stem}"
        for match in re.finditer(r'(?:#\[path = "([^"]+)"\]\s*)?^\s*(?:pub(?:\([^)]*\))? )?mod (\w+);', text, re.MULTILINE):
            if match[1]:
                parts = folder.split("/")
                for part in match[1].split("/"):
                    parts = parts[:-1] if part == ".." else [*parts, part]
                found.add("/".join(parts))
            else:
                found |= {f"{below}/{match[2]}.rs", f"{below}/{match[2]}/mod.rs"}
    return found


def test_every_rust_file_is_named_by_a_module():
    sources = {name(path): path.read_text() for path in files(".rs", "src", "crates", "pg_test")}
    found = declared(sources)
    roots = r"(.*/)?src/(lib|main)\.rs|crates/\w+/(build|(tests|benches|examples)/\w+)\.rs"
    assert not [path for path in sources if path not in found and not re.fullmatch(roots, path)]


def test_a_file_that_no_module_names_would_be_found():
    sources = {
        "src/lib.rs": '#[path = "../pg_test/mod.rs"]\nmod pg_test;\npub mod a;\n',
        "src/a/mod.rs": "mod b;\npub(super) mod c;\n// mod d;\n",
        "crates/core/tests/e.rs": "mod f;\n",
    }
    assert declared(sources) >= {"pg_test/mod.rs", "src/a/mod.rs", "src/a/b.rs", "src/a/c.rs", "crates/core/tests/f/mod.rs"}
    assert "src/a/d.rs" not in declared(sources)


def test_every_part_of_the_tests_and_scripts_is_used_by_another():
    """What pytest does not find by itself, and each script, is named by a file that is not itself."""
    words = {}
    for path in tracked_files():
        if path.suffix in (".py", ".rs", ".md", ".java", "") and path.parts[-2] != "results":
            words[path] = set(re.findall(r"\w[\w.-]*\w", path.read_text()))
    left = []
    for path in words:
        is_script = path.parent == ROOT / "tools"
        is_part = path.suffix in (".py", ".java") and (path.is_relative_to(ROOT / "tests") or path.is_relative_to(ROOT / "bench"))
        if not (is_script or is_part) or path.stem in ("conftest", "__init__") or path.name.startswith("test_"):
            continue
        # A module is imported by a word, or a path of words.
        if not any(path.stem in known or any(word.endswith(f".{path.stem}") for word in known) for other, known in words.items() if other != path):
            left.append(name(path))
    assert not left


@pytest.mark.parametrize("kind, source, suffix", [("regress", "sql", "sql"), ("isolation", "specs", "spec")])
def test_every_expected_output_has_what_gives_it(kind, source, suffix):
    given = {path.stem for path in tracked_files() if path.parent == ROOT / "tests" / kind / source}
    expected = {re.sub(r"(_\d+)?\.out$", "", path.name) for path in tracked_files() if path.parent == ROOT / "tests" / kind / "expected"}
    assert given and given == expected, given ^ expected
