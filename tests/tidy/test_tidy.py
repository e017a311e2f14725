"""The rules of how the source is laid out (ARCHITECTURE.md), those that a compiler does not know.

Each test's name is its rule; a failure names file and line. `make test-tidy` runs them, without a database.
"""

import re
import tomllib

import pytest

from modules import circles, leaves, module_of, names, uses
from source import ROOT, code_of, files, found_in, is_test, literals_of, name, take_apart, tracked_files

#: What each folder of src/ may use of the others ("May use" in ARCHITECTURE.md). Whoever may use a layer may use those below it.
MAY_USE = {
    "pg": set(),
    "shared": {"pg"},
    "log": {"shared", "pg"},
    "access": {"log", "shared", "pg"},
    "usercode": {"access", "log", "shared", "pg"},
    "present": {"usercode", "access", "log", "shared", "pg"},
    "state": {"present", "usercode", "access", "log", "shared", "pg"},
    "projection": {"state", "present", "usercode", "access", "log", "shared", "pg"},
    "subscription": {"present", "usercode", "access", "log", "shared", "pg"},
    "command": {"projection", "state", "present", "usercode", "access", "log", "shared", "pg"},
    "proof": {"command", "projection", "state", "present", "usercode", "access", "log", "shared", "pg"},
    "ops": {"proof", "command", "projection", "subscription", "state", "present", "usercode", "access", "log", "shared", "pg"},
}
MAY_USE["api"] = {*MAY_USE}
MAY_USE["worker"] = {*MAY_USE} - {"api"}
#: The door in, and what nobody else calls.
DOOR, APPEND = ("command", "write"), ("log", "append")
#: The one module that makes tables: partitions.
MAKES_TABLES = "src/log/partition.rs"
LONGEST_FILE = 500
LONGEST_LIB = 100


def test_the_scanner_tells_code_from_comments_and_literals():
    code, literals = take_apart(
        "let a = \"unsafe \\\" x\"; // unsafe\n/* unsafe /* nested */ */ let b = r#\"create \"table\"#; let c = '\"';"
        "fn f<'a>(x: &'a str) -> char { '\\'' } let d = b\"unsafe\";\nunsafe { g() }"
    )
    assert [text for _, text in literals] == ['unsafe \\" x', 'create "table', "unsafe"]
    assert [line for line, _ in found_in(code, r"\bunsafe\b")] == [3]


def test_core_knows_nothing_of_postgres():
    manifest = tomllib.loads((ROOT / "crates/core/Cargo.toml").read_text())
    used = {
        crate
        for kind in ("dependencies", "dev-dependencies", "build-dependencies")
        for crate in manifest.get(kind, {})
    }
    assert not [crate for crate in used if "pgrx" in crate or "postgres" in crate]
    bad = [
        f"{name(path)}:{line}"
        for path in files(".rs", "crates/core")
        for line, _ in found_in(code_of(path), r"\bpgrx\b|\bpg_sys\b")
    ]
    assert not bad


def test_unsafe_stands_only_in_pg():
    # `#[unsafe(no_mangle)]` and its like only name a symbol.
    bad = [
        f"{name(path)}:{line}"
        for path in files(".rs", "src", "crates")
        if not path.is_relative_to(ROOT / "src/pg")
        for line, _ in found_in(code_of(path), r"(?<!#\[)\bunsafe\b")
    ]
    assert not bad


def test_documents_are_read_by_one_function():
    """serde_json takes an object with a certain key for a number: crates/core/src/document.rs does not, and the companion's Json keeps the text."""
    bad = [
        f"{name(path)}:{line}"
        for path in files(".rs", "src", "crates")
        if "tests" not in path.relative_to(ROOT).parts
        for line, _ in found_in(code_of(path), r"serde_json::(?:from_\w+|Deserializer)|\.parse::<(?:serde_json::)?Value>")
    ]
    assert sorted({place.split(":")[0] for place in bad}) == ["crates/client/src/json.rs", "crates/core/src/document.rs"], bad


#: Functions that PostgreSQL calls and that go through no guard, and why a panic is impossible in each.
NEED_NO_GUARD = {
    ("src/pg/function/mod.rs", "record"): "gives a constant",
    ("src/lib.rs", "_PG_init"): "pgrx's own guard stands around it",
}


