"""REST: what SQL answers, digit for digit, with the same refusals."""

from __future__ import annotations

import json
import uuid

import pytest
from companion import quoted

LONG = "0.1234567890123456789012345678901234567890"
AMOUNTS = f'{{"amount": 1400.50, "long": {LONG}, "huge": 1e400, "whole": 123456789012345678901234567890, "text": "1400.50"}}'


def stream() -> str:
    return f"account-{uuid.uuid4()}"


def event(payload="{}", **more) -> str:
    return f'{{"type": "Credited", "payload": {payload}' + "".join(f', "{name}": {json.dumps(value)}' for name, value in more.items()) + "}"


def test_what_was_posted_is_read_digit_for_digit(ledger):
    name = stream()
    posted = ledger.post(f"/v1/streams/{name}/events", event(AMOUNTS))
    assert posted.status == 201, posted
    assert posted.headers["etag"] == '"1"' and posted.json["version"] == 1 and not posted.json["replayed"]
    read = ledger.get(f"/v1/streams/{name}/events")
    assert read.status == 200 and read.headers["etag"] == '"1"', read
    for digits in ("1400.50", LONG, "123456789012345678901234567890", "1" + "0" * 400):
        assert digits in read.text
    as_text = ledger.get(f"/v1/streams/{name}/events?numbers=string")
    payload = as_text.json["events"][0]["payload"]
    assert payload["amount"] == "1400.50" and payload["long"] == LONG and as_text.json["events"][0]["version"] == "1"


def test_a_precondition_that_does_not_hold_is_412_and_one_that_was_not_sent_is_none(ledger):
    path = f"/v1/streams/{stream()}/events"
    assert ledger.post(path, event(), If_None_Match="*").status == 201
    again = ledger.post(path, event(), If_None_Match="*")
    assert again.status == 412 and again.json["code"] == "ES001"
    assert again.json["facts"] == {"stream": path.split("/")[3], "expected_version": 0, "actual_version": 1}
    assert again.headers["content-type"] == "application/problem+json"
    assert ledger.post(path, event(), If_Match='"1"').status == 201
    assert ledger.post(path, event(), If_Match='"1"').status == 412
    assert ledger.post(path, event(), If_Match="*").status == 201
    assert ledger.post(f"/v1/streams/{stream()}/events", event(), If_Match="*").json["code"] == "ES002"


def test_a_repetition_with_its_key_is_recognised_and_another_request_with_it_is_refused(ledger):
    path = f"/v1/streams/{stream()}/events"
    first = ledger.post(path, f"[{event()}, {event()}]", Idempotency_Key="k-1")
    second = ledger.post(path, f"[{event()}, {event()}]", Idempotency_Key="k-1")
    assert (first.status, second.status) == (201, 200)
    assert first.json["event_ids"] == second.json["event_ids"] and second.json["replayed"]
    assert ledger.post(path, f"[{event('1')}, {event()}]", Idempotency_Key="k-1").status == 422
    assert ledger.get(path).json["version"] == 2


def test_a_name_with_slashes_is_found_by_the_query(ledger):
    name = f"account-a/b?c#{uuid.uuid4()}"
    assert ledger.post(f"/v1/streams/events?stream={quoted(name)}", event()).status == 201
    assert ledger.get(f"/v1/streams/events?stream={quoted(name)}").json["events"][0]["stream"] == name
    assert ledger.get(f"/v1/streams/{quoted(name)}/events").json["version"] == 1


def test_one_tenants_token_sees_nothing_of_another(ledger):
    name = stream()
    assert ledger.post(f"/v1/streams/{name}/events", event()).status == 201
    assert ledger.get(f"/v1/streams/{name}/events", tenant="bank").json == {"stream": name, "version": 0, "events": []}
    assert ledger.get("/v1/me", tenant="bank").json["tenant"] == "bank"


