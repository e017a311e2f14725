"""Where the SQL stands: each object of sql/ in the folder of the room that owns it, which is who writes a table, and who answers a function. And which deciders people are shown."""

import re

from source import ROOT, files, is_test, literals_of, name

#: Whose the functions are that a file of src/api binds.
OF_FILE = {
    "announce": "ops", "append": "log", "audit": "proof", "category": "command", "command": "command", "condition": "command", "day": "state", "decider": "command",
    "event_type": "command", "fold": "state", "guard": "proof", "history": "state", "invariant": "command",
    "made": "state", "operation": "command", "period": "command", "protect": "command", "maintain": "ops", "operate": "ops", "projection": "projection", "query": "log", "read": "log", "reveal": "command", "snapshot": "state",
    "state": "state", "stats": "ops", "subscription": "subscription", "temporal": "state", "tenant": "access", "testing": "command", "token": "access", "trigger": "log",
    "verify": "proof", "view": "access",
}  # fmt: skip
#: Whose the others are: views, functions that are written in SQL, those that stand among others in src/api, and what is written under another name
#: than its own (partitions, sequences).
OF_NAME = {
    "access": "bind_roles grants is_home role_of see_roles show_activities tenant_ids tenant_uuids token_role_faults",
    "log": """access_log administration audit definition_key definition_of definitions event_tags events forget_values home_of_log horizon_holders make_partition note_act note_definition positions
              recorded_floor shown_metadata shown_payload shown_salt stream_ids stream_segments streams tag_partitions this_log""",
    "state": """column_expressions comment_columns is_of_this_session differing_parts fold_fingerprint folds make_temporal_view misfit relation_asked_for
                snapshots stream_names temporal_view_is_there temporal_view_queries upcasters""",
    "command": "categories category_rules command_answers commands deciders event_types invariants period_ids periods protections scheduled_command_ids scheduled_commands shown_answer shown_command shown_command_metadata shown_command_text shown_error",
    "projection": "drop_state_table es_create_state_table es_drop_projection make_state_table projection_ids state_table_statements",
    "subscription": "subscription_ids",
    "proof": "broken_guards content_digest enabling_guards proof",
    "ops": "dead_letters health progress projections shown_text stats subscriptions tenants",
    "schema": "command delivery event stream_info",
}
ROOM_OF = {word: room for room, words in OF_NAME.items() for word in words.split()} | {"dead_letter_ids": "log"}
OBJECT = re.compile(r"(?ms)^create (function|table|view|sequence|type) ([\w.]+)((?:(?!;$).)*)")
WRITES = re.compile(r"\b(?:insert into|update|delete from)\s+(_eventstream\.\w+)")


def written(literals: dict[str, list[str]]) -> dict[str, set[str]]:
    """The rooms that write each table, from the literals of files of src/ by their paths."""
    found: dict[str, set[str]] = {}
    for path, texts in literals.items():
        for text in texts:
            for table in WRITES.findall(re.sub(r"\\\n\s*", "", text)):
                found.setdefault(table, set()).add(path.split("/")[1])
    return found


def misplaced(sql: dict[str, str], literals: dict[str, list[str]]) -> list[str]:
    """Objects that stand in another folder than their room's; `sql` by the path below sql/."""
    writers, bad = written(literals), []
    bound = {text: path.rpartition("/")[2].removesuffix(".rs") for path, texts in literals.items() if "/api/" in path for text in texts}
    for path, text in sql.items():
        for kind, full_name, rest in OBJECT.findall(text):
            short = full_name.rpartition(".")[2]
            symbol = re.search(r"'MODULE_PATHNAME', '(\w+)'", rest)
            rooms = writers.get(full_name, set()) if kind == "table" else set()
            if not rooms and short in ROOM_OF:
                rooms = {ROOM_OF[short]}
            elif not rooms and symbol:
                rooms = {OF_FILE.get(bound.get(symbol[1], ""), "")}
            if rooms != {path.split("/")[0]}:
                bad.append(f"sql/{path}: {kind} {full_name} is of {', '.join(sorted(rooms)) or 'nobody that OF_NAME knows'}")
    return bad