def unguarded(code: str) -> list[tuple[int, str]]:
    """The functions that C may call whose body is not empty and names none of the guards of src/pg/error/entry.rs."""
    found = []
    for line, match in found_in(code, r'\bextern\s+fn\s+(\w+)[^{;]*\{'):
        depth, end = 1, match.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(code[end], 0)
            end += 1
        body = code[match.end() : end - 1]
        if body.strip() and not re.search(r"\b(raising|logging|silent|function::call)\s*\(", body):
            found.append((line, match[1]))
    return found


def test_what_postgresql_calls_goes_through_a_guard():
    """A panic must not reach PostgreSQL's frames (docs/internals/errors.md)."""
    bad = [
        f"{name(path)}:{line}: {function}"
        for path in files(".rs", "src")
        for line, function in unguarded(code_of(path))
        if (name(path), function) not in NEED_NO_GUARD
    ]
    assert not bad
    assert unguarded(take_apart('extern "C" fn a() { if b { c() } } extern "C-unwind" fn d() { raising("d", || {}) }')[0]) == [(1, "a")]


def test_layers_use_only_what_lies_below():
    bad = []
    for path in files(".rs", "src"):
        parts = path.relative_to(ROOT / "src").parts
        if parts == ("lib.rs",):
            continue
        layer = parts[0].removesuffix(".rs")
        if layer not in MAY_USE:
            bad.append(f"{name(path)}: src/{layer} is in no layer: add it to ARCHITECTURE.md and to MAY_USE here")
            continue
        code = code_of(path)
        used = [(line, match[1]) for line, match in found_in(code, r"\bcrate::(\w+)")]
        for line, match in found_in(code, r"\bcrate::\{([^;]*)\}"):
            # use crate::{log::{…}, pg}: the first word of each
            group = match[1]
            while (flat := re.sub(r"\{[^{}]*\}", "", group)) != group:
                group = flat
            used += [(line, word) for word in re.findall(r"(?:^|,)\s*(\w+)", group)]
        for line, module in used:
            if module in MAY_USE and module != layer and module not in MAY_USE[layer]:
                bad.append(f"{name(path)}:{line}: {layer} may not use {module}")
    assert not bad


@pytest.mark.parametrize("crate", ["src", "crates/core/src"])
def test_no_files_stand_in_a_circle(crate):
    found = circles(uses([path for path in files(".rs", crate) if not is_test(path)], ROOT / crate))
    assert not ["  ".join("::".join(module) for module in circle) for circle in found]


def test_a_circle_would_be_found():
    assert leaves("crate::a::{b, c::{self, d as e}}") == [("crate", "a", "b"), ("crate", "a", "c"), ("crate", "a", "c", "d")]
    assert circles({("a",): {("b",)}, ("b",): {("c",)}, ("c",): {("b",)}, ("d",): {("a",)}}) == [[("b",), ("c",)]]


def test_every_append_goes_through_the_door():
    sources = {module_of(path, ROOT / "src"): code_of(path) for path in files(".rs", "src")}
    callers = {module for module, code in sources.items() if module != APPEND and names(code, module, APPEND)}
    assert callers == {DOOR}


@pytest.mark.parametrize(
    ("module", "code"),
    [
        (("api", "append"), "use crate::log::append;\nfn f() { append::append(target, &requests) }"),
        (("api", "append"), "use crate::log::append::{append as write};"),
        (("api", "append"), "use crate::{log::{self, append::append}, pg};"),
        (("projection", "applier"), "fn f() { crate::log::append::append(target, &requests) }"),
        (("state", "simulate"), "use crate::log;\nfn f() { log::append::append(target, &requests) }"),
        (("state", "simulate"), "use crate::log::*;\nfn f() { append::append(target, &requests) }"),
        (("log", "chosen"), "use super::append::append;"),
        (("log", "chosen"), "fn f() { super::append::append(target, &requests) }"),
    ],
)
def test_an_append_past_the_door_would_be_found(module, code):
    assert names(code, module, APPEND)
    assert "*" in code or not names(code.replace("append", "last_append"), module, APPEND)


