"""Each call does what its function does; what goes out together is one round trip; what the database refuses has a class."""

import re
import time
import uuid

import pytest
from database import rows, value, verify
from deciding import bank
from faces import Refused
from minting import Bank
from pooling import pooled
from server import ROOT

ADD = {"type": "Credited", "payload": {"amount": 1}}


@pytest.fixture
def banked(database):
    return bank(database)


def refused(face, kind, name, **given):
    with pytest.raises(Refused) as error:
        face.call(name, **given)
    assert error.value.kind == kind, error.value.said
    return error.value


# --- appending and reading ---------------------------------------------------------------------------------


def test_an_append_expects_a_version_or_a_stream_that_is_there(face, banked):
    refused(face, "NotFound", "append", stream="account-1", events=[ADD], must_exist=True)
    assert face.call("append", stream="account-1", events=[ADD, ADD], expected_version=0) == 2
    assert face.call("append", stream="account-1", events=[ADD], expected_version=2, must_exist=True) == 3
    refused(face, "VersionConflict", "append", stream="account-1", events=[ADD], expected_version=0)
    refused(face, "Invalid", "append", stream="account", events=[ADD])
    error = refused(face, "Invalid", "append", stream="account-1", events=[])
    assert error.sqlstate == "ES005" and error.said["detail"]["argument"] == "events"


def test_ids_are_given_or_derived_and_the_same_in_every_language(face, banked):
    full = {
        "type": "Credited", "payload": {"amount": 1}, "metadata": {"actor": "ann"}, "event_id": "018f3f5e-0000-7000-8000-000000000001",
        "subject": "customer-7", "tags": ["order:42", 'a"b\\c'], "schema_version": 1,
    }  # fmt: skip
    for _ in range(2):
        assert face.call("append", stream="account-1", events=[full], expected_version=0) == 1
    for _ in range(2):
        assert face.call("append", stream="account-1", events=[ADD, ADD], key="order-1") == 3
    refused(face, "KeyReused", "append", stream="account-1", events=[ADD, {"type": "Debited", "payload": {"amount": 1}}], key="order-1")
    first, *derived = face.call("read", stream="account-1")
    assert {name: first[name] for name in ("event_id", "subject", "tags", "metadata")} == {
        "event_id": full["event_id"], "subject": "customer-7", "tags": sorted(full["tags"]), "metadata": {"actor": "ann"}
    }  # fmt: skip
    ids = uuid.UUID("2f1d5e0a-7c55-5c0b-9f63-6f1f0c1b7a10")
    assert [event["event_id"] for event in derived] == [str(uuid.uuid5(ids, f"account-1\norder-1\n{n}")) for n in (1, 2)]
    with banked.connect() as session:
        assert rows(session, "select encode(chain_hash, 'hex') from es_read('account-1')") == [(event["chain_hash"],) for event in (first, *derived)]
        assert verify(session) == []


def test_several_streams_go_together_under_a_condition(face, banked):
    query = {"items": [{"tags": ["flight:1"]}]}
    seen = face.call("condition", query=query)
    reserve = [{"stream": "seat-1", "expected_version": 0, "events": [{"type": "Reserved", "payload": {}, "tags": ["flight:1"]}]}, {"stream": "till-1", "events": [ADD]}]
    first, second = face.call("append_streams", appends=reserve, condition=seen, key="booking-1")
    assert (first["stream"], first["version"], second["stream"], len(second["positions"])) == ("seat-1", 1, "till-1", 1)
    # A retry is recognised first; another booking under the old condition is not.
    assert face.call("append_streams", appends=reserve, condition=seen, key="booking-1") == [first, second]
    again = [{"stream": "seat-2", "events": [{"type": "Reserved", "payload": {}, "tags": ["flight:1"]}]}]
    refused(face, "ConditionFailed", "append_streams", appends=again, condition=seen)
    check = [{"stream": "seat-1", "expected_version": 1}, *again]
    assert [one["version"] for one in face.call("append_streams", appends=check, condition=face.call("condition", query=query))] == [1, 1]


