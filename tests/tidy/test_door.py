"""What an event says leaves the log by one door, src/present, and comes in by one, log/append.rs (ARCHITECTURE.md): who else touches what
leads there is listed here, each with its reason. door.py finds them.

The compiler holds the rest: only src/present can make an `Event`, and of a `StoredEvent` nobody else can read the documents.
"""

import re
from collections import Counter

import pytest

from door import beside_the_door, opened_for_insert, reads, reads_in_rust, views_over_events, without_comments, writes, writes_in_rust
from source import ROOT, code_of, files, found_in, is_test, name

COLUMNS = {"payload", "metadata"}
CONSTANTS = {"PAYLOAD", "METADATA"}
#: Files of src/ that come by documents of stored events, or by names that could lead there, and how.
MAY_READ = {
    "src/log/statements/mod.rs": (CONSTANTS, "numbers the columns of a row of events"),
    "src/log/statements/reading.rs": ({*COLUMNS, "select *", "e.*"}, "writes the statements; how large whole rows are"),
    "src/log/statements/finding.rs": ({*COLUMNS, "select *"}, "writes the statements, and measures the documents"),
    "src/log/statements/verifying.rs": ({*COLUMNS, *CONSTANTS}, "writes the statements, and numbers their columns"),
    "src/log/statements/tagged.rs": ({"metadata"}, "writes the statements of verification: which correlation id is to be looked for, and nothing else of them"),
    "src/present/query.rs": ({"'payload'", "'metadata'"}, "names of criteria"),
    "src/log/statements/offers.rs": (COLUMNS, "measures them"),
    "src/log/stored.rs": ({*CONSTANTS, "StoredContent", "of_door", "through_door"}, "what the names below mean"),
    "src/log/retry.rs": ({"StoredContent", "'payload'"}, "compares a retried payload with the stored one, and says only whether they differ"),
    "src/proof/verify/walk.rs": ({"StoredContent"}, "hashes them, and says only whether the hash is right"),
    "src/command/stored_types.rs": ({"StoredContent"}, "judges them by their schemas, and says only where and by which rule they break them"),
    "src/api/command.rs": ({"'payload'", "'metadata'"}, "names of arguments"),
    "src/command/compared.rs": ({"'payload'", "'metadata'"}, "names of what a test compares, of events that have passed the door"),
    "src/command/commanded.rs": ({"'payload'", "'metadata'"}, "names of what a command has, for errors"),
    "src/command/scheduled/wanted.rs": (COLUMNS, "those of scheduled commands, which are no events"),
    "src/command/scheduled/unwanted.rs": (COLUMNS, "the same, which it clears"),
    "src/command/scheduled/ends.rs": (COLUMNS, "the same"),
    "src/command/scheduled/letters.rs": (COLUMNS, "the same"),
    "src/command/scheduled/kept.rs": ({*COLUMNS, "PAYLOAD", "METADATA"}, "the same, which it clears"),
    "src/command/scheduled/run.rs": ({*COLUMNS, *CONSTANTS}, "the same, which it executes"),
    "src/proof/audit.rs": ({"payload", "a.*", "k.*", "t.*"}, "compares acts of administration, which are no user's events, with what there is"),
    "src/present/event.rs": (CONSTANTS, "the door: the columns of an event"),
    "src/present/door.rs": ({*CONSTANTS, "of_door", "through_door"}, "the door"),
    "src/command/covered.rs": ({*COLUMNS, "'payload'", "'metadata'"}, "names of what is to be appended, for errors"),
    "src/present/upcast.rs": (CONSTANTS, "the door: a payload in its newest schema version"),
    "src/api/append.rs": ({"'payload'", "'metadata'"}, "names of arguments"),
    "src/log/event.rs": ({"'payload'", "'metadata'"}, "names of what is to be appended, for errors"),
    "src/log/metadata.rs": ({"'metadata'"}, "the same"),
    "src/shared/settings.rs": ({"METADATA"}, "the setting eventstream.metadata"),
    "src/shared/live_settings.rs": ({"'*'"}, "a setting's word for all databases"),
    "src/ops/health/check.rs": ({"select *"}, "a statement for the operator, of a view without documents"),
}
#: Files of sql/ that do, and how often: what is one more is looked at.
MAY_NAME = {
    "log/tables.sql": ({"payload": 2, "metadata": 2}, "the columns, and that no statistics are kept of them"),
    "schema/types.sql": ({"payload": 2, "metadata": 2}, "the type that the door gives, and that of commands"),
    "command/functions.sql": ({"payload": 5, "metadata": 4}, "arguments of es_command and its kin"),
    "command/tables.sql": ({"payload": 3, "metadata": 3}, "the columns of scheduled commands, whether they are there, and that no statistics are kept of them"),
    "command/views.sql": ({"payload": 2, "metadata": 3}, "of scheduled commands, which are no events yet"),
    "log/append.sql": ({"payload": 1, "metadata": 1}, "arguments of es_append"),
    "proof/views.sql": ({"payload": 1, "metadata": 1}, "arguments of the digest"),
    "log/views.sql": ({"payload": 2, "metadata": 2}, "the functions that ask the door; the views themselves name no document beside them"),
    "log/audit.sql": ({"(old)": 1, "(new)": 1}, "the trigger of definitions, which are no events"),
    "log/partitions.sql": ({"select *": 1, "payload": 2, "metadata": 2}, "of values that stand there; that no statistics are kept of documents"),
    "ops/views.sql": ({"i.*": 1}, "of es_log_info"),
}


