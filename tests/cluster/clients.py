"""The programs of docs/clients.md (and, without what follows, of docs/append.md), taken from the page and run as processes of their own.

What the test needs and a reader does not is put into them by `DIFFERENCES`, each at a line that must be there exactly once: shorter leases,
slower work, so that a kill falls between fetch and acknowledgement, and work that fails at events which say so.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import pytest
from server import ROOT, Server, wait_until

PAGE = ROOT / "docs/clients.md"
BATCH = 100
LEASE = 4
WORK_MS = 4

#: language: the fence's word, the program's file name, and (a line, what stands before it in the test).
PROGRAMS = {
    "python": ("python", "consumer.py", ("    print(event.global_position", f"""\
    if event.event_type == "Fails" and event.attempt == 1:
        raise RuntimeError("it fails the first time")
    time.sleep({WORK_MS / 1000})
""")),
    "node": ("js", "consumer.mjs", ("  console.log(event.global_position", f"""\
  if (event.event_type === "Fails" && event.attempt === "1") throw new Error("it fails the first time");
  await sleep({WORK_MS});
""")),
    "go": ("go", "consumer.go", ("	_, err := fmt.Println(e.globalPosition", f"""\
	if e.kind == "Fails" && e.attempt == 1 {{
		return errors.New("it fails the first time")
	}}
	time.Sleep({WORK_MS} * time.Millisecond)
""")),
    "java": ("java", "Consumer.java", ("        System.out.println(event.globalPosition", f"""\
        if (event.type().equals("Fails") && event.attempt() == 1) {{
            throw new Exception("it fails the first time");
        }}
        Thread.sleep({WORK_MS});
