"""No number is changed, no string is, and what is no JSON is refused before it is sent."""

import itertools
import json
import random
import re

import pytest
from database import rows, value
from deciding import open_bank
from faces import Refused

NUMBERS = [
    "0", "1", "-1", "12.5", "12.50", "1400.50", "0.10", "100", "-0.0", "0.1234567890123456789", "1234567890123456789012345678901234567890", "9007199254740993", "-9007199254740992",
    "9223372036854775808", "1e400", "1.5e-300", "0.00000000000000000001", "1E+5", "0e-10", "123456789.000000000", "9" * 999, "0." + "1" * 900,
]  # fmt: skip
FOLD = """select es_register_fold('kept', 'numbers', rules => '{"on": {"Numbers": [{"set": {"/all": "/all"}}]}}')"""


def test_numbers_go_in_and_come_out_to_the_last_digit(face, database):
    with database.connect() as session:
        session.execute(FOLD)
        # What PostgreSQL makes of each text is what every client must show.
        (stored,) = rows(session, "select array_agg(n::jsonb::text) from unnest(%s::text[]) n", NUMBERS)[0]
        given = ",".join(NUMBERS)
        payload = f'{{"all": [{given}], "deep": {{"x": [{{"y": 12.50}}]}}}}'
        face.call("append", raw=f'{{"stream": "numbers-1", "events": [{{"type": "Numbers", "payload": {payload}, "metadata": {{"rate": 0.10}}}}]}}')
        (text,) = rows(session, "select payload::text from es_read('numbers-1')")[0]
        assert text.replace(" ", "") == f'{{"all":[{",".join(stored)}],"deep":{{"x":[{{"y":12.50}}]}}}}'
    for call, given in (("read", {"stream": "numbers-1"}), ("read_all", {}), ("query", {"criteria": {}}), ("state", {"stream": "numbers-1"}), ("load", {"stream": "numbers-1"})):
        face.call(call, **given)
        shown = re.search(r'"all":\[([^\]]*)\]', face.text)[1].split(",")
        wrong = [(text, there) for text, there in zip(shown, stored, strict=True) if not is_same(text, there)]
        assert wrong == [], call
        # And what was read, sent again, is the same to the database.
    again = re.search(r'"all":(\[[^\]]*\])', face.text)[1]
    face.call("append", raw=f'{{"stream": "numbers-2", "events": [{{"type": "Numbers", "payload": {{"all": {again}}}}}]}}')
    with database.connect() as session:
        assert len(rows(session, "select distinct payload -> 'all' #>> '{}' from es_read_all()")) == 1


def is_same(text, there):
    """Byte for byte, but for the form with an exponent, in which Python writes very small and very large ones."""
    from decimal import Decimal

    return text == there or ("E" in text and Decimal(text) == Decimal(there) and Decimal(text).as_tuple() == Decimal(there).as_tuple())


def test_a_thousand_random_numbers(face, database):
    chance = random.Random(4711)
    given = [f"{chance.choice(['', '-'])}{chance.randrange(10 ** chance.randrange(1, 40))}.{chance.randrange(10**9):0{chance.randrange(1, 30)}d}" for _ in range(1000)]
    face.call("append", raw=f'{{"stream": "numbers-1", "events": [{{"type": "Numbers", "payload": {{"all": [{",".join(given)}]}}}}]}}')
    face.call("read", stream="numbers-1")
    shown = re.search(r'"all":\[([^\]]*)\]', face.text)[1].split(",")
    assert shown == given


def test_positions_and_versions_are_numbers(face, database):
    face.call("append", stream="account-1", events=[{"type": "Opened", "payload": {}}])
    (event,) = face.call("read", stream="account-1")
    assert [type(event[name]) for name in ("global_position", "version", "schema_version")] == [int] * 3
    assert type(face.call("horizon")) is int and face.call("log_info")["horizon"] >= event["global_position"]