def sql_files() -> dict[str, str]:
    """The files of the extension script, without comments."""
    return {
        str(path.relative_to(ROOT / "sql")): without_comments(path.read_text())
        for path in files(".sql", "sql")
        if path.parent != ROOT / "sql" and not is_test(path)
    }


def rust_files() -> dict[str, str]:
    return {name(path): path.read_text() for path in files(".rs", "src") if not is_test(path)}


VIEWS = views_over_events(list(sql_files().values()))


def test_the_views_over_documents_are_known():
    assert VIEWS == {"eventstream.events", "eventstream.administration", "eventstream.audit", "eventstream.access_log"}


def test_documents_of_events_are_read_behind_the_door_only():
    """And who does not any more is taken off the list."""
    found = {path: {what for _, what in reads_in_rust(text, VIEWS)} for path, text in rust_files().items()}
    assert {path: ways for path, ways in found.items() if ways} == {path: ways for path, (ways, _) in MAY_READ.items()}


def test_sql_comes_by_documents_of_events_in_few_places():
    found = {path: dict(Counter(reads(beside_the_door(text), VIEWS))) for path, text in sql_files().items()}
    assert {path: ways for path, ways in found.items() if ways} == {path: ways for path, (ways, _) in MAY_NAME.items()}


@pytest.mark.parametrize(
    "rust",
    [
        "row.jsonb_opt(column::PAYLOAD)?;",
        "use column::*; row.get(PAYLOAD);",
        "StoredContent::of_row(row);",
        "StoredRows::of_door(into);",
        '"select e.payload from {events} e";',
        '"select version, metadata from {events}";',
        '"select to_jsonb(e) from _eventstream.events e where e.version = 1";',
        '"select to_jsonb(e.*) from _eventstream.events e";',
        '"select e from _eventstream.events as e";',
        '"select (e).subject from {events} e";',
        '"select e::text from {events} e";',
        '"select array_agg(e) from _eventstream.events_1 e";',
        '"select events from _eventstream.events";',
        '"select row_to_json(x) from eventstream.events x";',
        '"select s.*, e.version from {events} e";',
        '"select * from (select * from {events}) e";',
        '"select version, * from {events}";',
        '"select * from eventstream.administration";',
        '"table _eventstream.events";',
        '"copy _eventstream.events to stdout";',
        '"delete from {events} returning payload";',
        '"delete from _eventstream.dead_letters returning *";',
        'concat!("select ", "e.", "payload", " from {events} e");',
        'concat!("select to_jsonb(e), ", offer_columns!(), " from {events} e");',
        'format!("select {list} from {{events}}", list = "payload");',
        'let star = "e.*";',
        '"SELECT to_jsonb(E) FROM _eventstream.events E";',
        'let list = "payload";',
        '["version", "metadata"].join(", ");',
        'format!("select to_jsonb(x) from {} x", partition.table);',
        'columns! { mod mine, mine_columns; WHAT = "payload" }',
    ],
)
def test_a_read_beside_the_door_would_be_found(rust):
    assert reads_in_rust(rust, VIEWS)


