"""es_test with pgTAP: it reports through ok() and diag(), so that pgTAP counts it, also inside runtests(); what it prints is read by Perl's own parser of TAP, as pg_prove does."""

import fcntl
import json
import shutil
import subprocess

import pytest
from database import Database, rows, value
from debian import unpacked
from deciding import open_bank, refused
from server import BIN, MAJOR, ROOT, SUPERUSER, as_account, run

GIVEN = json.dumps([{"stream": "account-t1", "type": "Credited", "payload": {"amount": 100}}])
#: What a parser of TAP says of a stream: planned, run, passed, failed tests; comments; whether it is all good.
PARSE = r"""use TAP::Parser; use JSON::PP; local $/; my $tap = <STDIN>; my $p = TAP::Parser->new({tap => $tap}); my @c;
while (my $r = $p->next) { push @c, $r->as_string if $r->is_comment }
print encode_json({planned => $p->tests_planned, run => $p->tests_run, passed => [$p->actual_passed], failed => [$p->actual_failed], problems => [$p->parse_errors], comments => \@c})"""


def fetched_pgtap() -> None:
    """pgTAP is SQL alone, and may be unpacked beside the server that tests run on."""
    installed = BIN.resolve().parents[0] / "share" / "postgresql" / MAJOR / "extension" / "pgtap.control"
    own = next((ROOT / "target" / "pg" / MAJOR).glob("**/extension/pgtap.control"), None)
    if installed.exists() or own is not None:
        return
    if MAJOR != "15":
        pytest.skip("Debian has pgTAP for its own PostgreSQL, which is 15")
    extension = next((ROOT / "target" / "pg" / MAJOR).glob("**/extension/eventstream.control")).parent
    with open(extension / "pgtap.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = next(unpacked("postgresql-15-pgtap").glob("**/extension/pgtap.control")).parent
        for file in found.glob("pgtap*"):
            shutil.copy(file, extension)


@pytest.fixture
def session(database):
    fetched_pgtap()
    with database.connect() as connection:
        connection.execute("create schema tap; create extension pgtap schema tap; set search_path = public, tap")
        connection.execute(f'alter database "{database.name}" set search_path = public, tap')
        open_bank(connection)
        yield connection


def psql(database: Database, script: str) -> str:
    return run("psql", "-XAtq", "-U", SUPERUSER, "-d", database.name, input=script, env=database.server.address(database.name), check=False)


def parsed(tap: str) -> dict:
    if shutil.which("perl") is None:
        pytest.skip("there is no perl, whose parser of TAP reads this")
    done = subprocess.run(["perl", "-e", PARSE], input=tap, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


GREEN = f"es_test('green # one', given => '{GIVEN}', states => '{{\"account-t1\": {{\"balance\": 100.00}}}}')"
RED = f"es_test('red one', given => '{GIVEN}', states => '{{\"account-t1\": {{\"balance\": 101}}}}')"


def test_a_script_of_tests_is_read_by_a_parser_of_tap(database, session):
    found = parsed(psql(database, f"select plan(4); select {GREEN}; select {RED}; select ok(true, 'pgTAP''s own'); select {GREEN}; select * from finish();"))
    assert (found["planned"], found["run"], found["passed"], found["failed"], found["problems"]) == (4, 4, [1, 3, 4], [2], [])
    said = "\n".join(found["comments"])
    assert 'states["account-t1"].balance: expected 101, found 100' in said and "Looks like you failed 1 test of 4" in said
    # It has counted nothing by itself.
    assert "pgTAP has counted them" in psql(database, "select es_tests_done()")


def test_a_red_test_inside_runtests_is_red(database, session):
    session.execute("create schema tests")
    for name, body in (("test_1_green", f"return next {GREEN}; return next {GREEN};"), ("test_2_red", f"return next {RED}; return next {GREEN};"), ("test_3_green", f"return next {GREEN};")):
        session.execute(f"create function tests.{name}() returns setof text language plpgsql as $$ begin {body} end $$")
    said = psql(database, "select * from runtests('tests'::name)")
    found = parsed(said)
    # A test function is one test; those within are subtests.
    assert (found["planned"], found["run"], found["failed"], found["problems"]) == (3, 3, [2], []), said
    assert found["passed"] == [1, 3]
    assert "not ok 1 - red one" in said and "ok 2 - green \\# one" in said
    assert 'states["account-t1"].balance: expected 101, found 100' in said
    assert rows(session, "select from es_read('account-t1')") == []


def test_a_parser_that_is_given_a_line_of_our_own_would_not_see_it_inside_runtests(database, session):
    """Why es_test goes through ok(): what a function returns is only printed."""
    session.execute("create schema tests")
    session.execute("create function tests.test_silent() returns setof text language plpgsql as $$ begin return next ok(true, 'x'); return next 'not ok 2 - ours'; end $$")
    assert parsed(psql(database, "select * from runtests('tests'::name)"))["failed"] == []


def test_without_a_plan_it_says_what_pgtap_says(session):
    assert "without a plan" in refused(session.execute, f"select {GREEN}").message_primary
    session.execute("select plan(1)")
    assert value(session, f"select {GREEN}") == "ok 1 - green \\# one"


def test_whoever_tests_calls_pgtap_with_rights_of_his_own(database, session):
    role = database.role("tester_with_pgtap")
    session.execute(f"select es_grant('{role}', 'append'); select es_grant('{role}', 'read'); grant usage on schema tap to {role}")
    with database.connect(role) as caller:
        # Functions of the same name that somebody else has put before it are not asked.
        session.execute("create function public.ok(bool, text) returns text language sql as $$ select 'planted ' || current_user $$")
        caller.execute("select plan(1)")
        assert value(caller, f"select {GREEN}") == "ok 1 - green \\# one"