@pytest.mark.parametrize(
    ("header", "status"),
    [(None, 401), ("Basic abc", 401), ("Bearer", 401), ("Bearer a.b.c", 401), ("Bearer ", 401), ("Bearer " + "a" * 9000, 401)],
)
def test_without_a_token_there_is_no_answer(ledger, header, status):
    sent = {} if header is None else {"Authorization": header}
    answer = ledger.companion.request("GET", "/v1/log", **sent)
    assert answer.status == status and answer.headers["www-authenticate"] == "Bearer", answer


def test_a_token_that_is_over_forged_or_of_a_stranger_is_401(ledger):
    def asked(token):
        return ledger.companion.request("GET", "/v1/log", token=token)

    assert asked(ledger.token()).status == 200
    forged = ledger.token(key=ledger.keys["bank"])
    for token in (ledger.dying(seconds=-5), forged, ledger.token(iss="https://elsewhere.example")):
        answer = asked(token)
        assert answer.status == 401 and answer.json["code"] == "ES043", answer


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/streams/account-1/events?max_cuont=3", None, 400),
        ("GET", "/v1/streams/account-1/events?max_count=0", None, 400),
        ("GET", "/v1/streams/account-1/events?max_count=x", None, 400),
        ("GET", "/v1/streams/account-1/events?max_count=1&max_count=2", None, 400),
        ("GET", "/v1/streams/account/events", None, 400),
        ("GET", "/v1/streams/account-1/state?as_of=yesterday", None, 400),
        ("GET", "/v1/streams/account-1/state?version=1&as_of=2024-01-01T00:00:00Z", None, 400),
        ("GET", "/v1/streams/%ff/events", None, 400),
        ("GET", "/v1/nothing", None, 404),
        ("DELETE", "/v1/log", None, 405),
        ("POST", "/v1/streams/account-1/events", "", 400),
        ("POST", "/v1/streams/account-1/events", "{", 400),
        ("POST", "/v1/streams/account-1/events", b"\xff", 400),
        ("POST", "/v1/streams/account-1/events", "{}", 400),
        ("POST", "/v1/streams/account-1/events", "7", 400),
        ("POST", "/v1/streams/account-1/events", '{"type": "A", "payload": "\\u0000"}', 400),
        ("POST", "/v1/appends", '{"appends": [], "else": 1}', 400),
        ("POST", "/v1/subscriptions/none/fetch", '{"consumer": "a"}', 404),
        ("POST", "/v1/subscriptions/none/ack", '{"lease_id": "x"}', 400),
        ("POST", "/v1/streams/account-1/commands/Pay", "{}", 404),
    ],
)
def test_bad_input_is_a_problem_document(ledger, method, path, body, status):
    answer = ledger.companion.request(method, path, body, token=ledger.token())
    assert answer.status == status and answer.headers["content-type"] == "application/problem+json", answer
    assert answer.json["status"] == status and answer.json["detail"]


def test_hostile_texts_come_back_as_they_were(ledger):
    for hostile in ("'; drop table x; --", "$1", "%s", "\\", '"', "<script>alert(1)</script>", "é😀\u202e", "a\nb", "{}", "../..", "\x7f"):
        name = f"account-{uuid.uuid4()}"
        body = json.dumps({"type": "Said", "payload": {"text": hostile, hostile: hostile}, "metadata": {"actor": hostile}})
        posted = ledger.post(f"/v1/streams/{name}/events", body)
        assert posted.status == 201, posted
        found = ledger.get(f"/v1/streams/{name}/events").json["events"][0]
        assert found["payload"] == {"text": hostile, hostile: hostile}


def test_what_a_request_may_take_is_bounded(ledger):
    most = 8 << 20
    answer = ledger.post("/v1/streams/account-1/events", event(json.dumps("a" * most)))
    assert answer.status == 413, answer


def test_the_program_ends_in_order_and_says_so_to_who_asks(companion, ledger):
    assert companion.request("GET", "/healthz").text == "ok\n"
    assert companion.request("GET", "/readyz").status == 200
    assert companion.stop() == 0
