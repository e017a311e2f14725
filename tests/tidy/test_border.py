"""The rules of the border (docs/internals/errors.md): what src/pg is called, what it knows, and what stands nowhere else."""

import re

import pytest

from modules import circles, uses
from source import ROOT, code_of, files, found_in, is_test, literals_of, name, take_apart

PG = ROOT / "src/pg"


def outside_of_pg():
    return [path for path in files(".rs", "src", "crates") if not path.is_relative_to(PG)]


#: A number of PostgreSQL's: an oid, or bits of a mask.
NUMBER = r"\bOid::from(?:_u32)?\(\s*[\d_]+\s*\)|\b0x[0-9a-fA-F_]{5,}\b"
#: Where those stand that pgrx does not bind: ffi.rs compares them with what it binds when it is compiled.
NUMBERS = "src/pg/ffi.rs"
#: A constant whose comment names a header of PostgreSQL's.
OF_A_HEADER = r"(?m)^\s*//[^\n]*\b\w+\.(?:h|dat)\b[^\n]*\n(?:\s*(?://|#\[)[^\n]*\n)*\s*(?:pub )?const \w+: [^=]+= (?:0x)?[\d_]+;"


def test_numbers_of_postgresql_have_its_names():
    """From pg_sys where pgrx binds them."""
    bad = [
        f"{name(path)}:{line}: {match.group()}"
        for path in files(".rs", "src/pg")
        if name(path) != NUMBERS
        for text, pattern in ((code_of(path), NUMBER), (path.read_text(), OF_A_HEADER))
        for line, match in found_in(text, pattern)
    ]
    assert not bad


def test_a_number_of_postgresql_would_be_found():
    assert re.search(NUMBER, "const PG_DEPEND: Oid = Oid::from_u32(2608);")
    assert re.search(NUMBER, "const COUNT: u32 = 0x0fff_ffff;")
    assert not re.search(NUMBER, "Oid::from_u32(pg_sys::TextEqualOperator) & 0x3f; Oid::from(tenant_id as u32)")
    assert re.search(OF_A_HEADER, "/// TimeoutId of utils/timeout.h.\nconst STATEMENT_TIMEOUT: c_int = 3;\n")
    text = (ROOT / NUMBERS).read_text()
    block = re.search(r"(?s)\nunbound_numbers! \{(.*?)\n\}", text)
    assert block and not re.search(NUMBER, text.replace(block[1], ""))


def tables() -> dict[str, list[str]]:
    """Our tables with their columns, as sql/ makes them."""
    script = "".join(path.read_text() for path in files(".sql", "sql"))
    made = re.findall(r"(?s)create (?:unlogged )?table _eventstream\.(\w+) \((.*?)\n\)", script)
    no_column = {"constraint", "check", "primary", "unique"}
    return {
        table: [word for word in re.findall(r"(?m)^    (\w+) ", body) if word not in no_column] for table, body in made
    }


#: Columns of ours that are words of PostgreSQL's as well: types, settings, what a CONTEXT counts by, what pg_control says; and whether pages have begun.
WORDS_OF_POSTGRES = {"name", "uuid", "role", "version", "search_path", "system_identifier", "has_begun"}


