"""Commands through pgbouncer in transaction mode: each client's next statement may go to another session, and nothing of a command stays in the one that it leaves."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from database import gaps, rows, value, verify
from debian import unpacked
from deciding import balance, bank, send
from server import PORT, as_account, wait_until

CLIENTS, COMMANDS = 12, 40


@pytest.fixture
def pooled(database):
    """A function that makes connections to the database through a pooler with four sessions."""
    folders = [unpacked(package) for package in ("pgbouncer", "libevent-2.1-7", "libc-ares2")]
    socket = database.server.socket
    folder = pathlib.Path(tempfile.mkdtemp(prefix="es-", dir="/tmp"))
    folder.chmod(0o777)
    # To where the servers' account reaches it.
    for package in folders:
        for file in [*package.glob("usr/sbin/pgbouncer"), *package.glob("usr/lib/*/*.so.*")]:
            shutil.copy(file, folder / file.name)
    settings = folder / "pgbouncer.ini"
    (folder / "users").write_text('"postgres" ""\n')
    settings.write_text(f"""[databases]
{database.name} = host={socket} port={PORT} dbname={database.name} user=postgres
[pgbouncer]
listen_addr =
listen_port = {PORT}
unix_socket_dir = {folder}
auth_type = any
auth_file = {folder / "users"}
pool_mode = transaction
default_pool_size = 4
server_reset_query_always = 0
""")
    with open(folder / "log", "w") as log:
        running = subprocess.Popen([folder / "pgbouncer", settings], stdout=log, stderr=log, **as_account(env={"LD_LIBRARY_PATH": str(folder)}))

    def connect(**options):
        return psycopg.connect(host=str(folder), port=PORT, dbname=database.name, user="postgres", autocommit=True, prepare_threshold=None, **options)

    for _ in range(100):
        try:
            connect(connect_timeout=3).close()
            break
        except psycopg.OperationalError:
            assert running.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
    yield connect
    running.terminate()
    running.wait(10)
    shutil.rmtree(folder)


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
