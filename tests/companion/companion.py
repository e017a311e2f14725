"""The program as a process, and requests to it."""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import urllib.parse

from database import Database
from minting import Bank
from server import PORT, ROOT

PROGRAM = pathlib.Path(os.environ.get("EVENTSTREAM_COMPANION", ROOT / "target" / "build-companion" / "companion" / "eventstream"))
LISTENING = re.compile(r"listening on http://([\d.]+):(\d+)")


def connection_of(database: Database, user: str) -> str:
    return f"host={database.server.socket} port={PORT} user={user} dbname={database.name}"


def run(database: Database, *words: str, user: str = "postgres") -> subprocess.CompletedProcess:
    return subprocess.run([PROGRAM, *words], env={"EVENTSTREAM_DATABASE": connection_of(database, user)}, capture_output=True, text=True, timeout=60)


class Companion:
    """`eventstream serve` at a port that the system chose."""

    def __init__(self, database: Database, **settings):
        self.log: list[str] = []
        environment = {"EVENTSTREAM_DATABASE": connection_of(database, "eventstream_web"), "EVENTSTREAM_LISTEN": "127.0.0.1:0"}
        self.process = subprocess.Popen([PROGRAM, "serve"], env=environment | settings, stderr=subprocess.PIPE, text=True)
        found = threading.Event()
        self.address = None

        def read():
            for line in self.process.stderr:
                self.log.append(line)
                if match := LISTENING.search(line):
                    self.address = (match[1], int(match[2]))
                    found.set()
            found.set()

        threading.Thread(target=read, daemon=True).start()
        found.wait(20)
        assert self.address, "".join(self.log)

    def request(self, method: str, path: str, body=None, token: str | None = None, timeout: float = 30, **headers) -> "Response":
        connection = http.client.HTTPConnection(*self.address, timeout=timeout)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if body is not None and not isinstance(body, (str, bytes)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Response(answer.status, dict((name.lower(), value) for name, value in answer.getheaders()), answer.read().decode())
        finally:
            connection.close()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Response:
    def __init__(self, status: int, headers: dict[str, str], text: str):
        self.status, self.headers, self.text = status, headers, text

    @property
    def json(self):
        return json.loads(self.text)

    def __repr__(self):
        return f"{self.status} {self.text[:500]}"


class Ledger(Bank):
    """Two tenants by token, and the program that serves them."""

    def __init__(self, database: Database):
        super().__init__(database, role=f"web_{database.name}")
        migrated = run(database, "migrate")
        assert migrated.returncode == 0, migrated.stderr
        with database.connect() as session:
            session.execute(f'grant "{self.role}" to eventstream_web')
            session.execute("insert into eventstream_server.identities (issuer, role) values (%s, %s)", ("https://id.example.org", self.role))
        self.companion = Companion(database)

    def get(self, path: str, tenant: str = "acme", **headers) -> Response:
        return self.companion.request("GET", path, token=self.token(tenant), **headers)

    def post(self, path: str, body, tenant: str = "acme", **headers) -> Response:
        return self.companion.request("POST", path, body, token=self.token(tenant), **headers)

    def close(self) -> None:
        self.companion.kill()


def quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")