def names_of_ours(code: str, literals: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Where a table or a column of ours is named: by a text that is its name, alone or behind the schema's; by a constant or a variable that is called so."""
    known = tables()
    columns = {column for of in known.values() for column in of}
    words = ({*known} | columns) - WORDS_OF_POSTGRES
    found = [(line, text) for line, text in literals if text in words or re.search(rf"\b_eventstream\.(?:{'|'.join(known)})\b", text)]
    # In code only names that nothing else has: of two words or more.
    long = "|".join(sorted(word for word in words if "_" in word))
    found += [(line, match.group()) for line, match in found_in(code, rf"\b(?:{long})\b|\b(?:\w+_)?(?:{long.upper()})\b")]
    return found


def test_the_border_names_no_table_and_no_column_of_ours():
    """It is told of them by `init`."""
    bad = [f"{name(path)}:{line}: {word}" for path in files(".rs", "src/pg") for line, word in names_of_ours(*take_apart(path.read_text()))]
    assert not bad


@pytest.mark.parametrize(
    "code", ['const WALLS: &[&CStr] = &[c"tenant_id"];', "const EVENTS_GLOBAL_POSITION: i16 = 4;", 'relid(c"streams".as_ptr())', "let tenant_id = 1;", '"from _eventstream.events e"']
)
def test_a_name_of_ours_would_be_found(code):
    assert names_of_ours(*take_apart(code))


#: The lists of `table!`, by the module that each makes.
LISTED = {
    ("src/log/statements/mod.rs", "column"): "events",
    ("src/log/statements/mod.rs", "stream_column"): "streams",
    ("src/log/statements/mod.rs", "segment"): "stream_segments",
    ("src/log/statements/mod.rs", "tag_column"): "event_tags",
    ("src/log/statements/mod.rs", "tag_partition"): "tag_partitions",
    ("src/command/answers.rs", "kept"): "command_answers",
    ("src/command/scheduled/kept.rs", "scheduled"): "scheduled_commands",
    ("src/state/snapshot.rs", "column"): "snapshots",
}


def test_tables_are_numbered_as_sql_makes_them():
    listed = {
        (name(path), module): [word.lower() for word in re.findall(r"\w+", columns)]
        for path in files(".rs", "src")
        for module, columns in re.findall(r"(?s)\ntable! \{\s*pub mod (\w+);(.*?)\}", code_of(path))
    }
    assert listed == {place: tables()[table] for place, table in LISTED.items()}


#: A branch for a version that names the version itself. A new major version takes no branch of these; of `pre_pg17` and its kin it takes the newest (build.rs).
VERSION = r"\bpg_version_num\b|\bPG_VERSION_NUM\b|\bPG_MAJORVERSION_NUM\b|\bserver_version_num\b"


def branches_for_versions(text: str, is_border: bool) -> list[tuple[int, str]]:
    code, literals = take_apart(text)
    found = [(line, match.group()) for line, match in found_in(code, VERSION if is_border else rf"{VERSION}|\bpre_pg\d+\b")]
    found += [(text.count("\n", 0, match.start()) + 1, match.group()) for match in re.finditer(r'\bfeature\s*=\s*"pg\d+"', text)]
    return found + [(line, literal) for line, literal in literals if re.search(VERSION, literal)]


def test_versions_differ_only_in_the_border_and_by_their_names():
    bad = [
        f"{name(path)}:{line}: {what}"
        for path in files(".rs", "src", "crates")
        if not is_test(path)
        for line, what in branches_for_versions(path.read_text(), path.is_relative_to(PG))
    ]
    assert not bad


def test_a_branch_for_a_version_would_be_found():
    assert branches_for_versions('#[cfg(feature = "pg15")]', True)
    assert branches_for_versions('#[cfg(any(pre_pg16, feature = "pg18"))]', True)
    assert branches_for_versions("#[cfg(pre_pg17)]", False) and not branches_for_versions("#[cfg(pre_pg17)]", True)
    assert branches_for_versions("if unsafe { pg_sys::PG_VERSION_NUM } < 170000 {}", True)


#: Macros that export a function under a name (`sql_function!`, `worker_function!`), for whoever uses them outside of the border.
EXPORTS = {"src/pg/function/mod.rs", "src/pg/process/life.rs"}
LINTS = ("unsafe_code", "ffi_unwind_calls")


def test_what_is_denied_is_allowed_in_the_border_only_and_with_a_reason():
    root = code_of(ROOT / "src/lib.rs")
    for lint in LINTS:
        assert re.search(rf"#!\[deny\([^)]*\b{lint}\b[^)]*\)\]", root), lint
    allowed = {
        (name(path), lint)
        for path in files(".rs", "src", "crates")
        for lint in LINTS
        if re.search(rf"\b(?:allow|expect|warn)\([^)]*\b{lint}\b", code_of(path))
    }
    assert allowed == {("src/pg/mod.rs", lint) for lint in LINTS} | {(path, "unsafe_code") for path in EXPORTS}
    border = (PG / "mod.rs").read_text()
    assert re.search(r"//[^\n]+\n#!\[allow\(ffi_unwind_calls\)\]", border), "the reason stands above it"


def test_macros_make_circles(tmp_path):
    """One that a module defines and its children use by its place in the text, and one that is used by its path."""
    for file, code in {
        "a/mod.rs": "macro_rules! wanted { () => { 1 } }\nmod child;\nuse child::ONE;",
        "a/child.rs": "pub const ONE: i32 = wanted!();",
        "other.rs": "pub const TWO: i32 = crate::last::made!();",
        "last.rs": "macro_rules! made { () => { 2 } }\npub(crate) use made;\nuse crate::other::TWO;",
    }.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(code)
    found = circles(uses(sorted(tmp_path.rglob("*.rs")), tmp_path))
    assert sorted(found) == [[("a",), ("a", "child")], [("last",), ("other",)]]