@pytest.mark.parametrize(
    "rust",
    [
        "event.payload()?;",
        'error("The most bytes of text that a payload may have.");',
        '"select e.version, e.tags from {events} e join _eventstream.streams s on s.id = e.stream_id where e.version = $1";',
        '"select count(*) from {events} where version > $1";',
        '"select * from es_verify()";',
        '"select * from {}es_maintain();";',
        '"select * from _eventstream.projections p";',
        '"set local eventstream.metadata = $1";',
    ],
)
def test_what_reads_no_document_is_not_found(rust):
    assert not reads_in_rust(rust, VIEWS)


@pytest.mark.parametrize(
    "sql",
    [
        "create view v as select e.* from _eventstream.events e;",
        "create view v as select to_jsonb(e) as row from _eventstream.events e;",
        "create view v as select to_jsonb(x) from eventstream.events x;",
        "create function f() returns jsonb language plpgsql as $$ begin return (select e.payload from _eventstream.events e); end $$;",
        "create function f() returns jsonb language plpgsql as $$ declare r record; begin select * into r from _eventstream.events; end $$;",
        "create function f() language plpgsql as $$ begin execute format('select to_jsonb(p) from _eventstream.%I p', t) into j; end $$;",
        "create function f() returns trigger language plpgsql as $$ begin perform g(to_jsonb(new)); end $$;",
        "create function f() returns jsonb language plpgsql as $$ begin j := (select to_jsonb(e) from only _eventstream.events e); end $$;",
        "create function f() returns jsonb language sql begin atomic; select metadata from _eventstream.events limit 1; end;",
    ],
)
def test_a_read_in_sql_beside_the_door_would_be_found(sql):
    assert reads(beside_the_door(without_comments(sql)), VIEWS)


def test_a_view_asks_the_door():
    shown = "create view v as select _eventstream.shown_payload(e.tenant_id, e.event_type, e.schema_version, e.payload){} from _eventstream.events e;"
    assert not reads(beside_the_door(shown.format(" as payload")), VIEWS) and not reads(beside_the_door(shown.format(" ->> 'amount'")), VIEWS)
    # Of what the event is not, or beside it.
    assert reads(beside_the_door(shown.format(" as payload").replace("_payload(", "_metadata(")), VIEWS)
    assert reads(beside_the_door(shown.format(", e.payload as raw")), VIEWS)


def test_comments_on_objects_are_no_reads():
    assert not reads(without_comments("comment on view v is 'with its payload'; -- payload\ncomment on column c is $$the metadata; all$$;"))


def test_a_view_over_a_view_of_documents_is_one():
    views = ["create view a as select e.* from _eventstream.events e;", "create view b as select x.* from a x;", "create view c as select 1 from a;"]
    assert views_over_events(views) == {"a", "b"}


#: Who reads documents of other tables' rows.
OTHER_DOCUMENTS = {
    "src/command/answers.rs": "answers of commands",
    "src/command/category.rs": "settings of categories",
    "src/command/deciders.rs": "which commands a decider takes",
    "src/command/scheduled/run.rs": "scheduled commands",
    "src/state/folds.rs": "a fold's initial state and rules",
    "src/state/snapshot.rs": "states of snapshots",
    "src/projection/rebuild.rs": "states of a table that is filled again",
}
#: Who takes rows apart as a whole.
TAKE_APART = {
    "src/present/event.rs": "the door",
    "src/pg/query/store.rs": "puts rows into a result, whatever they hold",
    "src/pg/query/pages.rs": "the same, a page at a time",
}
#: What reads a jsonb of a row, or all of it. Arguments of SQL functions are no rows: `args`, in src/api only.
DOCUMENT_READERS = r"(?<!\bargs)\s*\.\s*(?:jsonb_opt\s*\(|parts\s*\(\)|copy_any\b|copy_to\s*\()|\bRow::(?:jsonb_opt|parts|copy_any|copy_to)\b"


