"""The SQL in README.md and docs/ does what the text says (the rules stand in documents.py).

EVENTSTREAM_ACCEPT=1 writes what really came out into the documents; then read the difference.
"""

import concurrent.futures
import decimal
import os
import re
import uuid

import psycopg
import pytest

from documents import DOCUMENTS, ROOT, Session, blocks, examples, normalise

# How many blocks a document may keep from being run. Each is a promise that nobody checks.
NOT_RUN = {"decide.md": 1, "operate.md": 3, "test.md": 2}


def name(document):
    return document.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_the_sql_of_a_document_prints_what_the_document_says(document, empty_database):
    text = document.read_text(encoding="utf-8")
    pairs = list(examples(text))
    if not any("create extension eventstream" in sql.text for sql, _ in pairs):
        empty_database.ask("create extension eventstream")
    session = Session(empty_database.environment)
    wrong, accepted = [], []
    for sql, output in pairs:
        printed = session.run(sql.text)
        if output is None:
            if re.search(r"^(ERROR|FATAL|PANIC):", printed, re.MULTILINE):
                wrong.append(f"{name(document)}:{sql.line}: this block must run without an error:\n{printed}")
        elif normalise(printed) != normalise(output.text):
            wrong.append(
                f"{name(document)}:{output.line}: the document says:\n{output.text}\nand the server says:\n{printed}"
            )
            accepted.append((output, printed.strip("\n") + "\n"))
    # One convention on all pages, which the folds are written for: what a debit takes is above zero.
    negative = session.run("reset role; select stream_id, payload from _eventstream.events where event_type ~ 'Debited|Credited' and payload ->> 'amount' like '-%';")
    if "(0 rows)" not in negative:
        wrong.append(f"{name(document)}: negative amounts:\n{negative}")
    session.close()
    if accepted and os.environ.get("EVENTSTREAM_ACCEPT"):
        for output, printed in reversed(accepted):
            text = text[: output.start] + printed + text[output.end :]
        document.write_text(text, encoding="utf-8")
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_few_blocks_are_not_run_and_no_output_stands_alone(document):
    text = document.read_text(encoding="utf-8")
    found = blocks(text)
    outputs = {output.line for _, output in examples(text) if output is not None}
    alone = [block.line for block in found if block.info == "text" and block.line not in outputs]
    assert not alone, f"{name(document)}: ```text in lines {alone} follows no ```sql block that is run"
    unknown = [block.info for block in found if block.info.startswith("sql") and block.info not in ("sql", "sql no-run")]
    assert not unknown, f"{name(document)}: unknown kinds of SQL blocks: {unknown}"
    not_run = [block.line for block in found if block.info == "sql no-run"]
    assert len(not_run) <= NOT_RUN.get(document.name, 0), f"{name(document)}: not run: lines {not_run}"


