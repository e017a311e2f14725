"""What an event says leaves the log by one door, src/present (ARCHITECTURE.md): who else touches it is listed here, each with its reason.

The compiler holds the rest: only src/present can make an `Event`, and of a `StoredEvent` nobody else can read the documents.
"""

import re

from source import ROOT, code_of, files, found_in, is_test, literals_of, name

#: Files of src/ that may name the documents of stored events: by a column's constant, by what leads to them, or in SQL.
MAY_TOUCH = {
    "src/log/statements/mod.rs": "numbers the columns of a row of events",
    "src/log/statements/reading.rs": "writes the statements",
    "src/log/statements/verifying.rs": "writes the statements, and numbers their columns",
    "src/log/statements/offers.rs": "measures them",
    "src/log/stored.rs": "what the names below mean",
    "src/log/retry.rs": "compares a retried payload with the stored one, and says only whether they differ",
    "src/proof/verify/walk.rs": "hashes them, and says only whether the hash is right",
    "src/proof/audit.rs": "compares acts of administration, which are no user's events, with what there is",
    "src/present/event.rs": "the door: the columns of an event",
    "src/present/door.rs": "the door",
    "src/present/upcast.rs": "the door: a payload in its newest schema version",
}
#: Files of sql/ that may name them outside of texts, and how often: what is one more is looked at.
MAY_NAME = {
    "log/tables.sql": (2, "the columns"),
    "schema/types.sql": (4, "the type that the door gives, and its comments"),
    "log/append.sql": (2, "arguments of es_append"),
    "log/views.sql": (8, "eventstream.events and eventstream.administration, the door of SQL: documents as stored; eventstream.audit: four members of metadata"),
    "schema/column_comments.sql": (4, "comments on columns of the two views"),
}
TOUCHES = r"(?:::|const )(?:PAYLOAD|METADATA)\b|::\{[^}]*\b(?:PAYLOAD|METADATA)\b|\bStoredContent\b|\bof_door\b"
DOCUMENT = re.compile(r"\b\w\.(payload|metadata)\b|\((payload|metadata)\)|\bselect\b.*\b(payload|metadata)\b", re.DOTALL)


def touches(code: str, literals: list[tuple[int, str]]) -> list[tuple[int, str]]:
    in_code = [(line, match.group()) for line, match in found_in(code, TOUCHES)]
    return in_code + [(line, match.group()) for line, text in literals if (match := DOCUMENT.search(text))]


def test_documents_of_events_are_read_behind_the_door_only():
    found = {
        name(path): [f"{name(path)}:{line}: {what}" for line, what in touches(code_of(path), literals_of(path))]
        for path in files(".rs", "src")
    }
    assert not [place for path, places in found.items() if path not in MAY_TOUCH for place in places]
    # Who does not any more is taken off the list.
    assert {path for path, places in found.items() if places} == set(MAY_TOUCH)


def test_a_read_beside_the_door_would_be_found():
    assert touches("row.jsonb_opt(column::PAYLOAD)?", []) and touches("StoredContent::of_row(row)", [])
    assert touches("", [(1, "select e.payload from {events} e")]) and touches("", [(1, "select version, metadata from {events}")])
    assert not touches("event.payload()?", [(1, "payload"), (2, "The most bytes of text that a payload may have.")])


#: Who reads documents of other tables' rows.
OTHER_DOCUMENTS = {
    "src/state/folds.rs": "a fold's initial state and rules",
    "src/state/snapshot.rs": "states of snapshots",
    "src/projection/rebuild.rs": "states of a table that is filled again",
}


def test_nobody_else_reads_a_document_of_a_row():
    """By a number it could be any document."""
    reads = {name(path) for path in files(".rs", "src") if found_in(code_of(path), r"\brow(\(\))?\s*\.jsonb_opt\(")}
    assert reads == {"src/log/stored.rs", "src/present/event.rs", *OTHER_DOCUMENTS}


def test_sql_names_documents_of_events_in_few_places():
    found = {}
    for path in files(".sql", "sql"):
        if is_test(path) or path.parent == ROOT / "sql":
            continue
        code = re.sub(r"--[^\n]*|\$\$.*?\$\$|'(?:[^']|'')*'", "", path.read_text(), flags=re.DOTALL)
        if count := len(re.findall(r"\b(?:payload|metadata)\b", code)):
            found[str(path.relative_to(ROOT / "sql"))] = count
    assert found == {path: count for path, (count, _) in MAY_NAME.items()}