""")),
}  # fmt: skip


def snippets(fence: str, page: pathlib.Path = PAGE) -> list[str]:
    """A page's blocks of that language, in order: those on a driver alone. clients/tests runs those with the client."""
    found = re.findall(rf"^```{fence}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for text in found if not re.search("eventstream[_-]client", text)]


def program_of(language: str) -> str:
    """The page's program, with the differences."""
    fence, _, (line, before) = PROGRAMS[language]
    text = snippets(fence)[0]
    for here, instead in ((line, before + line), ("lease => '30s', wait => '5s'", f"lease => '{LEASE}s', wait => '1s'")):
        assert text.count(here) == 1, f"{here!r} stands {text.count(here)} times in the program in {language}"
        text = text.replace(here, instead)
    return text


def tool(language: str) -> pathlib.Path:
    """Where tools/clients keeps what that language needs."""
    done = subprocess.run([ROOT / "tools/clients", language], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode == 3:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return pathlib.Path(done.stdout.strip())


def build(language: str, folder: pathlib.Path, file: str, text: str) -> tuple[list[str], dict[str, str]]:
    """Writes and compiles a program: the command that starts it, and what it needs in its environment."""
    source = folder / file
    if language == "python":
        source.write_text(text)
        return [sys.executable, str(source)], {}
    place = tool(language)
    if language == "node":
        source.write_text(text)
        (folder / "node_modules").symlink_to(place / "node_modules")
        return [str(place / "bin/node"), str(source)], {}
    if language == "go":
        # Debian has the driver's version 4, the pages version 5: what the programs use is the same but for the paths.
        source.write_text(text.replace("jackc/pgx/v5/pgconn", "jackc/pgconn").replace("jackc/pgx/v5", "jackc/pgx/v4"))
        path = folder / "gopath"
        path.mkdir()
        (path / "src").symlink_to(place / "src")
        environment = {"GO111MODULE": "off", "GOPATH": str(path), "GOCACHE": str(place / "cache"), "GOTOOLCHAIN": "local", "GOFLAGS": ""}
        for command in (["vet"], ["build", "-o", str(folder / "program")]):
            compile_with([str(place / "bin/go"), *command, str(source)], environment)
        return [str(folder / "program")], {}
    if language == "rust":
        source.write_text(text)
        manifest = (place / "Cargo.toml").read_text().replace("src/main.rs", file)
        (folder / "Cargo.toml").write_text(manifest)
        shutil.copy(place / "Cargo.lock", folder)
        compile_with(["cargo", "build", "--offline", "--manifest-path", str(folder / "Cargo.toml")], {"CARGO_TARGET_DIR": str(place / "target"), "RUSTFLAGS": "-Dwarnings"})
        shutil.copy(place / "target/debug/program", folder)
        return [str(folder / "program")], {}
    source.write_text(text)
    compile_with(["javac", "-Xlint:all", "-Werror", "-cp", str(place / "postgresql.jar"), "-d", str(folder), str(source), str(ROOT / "tests/cluster/UnixSockets.java")], {})
    return ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{folder}:{place / 'postgresql.jar'}", source.stem], {}


def reach(language: str, server: Server, database: str) -> tuple[dict[str, str], list[str]]:
    """How a program in that language gets to a database: its environment, and its last arguments."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | server.address(database)
    if language == "java":
        # It takes no unix socket by itself, and no test server listens on the network.
        socket = f"{server.socket}/.s.PGSQL.{environment['PGPORT']}"
        return environment, [f"jdbc:postgresql://localhost/{database}?user={environment['PGUSER']}&socketFactory=UnixSockets&socketFactoryArg={socket}"]
    if language == "rust":
        return environment, [f"host={environment['PGHOST']} port={environment['PGPORT']} user={environment['PGUSER']} dbname={database}"]
    return environment, []


def compile_with(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


class Client:
    """The program of a language, built once; `start` runs it against a database."""

    def __init__(self, language: str):
        self.language = language
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="es-client-"))
        self.running: list[Consumer] = []
        try:
            self.command, self.environment = build(language, self.folder, PROGRAMS[language][1], program_of(language))
        except BaseException:
            shutil.rmtree(self.folder)
            raise

    def start(self, server: Server, database: str) -> "Consumer":
        environment, arguments = reach(self.language, server, database)
        command = [*self.command, *arguments]
        environment |= self.environment
        self.running.append(Consumer(command, environment))
        return self.running[-1]

    def end(self) -> None:
        """Nothing that was started outlives the test."""
        for consumer in self.running:
            consumer.kill()
        self.running.clear()

    def remove(self) -> None:
        self.end()
        shutil.rmtree(self.folder)


class Consumer:
    """A program that runs: what it has processed so far, as (position, stream, version)."""

    def __init__(self, command: list[str], environment: dict[str, str]):
        # A shell without job control lets what it starts in the background ignore SIGINT, which a JVM inherits.
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
        )
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.lines)),
            threading.Thread(target=self._read, args=(self.process.stderr, self.errors)),
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream, lines: list[str]) -> None:
        for line in stream:
            # The last line of a program that was killed may be half a line: it did not get to say that it was done.
            if line.endswith("\n"):
                lines.append(line.rstrip("\n"))

    @property
    def processed(self) -> list[tuple[int, str, int]]:
        return [(int(words[0]), words[1], int(words[2])) for words in (line.split(" ", 4) for line in list(self.lines))]

    def wait_for(self, count: int, seconds: float = 30) -> None:
        def there():
            assert self.process.poll() is None or len(self.lines) >= count, f"it ended with {self.process.returncode}:\n" + "\n".join(self.errors)
            return len(self.lines) >= count

        wait_until(there, seconds, f"{count} events, of which {len(self.lines)} came; errors: {self.errors[-5:]}", every=0.002)

    def wait_for_error(self, words: str, seconds: float = 30) -> None:
        wait_until(lambda: any(words in line for line in list(self.errors)), seconds, f"{words!r} among {self.errors}")

    def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = 20) -> int:
        """Sends the signal, waits, and gives the exit status; what it printed until then is in `processed`."""
        self.process.send_signal(number)
        status = self.process.wait(seconds)
        if status == 128 + number:  # how a JVM ends that was told to, after its shutdown hooks
            status = 0
        for reader in self._readers:
            reader.join()
        return status

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join()