def test_reading_goes_by_pages_and_leaves_nothing_out(face, faces, banked, proxies, address):
    for _ in range(5):
        face.call("append", stream="account-1", events=[ADD] * 5)
    face.call("append", stream="account-2", events=[{"type": "Debited", "payload": {"amount": 1}, "tags": ["x"]}] * 3)
    versions = lambda name="read", **given: [event["version"] for event in face.call(name, **given)]  # noqa: E731
    for page_size in (1, 5, 7, 25, 100):
        assert versions(stream="account-1", page_size=page_size) == list(range(1, 26))
        assert versions(stream="account-1", page_size=page_size, backward=True) == list(range(25, 0, -1))
        assert len(versions("read_all", page_size=page_size)) == 28
        assert versions("query", criteria={"streams": ["account-1"]}, page_size=page_size) == list(range(1, 26))
    assert versions(stream="account-1", from_version=20, to_version=22) == [20, 21, 22]
    assert versions(stream="account-1", event_types=["Debited"]) == [] == versions(stream="account-9")
    assert versions("read_all", event_types=["Debited"], page_size=2) == [1, 2, 3] == versions("read_all", tags=["x"]) == versions("read_all", categories=["account"])[25:]
    info = face.call("log_info")
    assert face.call("read_all", after_position=info["horizon"], log_id=info["log_id"], timeline=info["timeline"]) == []
    assert len(face.call("read_all", up_to=info["horizon"])) == 28
    refused(face, "PositionAhead", "read_all", after_position=10**6)
    # A page at a time: so many round trips.
    proxy = proxies(address)
    other = faces(proxy.address)
    other.call("horizon")
    before = proxy.trips
    assert len(other.call("read", stream="account-1", page_size=5)) == 25
    assert proxy.trips - before == 6


def test_pages_of_a_query_are_given_back(face, banked):
    face.call("append", stream="account-1", events=[ADD] * 5)
    page, found = None, []
    for count in (2, 2, 1, 0):
        answer = face.call("query_page", criteria={"order": "backward"}, max_count=2, page=page)
        assert len(answer["events"]) == count
        found += [event["version"] for event in answer["events"]]
        page = answer["next"]
    assert found == [5, 4, 3, 2, 1]
    assert refused(face, "Invalid", "query_page", criteria={}, page=page).sqlstate == "ES032"


def test_states_now_at_a_version_and_at_two_moments(face, banked):
    face.call("append", stream="account-1", events=[{"type": "Credited", "payload": {"amount": 5}}])
    with banked.connect() as session:
        session.execute("select es_append('account-1', 'Debited', '{\"amount\": 1.50}', occurred_at => '2024-01-10 12:00Z')")
    (first, late) = face.call("read", stream="account-1")
    assert face.call("load", stream="account-1")["version"] == 2 and face.call("load", stream="account-9")["version"] == 0
    balance = lambda **given: str(face.call("state", stream="account-1", **given)["balance"])  # noqa: E731
    assert (balance(), balance(version=1), balance(as_of="2024-02-01T00:00:00Z")) == ("3.50", "5", "-1.50")
    # What was recorded of the first event, to the microsecond, is the moment at which it was known.
    recorded = "recorded_at" if "recorded_at" in first else "recorded"
    assert balance(known_at=first[recorded]) == "5" and balance(known_at=late[recorded]) == "3.50"
    refused(face, "mistake", "state", stream="account-1", version=1, known_at=late[recorded])


def test_an_event_of_before_our_era_holds_up_nobody(face, banked):
    with banked.connect() as session:
        session.execute("select es_append('account-1', 'Credited', '{\"amount\": 1}', occurred_at => '0044-03-15 12:00Z BC')")
    (event,) = face.call("read", stream="account-1")
    assert event.get("occurred", event.get("occurred_at")) == "0044-03-15T12:00:00+00:00 BC"


# --- commands, and operations outside ------------------------------------------------------------------------


