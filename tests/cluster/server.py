"""A private PostgreSQL server for one test: initdb, start, stop, kill -9, standby, and nothing left behind.

Owns processes and data directories under target/cluster-tests and sockets under a short folder of /tmp. Listens on unix
sockets only, so that no port is ever taken. As root it runs the server as an unprivileged user, because PostgreSQL
refuses to run as root. Every server ends with the Python process that started it, however that ends.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid

import psycopg

ROOT = pathlib.Path(__file__).resolve().parents[2]
MAJOR = os.environ.get("PG", "15")
BIN = pathlib.Path(os.environ.get("EVENTSTREAM_PG_BIN", ROOT / "target" / "pg" / MAJOR / "bin"))
#: The build with test points (src/pg/process/test_point.rs), which `tools/test MAJOR backend` installs.
PROGRAMS_WITH_TEST_POINTS = ROOT / "target" / "pg-test" / MAJOR / "bin"
WORK = ROOT / "target" / "cluster-tests"
SUPERUSER = "postgres"
#: Only names the socket file: every server has a socket folder of its own.
PORT = 5432

running: list["Server"] = []

# Children of a postmaster that was killed come to us, so that a thousand crash cycles leave no zombies (PR_SET_CHILD_SUBREAPER).
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def unprivileged() -> pwd.struct_passwd | None:
    """The account that servers run as, or None to run them as ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("neither a user postgres nor nobody exists to run PostgreSQL as")


ACCOUNT = unprivileged()


def as_account(**more) -> dict:
    """Arguments that make subprocess run something as the servers' account."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    env.update(more.pop("env", {}))
    if ACCOUNT is not None:
        more |= {"user": ACCOUNT.pw_uid, "group": ACCOUNT.pw_gid, "extra_groups": []}
        env |= {"HOME": str(WORK), "USER": ACCOUNT.pw_name, "LOGNAME": ACCOUNT.pw_name}
    return {"env": env, "cwd": WORK, **more}


def make_folder(path: pathlib.Path) -> pathlib.Path:
    path.mkdir(parents=True, exist_ok=True)
    if ACCOUNT is not None:
        os.chown(path, ACCOUNT.pw_uid, ACCOUNT.pw_gid)
    path.chmod(0o700)
    return path


def run(program: str, *arguments, **options) -> str:
    """Runs one of PostgreSQL's programs as the servers' account and returns what it printed; raises with its output."""
    WORK.mkdir(parents=True, exist_ok=True)
    if ACCOUNT is not None:
        os.chown(WORK, ACCOUNT.pw_uid, ACCOUNT.pw_gid)
    check = options.pop("check", True)
    done = subprocess.run(
        [str(BIN / program), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **as_account(**options),
    )
    if check and done.returncode != 0:
        raise RuntimeError(f"{program} {' '.join(map(str, arguments))} failed ({done.returncode}):\n{done.stdout}")
    return done.stdout


def children_of(pid: int) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                status = pathlib.Path("/proc", entry, "stat").read_text()
            except OSError:
                continue
            if int(status.rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry))
    return found


def state_of(pid: int) -> str | None:
    """The kernel's letter for a process (T: stopped, Z: a zombie); None where there is none."""
    try:
        status = pathlib.Path("/proc", str(pid), "stat").read_text()
    except OSError:
        return None
    return status.rpartition(")")[2].split()[0]


def is_alive(pid: int) -> bool:
    return state_of(pid) not in ("Z", "X", None)


