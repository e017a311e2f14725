"""docs/reference.md is whole: every function, view, setting and error of the extension, as it is.

EVENTSTREAM_ACCEPT=1 writes signatures as they are installed into it, into the blocks that begin with the function's name, and pg_test/functions.txt anew.
"""

import os
import re
import textwrap

from documents import ROOT

REFERENCE = ROOT / "docs/reference.md"


def section(title):
    text = REFERENCE.read_text(encoding="utf-8")
    return re.search(rf"^## {title}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[1]


def squeezed(text):
    return re.sub(r"\s+", " ", text).strip()


SIGNATURE = re.compile(r"^```\n(es_\w+)(.*?)^```$", re.MULTILINE | re.DOTALL)


def renewed(text, installed):
    """The reference with the signatures that are installed, by the functions' names."""

    def block(match):
        signature = installed.get(match[1])
        if signature in (None, squeezed(match[1] + match[2])):
            return match.group()
        # Blanks that belong to a value or a type stay where they are.
        lines = textwrap.wrap(signature, 118, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
        return "```\n" + "\n".join(lines) + "\n```"

    return SIGNATURE.sub(block, text)


def test_a_signature_is_renewed_where_it_differs():
    text = "```\nes_a()\n```\n```\nes_b(x\n    int) returns int\n```\n"
    installed = {"es_a": "es_a(y text) returns int", "es_b": "es_b(x int) returns int"}
    assert renewed(text, installed) == text.replace("es_a()", "es_a(y text) returns int")


def test_every_function_stands_there_with_its_signature(database):
    text = REFERENCE.read_text(encoding="utf-8")
    documented = {squeezed(name + rest) for name, rest in SIGNATURE.findall(text)}
    printed = database.ask(
        r"""
        select p.proname || '(' || coalesce(arguments, '') || ') returns '
               || case when outputs is null then case when p.proretset then 'setof ' else '' end || format_type(p.prorettype, null)
                       else case when p.proretset then 'table(' else '(' end || outputs || ')' end
        from pg_proc p
        join pg_depend d on d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
        cross join lateral (
            select string_agg(name_and_type || coalesce(' = ' || default_value, ''), ', ' order by place)
                       filter (where mode = 'i') as arguments,
                   string_agg(name_and_type, ', ' order by place) filter (where mode in ('o', 't')) as outputs
            from (
                select place, coalesce(p.proargmodes[place], 'i') as mode,
                       p.proargnames[place] || ' ' || format_type(type, null) as name_and_type,
                       regexp_replace(pg_get_function_arg_default(p.oid, place::int), '::[a-z ]+(\[\])?$', '') as default_value
                from unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) with ordinality as types (type, place)
            ) as each
        ) as a
        where p.proname like 'es\_%'
        """
    )
    for long, short in (("timestamp with time zone", "timestamptz"), ("integer", "int"), ("boolean", "bool")):
        printed = re.sub(rf"\b{long}\b", short, printed)
    installed = set(printed.splitlines())
    assert len(installed) > 20
    if os.environ.get("EVENTSTREAM_ACCEPT"):
        REFERENCE.write_text(renewed(text, {signature.partition("(")[0]: signature for signature in installed}), encoding="utf-8")
    assert documented == installed


def test_the_list_of_functions_is_that_of_the_catalog(database):
    """pg_test/functions.txt, where a change of a mark is seen in review; pg_test/catalog.rs compares it for the other versions."""
    listed = ROOT / "pg_test/functions.txt"
    installed = database.ask(
        r"""
        select p.proname || '(' || pg_get_function_arguments(p.oid) || ') returns ' || pg_get_function_result(p.oid) || ' '
               || case p.provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end || ' parallel '
               || case p.proparallel when 's' then 'safe' when 'r' then 'restricted' else 'unsafe' end
        from pg_proc p
        join pg_depend d on d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
        where p.proname like 'es\_%'
        order by p.proname collate "C"
        """
    )
    before = listed.read_text(encoding="utf-8")
    if os.environ.get("EVENTSTREAM_ACCEPT"):
        listed.write_text(installed + "\n", encoding="utf-8")
    assert before == installed + "\n"


def test_every_setting_stands_there_with_its_default_and_range(database):
    rows = [
        [cell.strip().strip("`") for cell in line.strip("| ").split("|")]
        for line in section("Settings").splitlines()
        if line.startswith("| `eventstream.")
    ]
    documented = {(row[0], row[1], row[2]) for row in rows}
    installed = {
        tuple(line.split("|"))
        for line in database.ask(
            """
            select name,
                   case when coalesce(boot_val, '') = '' then '(unset)' else boot_val || coalesce(' ' || unit, '') end,
                   case context when 'user' then 'anybody' when 'superuser' then 'superuser' else context end
            from pg_settings
            where name like 'eventstream.%'
            """
        ).splitlines()
    }
    assert len(installed) >= 8
    assert documented == installed


def test_every_view_and_its_columns_stand_there(database):
    documented = dict(re.findall(r"^\| `eventstream\.(\w+)` \| (.*?) \|", section("Views"), re.MULTILINE))
    installed = dict(
        line.split("|")
        for line in database.ask(
            """
            select c.relname, string_agg(a.attname, ', ' order by a.attnum)
            from pg_class c
            join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
            where c.relnamespace = 'eventstream'::regnamespace and c.relkind = 'v'
            group by c.relname
            """
        ).splitlines()
    )
    assert len(installed) >= 5
    assert documented == installed


def test_every_error_stands_there():
    documented = set(re.findall(r"^\| (ES\d{3}) \|", section("Errors"), re.MULTILINE))
    sources = [(ROOT / f"crates/core/src/{file}.rs").read_text(encoding="utf-8") for file in ("error", "tokenless", "undecided", "violation", "withheld")]
    raised = set(re.findall(r'"(ES\d{3})"', "".join(sources)))
    assert len(raised) > 10
    assert documented == raised