def test_a_command_is_answered_and_a_no_has_its_code(face, banked):
    face.call("command", stream="account-1", command_type="Deposit", payload={"amount": 10}, key="d-1")
    answer = face.call("command", stream="account-1", command_type="Withdraw", payload={"amount": 2.5}, key="w-1", metadata={"actor": "ann"}, subject="customer-7")
    assert (answer["version"], answer["replayed"], answer["versions"], len(answer["event_ids"])) == (2, False, {"account-1": 2}, 1)
    assert '"left":7.5' in face.text
    assert face.call("command", stream="account-1", command_type="Withdraw", payload={"amount": 2.5}, key="w-1") == {**answer, "replayed": True}
    error = refused(face, "CommandRefused", "command", stream="account-1", command_type="Withdraw", payload={"amount": 100}, key="w-2")
    assert (error.said["code"], error.said["message"]) == ("insufficient_funds", "only 7.5 are there") and '"available":7.5' in face.text
    assert refused(face, "KeyReused", "command", stream="account-1", command_type="Withdraw", payload={"amount": 3}, key="w-1").sqlstate == "ES030"
    assert refused(face, "RuleBroken", "command", stream="account-1", command_type="Deposit", payload={"amount": -1}, key=None).said["detail"]["value"] == "/amount"
    assert refused(face, "Invalid", "command", stream="account-1", command_type="Rob", payload={}, key=None).sqlstate == "ES035"
    other = face.call("command", stream="account-1", command_type="Transfer", payload={"to": "account-2", "amount": 1}, key="t", decider="transfer")
    assert other["versions"] == {"account-1": 3, "account-2": 1}
    event = face.call("read", stream="account-1")[1]
    assert event["metadata"]["actor"] == "ann" and event["subject"] == "customer-7" and event["metadata"]["command"]["key"] == "w-1"
    nothing = face.call("command", stream="account-7", command_type="Nothing", payload={}, key=None)
    assert (nothing["version"], nothing["event_ids"] or [], nothing["global_position"]) == (0, [], None)


def test_an_operation_outside_is_begun_once_and_its_answer_kept(face, banked):
    request = {"operation": "charge", "key": "order-1", "request": {"amount": 12}}
    begun = face.call("begin_command", lease=60, **request)
    assert (begun["outcome"], begun["attempt"], begun["result"], begun["error"]) == ("execute", 1, None, None)
    assert face.call("begin_command", wait=0.1, **request)["outcome"] == "in_progress"
    token = begun["attempt_token"]
    face.call("extend_command", attempt_token=token, seconds=120)
    event_id = face.call("command_event_id", attempt_token=token, number=1)
    assert event_id == face.call("command_event_id", attempt_token=token, number=1) != face.call("command_event_id", attempt_token=token, number=2)
    face.call("transaction", calls=[
        ["append", {"stream": "payment-1", "events": [{"type": "Charged", "payload": {}, "event_id": event_id}]}],
        ["complete_command", {"attempt_token": token, "result": {"receipt": "R-1"}}],
    ])  # fmt: skip
    again = face.call("begin_command", **request)
    assert (again["outcome"], again["result"], again["attempt_token"]) == ("replay", {"receipt": "R-1"}, None)
    refused(face, "KeyReused", "begin_command", operation="charge", key="order-1", request={"amount": 13})
    lost = refused(face, "AttemptLost", "fail_command", attempt_token=token, error={})
    assert lost.sqlstate == "ES031"
    other = face.call("begin_command", operation="charge", key="order-2", request={}, keep=3600)
    face.call("fail_command", attempt_token=other["attempt_token"], error={"why": "busy"})
    assert face.call("begin_command", operation="charge", key="order-2", request={})["attempt"] == 2


