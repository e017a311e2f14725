"""A role without any grant is told that, and nothing else, whatever it asks: every es_* function, with arguments that are too long, too many, too
small, too large, NULL, or nonsense."""

import psycopg
from database import rows
from test_memory import BY_NAME, FUNCTIONS, PLAIN, TYPES

#: They say nothing about the log, and need no right.
FREE = {"es_day_end", "es_last_append", "es_make_command", "es_make_event", "es_new_event_id", "es_require", "es_set_as_of", "es_stream_name", "es_tests_done", "es_ulid", "es_ulid_to_uuid", "es_use_token"}

WRONG = {
    "text": ["repeat('x', 2000000)", "''", "' x'", "null"],
    "text[]": ["array_fill('x'::text, array[2000])", "array[repeat('x', 2000000)]", "'{}'::text[]", "array[null]::text[]"],
    "jsonb": ["'[]'::jsonb", "'1'::jsonb", "jsonb_build_object('type', repeat('x', 2000000))", "null"],
    "int4": ["-1", "2147483647", "null"],
    "int8": ["-1", "9223372036854775807", "null"],
    "interval": ["interval '-1 day'", "interval '178000000 years'", "null"],
    "uuid": ["null"],
    "bytea": ["null"],
    "timestamptz": ["timestamptz 'infinity'"],
    "bool": ["null"],
}
RIGHTS = {"42501", "ES040", "ES041"}


def test_rights_come_before_bounds(quiet):
    quiet.role("nobody_special")
    with quiet.connect() as session:
        functions = rows(session, FUNCTIONS)
        session.execute("select es_append('account-1', 'Opened', '{}')")
    assert len(functions) > 60
    told, asked = [], 0
    with quiet.connect(user="nobody_special") as session:
        for name, is_set, arguments in functions:
            if name.split(".")[-1] in FREE or not name.split(".")[-1].startswith("es_"):
                continue
            types = [argument.split(":", 1) for argument in arguments]
            types = [(argument, TYPES.get(kind, kind)) for argument, kind in types]
            usual = [BY_NAME.get(argument, PLAIN[kind]) for argument, kind in types]
            calls = [usual]
            for place, (_, kind) in enumerate(types):
                calls += [[*usual[:place], wrong, *usual[place + 1 :]] for wrong in WRONG.get(kind, [])]
            for call in calls:
                given = ", ".join(f"({value})::{kind}" for value, (_, kind) in zip(call, types, strict=True))
                asked += 1
                try:
                    session.execute(f"select * from {name}({given})")
                    told.append((name, given[:200], None))
                except psycopg.Error as error:
                    if error.sqlstate not in RIGHTS:
                        told.append((name, given[:200], error.sqlstate, error.diag.message_primary[:200]))
    assert asked > 300
    assert told == [], f"{len(told)} of {asked}: {told[:20]}"
