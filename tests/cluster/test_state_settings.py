"""A state is a function of the events, whatever the session that asks for it, or in which it is made and kept, has set: tried with every
setting that may be changed, hostile values, each alone and all at once, in SQL and in PL/pgSQL, with helper functions whose plans the
session has made before under its own settings, through column casts, inline tables, handlers and snapshots.
"""

import hostile
import psycopg
import pytest
from database import value
from psycopg.types.json import Jsonb

PAYLOAD = {
    "number": 1234.5,
    "time": "2024-03-31 12:00:00",
    "date": "03/04/2024",
    "interval": "1 day -02:03",
    "bytes": "\\x4142ff",
    "array": "{1,NULL,2}",
    "xml": "<a/>",
    "back": "a\\b",
}

#: What a session can change the meaning or the text of. Literals become constants of a plan when it is made, casts happen when it runs.
EXPRESSIONS = {
    "float": "(p ->> 'number')::float8::text",
    "float_literal": "(0.1::float8 / 3)::text",
    "time": "(p ->> 'time')::timestamptz::text",
    "time_literal": "extract(epoch from timestamptz '2024-01-01 00:00')",
    "abbreviation": "extract(epoch from timestamptz '2024-01-01 00:00 EST')",
    "date": "(p ->> 'date')::date - date '1/2/2024'",
    "interval": "(p ->> 'interval')::interval::text",
    "interval_literal": "(interval '-1 2:03')::text",
    "bytes": "(p ->> 'bytes')::bytea::text",
    "bytes_literal": "'\\x41ff'::bytea::text",
    "array": "(p ->> 'array')::text[] is distinct from array['1', null, '2']",
    "array_literal": "'{NULL}'::text[] is distinct from array[null::text]",
    "xml": "xmlelement(name a, (p ->> 'bytes')::bytea)::text",
    "document": "(p ->> 'xml')::xml is document and ('x' || (p ->> 'xml'))::xml is document",
    "identifier": "format('%I', 'plain')",
    "is_null": "((p ->> 'none') = null) is null",
    "back": "p ->> 'back' = 'a\\b'",
    "words": "to_tsvector(p ->> 'xml' || ' the houses')::text",
    "money": "(p ->> 'number')::numeric::money::text",
    "month": "to_char((p ->> 'time')::timestamptz, 'TMMonth TZ')",
    "zone": "current_setting('TimeZone')",
    "as_of": "coalesce(current_setting('eventstream.as_of'), '')",
    "epoch_day": "extract(epoch from date_trunc('day', timestamptz '2024-01-01 23:30+00'))",
}
BUILD = "jsonb_build_object(" + ", ".join(f"'{name}', {text}" for name, text in EXPRESSIONS.items()) + ")"

COLUMNS = [
    {"name": name, "type": type_name, "path": f"/raw/{path}"}
    for name, type_name, path in [
        ("a_numeric", "numeric", "number"),
        ("a_float", "float8", "number"),
        ("a_real", "real", "number"),
        ("a_money", "money", "number"),
        ("a_time", "timestamptz", "time"),
        ("a_timestamp", "timestamp", "time"),
        ("a_date", "date", "date"),
        ("an_interval", "interval", "interval"),
        ("bytes", "bytea", "bytes"),
        ("strings", "text[]", "array"),
        ("an_xml", "xml", "xml"),
    ]
]

SETUP = f"""
create schema app;
create schema planted;
create function app.plain(p jsonb) returns jsonb language plpgsql immutable as $$
declare
    shadow int := 1;
begin
    return {BUILD};
end $$;
-- A plan of this one is made under a search path of its own, the same in every session.
create function app.with_a_path(p jsonb) returns jsonb language plpgsql immutable set search_path = app, pg_temp as $$
begin
    return {BUILD};
end $$;
create function app.in_sql(p jsonb) returns jsonb language sql immutable as $$ select {BUILD} $$;
create function app.asserts() returns text language plpgsql immutable as $$
declare
    first int;
begin
    assert false;
    return 'no assert';
exception when assert_failure then
    select n into first from (values (1), (2)) v (n);
    return first;
end $$;
create function app.helped(state jsonb, event eventstream.event) returns jsonb language plpgsql immutable as $$
begin
    return jsonb_build_object('raw', event.payload, 'plain', app.plain(event.payload), 'path', app.with_a_path(event.payload),
                              'sql', app.in_sql(event.payload), 'asserts', app.asserts());
end $$;
create function app.folded_in_sql(state jsonb, event eventstream.event) returns jsonb language sql immutable as $$
    select jsonb_build_object('n', app.plain(event.payload), 'p', {BUILD.replace('p ->>', 'event.payload ->>')})
$$;
create function app.upcast(payload jsonb, metadata jsonb) returns jsonb language plpgsql immutable as $$
begin
    return payload || jsonb_build_object('upcast', app.plain(payload));
end $$;
create table app.seen (stream text, version bigint, said jsonb, stamped text);
create function app.on_event(event eventstream.event) returns void language plpgsql as $$
begin
    insert into app.seen values (event.stream, event.version, jsonb_build_object('plain', app.plain(event.payload),
        'path', app.with_a_path(event.payload), 'here', {BUILD.replace('p ->>', 'event.payload ->>')}));
end $$;
create function app.stamp() returns trigger language plpgsql as $$
begin
    new.stamped := (timestamptz '2024-01-01 00:00')::text || (1234.5::float8)::text || app.with_a_path(new.said -> 'none');
    return new;
end $$;
create trigger stamp before insert on app.seen for each row execute function app.stamp();
"""