def test_nobody_else_reads_a_document_of_a_row():
    """By a number it could be any document."""
    found = {path: {match.group() for _, match in found_in(code_of(ROOT / path), DOCUMENT_READERS)} for path in rust_files()}
    apart = {path for path, ways in found.items() if [way for way in ways if "jsonb" not in way]}
    read = {path for path, ways in found.items() if [way for way in ways if "jsonb" in way]}
    assert apart == set(TAKE_APART)
    assert read == {"src/log/stored.rs", "src/present/event.rs", *OTHER_DOCUMENTS}
    inside = [path for path in rust_files() if not path.startswith(("src/api/", "src/pg/"))]
    assert not [path for path in inside if found_in(code_of(ROOT / path), r"\bargs\s*\.\s*jsonb")]


@pytest.mark.parametrize(
    "rust", ["line.jsonb_opt(16)", "row\n.jsonb_opt(9)", "row.parts().0[16]", "Row::jsonb_opt(&row, 16)", "found.copy_any::<17>()"]
)
def test_a_document_read_by_number_would_be_found(rust):
    assert re.search(DOCUMENT_READERS, rust) and not re.search(DOCUMENT_READERS, "args.jsonb_opt(2)")


#: Who puts rows into which table without a statement.
INSERTS = {
    "src/command/answers.rs": ["catalog.command_answers"],
    "src/log/append.rs": ["partition.table_oid"],
    "src/log/stream.rs": ["catalog.segments"],
    "src/log/tags.rs": ["catalog.tag_partitions", "tags.table_oid"],
}
#: Statements that insert into a table that is chosen when they run.
INSERTS_INTO_CHOSEN = {"projection/functions.sql": "a state table's rows"}
#: What PostgreSQL offers to write a row past the executor's statements.
ROW_WRITERS = r"\b(?:simple_)?(?:heap|table|table_tuple)_(?:multi_)?(?:tuple_)?insert\w*|\bCopyFrom\w*|\bExecSimpleRelationInsert\b"


def test_events_are_written_by_the_door_only():
    rust = rust_files()
    assert {path: opened for path, text in rust.items() if path != "src/pg/query/insert.rs" and (opened := opened_for_insert(text))} == INSERTS
    assert {path for path in rust if found_in(code_of(ROOT / path), ROW_WRITERS)} == {"src/pg/ffi.rs", "src/pg/query/insert.rs"}
    assert not [f"{path}:{line}: {what}" for path, text in rust.items() for line, what in writes_in_rust(text)]
    assert {path for path, text in sql_files().items() if writes(text)} == set(INSERTS_INTO_CHOSEN)


@pytest.mark.parametrize(
    "sql",
    [
        "insert into _eventstream.events (version) values (1)",
        "insert into _eventstream.events_1 select 1",
        "insert into {events} values ($1)",
        "insert into {} values ($1)",
        "with x as (insert into _eventstream.events default values returning 1) select 1",
        "merge into _eventstream.events e using x on true",
        "copy _eventstream.events (version) from stdin",
        "update _eventstream.events set version = 1",
        "delete from {events} where version = 1",
        "execute format('insert into _eventstream.%I values (1)', partition)",
        "execute 'insert into ' || partition",
    ],
)
def test_a_write_past_the_door_would_be_found(sql):
    assert writes(sql) and writes_in_rust(f'"{sql}";')


@pytest.mark.parametrize(
    "rust", ["Inserter::open(db, other.table_oid)?;", "use crate::pg::query::insert::Inserter as Other;", "let open = Inserter::open;"]
)
def test_rows_put_past_the_door_would_be_found(rust):
    assert opened_for_insert(rust) not in ([], *INSERTS.values())