def sources() -> tuple[dict[str, str], dict[str, list[str]]]:
    sql = {path: text for path, text in ((name(p).removeprefix("sql/"), p.read_text()) for p in files(".sql", "sql")) if "/" in path}
    return sql, {name(path): [text for _, text in literals_of(path)] for path in files(".rs", "src") if not is_test(path)}


def test_each_object_stands_with_the_room_that_owns_it():
    assert misplaced(*sources()) == []


def test_the_lists_name_only_what_there_is():
    sql, _ = sources()
    there = {full_name.rpartition(".")[2] for text in sql.values() for _, full_name, _ in OBJECT.findall(text)}
    assert set(ROOM_OF) <= there
    assert set(OF_FILE) == {path.stem for path in files(".rs", "src/api")} - {"mod"}


def test_the_map_names_every_folder_and_file_of_sql():
    section = re.search(r"(?ms)^### SQL, a folder a room$(.*?)(?=^##)", (ROOT / "ARCHITECTURE.md").read_text())[1]
    rows = re.findall(r"(?m)^\| ([\w, ]+) \| (.*) \|$", section)
    named = {f"{folder}/{file}" for folders, files_of in rows for folder in folders.split(", ") for file in re.findall(r"\w+\.sql", files_of)}
    assert named == set(sources()[0])


def test_a_misplaced_object_would_be_found():
    literals = {
        "src/access/grant.rs": ["insert into _eventstream.keys (a) \\\n        values ($1)"],
        "src/api/tenant.rs": ["eventstream_grant"],
        "src/ops/health.rs": ["delete from _eventstream.shared"],
        "src/log/read.rs": ["update _eventstream.shared set a = 1"],
    }
    table, grant = "create table _eventstream.keys (\n    a int\n);\n", "create function es_grant() language c as 'MODULE_PATHNAME', 'eventstream_grant';\n"
    assert misplaced({"access/tables.sql": table, "access/functions.sql": grant}, literals) == []
    assert misplaced({"log/tables.sql": table}, literals) == ["sql/log/tables.sql: table _eventstream.keys is of access"]
    assert misplaced({"ops/functions.sql": grant}, literals) == ["sql/ops/functions.sql: function es_grant is of access"]
    assert misplaced({"log/tables.sql": "create table _eventstream.shared (a int);"}, literals) == ["sql/log/tables.sql: table _eventstream.shared is of log, ops"]
    assert misplaced({"log/views.sql": "create view eventstream.new as select 1;"}, literals) == ["sql/log/views.sql: view eventstream.new is of nobody that OF_NAME knows"]


def deciders_of_any_word(text: str) -> list[str]:
    """The deciders that a text registers without a list of commands: such a one takes any word, and any payload, an amount below zero too."""
    calls = re.findall(r"es_register_decider\('(\w+)'.*?\);", text, re.DOTALL)
    listed = re.findall(r"es_register_decider\('(\w+)'(?:(?!\);).)*?\bcommands =>", text, re.DOTALL)
    return [decider for decider in calls if decider not in listed]


def test_deciders_that_people_copy_list_their_commands():
    shown = [ROOT / "README.md", *files(".md", "docs"), *files(".sql", "examples"), *files(".sh", "examples")]
    assert any("es_register_decider('" in path.read_text() for path in shown)
    bad = {name(path): found for path in shown if (found := deciders_of_any_word(path.read_text()))}
    assert not bad, f"deciders without commands: {bad}"


def test_a_decider_without_commands_would_be_found():
    without = "select es_register_decider('a', 'a', 'f(jsonb, eventstream.command)');\n"
    listed = without.replace("'a', 'a'", "'b', 'a'").replace("')", "', commands => '{}')")
    assert deciders_of_any_word(without + listed) == ["a"]
