"""A client in a process of its own: the worker of a language, which is asked by lines and answers by lines. `proxy` stands between it and the server where an answer is to be lost."""

from __future__ import annotations

import contextlib
import decimal
import json
import os
import pathlib
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading

CLIENTS = pathlib.Path(__file__).resolve().parents[1]
#: Where tools/client-packages has installed Node's.
NODE = os.environ.get("CLIENT_NODE", "")
COMMANDS = {
    "python": [sys.executable, str(CLIENTS / "python/tests/worker.py"), "sync"],
    "asyncio": [sys.executable, str(CLIENTS / "python/tests/worker.py"), "async"],
    "node": [f"{NODE}/bin/node", f"{NODE}/worker.mjs"],
}


class Refused(Exception):
    """What the client raised: .kind is its class, or "driver" where it is the driver's, or "mistake"."""

    def __init__(self, said: dict):
        super().__init__(said["message"])
        self.said, self.kind, self.sqlstate = said, said["kind"], said.get("sqlstate")


class Face:
    """One worker. Numbers go in and come out as their texts: `text` is the last answer as it came."""

    def __init__(self, language: str, address: dict[str, str]):
        self.language, self.text, self.events, self.errors = language, "", [], []
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | address
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(COMMANDS[language], env=environment, stdin=pipe, stdout=pipe, stderr=pipe)
        self._answers: queue.Queue = queue.Queue()
        self._readers = [threading.Thread(target=reader, daemon=True) for reader in (self._read, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            text = line.decode()
            if text.startswith('{"event":'):
                self.events.append(tuple(json.loads(text)["event"]))
            else:
                self._answers.put(text)
        self._answers.put(None)

    def _read_errors(self) -> None:
        for line in self.process.stderr:
            self.errors.append(line.decode(errors="replace").rstrip())

    def send(self, call: str, acting: dict | None = None, **given) -> None:
        """`given` is JSON, or where numbers matter, a text of it under `raw`."""
        text = given.pop("raw", None) or json.dumps(given)
        self.process.stdin.write(f'{{"call": "{call}", "acting": {json.dumps(acting)}, "given": {text}}}\n'.encode())
        self.process.stdin.flush()

    def answer(self, seconds: float = 60):
        self.text = self._answers.get(timeout=seconds)
        assert self.text is not None, f"{self.language} ended:\n" + "\n".join(self.errors)
        said = json.loads(self.text, parse_float=decimal.Decimal)
        if "error" in said:
            raise Refused(said["error"])
        return said["ok"]

    def call(self, call: str, acting: dict | None = None, **given):
        self.send(call, acting, **given)
        return self.answer()

    def stop(self) -> int:
        """Told to stop while it consumes: its exit status, once it has answered and its input has ended."""
        self.process.send_signal(signal.SIGTERM)
        self.answer(30)
        return self.end()

    def end(self) -> int:
        self.process.stdin.close()
        status = self.process.wait(30)
        for reader in self._readers:
            reader.join()
        return status

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Proxy:
    """Passes on what client and server say, until lose_answer_to(words, then): the answer to the next message with these words is taken from the server, which has committed by
    then, `then` is called, and both sides are cut off. `trips` counts how often a client spoke after the server had."""

    def __init__(self, address: dict[str, str]):
        self.folder = tempfile.mkdtemp(prefix="es-", dir="/tmp")
        self._target = f"{address['PGHOST']}/.s.PGSQL.{address['PGPORT']}"
        self.address = address | {"PGHOST": self.folder}
        self._words, self._then, self.trips = None, None, 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self.folder}/.s.PGSQL.{address['PGPORT']}")
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_answer_to(self, words: bytes, then=lambda: None) -> None:
        self._words, self._then = words, then

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        losing, server_spoke = threading.Event(), threading.Event()
        server_spoke.set()
        try:
            server.connect(self._target)
        except OSError:
            client.close()
            return

        def towards_server():
            with contextlib.suppress(OSError):
                while data := client.recv(1 << 16):
                    if self._words and self._words in data:
                        self._words = None
                        losing.set()
                    self.trips += server_spoke.is_set()
                    server_spoke.clear()
                    server.sendall(data)
                server.shutdown(socket.SHUT_WR)

        threading.Thread(target=towards_server, daemon=True).start()
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                if losing.is_set():
                    while b"Z\0\0\0\5I" not in data:  # ReadyForQuery, outside of a transaction: it is committed
                        data += server.recv(1 << 16)
                    self._then()
                    break
                server_spoke.set()
                client.sendall(data)
        for side in (client, server):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()

    def close(self) -> None:
        self._listener.close()
        for file in pathlib.Path(self.folder).iterdir():
            file.unlink()
        os.rmdir(self.folder)
