"""pgbouncer in transaction mode, from Debian: each client's next transaction may go to another session."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import subprocess
import tempfile
import time

import psycopg
from database import Database
from debian import unpacked
from server import PORT, as_account


@contextlib.contextmanager
def pooled(database: Database, user: str = "postgres", sessions: int = 4, resets: bool = False):
    """A function that makes connections to the database through a pooler with so many sessions. resets: DISCARD ALL after each transaction."""
    folders = [unpacked(package) for package in ("pgbouncer", "libevent-2.1-7", "libc-ares2")]
    socket = database.server.socket
    folder = pathlib.Path(tempfile.mkdtemp(prefix="es-", dir="/tmp"))
    folder.chmod(0o777)
    # To where the servers' account reaches it.
    for package in folders:
        for file in [*package.glob("usr/sbin/pgbouncer"), *package.glob("usr/lib/*/*.so.*")]:
            shutil.copy(file, folder / file.name)
    settings = folder / "pgbouncer.ini"
    (folder / "users").write_text(f'"{user}" ""\n')
    settings.write_text(f"""[databases]
{database.name} = host={socket} port={PORT} dbname={database.name} user={user}
[pgbouncer]
listen_addr =
listen_port = {PORT}
unix_socket_dir = {folder}
auth_type = any
auth_file = {folder / "users"}
pool_mode = transaction
default_pool_size = {sessions}
server_reset_query = DISCARD ALL
server_reset_query_always = {int(resets)}
""")
    with open(folder / "log", "w") as log:
        running = subprocess.Popen([folder / "pgbouncer", settings], stdout=log, stderr=log, **as_account(env={"LD_LIBRARY_PATH": str(folder)}))

    def connect(**options):
        return psycopg.connect(host=str(folder), port=PORT, dbname=database.name, user=user, autocommit=True, prepare_threshold=None, **options)

    try:
        for _ in range(100):
            try:
                connect(connect_timeout=3).close()
                break
            except psycopg.OperationalError:
                assert running.poll() is None, (folder / "log").read_text()
                time.sleep(0.05)
        yield connect
    finally:
        running.terminate()
        running.wait(10)
        shutil.rmtree(folder)
