"""Where what an event says is read, and where events are written: found in the text of Rust or of SQL. What may is listed in test_door.py.

A row can say it without a name: `e.*`, `to_jsonb(e)`, `returning *`, a number for a column. So a star and a whole row count as its name does, where
the row is one of events, or of what is chosen when the statement runs.
"""

import re

from source import TOKEN, found_in, take_apart

#: What stands in a statement for a relation that is known only when it runs.
CHOSEN_LATER = r"""\{[\w.]*\}|%(?:\d+\$)?[Iis]|_?eventstream\.(?=[{%])(?:\{[\w.]*\}|%(?:\d+\$)?[Iis])"""
NO_ALIAS = set(
    """where order group limit join on left right full cross inner natural union except intersect for tablesample as set values returning using
    window offset fetch having lateral default select with when then else end loop do""".split()
)


def relation(views: set[str] = frozenset()) -> str:
    """Events, a partition of them, one of these views, or what is chosen later."""
    of_views = "".join(rf"|\b{re.escape(view)}\b" for view in sorted(views))
    return rf"""(?:_eventstream\."?events(?:_\w+)?\b"?|{CHOSEN_LATER}{of_views})"""


def stars(sql: str, of: str) -> list[str]:
    """Reads of all columns, whose source is not named beside it, or is `of`."""
    found = []
    for match in re.finditer(r"(?:\bselect\s+(?:all\s+|distinct\s+)?|\breturning\s+|,\s*|\b\w+\.)\*(?![<>=])", sql):
        source = re.match(r"\s+from\s+(?:only\s+)?(?!" + of + r"(?![\w(]|\.\w))(?:\{[\w.]*\})?(?:\w+\.)?\w+", sql[match.end() :])
        if "." in match.group() or not source:
            found.append(match.group())
    found += re.findall(rf"\bcopy\s+(?:only\s+)?{of}\s*(?:\([^)]*\)\s*)?to\b", sql)
    return found + re.findall(rf"(?:^|\(|\b(?:as|all|union|in))\s*(table\s+(?:only\s+)?(?!\{{\}}){of})", sql)


def whole_rows(sql: str, of: str) -> list[str]:
    """Rows of `of` as one value, by their alias, and those of a trigger."""
    found = [match.group() for match in re.finditer(r"\((?:new|old)\)|:=\s*(?:new|old)\s*;", sql)]
    for match in re.finditer(rf"({of})(?:(?:\s+as)?\s+(\w+)(?:\s*\([^()]*\))?)?", sql):
        alias = match[2]
        if re.search(r"[{%]", match[1]) and not re.search(r"\b(?:from|join|only)\s+\Z", sql[: match.start()]):
            continue
        if alias is None or alias in NO_ALIAS:
            # Its name is the alias then; of one that is chosen later nobody knows it.
            if not re.search(r"\w\Z", match[1]):
                continue
            alias = match[1].rpartition(".")[2]
        rest = sql[: match.start()] + " " * (match.end() - match.start()) + sql[match.end() :]
        # Also in other members of the list, where it is declared again.
        rest = re.sub(rf"{of}(?:\s+as)?\s+{alias}\b", " ", rest)
        found += [f"{alias} as a row"] * len(re.findall(rf"(?<![.\w{{'\"])\b{alias}\b(?!\s*[.}}('\w])", rest))
        found += [f"{alias} as a row"] * len(re.findall(rf"\(\s*{alias}\s*\)\s*\.|\b{alias}\s+(?:as|into|from)\b", rest))
    return found


def names(sql: str) -> list[str]:
    """But the setting eventstream.metadata."""
    return re.findall(r"(?<!\beventstream\.)\b(?:payload|metadata)\b", sql)


def reads(sql: str, views: set[str] = frozenset()) -> list[str]:
    """How one statement, or a text that has some, comes by documents of events."""
    of, sql = relation(views), sql.lower()
    return names(sql) + [what for statement in sql.split(";") for what in stars(statement, of) + whole_rows(statement + ";", of)]


def writes(sql: str) -> list[str]:
    """Where events are inserted, copied or changed, or a table that is chosen later."""
    sql = sql.lower()
    found = re.findall(r"\b(?:insert|merge)\s+into\s+(?!(?:only\s+)?(?:_eventstream\.(?!\"?events)|pg_temp\.)\w+)[^\s,(]*", sql)
    events = r"(?:_?eventstream\.\"?events\w*\"?|\{[\w.]*\}|%(?:\d+\$)?[Iis]|_eventstream\.[{%]\S*)"
    found += re.findall(rf"\bcopy\s+(?:only\s+)?{events}\s*(?:\([^)]*\)\s*)?(?:from|to)\b", sql)
    return found + re.findall(r"\b(?:update|delete\s+from)\s+(?:only\s+)?(?:_eventstream\.\"?events\w*|\{events\})", sql)