def test_the_map_names_every_file():
    """And no other: ARCHITECTURE.md has a section for each folder of src/, and one for crates/core."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    sections = {match[1]: match[2] for match in re.finditer(r"(?ms)^### ([\w/]+): (.*?)(?=^##)", text)}
    bad = []
    for folder, section in sections.items():
        root = ROOT / (folder + "/src" if folder.startswith("crates/") else folder)
        # In a section `name.rs` is a file of the folder itself, or of the one that its line names.
        named = {word for word in re.findall(r"[\w/]+\.rs", section)}
        there = {path for path in files(".rs", str(root.relative_to(ROOT))) if not is_test(path) and path.stem not in ("mod", "lib")}
        bad += [f"{name(path)} is not on the map" for path in there if not {path.name, str(path.relative_to(root))} & named]
        known = {path.name for path in there} | {str(path.relative_to(root)) for path in there}
        bad += [f"{folder}: there is no {word}" for word in named if word not in known and not word.endswith("mod.rs")]
    folders = {"src/" + path.relative_to(ROOT / "src").parts[0] for path in files(".rs", "src")} - {"src/lib.rs"}
    assert folders | {"crates/core"} == set(sections)
    assert not bad


def test_no_file_is_longer_than_one_sitting():
    lengths = {
        name(path): len(path.read_text().splitlines())
        for suffix, folders in ((".rs", ("src", "crates")), (".sql", ("sql",)))
        for path in files(suffix, *folders)
        if not is_test(path)
    }
    assert not {path: lines for path, lines in lengths.items() if lines > LONGEST_FILE}
    assert lengths["src/lib.rs"] <= LONGEST_LIB


def test_every_module_says_what_it_owns():
    assert not [
        name(path) for path in files(".rs", "src", "crates", "pg_test") if not path.read_text().startswith("//!")
    ]


def test_names_say_what_is_inside():
    empty_words = {"util", "utils", "helper", "helpers", "common", "misc", "manager"}
    assert not [
        name(path)
        for path in tracked_files()
        if empty_words & {part.split(".")[0] for part in path.relative_to(ROOT).parts}
    ]


def order() -> list[str]:
    """The files of the extension script, in their order."""
    return [line for line in (ROOT / "sql/ORDER").read_text().splitlines() if not line.startswith("#")]


def test_every_sql_file_is_loaded_in_order():
    """`cargo pgrx` puts the script for the tests together from lib.rs; tools/install from sql/ORDER. Both give the same."""
    listed = re.findall(r'extension_sql_file!\s*\(\s*"\.\./sql/([^"]+)"', (ROOT / "src/lib.rs").read_text())
    there = [str(path.relative_to(ROOT / "sql")) for path in files(".sql", "sql")]
    upgrades = [path for path in there if "/" not in path]
    assert listed == order()
    assert sorted(order()) == [path for path in there if path not in upgrades]
    assert not [path for path in upgrades if not re.fullmatch(r"eventstream--\d+\.\d+\.\d+--\d+\.\d+\.\d+\.sql", path)]


def test_sql_objects_are_made_in_sql_files_only():
    statement = re.compile(
        r"\b(create|alter|drop)\s+(or\s+replace\s+)?((unlogged|temp|temporary|unique|materialized|constraint|event|foreign)\s+)*"
        r"(table|view|function|procedure|schema|sequence|index|trigger|type|domain|operator|aggregate|policy)\b",
        re.IGNORECASE,
    )
    bad = [
        f"{name(path)}:{line}: {match.group()}"
        for path in files(".rs", "src", "crates")
        if name(path) != MAKES_TABLES
        for line, text in literals_of(path)
        if (match := statement.search(text))
    ]
    assert not bad


def test_no_text_has_blanks_in_a_row():
    """Of those on one line: what is left of a line's break that had no backslash before it."""
    bad = [
        f"{name(path)}:{line}"
        for path in files(".rs", "src", "crates")
        if not is_test(path)
        for line, literal in literals_of(path)
        if "\n" not in (text := re.sub(r"\\\n\s*", "", literal)) and re.search(r"\S  +\S", text)
    ]
    assert not bad


def test_sql_is_bound_to_pg_catalog_and_to_ours_only():
    """What CREATE EXTENSION binds, by the path of the script; what is bound when it runs, by a path of the function's own."""
    text = {
        str(path.relative_to(ROOT / "sql")): re.sub(r"--[^\n]*", "", path.read_text()) for path in files(".sql", "sql")
    }
    script = "".join(text[file] for file in order())
    assert script.lstrip().startswith("set local search_path = pg_catalog, pg_temp;")
    paths = re.findall(r"^(?:re)?set\b[^\n]*;$", script, re.MULTILINE)
    assert paths == ["set local search_path = pg_catalog, pg_temp;", "set local search_path = eventstream, pg_temp;"]
    # An upgrade script begins as the first one does.
    assert not [file for file, body in text.items() if "/" not in file and not body.lstrip().startswith(paths[0])]
    bad = []
    for file, body in text.items():
        for line, match in found_in(body, r"(?ms)\bcreate (?:function|procedure) ([\w.]+)(.*?)(?=^comment on)"):
            is_bound_at_once = re.search(r"\blanguage c\b|\bbegin atomic\b|^return\b", match[2], re.MULTILINE)
            if not is_bound_at_once and "\nset search_path = pg_catalog, pg_temp\n" not in match[2]:
                bad.append(f"sql/{file}:{line}: {match[1]} runs with its caller's search_path")
    assert not bad