@pytest.mark.parametrize("wanted", ["NaN", "Infinity"])
def test_what_is_no_number_is_no_json(face, database, wanted):
    """As the database says it, where it is asked in text."""
    with pytest.raises(Refused) as error:
        face.call("append", stream="account-1", events=[{"type": "Opened", "payload": {"n": 1}, "occurred_at" if face.language == "node" else "schema_version": wanted}])
    assert error.value.kind in ("Invalid", "driver", "mistake")


def hostile():
    fixed = [
        "'; drop table x; --", "\\", "\\\\'", '"', '""', "{}", '{"a": 1}', "[1]", "$1", "$$", "%s", "%", "%(name)s", "${x}", "{0}", "null", "NULL", "true", "1", "1.50", "s", "n1", "snn",
        "line\nbreak", "tab\t", "\r\n", "\x01\x1f", "\x7f", "é", "e\u0301", "ﬁ", "日本語", "🧾", "👩‍👩‍👧", "\u200b", "\u202e", "\ufeff", "\u2028", "a:b", "a/b", "a,b", "a b", " ", "", "-", "--", "/*",
        "E'\\x41'", "x" * 600, "<script>alert(1)</script>", "&amp;", "__proto__", "constructor", "toString", "\U0010ffff",
    ]  # fmt: skip
    chance = random.Random(11)
    return fixed + ["".join(chr(chance.choice([chance.randrange(1, 128), chance.randrange(160, 0x2FFF), chance.randrange(0x10000, 0x10FFFF)])) for _ in range(9)) for _ in range(8)]


#: Calls in which each text may be anything: what is stored, or looked for, is the same text, or it is refused by the database as it would be in SQL.
TEXTS = {
    "stream": (lambda text: ("append", {"stream": "s-" + text, "events": [{"type": "Any", "payload": 1}]}), "es_append(%s, 'Any', '1')", lambda text: ["s-" + text]),
    "event type": (lambda text: ("append", {"stream": "t-1", "events": [{"type": text, "payload": 1}]}), "es_append('t-1', %s, '1')", lambda text: [text]),
    "subject": (lambda text: ("append", {"stream": "u-1", "events": [{"type": "Any", "payload": 1, "subject": text}]}), "es_append('u-1', 'Any', '1', subject => %s)", lambda text: [text]),
    "tag": (lambda text: ("append", {"stream": "v-1", "events": [{"type": "Any", "payload": 1, "tags": [text]}]}), "es_append('v-1', 'Any', '1', tags => array[%s])", lambda text: [text]),
}
STORED = {"stream": "stream", "event type": "event_type", "subject": "subject", "tag": "tags[1]"}


def test_hostile_texts_are_taken_or_refused_as_in_sql(face, database):
    taken = 0
    with database.connect() as session:
        for what, (call_of, sql, arguments) in TEXTS.items():
            for text in hostile():
                expected = outcome(session, sql, arguments(text))
                name, given = call_of(text)
                try:
                    face.call(name, **given)
                    told = None
                except Refused as error:
                    told = error.sqlstate
                assert told == expected, (what, text)
                if told is None:
                    taken += 1
                    newest = value(session, f"select {STORED[what]} from eventstream.events order by global_position desc limit 1")
                    assert newest == arguments(text)[0]
    assert taken > 100


def outcome(session, sql, arguments):
    """What SQL says of it: its SQLSTATE, or None; nothing stays."""
    import psycopg

    try:
        with session.transaction(force_rollback=True):
            session.execute(f"select {sql}", arguments)
    except psycopg.Error as error:
        return error.sqlstate
    return None


