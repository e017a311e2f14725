"""What the fuzzer calls and with what: the functions and settings are read from the catalog, so that a new one is tried by itself;
the values are boundaries of each type, and names of things that exist, so that calls also get past the first check.
"""

from __future__ import annotations

import dataclasses
import random

from database import rows

#: The roles that call: without any right, with every privilege, with one, the operator's, and the superuser.
ROLES = ("fuzz_nobody", "fuzz_admin", "fuzz_reader", "fuzz_monitor", "postgres")

SCENARIO = """
create function fuzz_fold(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as
$$ begin return jsonb_build_object('sum', (state ->> 'sum')::numeric + (event.payload ->> 'n')::numeric); end $$;
create function fuzz_upcast(payload jsonb, metadata jsonb) returns jsonb immutable language sql as $$ select payload || '{"new": true}' $$;
create table fuzz_seen (global_position bigint primary key);
create function fuzz_handler(event eventstream.event) returns void language sql as
$$ insert into fuzz_seen values (event.global_position) on conflict do nothing $$;
create function fuzz_batch_handler(events eventstream.event[]) returns void language sql as $$ select $$;
create function fuzz_reset() returns void language sql as $$ truncate fuzz_seen $$;
select es_append_events('acc-1', (select jsonb_agg(jsonb_build_object('type', 'Added', 'payload', jsonb_build_object('n', n))) from generate_series(1, 20) n));
select es_append('acc-' || n, 'Added', jsonb_build_object('n', n), subject => 'person-' || n % 3, occurred_at => now() - n * interval '1 day')
from generate_series(2, 30) n;
select es_append('stock-' || n, 'Counted', '{"n": 1.50}', event_id => ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid) from generate_series(1, 5) n;
select es_append('stock-9', 'Counted', '{"n": 1}'), es_close_stream('stock-9', 'gone');
select es_register_fold('total', 'acc', 'fuzz_fold(jsonb, eventstream.event)'::regprocedure, initial_state => '{"sum": 0}', snapshot_every => 5);
select es_register_fold('rules', 'stock', rules => '{"on": {"Counted": [{"add": {"/sum": "/n"}}]}}');
select es_register_upcaster('Added', 1, 'fuzz_upcast(jsonb, jsonb)'::regprocedure);
select es_create_projection('handled', 'fuzz_handler(eventstream.event)'::regprocedure, categories => array['stock'], reset => 'fuzz_reset()'::regprocedure);
select es_create_state_table('totals', 'acc', '[{"name": "sum", "type": "numeric", "path": "/sum"}]');
select es_create_temporal_view('accounts', 'acc', '[{"name": "sum", "type": "numeric", "path": "/sum"}]');
select es_create_subscription('mail', categories => array['acc']);
select es_snapshot('acc-1');
select es_create_tenant('other');
"""

