"""docs/reference.md is whole: every function, view, setting and error of the extension, as it is."""

import re

from documents import ROOT

REFERENCE = ROOT / "docs/reference.md"


def section(title):
    text = REFERENCE.read_text(encoding="utf-8")
    return re.search(rf"^## {title}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[1]


def squeezed(text):
    return re.sub(r"\s+", " ", text).strip()


def test_every_function_stands_there_with_its_signature(database):
    text = REFERENCE.read_text(encoding="utf-8")
    documented = {squeezed(signature) for signature in re.findall(r"^```\n(es_.*?)^```$", text, re.MULTILINE | re.DOTALL)}
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
    assert documented == installed


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
    raised = set(re.findall(r'"(ES\d{3})"', (ROOT / "crates/core/src/error.rs").read_text(encoding="utf-8")))
    assert len(raised) > 10
    assert documented == raised
