"""Commands through pgbouncer in transaction mode: each client's next statement may go to another session, and nothing of a command stays in the one that it leaves."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pooling
import pytest
from database import gaps, rows, value, verify
from deciding import balance, bank, send
from server import wait_until

CLIENTS, COMMANDS = 12, 40


@pytest.fixture
def pooled(database):
    with pooling.pooled(database) as connect:
        yield connect


def test_commands_through_a_pooler_are_executed_once(database, pooled):
    there = bank(database)

    def client(number):
        answers = []
        with pooled() as session:
            for n in range(COMMANDS):
                # Each key is sent by three clients.
                with session.transaction():
                    session.execute("set local eventstream.metadata = %s" % f"'{{\"actor\": \"client {number}\"}}'")
                    answers.append(send(session, payload={"amount": 1}, stream=f"account-{n % 3}", command_key=f"{number % 4}/{n}"))
        return number, answers

    with ThreadPoolExecutor(CLIENTS) as clients:
        outcome = list(clients.map(client, range(CLIENTS)))
    with there.connect() as session:
        assert value(session, "select count(*) from es_read_all()") == 4 * COMMANDS
        assert sum(balance(session, f"account-{n}") for n in range(3)) == 4 * COMMANDS
        for group in range(4):
            told = [answers for number, answers in outcome if number % 4 == group]
            for same in zip(*told, strict=True):
                assert len({str({**answer, "replayed": True}) for answer in same}) == 1
                assert [answer["replayed"] for answer in same].count(False) == 1
        # What a transaction said of itself went with it.
        said = rows(session, "select distinct metadata ->> 'actor' from eventstream.events")
        assert {actor for (actor,) in said} <= {f"client {n}" for n in range(CLIENTS)}
        assert verify(session) == [] and gaps(session) == []
    with pooled() as session:
        send(session, stream="account-9")
        assert value(session, "select metadata ->> 'actor' from es_read('account-9')") is None


def test_a_client_that_dies_behind_a_pooler_leaves_no_command_half_done(database, pooled):
    there = bank(database)
    with there.connect() as session:
        session.execute("create function slow(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as "
                        "$$ begin perform pg_sleep(0.5); return jsonb_build_array(es_make_event('Credited', command.payload)); end $$")  # fmt: skip
        session.execute("select es_register_decider('slow', 'account', 'slow(jsonb, eventstream.command)', is_default => false)")
        with pooled() as connection:
            dsn = connection.info.dsn
        sends = f"import psycopg; psycopg.connect({dsn!r}).execute(\"select es_command('account-1', 'Any', '{{}}', command_key => 'k', decider => 'slow')\")"
        client = subprocess.Popen([sys.executable, "-c", sends])
        wait_until(lambda: rows(session, "select from pg_stat_activity where query like '%slow%' and wait_event = 'PgSleep'"), 10, "the decision")
        client.kill()
        client.wait(10)
        with pooled() as other:
            answer = send(other, command_key="k", decider="slow")
            assert send(other, command_key="k", decider="slow") == {**answer, "replayed": True}
        assert value(session, "select count(*) from es_read_all()") == 1