NAMES = ("total", "rules", "handled", "totals", "mail", "accounts", "default", "other", "acc", "stock", "acc-1", "acc-2", "stock-9", "none")
TEXTS = (
    None, "", " ", "x", "a-1", "acc-1 ", "-", "a-", "$audit-1", "*", "public", "Added", "read", "append", "manage", "async", "inline",
    "version", "occurred_at", "UTC", "Europe/Berlin", "+02:00", "Nowhere/None", "infinity", "'; drop table x; --", '"', "\\", "%s", "{}",
    "x" * 255, "x" * 256, "x" * 5000, "x" * 1_000_000, "é" * 200, "e\u0301", "\u200b", "\u202e", "\U0001f600", "ǅ" * 128, "\n", "\x01", "\x7f",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV", "8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "2024-02-30", "fuzz_handler(eventstream.event)", "nothing()",
)  # fmt: skip
INTEGERS = (None, 0, 1, -1, 2, 10, 1000, 2**31 - 1, -(2**31))
LONGS = (*INTEGERS, 2**24, 2**31, 2**63 - 1, -(2**63))
DOCUMENTS = (
    None, "null", "{}", "[]", "0", '""', "true", "[null]", "[[]]", "[{}]", '{"": {}}', '{"n": 1}', '{"n": 1e131071}', '{"n": -0.0}',
    '{"n": "12.50"}', '{"a": ' * 60 + "1" + "}" * 60, '{"a": ' * 2000 + "1" + "}" * 2000, "[" * 6000 + "]" * 6000,
    "[" + ",".join(["1"] * 100_000) + "]", '{"x": "' + "y" * 2_000_000 + '"}', '{"n": ' + "9" * 5000 + "}",
    '[{"type": "Added", "payload": {"n": 1}}]', '[{"type": "Added", "payload": {"n": 1}, "event_id": "x"}]', '[{"type": 1, "payload": 1}]',
    '[{"type": "Added", "payload": {"n": 1}, "occurred_at": "infinity"}]', '[{"type": "Added", "payload": {}, "occurred_at": "2024-01-01T00:00:00Z"}]',
    '[{"stream": "acc-1", "events": [{"type": "Added", "payload": {"n": 1}}]}]', '[{"stream": "acc-1", "events": []}]', '[{"stream": null}]',
    '[{"stream": "new-1", "expected_version": -1, "events": [{"type": "A", "payload": 1}]}]', '[{"name": "sum", "type": "numeric", "path": "/sum"}]',
    '[{"name": "sum", "type": "no_such_type", "path": "/sum"}]', '[{"name": "a\\"b", "type": "text[]", "path": ""}]', '{"on": {"Counted": [{"add": {"/sum": "/n"}}]}}', '{"on": {"Counted": [{"add": {"/{/n}": "/n"}}]}}',
    '{"on": {}}', '{"on": {"Counted": [{"nothing": 1}]}}', '{"batch_size": 1}', '{"batch_size": "x", "unknown": null}', '{"actor": "me"}',
    '{"traceparent": "00-x"}',
)  # fmt: skip
TIMES = (
    None, "infinity", "-infinity", "epoch", "now", "2024-02-29 23:59:59.999999+00", "4713-01-01 00:00:00+00 BC", "294276-12-31 23:59:59+00",
    "2000-01-01", "9999-12-31 23:59:59.999999Z", "0001-01-01 00:00:00+00",
)  # fmt: skip
INTERVALS = (None, "0", "1 us", "1 ms", "-1 s", "1 s", "1 mon", "24 hours", "178000000 years", "-178000000 years", "1e9 days", "2147483647 months")
UUIDS = (
    None, "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "00000000-0000-0000-0000-000000000001",
    "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
)  # fmt: skip
FUNCTIONS = (
    None, "0", "4294967295", "now()", "fuzz_fold(jsonb, eventstream.event)", "fuzz_handler(eventstream.event)", "fuzz_batch_handler(eventstream.event[])",
    "fuzz_upcast(jsonb, jsonb)", "fuzz_reset()", "pg_sleep(float8)", "es_append(text,text,jsonb,bigint,jsonb,uuid,timestamptz,int,text)",
)  # fmt: skip
ARRAYS = (None, [], [None], [""], ["acc"], ["acc", "acc"], ["acc", "stock", "x"], ["Added"], ["x" * 1000], ["c" + str(n) for n in range(20_000)])
BOOLEANS = (None, True, False)
DATES = (None, "infinity", "-infinity", "2024-02-29", "4713-01-01 BC", "5874897-12-31", "2024-10-26", "1970-01-01")
NUMBERS = (None, "0", "-1", "NaN", "Infinity", "1e300", "1e-300", "0.5")

