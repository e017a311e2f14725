"""The description of the REST interface, and the router: one says what the other does."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

from companion import run
from server import ROOT

SCHEMATHESIS = pathlib.Path(sys.executable).parent / "schemathesis"

ROUTES = re.compile(r'\.route\(\s*"(/v1/[^"]+)",\s*((?:\.?(?:get|post)\([\w:]+\))+)')


def document() -> dict:
    return json.loads((ROOT / "crates/server/openapi.json").read_text())


def test_every_route_is_described_and_every_description_has_a_route():
    source = (ROOT / "crates/server/src/rest/mod.rs").read_text()
    routed = {(path, method) for path, methods in ROUTES.findall(source) for method in re.findall(r"\b(get|post)\(", methods)}
    described = {(path, method) for path, methods in document()["paths"].items() for method in methods}
    assert routed - {("/v1/openapi.json", "get")} == described and len(routed) > 20


def test_the_program_and_the_server_give_the_same_description(ledger):
    served = ledger.companion.request("GET", "/v1/openapi.json")
    assert served.status == 200 and served.json == document() == json.loads(run(ledger.database, "openapi").stdout)


def test_answers_are_as_they_are_described_whatever_is_sent(ledger, tmp_path):
    """Property tests by schemathesis: nothing but what is described, no 500, and without a token nothing."""
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,ignored_auth"
    done = subprocess.run(
        [
            SCHEMATHESIS, "run", ROOT / "crates/server/openapi.json", "--url", "http://{}:{}".format(*ledger.companion.address),
            "--header", f"Authorization: Bearer {ledger.token()}", "--exclude-path", "/v1/log/live", "--phases", "examples,coverage,fuzzing",
            "--max-examples", os.environ.get("SCHEMATHESIS_EXAMPLES", "10"), "--checks", checks, "--seed", "1", "--no-color",
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