def test_a_wrong_output_is_seen():
    text = "```sql\nselect 1;\n```\n\n```text\n ?column? \n----------\n        1\n(1 row)\n```\n"
    ((_, output),) = examples(text)
    printed = " ?column? \n----------\n        {}\n(1 row)\n\n"
    assert normalise(printed.format(1)) == normalise(output.text)
    assert normalise(printed.format(2)) != normalise(output.text)
    # Given times are compared, recorded ones are not.
    assert normalise("2024-01-02 00:00:00+00") != normalise("2024-01-03 00:00:00+00")
    assert normalise("2024-01-02 00:00:00.1+00") == normalise("2024-01-03 00:00:00.25+00")


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document):
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path) if path else document
        assert file.exists(), f"{name(document)}: {target} does not exist"
        if anchor:
            headings = re.findall(r"^#+ +(.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{name(document)}: {target}: no such heading in {name(file.resolve())}"


def test_the_commands_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = set(re.findall(r"\bmake ([a-z][a-z-]*)", readme))
    assert {"demo", "test"} <= commands
    missing = {command for command in commands if not re.search(rf"^([a-z-]+ )*{command}( [a-z-]+)*:", makefile, re.MULTILINE)}
    assert not missing, f"README.md names make targets that do not exist: {missing}"


def python_of(document):
    """The functions that a document's one ```python block defines."""
    (python,) = [block.text for block in blocks((ROOT / document).read_text(encoding="utf-8")) if block.info == "python"]
    defined = {"psycopg": psycopg}
    exec(python, defined)  # noqa: S102: our own page
    return defined


def test_the_program_of_the_guide_never_takes_more_than_there_is(database):
    withdraw = python_of("docs/guide.md")["withdraw"]
    (fold,) = re.findall(r"^select es_register_fold\('account'.*?\);$", (ROOT / "docs/guide.md").read_text(encoding="utf-8"), re.M | re.S)
    database.ask(fold)
    database.ask("""select es_append('account-1', 'AccountCredited', '{"amount": 100.00}')""")

    def client(_):
        with psycopg.connect(database.dsn, autocommit=True) as connection:
            return [withdraw(connection, "account-1", decimal.Decimal("7.50"), uuid.uuid4()) for _ in range(4)]

    with concurrent.futures.ThreadPoolExecutor(8) as clients:
        versions = [version for answers in clients.map(client, range(8)) for version in answers if version is not None]
    assert sorted(versions) == list(range(2, 15)), "13 times 7.50 are covered by 100.00"
    assert database.ask("select es_state('account-1') ->> 'balance'") == "2.50"


def test_the_follower_of_the_documents_sees_every_event_once(database):
    follow = python_of("docs/consume.md")["follow"]
    with psycopg.connect(database.dsn, autocommit=True) as connection, psycopg.connect(database.dsn) as writer:
        seen, checkpoint = [], 0
        for number in range(1, 8):
            writer.execute("select es_append(%s, 'Numbered', to_jsonb(%s::int))", (f"number-{number % 3}", number))
            if number % 3 == 0:
                writer.rollback()
            # An open append is not settled: it comes later, and once.
            checkpoint = follow(connection, checkpoint, lambda event: seen.append(event[4]), max_count=2)
            writer.commit()
        follow(connection, checkpoint, lambda event: seen.append(event[4]), max_count=2)
    assert seen == [1, 2, 4, 5, 7]


def test_the_pages_of_the_documents_have_every_event_once(database):
    found = python_of("docs/query.md")["found"]
    for number in range(1, 8):
        database.ask(f"select es_append('number-{number % 3}', 'Numbered', '{number}'::jsonb)")
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        for max_count in (1, 2, 7, 100):
            assert [event[3] for event in found(connection, {}, max_count)] == [1, 2, 3, 4, 5, 6, 7]
        assert [event[3] for event in found(connection, {"streams": ["number-1"], "order": "backward"}, 2)] == [7, 4, 1]


def test_the_reservations_of_the_guide_to_stock_never_go_below_zero(database):
    sql = [sql.text for sql, _ in examples((ROOT / "docs/stock.md").read_text(encoding="utf-8"))]
    (function,) = [text[text.index("create function reserve") : text.index("$$;") + 3] for text in sql if "create function reserve" in text]
    database.ask(sql[0])
    database.ask(function)

    def client(number):
        answers = []
        with psycopg.connect(database.dsn, autocommit=True) as connection:
            for _ in range(5):
                try:
                    connection.execute("select reserve('vienna.bolt_m8', 3, %s, now())", (f"order-{number}",))
                    answers.append("reserved")
                except psycopg.Error as error:
                    answers.append(error.sqlstate)
        return answers

    with concurrent.futures.ThreadPoolExecutor(8) as clients:
        answers = [answer for given in clients.map(client, range(8)) for answer in given]
    # 16 times 3 of 50; for_update queues, so that nobody has a conflict (ES001).
    assert sorted(answers) == ["ST001"] * 24 + ["reserved"] * 16
    assert database.ask("select es_state('stock-vienna.bolt_m8') -> 'available'") == "2"