VALUES = {
    "text": TEXTS + NAMES, "name": ("fuzz_nobody", "public", "", "x" * 70, None), "integer": INTEGERS, "bigint": LONGS, "jsonb": DOCUMENTS,
    "timestamp with time zone": TIMES, "interval": INTERVALS, "uuid": UUIDS, "regprocedure": FUNCTIONS, "text[]": ARRAYS, "boolean": BOOLEANS,
    "date": DATES, "numeric": NUMBERS, "double precision": NUMBERS,
}  # fmt: skip

#: What lets a call get past its first checks, by the argument's name.
USUAL = {
    "stream": "acc-1", "category": "acc", "event_type": "Added", "payload": '{"n": 1}', "events": '[{"type": "Added", "payload": {"n": 1}}]',
    "appends": '[{"stream": "acc-1", "events": [{"type": "Added", "payload": {"n": 1}}]}]', "metadata": "{}", "fold": None, "reason": "because",
    "projection": "handled", "subscription": "mail", "consumer": "me", "subject": "person-1", "time_zone": "Europe/Berlin", "day": "2024-02-29",
    "role": "fuzz_nobody", "privilege": "read", "tenant": None, "view_name": "fuzz_view", "columns": '[{"name": "sum", "type": "numeric", "path": "/sum"}]', "handler": "fuzz_handler(eventstream.event)",
    "ulid": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "settings": '{"batch_size": 10}', "timeout": "1 ms", "wait": "0", "lease": "30 s", "id": 1,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Function:
    schema: str
    name: str
    arguments: tuple[tuple[str, str], ...]
    required: int

    def call(self, given: dict[str, object]) -> tuple[str, list]:
        types = dict(self.arguments)
        passed = ", ".join(f'"{name}" => %s::{types[name]}' for name in given)
        return f'select * from "{self.schema}"."{self.name}"({passed})', list(given.values())


def functions(connection) -> list[Function]:
    """Every es_* function and every other function of the extension that some role besides the owner may call."""
    found = rows(
        connection,
        """
        select n.nspname, p.proname, coalesce(p.proargnames[1:p.pronargs], '{}'),
               array(select format_type(t, null) from unnest(p.proargtypes) with ordinality a(t, place) order by place),
               p.pronargs - p.pronargdefaults
        from pg_proc p
        join pg_namespace n on n.oid = p.pronamespace
        join pg_depend d on d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
        join pg_extension e on e.oid = d.refobjid and d.refclassid = 'pg_extension'::regclass
        where e.extname = 'eventstream' and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)
          and (p.proname like 'es\\_%' or n.nspname = 'eventstream') and array_length(p.proargnames, 1) >= p.pronargs is not false
        order by 1, 2, p.oid
        """,
    )
    return [Function(schema, name, tuple(zip(names, types)), required) for schema, name, names, types, required in found]


def settings(connection) -> list[str]:
    return [name for (name,) in rows(connection, "select name from pg_settings where name like 'eventstream.%' and context in ('user', 'superuser') order by 1")]


def values_of(kind: str) -> tuple:
    return VALUES.get(kind, (None,))


def usual(argument: tuple[str, str]):
    """A value with which a call is likely to go on."""
    name, kind = argument
    if name in USUAL:
        return USUAL[name]
    if kind in ("text", "name"):
        return {"name": "handled", "view_name": "accounts"}.get(name, "total")
    return next((value for value in values_of(kind)[1:] if value is not None), None)


def sweep(function: Function):
    """The call with usual values, and each argument once with each of its boundaries while the others are usual."""
    base = {argument[0]: usual(argument) for argument in function.arguments[: function.required]}
    yield base
    for name, kind in function.arguments:
        for value in values_of(kind):
            yield {**base, name: value}


def draw(chance: random.Random, function: Function) -> dict[str, object]:
    """Any of the arguments, each either usual or a boundary."""
    given = {}
    for place, argument in enumerate(function.arguments):
        if place >= function.required and chance.random() < 0.6:
            continue
        given[argument[0]] = usual(argument) if chance.random() < 0.6 else chance.choice(values_of(argument[1]))
    return given