def kill_9(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def wait_until(condition, seconds: float = 30, what: str = "the condition", every: float = 0.02):
    """Returns the condition's first true value; fails by name when it never comes."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(every)


class Server:
    """One cluster. Settings are written to postgresql.conf; `environment` is the server process's."""

    def __init__(
        self, name: str, *, preload: bool = True, fsync: bool = False, environment=None, programs=BIN, **settings
    ):
        self.name = name
        self.programs = programs
        self.home = WORK / f"{name}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.data = self.home / "data"
        self.log = self.home / "server.log"
        self.environment = dict(environment or {})
        self.process: subprocess.Popen | None = None
        self.socket = pathlib.Path(tempfile.mkdtemp(prefix="es-", dir="/tmp"))
        make_folder(self.socket)
        WORK.mkdir(parents=True, exist_ok=True)
        if ACCOUNT is not None:
            os.chown(WORK, ACCOUNT.pw_uid, ACCOUNT.pw_gid)
        make_folder(self.home)
        self.settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket),
            "port": PORT,
            "fsync": "on" if fsync else "off",
            "max_connections": 60,
            "shared_buffers": "64MB",
            "max_wal_size": "1GB",
            "log_min_messages": "warning",
            "log_line_prefix": "%m [%p] %q%u@%d ",
            "timezone": "UTC",
        }
        if preload:
            self.settings["shared_preload_libraries"] = "eventstream"
        self.settings |= settings

    # -- life -----------------------------------------------------------------------------------------------------

    def create(self) -> "Server":
        """initdb, start, and the superuser `postgres` trusted on the socket."""
        run("initdb", "-D", self.data, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        return self.start()

    def configure(self, **settings) -> None:
        """Sets, or with None unsets, lines of postgresql.conf; the caller reloads or restarts."""
        for name, value in settings.items():
            if value is None:
                self.settings.pop(name.replace("__", "."), None)
            else:
                self.settings[name.replace("__", ".")] = value
        lines = ["{} = '{}'".format(name, str(value).replace("'", "''")) for name, value in self.settings.items()]
        target = self.data / "conf.d" / "test.conf"
        make_folder(target.parent)
        target.write_text("\n".join(lines) + "\n")
        if ACCOUNT is not None:
            os.chown(target, ACCOUNT.pw_uid, ACCOUNT.pw_gid)
        main = self.data / "postgresql.conf"
        if "include_dir = 'conf.d'" not in main.read_text():
            with main.open("a") as file:
                file.write("\ninclude_dir = 'conf.d'\n")

    def start(self, wait: bool = True, seconds: float = 60) -> "Server":
        assert self.process is None, f"{self.name} runs already"
        self.configure()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "INT", str(self.programs / "postgres"), "-D", str(self.data)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **as_account(env=self.environment),
            )
        running.append(self)
        if wait:
            self.wait_for_connections(seconds)
        return self

    def wait_for_connections(self, seconds: float = 60) -> None:
        def answers():
            if self.process is not None and self.process.poll() is not None:
                raise RuntimeError(f"server {self.name} ended with {self.process.returncode}:\n{self.log_tail()}")
            try:
                self.connect("postgres", connect_timeout=5).close()
                return True
            except psycopg.OperationalError:
                return False

        wait_until(answers, seconds, f"{self.name} to accept connections")

    def stop(self, mode: str = "fast", seconds: float = 60) -> None:
        if self.process is None:
            return
        self.process.send_signal({"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill_everything()
            raise RuntimeError(f"server {self.name} did not stop in {seconds:.0f} s ({mode}):\n{self.log_tail()}")
        self._forget()

    def restart(self, mode: str = "fast") -> "Server":
        self.stop(mode)
        return self.start()

    def reload(self) -> None:
        with self.connect("postgres") as connection:
            before = connection.execute("select pg_conf_load_time()").fetchone()
            connection.execute("select pg_reload_conf()")
            wait_until(lambda: connection.execute("select pg_conf_load_time()").fetchone() != before, 10, "the reload")

    def kill_everything(self) -> None:
        """kill -9 for the postmaster and then for all that it started: nobody gets to clean up."""
        assert self.process is not None
        pid = self.process.pid
        # Stopped first, so that no child is born between the look and the kill.
        self.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: state_of(pid) in ("T", None), 10, f"the postmaster of {self.name} to stand still")
        family = children_of(pid)
        kill_9(pid)
        for child in family:
            kill_9(child)
        self.process.wait()
        wait_until(lambda: not any(map(is_alive, family)), 30, f"the children of {self.name} to be gone")
        for child in family:
            try:
                os.waitpid(child, os.WNOHANG)
            except ChildProcessError:
                pass
        self._forget()

    def _forget(self) -> None:
        self.process = None
        if self in running:
            running.remove(self)

    def destroy(self) -> None:
        """Stops the server and removes its data; its log stays only as long as the folder does."""
        if self.process is not None:
            try:
                self.stop("fast", 20)
            except RuntimeError:
                pass
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.rmtree(self.socket, ignore_errors=True)

    def promote(self) -> None:
        run("pg_ctl", "promote", "-D", self.data, "-w", "-t", 60)

    def make_standby(self, name: str, **settings) -> "Server":
        """A streaming standby of this server, made with pg_basebackup and started."""
        standby = Server(name, **{key: value for key, value in settings.items()})
        standby.settings = {**self.settings, **settings, "unix_socket_directories": str(standby.socket)}
        standby.settings.pop("synchronous_standby_names", None)
        run(
            "pg_basebackup", "-h", self.socket, "-p", PORT, "-U", SUPERUSER, "-D", standby.data,
            "-c", "fast", "-X", "stream", "--no-sync",
        )  # fmt: skip
        standby.settings["primary_conninfo"] = f"host={self.socket} port={PORT} user={SUPERUSER} application_name={name}"
        standby.settings["hot_standby"] = "on"
        (standby.data / "standby.signal").touch()
        if ACCOUNT is not None:
            os.chown(standby.data / "standby.signal", ACCOUNT.pw_uid, ACCOUNT.pw_gid)
        return standby.start()

    # -- use ------------------------------------------------------------------------------------------------------

    def connect(self, database: str, user: str = SUPERUSER, **options) -> psycopg.Connection:
        """A connection in autocommit mode, unless asked otherwise."""
        options.setdefault("autocommit", True)
        return psycopg.connect(
            host=str(self.socket), port=PORT, dbname=database, user=user, application_name="cluster-tests", **options
        )

    def address(self, database: str) -> dict[str, str]:
        """What libpq programs need in their environment to reach a database of this server."""
        return {"PGHOST": str(self.socket), "PGPORT": str(PORT), "PGUSER": SUPERUSER, "PGDATABASE": database}

    def log_tail(self, lines: int = 40) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"


def remove_what_dead_runs_left() -> None:
    """Data folders of runs that were killed themselves; their servers ended with them."""
    for folder in WORK.glob("*-*-*"):
        pid = folder.name.split("-")[-2]
        if folder.is_dir() and pid.isdigit() and not is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


@atexit.register
def stop_what_still_runs() -> None:
    for server in list(running):
        try:
            server.kill_everything()
        except Exception:  # noqa: BLE001 - at exit there is nobody left to tell
            pass
        shutil.rmtree(server.socket, ignore_errors=True)
