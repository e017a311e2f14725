"""The client programs of docs/decide.md and docs/boundaries.md, as they stand on the page: a command is sent until it is answered and done once, whatever ends the sessions meanwhile; what two
students want at once only one gets."""

import pathlib
import random
import shutil
import subprocess
import tempfile
import threading
from types import SimpleNamespace

import psycopg
import pytest
from clients import build, reach, snippets
from database import all_at_once, raised, rows, value
from deciding import balance, open_bank
from server import ROOT

BOUNDARIES = ROOT / "docs/boundaries.md"
COURSES = """select es_append('course-' || n, 'CourseOffered', jsonb_build_object('places', 2), tags => array['course:' || n]) from generate_series(1, 6) n"""
ENROLLED = "select stream, tags from eventstream.events where event_type = 'Enrolled' order by 1, 2"


def module(page: str) -> dict:
    (text,) = snippets("python", ROOT / "docs" / page)
    defined = {"__name__": "program"}
    exec(text, defined)  # noqa: S102: our own page
    return defined


def parts(database) -> dict[str, str]:
    names = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGDATABASE": "dbname"}
    address = database.server.address(database.name)
    return {names[key]: text for key, text in address.items() if key in names} | {"application_name": "program"}


class Lossy:
    """A connection that breaks between a commit and its answer, in one call of three."""

    def __init__(self, connection, lost):
        self.connection, self.lost = connection, lost

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def execute(self, *args):
        answer = self.connection.execute(*args)
        if random.random() < 1 / 3:
            self.lost.append(args)
            raise psycopg.OperationalError("the connection broke before the answer was there")
        return answer


def test_a_command_is_sent_until_it_is_answered_and_done_once(database):
    """Sessions are ended under it again and again, before the command and in it; and now and then it is the answer that is lost, after the commit."""
    program = module("decide.md")
    program["psycopg"] = SimpleNamespace(connect=lambda *args, **more: Lossy(psycopg.connect(*args, **more), lost), OperationalError=psycopg.OperationalError)
    over, ended, lost = threading.Event(), [], []
    program["time"] = SimpleNamespace(sleep=lambda seconds: over.wait(min(seconds, 0.01)))
    where = psycopg.conninfo.make_conninfo(**parts(database))
    with database.connect() as session:
        open_bank(session)

    def end_sessions():
        with database.connect() as killer:
            # Not for ever: on a machine that has much to do nobody would get anywhere.
            for _ in range(100):
                if over.wait(random.uniform(0.01, 0.06)):
                    return
                ended.extend(rows(killer, "select pg_terminate_backend(pid) from (select pid from pg_stat_activity where application_name = 'program' offset 0) found"))

    def client(number):
        return [program["send"](where, f"account-{number % 3}", "Deposit", {"amount": 1}, f"key-{number}-{n}", attempts=1000) for n in range(12)]

    killer = threading.Thread(target=end_sessions)
    killer.start()
    try:
        answers = all_at_once(6, client)
    finally:
        over.set()
        killer.join()
    assert raised(answers) == []
    assert len(ended) > 10 and len(lost) > 10, "nobody was hindered"
    with database.connect() as session:
        assert [balance(session, f"account-{n}") for n in range(3)] == [24, 24, 24]
        told = sorted((answer["stream"], answer["version"]) for given in answers for answer in given)
        assert told == [(f"account-{n}", version) for n in range(3) for version in range(1, 25)]


def test_a_refusal_and_a_mistake_are_told_at_once(database):
    program, asked = module("decide.md"), []
    program["psycopg"] = SimpleNamespace(connect=lambda *args, **more: asked.append(1) or psycopg.connect(*args, **more), OperationalError=psycopg.OperationalError)
    where = psycopg.conninfo.make_conninfo(**parts(database))
    with database.connect() as session:
        open_bank(session)
    for command_type, payload, key, sqlstate in (
        ("Withdraw", {"amount": 1}, "k-1", "ES033"),
        ("Rob", {}, "k-2", "ES035"),
        ("Deposit", {"amount": 1}, "k-3", None),
        ("Deposit", {"amount": 2}, "k-3", "ES030"),
    ):
        asked.clear()
        try:
            program["send"](where, "account-1", command_type, payload, key)
            told = None
        except psycopg.Error as error:
            told = error.sqlstate
        assert (told, len(asked)) == (sqlstate, 1)
    asked.clear()
    with pytest.raises(psycopg.OperationalError):
        program["send"](psycopg.conninfo.make_conninfo(where, dbname="nowhere"), "account-1", "Deposit", {"amount": 1}, "k-4", attempts=2)
    assert len(asked) == 2


def test_the_python_program_gives_no_place_twice_and_no_course_twice(database):
    enrol = module("boundaries.md")["enrol"]
    with database.connect() as session:
        session.execute(COURSES)
        session.execute("select es_append('course-9', 'CourseOffered', '{\"places\": 99}', tags => '{course:9}')")

    def student(number):
        with database.connect() as session:
            return [enrol(session, str(number // 2), str(course)) for course in (9, 9, 1, 2, 3, 4, 5, 6)]

    # Of each student two sessions.
    answers = all_at_once(8, student)
    assert raised(answers) == []
    told = [answer for given in answers for answer in given]
    with database.connect() as session:
        enrolled = rows(session, ENROLLED)
        assert told.count("enrolled") == len(enrolled) == len({(stream, *tags) for stream, tags in enrolled})
        assert {"full", "enrolled before"} <= set(told)
        for course in range(1, 7):
            assert sum(f"course:{course}" in tags for _, tags in enrolled) == 2
        session.execute("select es_append('course-' || n, 'CourseOffered', '{\"places\": 1}', tags => array['course:' || n]) from generate_series(11, 16) n")
        assert [enrol(session, "zoe", str(course)) for course in range(11, 17)] == ["enrolled"] * 5 + ["too many courses"]


def test_the_node_program_says_the_same(database):
    (text,) = snippets("js", BOUNDARIES)
    text = 'import pg from "pg";\nconst pool = new pg.Pool();\n' + text + """
const courses = ["9", "9", "1", "1", "2", "3", "4", "5"];
const told = [];
for (const course of courses) told.push(await enrol(pool, "ann", course));
console.log(told.join(", "));
const both = await Promise.all([enrol(pool, "bert", "6"), enrol(pool, "cleo", "6"), enrol(pool, "dora", "6")]);
console.log(both.sort().join(", "));
await pool.end();
"""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="es-page-"))
    try:
        command, more = build("node", folder, "enrol.mjs", text)
        environment, arguments = reach("node", database.server, database.name)
        with database.connect() as session:
            session.execute(COURSES)
            session.execute("select es_append('course-9', 'CourseOffered', '{\"places\": 99}', tags => '{course:9}')")
        done = subprocess.run([*command, *arguments], env=environment | more, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            "enrolled, enrolled before, enrolled, enrolled before, enrolled, enrolled, enrolled, too many courses",
            "enrolled, enrolled, full",
        ]
        with database.connect() as session:
            assert value(session, "select count(*) from eventstream.events where event_type = 'Enrolled'") == 7
    finally:
        shutil.rmtree(folder)
