"""The examples do what they tell: the stories print what their .out files hold, the demo checks the errors that it shows,
and the import is exact, repeatable and deaf to wrong or hostile files.

EVENTSTREAM_ACCEPT=1 writes the .out files anew; then read the difference.
"""

import collections
import csv
import decimal
import os
import re
import uuid

import pytest

from documents import ROOT, normalise

EXAMPLES = ROOT / "examples"
TRANSACTIONS = EXAMPLES / "ledger/transactions.csv"
NAMESPACE = uuid.UUID("6d1f6a3c-5f0e-4c55-9d5e-2a1f3f0b7c11")


def told(database, story):
    """Runs a story and compares what it prints."""
    command = f"stdbuf -oL psql -X -q -a <{EXAMPLES / story}.sql"
    done = database.run("bash", "-c", command)
    assert done.returncode == 0, done.stdout
    expected = EXAMPLES / f"{story}.out"
    if os.environ.get("EVENTSTREAM_ACCEPT"):
        expected.write_text(done.stdout, encoding="utf-8")
    assert normalise(done.stdout) == normalise(expected.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "stories",
    [["ledger/ledger", "ledger/state"], ["inventory/inventory", "payables/payables", "receivables/receivables", "outside/outside", "definitions/definitions", "customers/customers"]],
    ids=["ledger", "the others in one database"],
)
def test_stories_print_what_their_out_files_hold(database, stories):
    for story in stories:
        told(database, story)


def test_chapters_of_the_ledgers_story_are_counted_on():
    """As the demo tells it; the course and the reservation are stories of their own."""
    texts = [(EXAMPLES / name).read_text() for name in ("ledger/ledger.sql", "ledger/state.sql", "live/live.sql", "live/live.sh")]
    numbers = [int(number) for text in texts for number in re.findall(r"(?m)^(?:-- == |title \")(\d+)\. ", text)]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) > 20


def test_a_story_fails_where_an_error_that_it_tells_of_does_not_come(database, tmp_path):
    story = (EXAMPLES / "inventory/inventory.sql").read_text(encoding="utf-8")
    without_conflict = story.replace("expected_version => :seen, ", "")
    assert without_conflict != story
    changed = tmp_path / "inventory.sql"
    changed.write_text(without_conflict, encoding="utf-8")
    done = database.run("psql", "-X", "-q", "-f", changed)
    assert done.returncode == 3
    assert "expected SQLSTATE ES001, got 00000" in done.stdout