def test_hostile_texts_in_payloads_keys_and_metadata_come_back(face, database):
    texts = hostile()
    payload = {"texts": texts, "keys": {text: number for number, text in enumerate(texts)}, "nested": [[{"": text}] for text in texts]}
    face.call("append", stream="account-1", events=[{"type": "Any", "payload": payload, "metadata": {"note": texts}}])
    for call, given in (("read", {"stream": "account-1"}), ("read_all", {}), ("query", {"criteria": {"metadata": {"note": texts}}}), ("query", {"criteria": {"payload": {"/nested/1/0/": texts[1]}}})):
        (event,) = face.call(call, **given)
        assert event["payload"] == payload and event["metadata"] == {"note": texts}, call
    with database.connect() as session:
        assert value(session, "select payload = %s::jsonb from es_read('account-1')", json.dumps(payload)) is True


def test_hostile_texts_in_all_other_arguments(face, database):
    with database.connect() as session:
        open_bank(session)
    face.call("append", stream="account-1", events=[{"type": "Credited", "payload": {"amount": 1}, "tags": ["x"]}])
    face.call("begin_command", operation="charge", key="k", request={})
    for text in hostile():
        calls = [
            ("command", {"stream": "account-1", "command_type": "Deposit", "payload": {"amount": 1}, "key": "k" + text, "subject": "a", "metadata": {"who": text}}),
            ("command", {"stream": "account-1", "command_type": text, "payload": {}, "key": None}),
            ("command", {"stream": "account-1", "command_type": "Nothing", "payload": {"x": text}, "key": None, "decider": text}),
            ("begin_command", {"operation": "o" + text, "key": "k", "request": {"r": text}, "subject": None}),
            ("begin_command", {"operation": "o", "key": "k" + text, "request": text}),
            ("read", {"stream": "account-1", "event_types": [text, "Credited"]}),
            ("read_all", {"categories": ["account", text], "event_types": [text], "tags": [text]}),
            ("load", {"stream": "account-1", "fold": text}),
            ("state", {"stream": "account-1", "as_of": text or "x"}),
            ("query_page", {"criteria": {}, "page": text}),
            ("reveal", {"stream": "account-1", "reason": text}),
            ("condition", {"query": {"items": [{"tags": ["a" + text]}]}}),
        ]
        for call, given in calls:
            try:
                face.call(call, **given)
            except Refused as error:
                assert re.fullmatch("ES...|22...|42501", str(error.sqlstate)), (call, text, error.said)
    with database.connect() as session:
        keys = rows(session, "select command_key from eventstream.commands where operation = 'o'")
        assert {f"k{text}" for text in ("%s", "'; drop table x; --", "日本語", "\\", '"', "n1")} <= {key for (key,) in keys}
        said = rows(session, "select metadata ->> 'who' from es_read('account-1') where metadata ? 'who'")
        assert len(said) > 30 and {who for (who,) in said} <= set(hostile())


@pytest.mark.parametrize("argument", ["stream", "type", "payload", "tags"])
def test_half_of_a_character_is_refused_and_not_changed(face, database, argument):
    given = {"stream": "s-1", "type": "Any", "payload": {}, "tags": ["a"]}
    text = json.dumps({**given, argument: ["\ud800"] if argument == "tags" else {"x": "\ud800"} if argument == "payload" else "s-\ud800"})
    event = json.dumps({name: json.loads(text)[name] for name in ("type", "payload", "tags")})
    with pytest.raises(Refused) as error:
        face.call("append", raw=f'{{"stream": {json.dumps(json.loads(text)["stream"])}, "events": [{event}]}}')
    assert error.value.kind == "mistake" or error.value.sqlstate in ("22P02", "22P05"), error.value.said
    with database.connect() as session:
        assert rows(session, "select from eventstream.events") == []


def test_large_payloads_come_through(face, database):
    """A string of half a megabyte, with what JSON escapes in it, and ten thousand numbers."""
    payload = {"text": "a\\\"\n" * 100_000, "numbers": list(itertools.islice(itertools.count(), 10_000))}
    face.call("append", stream="account-1", events=[{"type": "Any", "payload": payload}])
    (event,) = face.call("read", stream="account-1")
    assert event["payload"] == payload