def without_comments(sql: str) -> str:
    """SQL as it runs: its texts and the bodies of its functions are kept, they hold statements too."""
    sql = re.sub(r"\bcomment on [^;']*?\bis\s*(?:\$\$.*?\$\$|'(?:[^']|'')*')", "", sql, flags=re.DOTALL)
    return re.sub(r"--[^\n]*|/\*.*?\*/", "", sql, flags=re.DOTALL)


#: What says nothing of them.
DIGEST = r"_eventstream\.content_digest\((\w+)\.salt, \1\.payload, \1\.metadata\)"


def beside_the_door(sql: str) -> str:
    """Without what SQL asks the door for, and the digest that says nothing: `_eventstream.shown_payload(e.tenant_id, e.event_type, e.schema_version, e.payload) as payload`."""
    asks = r"_eventstream\.shown_(\w+)\((\w+)\.tenant_id, \2\.event_type, \2\.schema_version, \2\.\1\)(?: as \1\b)?"
    salt = r"_eventstream\.shown_salt\((\w+)\.tenant_id, \1\.event_type, \1\.schema_version, \1\.payload, \1\.metadata, \1\.salt\)(?: as salt\b)?"
    return re.sub(DIGEST, "null", re.sub(salt, "null", re.sub(asks, "null", sql)))


def views_over_events(texts: list[str]) -> set[str]:
    """The views that show documents, also by way of others."""
    bodies = {}
    for text in texts:
        for match in re.finditer(r"create (?:or replace )?(?:materialized )?view ([\w.]+)([^;]*);", without_comments(text)):
            bodies[match[1]] = re.sub(DIGEST, "null", match[2])
    found: set[str] = set()
    while True:
        more = {view for view, body in bodies.items() if re.search(relation(found), body) and reads(body, found)}
        if more <= found:
            return found
        found |= more


def texts_of(source: str) -> list[tuple[int, str]]:
    """The literals of Rust source, those of one statement together, as `concat!` puts them; with the line of the first."""
    pieces, at, here, line = [], 0, [], 0

    def end_of(code: str) -> None:
        nonlocal here
        if ";" in code and here:
            pieces.append((line, " ".join(here)))
            here = []

    while match := TOKEN.search(source, at):
        end_of(source[at : match.start()])
        at = match.end()
        if match["block_comment"]:
            at = source.index("*/", at) + 2
        elif match["raw"] or match["text"]:
            text = match["text"]
            if match["raw"]:
                stop = source.index('"' + match["hashes"], at)
                text, at = source[match.end() : stop], stop + 1 + len(match["hashes"])
            else:
                text = text.split('"', 1)[1][:-1]
            line = line if here else source.count("\n", 0, match.start()) + 1
            here.append(text)
    end_of(";")
    return pieces


IN_CODE = r"\b(?:PAYLOAD|METADATA)\b|\bStoredContent\b|\b(?:of|through)_door\b"
#: What makes a text one for PostgreSQL, or a part of one.
SQL = re.compile(
    r"\b(?:select|returning|insert into|merge into|update|delete from|copy|table|from \{)"
    r"|\b\w+\.(?:payload|metadata|\*)|[(,]\s*(?:payload|metadata)\s*[,)]"
)


def reads_in_rust(source: str, views: set[str] = frozenset()) -> list[tuple[int, str]]:
    """By a column's constant, by what leads to the documents, in SQL; or by a name alone ('payload'), which may be on its way into SQL."""
    code, literals = take_apart(source)
    found = [(line, match.group()) for line, match in found_in(code, IN_CODE)]
    found += [(line, f"'{text}'") for line, text in literals if text in ("payload", "metadata", "*")]
    return found + [(line, what) for line, text in texts_of(source) if SQL.search(text.lower()) for what in reads(text, views)]


def writes_in_rust(source: str) -> list[tuple[int, str]]:
    return [(line, what) for line, text in texts_of(source) for what in writes(text)]


def opened_for_insert(source: str) -> list[str]:
    """The tables that rows are put into without a statement: what `Inserter::open` is given. Every other mention of it is one as well."""
    code = take_apart(source)[0]
    opened = re.findall(r"\bInserter::open\(\s*[\w.&]+,\s*([^)]*?)\s*\)", code)
    ordinary = re.findall(r"\buse [\w:]*\bInserter;|&mut Inserter\b|Inserter\)>|Option<Inserter>|\bInserter::open\(", code)
    return opened + ["Inserter"] * (len(re.findall(r"\bInserter\b", code)) - len(ordinary))
