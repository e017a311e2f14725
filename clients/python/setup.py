"""Builds the package. The face without async is written from the one with it, so that both say the same: eventstream_client/_async.py is the source of _sync.py."""

import pathlib
import re

from setuptools import setup
from setuptools.command.build_py import build_py

#: In this order; the rest of the text stays as it is.
CHANGES = [
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"Awaitable\[((?:[^\[\]]|\[[^\[\]]*\])*)\]", r"\1"),
    (r"__a(enter|exit)__", r"__\1__"),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\basyncio\b", "time"),
    (r"\bAsync(\w+)", r"\1"),
]


def without_async(text: str) -> str:
    for pattern, instead in CHANGES:
        text = re.sub(pattern, instead, text)
    return text


class Build(build_py):
    def run(self):
        super().run()
        folder = pathlib.Path(self.build_lib, "eventstream_client")
        text = without_async((folder / "_async.py").read_text(encoding="utf-8"))
        (folder / "_sync.py").write_text(text, encoding="utf-8")


setup(cmdclass={"build_py": Build})