def prepare(session) -> None:
    try:
        session.execute("select '<a/>'::xml")
    except psycopg.errors.FeatureNotSupported as error:
        pytest.skip(str(error))
    session.execute(SETUP)
    register = "select es_register_fold(%s, 'm', %s::regprocedure, is_default => %s)"
    session.execute(register, ("helped", "app.helped(jsonb, eventstream.event)", True))
    session.execute(register, ("in_sql", "app.folded_in_sql(jsonb, eventstream.event)", False))
    session.execute("select es_register_upcaster('Happened', 1, 'app.upcast(jsonb, jsonb)')")
    session.execute("select es_create_state_table('app.rows', 'm', %s, mode => 'inline')", (Jsonb(COLUMNS),))
    session.execute("select es_create_projection('seen', 'app.on_event(eventstream.event)', mode => 'inline', categories => '{m}')")


def work(session, stream: str) -> None:
    """What leaves states behind, or gives them."""
    payload = Jsonb(PAYLOAD)
    for _ in range(3):
        for helper in ("plain", "with_a_path", "in_sql"):
            try:
                session.execute(f"select app.{helper}(%s)", (payload,))
            except Exception:  # noqa: BLE001 - under its own settings it may fail; its plans are made all the same
                pass
    session.execute("select es_append(%s, 'Happened', %s)", (stream, payload))
    session.execute("select es_append_events(%s, %s)", (stream, Jsonb([{"type": "Happened", "payload": PAYLOAD}] * 2)))
    session.execute("select es_snapshot(%s), es_snapshot(%s, 'in_sql')", (stream, stream))
    for name, question in {"now": "es_state(%s)", "second": "es_state_at_version(%s, 2)", "in SQL": "es_state(%s, 'in_sql')"}.items():
        session.execute(f"insert into app.answers select %s, %s, {question}", (stream, name, stream))


ROW = ", ".join(
    f"row_to_json(r) ->> '{column['name']}'" if column["type"] != "bytea" else "encode(r.bytes, 'hex')" for column in COLUMNS
)


def left_by(session, stream: str) -> dict:
    """What is kept of a stream, as a session with the default settings reads it."""
    answer = dict(session.execute("select question, state from app.answers where stream = %s", (stream,)).fetchall())
    for fold in ("helped", "in_sql"):
        answer[f"snapshot of {fold}"] = value(session, "select es_snapshot_state(%s, fold => %s)", stream, fold)
    answer["row"] = session.execute(f"select version, {ROW} from app.rows r where stream = %s", (stream,)).fetchall()
    seen = "select version, said, stamped from app.seen where stream = %s order by version"
    answer["seen"] = session.execute(seen, (stream,)).fetchall()
    answer["folded anew"] = value(session, "select es_state(%s)", stream)
    return answer


def test_no_setting_changes_what_a_state_is(quiet):
    with quiet.connect() as clean:
        prepare(clean)
        clean.execute("create table app.answers (stream text, question text, state jsonb)")
        clean.execute("set timezone = 'UTC'")
        assert hostile.unknown(clean) == []
        settings = hostile.settings_of(clean)
    with quiet.connect() as session:
        work(session, "m-pinned")
        pinned = left_by(session, "m-pinned")
    assert pinned["folded anew"]["plain"]["float"] == "1234.5"
    assert pinned["folded anew"]["plain"]["time"] == "2024-03-31 12:00:00+00"
    assert pinned["folded anew"]["asserts"] == "1"
    with quiet.connect() as session:
        session.execute("set standard_conforming_strings = off")
        session.execute("reset standard_conforming_strings")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="standard_conforming_strings"):
            session.execute("select es_state('m-pinned')")
    alone = [(name, {name: setting}) for name, setting in settings.items()]
    differences = []
    for number, (name, some) in enumerate([*alone, ("all", hostile.together(settings))]):
        stream = f"m-{number}"
        try:
            with quiet.connect() as session:
                hostile.set_to(session, some)
                work(session, stream)
        except psycopg.Error as error:
            # What PL/pgSQL has read by other rules stays so for the session: it is refused, also when the rules are the usual ones again.
            if (error.sqlstate, "standard_conforming_strings" in some) != ("0A000", True):
                differences.append((name, "work", str(error)))
            continue
        with quiet.connect() as clean:
            found = left_by(clean, stream)
        differences += [(name, what, found[what], pinned[what]) for what in pinned if found[what] != pinned[what]]
    assert differences == []