def test_the_demo_tells_its_story_and_can_tell_it_again(empty_database):
    for again in range(2):
        done = empty_database.run(EXAMPLES / "demo.sh")
        assert done.returncode == 0, done.stdout
        for said in (
            'breaks the rule "/properties/amount/type"', "== 4. Two clerks", "version conflict on stream", " ES001", " ES006", " ES016", " ES017", " ES019", 'invariant "cash is there" is broken: the cash box would hold -10.00', " ES050", "0 problems", "0 written, 2,213 there already",
            "== 11. A balance sheet on two days", " 7950.00        | 7800.00", " -4099.50  | 900.50",
            "12 accounts with 2,213 transactions: rules = function = sum of the amounts",
            "All 18 balances and 1 stock levels are what es_category_state() folds", " ES021", "select es_resume_projection('revenue');",
            " 2024-06-01 |     1 | 250000.00", " done", "All 18 balances and 20001 stock levels", "6 of 20 enrolled, 14 found it full", "7 of 7 places are taken; 0 free", "3 are available again; release-shelf-pump/o-1 done, release-shelf-pump/o-2 unscheduled",
            "one key, one intention", '{"receipt": "R-1"}', '"expected_version": "optional"', "masked_case_worker | customer-c17",
            'ERROR ES042: role "ledger_web" needs a token', "account-cash | 12.50 | clerk-ada | bakery", 'ERROR ES044: this transaction is of tenant "bakery" by its token, and not of "brewery"', "ERROR ES043",
        ):
            assert said in done.stdout, f"run {again + 1}: {said!r} is missing in:\n{done.stdout}"
        database, suggested = suggested_by(done.stdout)
        assert database == empty_database.name + ("_2" if again else "") and len(suggested) == 4
        for statement in suggested:
            # As a newcomer's psql runs it, in the database that the demo names.
            tried = empty_database.run("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement, PGDATABASE=database)
            assert tried.returncode == 0 and tried.stdout.strip(), f"run {again + 1}: {statement}\n{tried.stdout}"


def suggested_by(told):
    """The database that the demo's last chapter names, and the statements to try in it."""
    last = told[told.index("=== Go on ===") :]
    return re.search(r"The database is (\S+)\. Things", last)[1], re.findall(r"(?m)^      (\w.*;)$", last)


def test_the_demo_takes_a_file_of_the_users_and_fails_with_it(empty_database, tmp_path):
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("a,b\n1,2\n", encoding="utf-8")
    done = empty_database.run(EXAMPLES / "demo.sh", DATA=str(wrong))
    assert done.returncode != 0
    assert "the first line must be" in done.stdout
    assert empty_database.run(EXAMPLES / "demo.sh", DATA=str(tmp_path / "none.csv")).returncode != 0


def rows():
    with TRANSACTIONS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def imported(database, path=TRANSACTIONS):
    done = database.run(EXAMPLES / "ledger/import.sh", path)
    assert done.returncode == 0, done.stdout
    return done.stdout


def written(database):
    return database.ask("select count(*), coalesce(max(global_position), 0) from eventstream.events")


def test_an_import_has_every_transaction_exactly(database):
    assert "2,213 written, 0 there already" in imported(database)
    stored = database.ask(
        """
        select stream, version, event_id, event_type, payload ->> 'amount', payload ->> 'bank_balance',
               payload ->> 'operation', coalesce(payload ->> 'purpose', ''), to_char(occurred_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS')
        from eventstream.events
        """
    ).splitlines()
    expected = [
        "|".join(
            (
                f"account-{row['account_id']}",
                row["seq"],
                str(uuid.uuid3(NAMESPACE, f"transaction/{row['trans_id']}")),
                {"credit": "AccountCredited", "debit": "AccountDebited"}[row["direction"]],
                row["amount"],
                row["bank_balance"],
                row["operation"],
                row["purpose"],
                f"{row['date']} 00:00:00",
            )
        )
        for row in rows()
    ]
    assert sorted(stored) == sorted(expected)


def test_exact_sums_stay_near_the_banks_balances(database):
    output = imported(database)
    sums, balances = collections.defaultdict(decimal.Decimal), {}
    for row in rows():
        amount = decimal.Decimal(row["amount"])
        sums[row["account_id"]] += amount if row["direction"] == "credit" else -amount
        balances[row["account_id"]] = decimal.Decimal(row["bank_balance"])
    drift = max(abs(sums[account] - balances[account]) for account in sums)
    assert f"({len(sums)} accounts, {sum(sums.values())} in total)" in output
    assert f"the bank's own balance: {drift}" in output
    assert 0 < drift <= decimal.Decimal("0.80")


def test_states_by_rules_and_by_function_are_the_sums(database):
    imported(database)
    done = database.run("psql", "-X", "-q", "-f", EXAMPLES / "ledger/states.sql")
    assert done.returncode == 0, done.stdout
    assert "at the end:    12 accounts with 2,213 transactions: rules = function = sum of the amounts; at most 0.02" in done.stdout


@pytest.mark.parametrize(
    ("said", "instead", "message"),
    [
        ("sign * (event.payload", "sign * 1.01 * (event.payload", "rules and function do not give the same states"),
        ("(e.payload ->> 'amount')::numeric) as balance", "(e.payload ->> 'amount')::numeric) + 0.01 as balance", "a state is not the sum of its events"),
        (" > 0.80)", " > 0.01)", "lies more than 0.80 from the one that the bank printed"),
    ],
)
def test_states_that_differ_are_an_error(database, tmp_path, said, instead, message):
    imported(database)
    script = (EXAMPLES / "ledger/states.sql").read_text(encoding="utf-8")
    assert script.count(said) == 1
    changed = tmp_path / "states.sql"
    changed.write_text(script.replace(said, instead), encoding="utf-8")
    done = database.run("psql", "-X", "-q", "-f", changed)
    assert done.returncode == 3
    assert message in done.stdout


def test_a_second_import_writes_nothing(database):
    imported(database)
    before = written(database)
    assert "0 written, 2,213 there already" in imported(database)
    assert written(database) == before


def test_an_import_goes_on_where_it_was_interrupted(database, tmp_path):
    part = tmp_path / "part.csv"
    lines = TRANSACTIONS.read_text(encoding="utf-8").splitlines(keepends=True)
    part.write_text("".join(lines[:1001]), encoding="utf-8")
    assert "1,000 written, 0 there already" in imported(database, part)
    assert "1,213 written, 1,000 there already" in imported(database)


def test_a_transaction_that_changed_since_it_was_imported_is_refused(database, tmp_path):
    imported(database)
    before = written(database)
    changed = tmp_path / "changed.csv"
    text = TRANSACTIONS.read_text(encoding="utf-8")
    changed.write_text(text.replace(",1554.84,", ",1554.85,", 1), encoding="utf-8")
    done = database.run(EXAMPLES / "ledger/import.sh", changed)
    assert done.returncode == 3
    assert "is already in stream" in done.stdout and "with another payload" in done.stdout
    assert written(database) == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x1,900,1,2024-01-02,credit,cash_deposit,10.00,,10.00", "line 3: trans_id is 'x1', and must be a whole number"),
        ("1,,1,2024-01-02,credit,cash_deposit,10.00,,10.00", "line 3: account_id is ''"),
        ("1,900,0,2024-01-02,credit,cash_deposit,10.00,,10.00", "line 3: seq is '0'"),
        ("1,900,2,2024-01-02,credit,cash_deposit,10.00,,10.00", "line 3: account '900' has seq 2 where 1 is due"),
        ("1,900,1,2024-02-30,credit,cash_deposit,10.00,,10.00", "line 3: date is '2024-02-30', and must be a day"),
        ("1,900,1,2024-01-02,received,cash_deposit,10.00,,10.00", "line 3: direction is 'received', and must be credit or debit"),
        ("1,900,1,2024-01-02,credit,,10.00,,10.00", "line 3: operation is ''"),
        ("1,900,1,2024-01-02,credit,cash_deposit,10,,10.00", "line 3: amount is '10', and must be a decimal with two places"),
        ("1,900,1,2024-01-02,credit,cash_deposit,NaN,,10.00", "line 3: amount is 'NaN'"),
        ("1,900,1,2024-01-02,credit,cash_deposit,10.00,,", "line 3: bank_balance is ''"),
        ("500001,900,1,2024-01-02,credit,cash_deposit,10.00,,10.00", "lines 2 and 3 have the same trans_id, 500001"),
        ("1,900,1,2024-01-02,credit", "COPY rows, line 3"),
        ("\\.", "a line consists of \\. and nothing else"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_written(database, tmp_path, line, message):
    wrong = tmp_path / "wrong.csv"
    lines = TRANSACTIONS.read_text(encoding="utf-8").splitlines()
    wrong.write_text("\n".join([*lines[:2], line, *lines[2:]]) + "\n", encoding="utf-8")
    done = database.run(EXAMPLES / "ledger/import.sh", wrong)
    assert done.returncode in (1, 3)
    assert message in done.stdout
    assert written(database) == "0|0"


def test_hostile_text_is_data(database, tmp_path):
    hostile = tmp_path / "$(touch hostile) 'x;.csv"
    account = "1'); drop schema _eventstream cascade; -- \\gexec :x"
    with hostile.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\r\n")
        out.writerow("trans_id,account_id,seq,date,direction,operation,amount,purpose,bank_balance".split(","))
        out.writerow([1, account, 1, "2024-01-02", "credit", "'; select 1/0", "10.00", '%s "quoted"', "10.00"])
    imported(database, hostile)
    assert database.ask("select stream from eventstream.events") == f"account-{account}"
    assert database.ask("select payload ->> 'purpose' from eventstream.events") == '%s "quoted"'


def test_the_small_file_is_what_its_generator_makes(database):
    done = database.run("python3", EXAMPLES / "ledger/make_transactions.py")
    assert done.stdout == TRANSACTIONS.read_text(encoding="utf-8")