def test_what_is_protected_is_shown_for_a_reason(face, banked):
    with banked.connect() as session:
        session.execute("select es_append('person-1', 'Registered', '{\"name\": \"Ann\", \"n\": 1.50}') from generate_series(1, 3)")
        session.execute("select es_protect('Registered', pointers => '{/name}')")
        session.execute("select es_grant('postgres', 'reveal')")
    assert "Ann" not in str(face.call("read", stream="person-1"))
    shown = face.call("reveal", stream="person-1", reason="CASE-1", page_size=2)
    assert [event["payload"]["name"] for event in shown] == ["Ann"] * 3
    with banked.connect() as session:
        assert rows(session, "select from_version, to_version, reason from eventstream.access_log order by 1") == [(1, 2, "CASE-1"), (3, 3, "CASE-1")]
    assert refused(face, "Invalid", "reveal", stream="person-1", reason="who@where").sqlstate == "ES005"


# --- transactions, tokens, tenants, poolers --------------------------------------------------------------------


def test_a_transaction_is_whole_or_not_at_all(face, banked):
    calls = [["load", {"stream": "account-1", "for_update": True}], ["append", {"stream": "account-1", "events": [ADD]}], ["append", {"stream": "account-2", "events": [ADD], "expected_version": 0}]]
    loaded, first, second = face.call("transaction", calls=calls)
    assert (loaded["version"], first, second) == (0, 1, 1)
    refused(face, "VersionConflict", "transaction", calls=calls)
    refused(face, "mistake", "transaction", calls=calls[:2], breaks=True)
    # In a transaction nothing is decided anew: what was read before is of the same transaction.
    refused(face, "VersionConflict", "transaction", calls=[["append", {"stream": "account-2", "events": [ADD], "expected_version": 0, "anew": True}]])
    with banked.connect() as session:
        assert value(session, "select count(*) from eventstream.events") == 2
        assert value(session, "select count(*) from pg_stat_activity where state like 'idle in%'") == 0
    assert face.call("append", stream="account-1", events=[ADD]) == 2


def test_each_call_begins_with_the_token_in_one_round_trip(faces, database, proxies, address):
    made = Bank(database)
    proxy = proxies(address | {"PGUSER": made.role})
    face = faces(proxy.address)
    refused(face, "TenantRefused", "append", stream="account-1", events=[ADD])
    acting = {"token": made.token("acme", sub="clerk-9")}
    assert face.call("append", acting, stream="account-1", events=[ADD]) == 1
    before = proxy.trips
    (event,) = face.call("read", acting, stream="account-1")
    assert proxy.trips - before == 1
    assert (event["tenant"], event["metadata"]["actor"]) == ("acme", "clerk-9")
    before = proxy.trips
    answers = face.call("transaction", acting, calls=[["append", {"stream": "account-1", "events": [ADD]}], ["read", {"stream": "account-1"}]])
    assert answers[0] == 2 and proxy.trips - before == 4  # begin and the token, the two calls, commit
    assert face.call("read", {"token": made.token("bank")}, stream="account-1") == []
    # The token is of that call alone.
    refused(face, "TenantRefused", "read", stream="account-1")
    for token, state in [("no.such.token", "ES043")] * 30 + [(made.dying("acme", seconds=-1), "ES043")]:
        assert refused(face, "TenantRefused", "read", acting={"token": token}, stream="account-1").sqlstate == state
    error = refused(face, "driver", "append", acting={"token": made.token("acme", privileges=["read"])}, stream="account-1", events=[ADD])
    assert error.sqlstate == "42501"
    assert face.errors == [], "the driver complains"


def test_without_tokens_a_tenant_and_metadata_hold_for_the_transaction(face, database):
    with database.connect() as session:
        session.execute("select es_create_tenant('acme'), es_create_tenant('bank')")
    acme = {"tenant": "acme", "metadata": {"actor": "ann"}}
    assert face.call("append", acme, stream="account-1", events=[ADD]) == 1
    assert face.call("transaction", {"tenant": "bank"}, calls=[["append", {"stream": "account-1", "events": [ADD]}]]) == [1]
    told = [(event["tenant"], event["metadata"]) for tenant in ("acme", "bank") for event in face.call("read", {"tenant": tenant}, stream="account-1")]
    assert told == [("acme", {"actor": "ann"}), ("bank", {})]
    refused(face, "NotFound", "read", acting={"tenant": "nobody"}, stream="account-1")
    assert face.call("read", {"tenant": "acme"}, stream="account-1")[0]["version"] == 1


