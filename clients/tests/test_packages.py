"""What is installed: thin, typed, of one version, and alike in both languages."""

import ast
import io
import json
import pathlib
import re
import subprocess
import sys
import tokenize
import tomllib

import pytest
from faces import NODE
from server import ROOT

PYTHON = sorted((ROOT / "clients/python/eventstream_client").glob("*.py"))
JAVASCRIPT = sorted((ROOT / "clients/node/lib").glob("*.*s"))
LONGEST = 600

needs_node = pytest.mark.skipif(not NODE, reason="there is no Node on this machine")


def lines_of_python(path: pathlib.Path) -> int:
    """Without blank lines, comments and docstrings."""
    text = path.read_text()
    told: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node) is not None:
            told |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    empty = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    used = {line for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type not in empty for line in range(token.start[0], token.end[0] + 1)}
    return len(used - told)


def lines_of_javascript(path: pathlib.Path) -> int:
    return sum(not re.match(r"\s*(//|/?\*|$)", line) for line in path.read_text().splitlines())


def test_they_are_thin():
    assert 0 < sum(map(lines_of_python, PYTHON)) < LONGEST
    assert 0 < sum(map(lines_of_javascript, JAVASCRIPT)) < LONGEST


def test_they_bring_the_driver_and_nothing_else():
    project = tomllib.loads((ROOT / "clients/python/pyproject.toml").read_text())["project"]
    package = json.loads((ROOT / "clients/node/package.json").read_text())
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    assert [re.match(r"\w+", one)[0] for one in project["dependencies"]] == ["psycopg"] and list(package["dependencies"]) == ["pg"]
    assert project["version"] == package["version"] == version


def test_the_types_of_the_python_client_are_whole(tmp_path):
    """Both faces, and a program that uses them wrongly once."""
    program = tmp_path / "program.py"
    program.write_text((ROOT / "clients/python/tests/typed.py").read_text())
    done = subprocess.run([sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), "-p", "eventstream_client"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run([sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", "--cache-dir", str(tmp_path), program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_node
def test_the_types_of_the_node_client_are_whole():
    compiler = [f"{NODE}/bin/node", f"{NODE}/node_modules/typescript/bin/tsc", "--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--types", "node", "typed.mts"]
    done = subprocess.run(compiler, cwd=NODE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    script = "console.log(JSON.stringify(Object.keys(await import('eventstream-client')).sort()))"
    there = json.loads(subprocess.run([f"{NODE}/bin/node", "--input-type=module", "-e", script], cwd=NODE, capture_output=True, text=True, check=True).stdout)
    declared = set(re.findall(r"^export (?:class|function|const) (\w+)", (ROOT / "clients/node/lib/index.d.ts").read_text(), re.MULTILINE))
    assert set(there) == declared


@needs_node
def test_the_node_client_has_the_calls_of_the_python_client():
    import eventstream_client as es

    declared = (ROOT / "clients/node/lib/index.d.ts").read_text()
    calls = [name for name in dir(es.Transaction) if not name.startswith("_")]
    assert len(calls) == 18
    for name in [*calls, "acting", "transaction", "consumer", "close"]:
        camel = re.sub(r"_(.)", lambda match: match[1].upper(), name)
        assert re.search(rf"^  {camel}(<.*?>)?\(", declared, re.MULTILINE), name
    classes = {name for name, kind in vars(es).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert {name for name in re.findall(r"^export class (\w+) extends \w*Error", declared, re.MULTILINE)} == classes


@needs_node
def test_what_is_nodes_own():
    done = subprocess.run([f"{NODE}/bin/node", "--test", "own.test.mjs"], cwd=NODE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