#: What each PL/pgSQL function of ours runs under, whatever its caller has set: PostgreSQL has no place to say it once.
SETTINGS = """set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
set quote_all_identifiers = off
set transform_null_equals = off
set array_nulls = on
set plpgsql.extra_errors = none
"""


def test_plpgsql_functions_run_under_the_same_settings():
    bad, seen = [], 0
    for path in sorted((ROOT / "sql").rglob("*.sql")):
        for line, match in found_in(path.read_text(), r"(?s)create (?:function|procedure) ([\w.]+)((?:(?!;\n).)*?)\nas \$\$"):
            if "language plpgsql" not in match[2]:
                continue
            seen += 1
            settings = "".join(f"{one}\n" for one in match[2].splitlines() if one.startswith("set "))
            # One makes partitions quietly; one makes text of times.
            if settings.replace("set client_min_messages = warning\n", "").replace("set timezone = 'UTC'\n", "") != SETTINGS:
                bad.append(f"{name(path)}:{line}: {match[1]} has other settings than the others")
    assert bad == [] and seen >= 12, (bad, seen)


def test_one_version_everywhere():
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    control = re.search(r"^default_version\s*=\s*'([^']+)'", (ROOT / "eventstream.control").read_text(), re.MULTILINE)
    changelog = re.search(r"^## \[?v?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert (control[1], changelog[1]) == (version, version)


def test_the_control_file_keeps_its_promises():
    control = dict(re.findall(r"^(\w+)\s*=\s*(.+)$", (ROOT / "eventstream.control").read_text(), re.MULTILINE))
    assert control["superuser"] == "true"
    assert control["trusted"] == "false"
    assert control["relocatable"] == "false"
    assert control["module_pathname"] == "'$libdir/eventstream'"


def test_the_three_pgrx_versions_are_one():
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    versions = {manifest["dependencies"]["pgrx"]["version"], *[
        wanted if isinstance(wanted, str) else wanted["version"]
        for wanted in [manifest["dev-dependencies"]["pgrx-tests"]]
    ]}  # fmt: skip
    assert versions == {"=0.18.1"}


@pytest.mark.parametrize(
    "what, pattern",
    [
        # Written in pieces, so that this file does not hold what it looks for.
        ("a path of one machine", r"(?<![\w.$}~-])/(work|root|home/\w+|Users/\w+)" + "/"),
        ("the host of a package registry", r"(index|static)\.crates" + r"\.io|files\.python" + r"hosted\.org"),
        ("the host of a package registry", r"(?<![\w@-])pypi" + r"\.org|registry\.np" + r"mjs\.org|(deb|ftp)\.deb" + r"ian\.org"),
        ("an address of a network", r"\b(10\.\d+|192\.168|172\.(1[6-9]|2\d|3[01]))\.\d+" + r"\.\d+\b"),
    ],
)
def test_no_tracked_file_names(what, pattern):
    bad = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        bad += [f"{name(path)}:{line}: {match.group()}" for line, match in found_in(text, pattern)]
    assert not bad, what


#: What reads a column of a row by its place, as src/pg/query/row.rs declares it.
READERS = "|".join(re.findall(r"pub fn (\w+)\(&self, column: usize\)", (ROOT / "src/pg/query/row.rs").read_text()))
#: A place that is looked up and not written down: 5 and more.
WIDE = r"(?<![\w.])(?:[5-9]|[1-9][\d_]+)(?:_?usize)?\b"
#: Modules that number the columns of rows which come as they lie in a table, without a SELECT, as sql/ declares them. Those of tables are numbered by `table!` (test_border.py).
NUMBERED_BY_HAND = {
    ("src/present/event.rs", "field"): "eventstream.event",
}


def numbered(code: str) -> set[str]:
    """What stands for a number from 5 on."""
    return {match[1] for _, match in found_in(code, rf"\b(?:const|static|let(?: mut)?)\s+(\w+)\s*(?::\s*usize)?\s*=\s*{WIDE}\s*;")}


def read_by_number(code: str, is_api: bool, elsewhere: set[str] = frozenset()) -> list[tuple[int, str]]:
    """Columns that are read by a bare number from 5 on, or by a name for one. `args` of a function of src/api are the arguments of a call, and no row."""
    found, known = [], numbered(code) | elsewhere
    given = rf"(?:{WIDE}|\b(?:{'|'.join(sorted(known)) or '(?!)'})\b(?!\s*[.(:]))"
    for line, match in found_in(code, rf"(\b\w+(?:\(\))?|[)\]?])\s*(?:\.|::)\s*(?:{READERS})\s*\(([^()]*)"):
        if not (is_api and match[1] == "args") and re.search(given, match[2]):
            found.append((line, match.group()))
    found += [(line, match.group()) for line, match in found_in(code, rf"\bparts\(\)[^;]*?\[\s*{given}")]
    # What was taken apart.
    for values in re.findall(r"\blet \((\w+),\s*(\w+)\)\s*=\s*[^;]*\bparts\(\)", code):
        found += [(line, match.group()) for line, match in found_in(code, rf"\b(?:{'|'.join(values)})\s*(?:\[|\.\s*get\()\s*{given}")]
    return found


def by_hand(code: str, module: str) -> re.Match:
    return re.search(rf"(?ms)^(?:pub )?mod {module} \{{\n(.*?)^\}}", code)


def test_wide_rows_are_read_by_name():
    """By `columns!`, whose one list writes the SELECT and numbers it: a number that is wrong reads another column."""
    codes = {name(path): code_of(path) for path in files(".rs", "src") if not is_test(path)}
    for path, module in NUMBERED_BY_HAND:
        numbers = by_hand(codes[path], module)[1]
        codes[path] = codes[path].replace(numbers, "\n" * numbers.count("\n"))
    public = {
        match[1]
        for code in codes.values()
        for _, match in found_in(code, rf"\bpub(?:\([^)]*\))? const (\w+): usize = {WIDE}\s*;")
    }
    assert not [
        f"{path}:{line}: {what}"
        for path, code in codes.items()
        for line, what in read_by_number(code, path.startswith("src/api/"), public)
    ]


def test_columns_numbered_by_hand_have_the_places_that_sql_gives_them():
    declared = {}
    for path in files(".sql", "sql"):
        for match in re.finditer(r"(?ms)^create (?:table|type) ([\w.]+) (?:as )?\((.*?)^\)", path.read_text()):
            declared[match[1]] = [word for word in re.findall(r"(?m)^    (\w+)", match[2]) if word != "constraint"]
    wrong, counted = [], 0
    for (path, module), of in NUMBERED_BY_HAND.items():
        for column, place in re.findall(r"const (\w+): usize = (\d+);", by_hand(code_of(ROOT / path), module)[1]):
            counted += 1
            if declared[of].index(column.lower()) != int(place):
                wrong.append(f"{path}: {module}::{column} is not {place} in {of}")
    assert not wrong and counted >= 16, counted


@pytest.mark.parametrize(
    "code",
    [
        "row.int8(7)",
        "found.int8(7)",
        "row\n    .text_opt(12)",
        "row.get(16usize)",
        "self.row().jsonb_opt(5)",
        "rows[0].uuid(9)",
        "next()?.hash(15)",
        "row.text(at + 5)",
        "Row::int8(&row, 7)",
        "row.parts().0[7]",
        "let (values, nulls) = row.parts(); values[16]",
        "let (values, nulls) = row.parts(); nulls.get(16)",
        "const P: usize = 16; row.get(P)",
        "let p = 16; row.get(p)",
        "row.get(FROM_ELSEWHERE)",
        "row.get(column::FROM_ELSEWHERE)",
    ],
)
def test_a_column_read_by_number_would_be_found(code):
    assert read_by_number(code, False, {"FROM_ELSEWHERE"})
    # Not by its name alone, and not where it is narrow.
    assert not read_by_number(re.sub(r"\d+(?:usize)?", "4", code).replace("FROM_ELSEWHERE", "NAME"), False, {"FROM_ELSEWHERE"})


def test_arguments_of_calls_are_told_from_columns():
    assert not read_by_number("args.text_array_opt(10)?; args.uuid_opt(5)", True)
    assert read_by_number("args.text(10)", False) and read_by_number("row.text(10)", True)