def test_through_pgbouncer_in_transaction_mode(faces, database):
    made = Bank(database)
    with pooled(database, user=made.role, sessions=2) as connect:
        with connect() as session:
            folder = session.info.host
        workers = [faces({"PGHOST": folder, "PGPORT": "5432", "PGUSER": made.role, "PGDATABASE": database.name}) for _ in range(3)]
        for n in range(20):
            for number, face in enumerate(workers):
                tenant = ("acme", "bank")[number % 2]
                acting = {"token": made.token(tenant)}
                face.send("transaction" if n % 5 == 4 else "append", acting, **(
                    {"calls": [["append", {"stream": f"account-{number}", "events": [ADD]}], ["load", {"stream": f"account-{number}", "for_update": True, "fold": None}][:0] or ["horizon", {}]]}
                    if n % 5 == 4 else {"stream": f"account-{number}", "events": [ADD]}))  # fmt: skip
            assert [answer[0] if isinstance(answer, list) else answer for answer in (face.answer() for face in workers)] == [n + 1] * 3
        for number, face in enumerate(workers):
            found = face.call("read", {"token": made.token(("acme", "bank")[number % 2])}, stream=f"account-{number}", page_size=6)
            assert [event["version"] for event in found] == list(range(1, 21))
            refused(face, "TenantRefused", "read", stream=f"account-{number}")
        assert [face.errors for face in workers] == [[], [], []]


# --- errors ----------------------------------------------------------------------------------------------------


def test_every_code_of_the_reference_has_one_class(language):
    import pathlib
    import sys

    import eventstream_client as es
    from eventstream_client.errors import BY_CODE

    codes = re.findall(r"^\| (ES\d\d\d) \|", (ROOT / "docs/reference.md").read_text(), re.MULTILINE)
    assert len(codes) > 40 and sorted(codes) == sorted(BY_CODE)
    assert "site-packages" in es.__file__, "the tests are to run on what was installed"
    if language == "node":
        text = (ROOT / "clients/node/lib/errors.js").read_text()
        families = {code: kind for kind, listed in re.findall(r'\[(\w+), "([ES0-9 ]+)"\]', text) for code in listed.split()}
        assert families == {code: kind.__name__ for code, kind in BY_CODE.items()}
    else:
        assert sys.prefix in str(pathlib.Path(es.__file__))


def test_what_is_refused_at_the_commit_is_told(face, banked):
    """After the answer: an invariant of all that a transaction appended."""
    with banked.connect() as session:
        session.execute("""create function balanced(events eventstream.event[]) returns text stable language sql as
            $$ select 'odd' from unnest(events) having count(*) % 2 = 1 $$""")
        session.execute("select es_register_invariant('balanced', '{account}', handler => 'balanced(eventstream.event[])')")
    for call, given in (("append", {"stream": "account-1", "events": [ADD]}), ("transaction", {"calls": [["append", {"stream": "account-1", "events": [ADD]}]]})):
        error = refused(face, "RuleBroken", call, **given)
        assert (error.sqlstate, error.said["detail"]["invariant"]) == ("ES019", "balanced")
    with banked.connect() as session:
        assert rows(session, "select from eventstream.events") == []
    assert face.call("append", stream="account-1", events=[ADD, {"type": "Debited", "payload": {"amount": 1}}]) == 2


def test_what_cannot_log_in_is_told_at_once(faces, address):
    began = time.monotonic()
    for wrong in ({"PGDATABASE": "nowhere"}, {"PGUSER": "nobody_here"}):
        error = refused(faces(address | wrong), "driver", "horizon")
        assert "does not exist" in error.said["message"]
    assert time.monotonic() - began < 10
