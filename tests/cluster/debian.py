"""Programs and libraries that a test wants beside PostgreSQL: Debian's packages, fetched and unpacked, never installed."""

import fcntl
import os
import pathlib
import shutil
import subprocess

import pytest

from server import ROOT


def unpacked(package: str) -> pathlib.Path:
    """The folder under target/ that holds what is in the package; files of tests that run beside this one wait for it.

    As root the package must be there to be fetched, as anybody else the test is skipped without it.
    """
    folder = ROOT / "target" / "debian" / package
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "unpacked").exists():
            unpack(fetch(package, folder), folder)
            (folder / "unpacked").touch()
    return folder


def unpack(file: pathlib.Path, into: pathlib.Path) -> None:
    subprocess.run(["dpkg-deb", "-x", str(file), str(into)], check=True)
    file.unlink()


def fetch(package: str, folder: pathlib.Path) -> pathlib.Path:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip(f"{package} is not installed, and this is not a Debian that could fetch it")
    download = ["apt-get", "download", package]
    for attempt in (download, ["apt-get", "update"], download):
        done = subprocess.run(attempt, cwd=folder, capture_output=True, text=True)
        found = next(folder.glob("*.deb"), None)
        if found is not None:
            return found
    if os.geteuid() == 0:
        pytest.fail(f"{package} could not be fetched: {done.stderr}")
    pytest.skip(f"{package} is not installed and could not be fetched: {done.stderr}")
