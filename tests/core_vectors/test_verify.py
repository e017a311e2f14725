"""tools/verify.py: it computes the documented bytes, reads what PostgreSQL prints, and finds every kind of tampering.

Needs no database. Run by pytest, or: python3 -m unittest tests/core_vectors/test_verify.py
"""

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
VERIFY = os.path.join(ROOT, "tools", "verify.py")

spec = importlib.util.spec_from_file_location("verify", VERIFY)
verify = importlib.util.module_from_spec(spec)
spec.loader.exec_module(verify)

with open(os.path.join(HERE, "chain.json"), encoding="utf-8") as vectors:
    EVENTS = json.load(vectors)["events"]

UUID = EVENTS[0]["tenant_uuid"]
OTHER_UUID = "6c3f2a51-90b7-4e0d-8a34-1f6f5f0c7d22"
HEADS = "tenant,tenant_uuid,stream,version,chain_hash\n"


def quote(value):
    """A CSV field as COPY writes it with the least quoting that tells NULL from empty."""
    if value is None:
        return ""
    text = str(value)
    if text == "" or re.search(r'[",\r\n]', text):
        return '"' + text.replace('"', '""') + '"'
    return text


COLUMNS = [*verify.EVENT_COLUMNS, "tags"]


def array(texts):
    """A text[] as PostgreSQL prints it, with more quotes than it takes."""
    escaped = (re.sub(r'(["\\])', r"\\\1", text) for text in texts)
    return "{" + ",".join(f'"{text}"' for text in escaped) + "}"


def row_of(event):
    row = {column: event[column] for column in COLUMNS}
    row["tags"] = array(row["tags"])
    row["salt"] = "\\x" + row["salt"]
    row["chain_hash"] = "\\x" + row["chain_hash"]
    return row


def rows():
    return [row_of(event) for event in EVENTS]


def csv(table, columns=None):
    columns = columns or COLUMNS
    lines = [",".join(columns)] + [",".join(quote(row[column]) for column in columns) for row in table]
    return ("\n".join(lines) + "\n").encode()


def as_event(row):
    """The values of a row as verify.py hashes them."""
    parsed = {}
    for column in verify.Event._fields:
        # Its content is in the row: the digest stands for content that is not.
        field = row.get(column)
        parsed[column] = None if field is None else verify.PARSERS.get(column, bytes)(str(field).encode())
    return verify.Event(**parsed)


def rehash(table):
    """Recomputes a stream's chain from its first row on, as a forger would."""
    previous = verify.GENESIS
    for row in table:
        previous = verify.chain_hash(previous, as_event(row))
        row["chain_hash"] = "\\x" + previous.hex()
    return table


def chain(length, stream="account-1"):
    """An intact stream of the form of the vectors."""
    return rehash(
        [
            dict(
                row_of(EVENTS[0]),
                stream=stream,
                version=version,
                global_position=version * 10,
                event_id=f"00000000-0000-0000-0000-{version:012}",
                recorded_at=f"2024-07-01 06:30:{version:02}+00",
                payload=f'{{"n": {version}}}',
            )
            for version in range(1, length + 1)
        ]
    )


class Run(unittest.TestCase):
    """Runs the whole program on a table."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name, content=None):
        path = os.path.join(self.folder, name)
        if content is not None:
            with open(path, "wb") as file:
                file.write(content)
        return path

    def run_on(self, content, *options):
        """(exit status, lines of output, standard error)"""
        content = content if isinstance(content, bytes) else csv(content)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = verify.main([self.path("events.csv", content), *options])
        return status, out.getvalue().splitlines(), err.getvalue()

    def assert_problems(self, table, *expected, options=()):
        """Exactly these problems, each given as the beginning of its line and a part of the rest."""
        status, lines, err = self.run_on(table, *options)
        self.assertEqual(len(lines) - 1, len(expected), lines)
        for line, (subject, words) in zip(lines, expected):
            self.assertTrue(line.startswith(f"{subject}: "), line)
            self.assertIn(words, line)
        self.assertEqual((status, err), (1, ""))
        self.assertIn(f"{len(expected)} problem", lines[-1])

    def assert_unusable(self, content, words, *options):
        status, lines, err = self.run_on(content, *options)
        self.assertEqual((status, lines), (2, []))
        self.assertIn(words, err)


class TheBytes(unittest.TestCase):
    def test_the_vectors_have_the_hashes_that_verify_computes(self):
        heads = {}
        for event in EVENTS:
            row = row_of(event)
            parsed = as_event(row)
            self.assertEqual(parsed.occurred_at, event["occurred_at_unix_us"], row)
            self.assertEqual(parsed.recorded_at, event["recorded_at_unix_us"], row)
            digest = verify.content_digest(parsed.salt, parsed.payload, parsed.metadata)
            self.assertEqual(digest.hex(), event["content_digest"])
            stream = (event["tenant_uuid"], event["stream"])
            heads[stream] = verify.chain_hash(heads.get(stream, verify.GENESIS), parsed)
            self.assertEqual(heads[stream].hex(), event["chain_hash"])

    def test_the_worked_example_of_the_documentation_is_the_first_vector(self):
        with open(os.path.join(ROOT, "docs", "chain-hash.md"), encoding="utf-8") as file:
            text = file.read().split("## A worked example")[1].split("\n## ")[0]
        blocks = re.findall(r"```\n(.*?)\n```", text, re.DOTALL)
        content, content_digest, event, chain_hash = (
            bytes.fromhex("".join(line.split("#")[0].strip() for line in block.splitlines())) for block in blocks
        )
        self.assertEqual(hashlib.sha256(content).digest(), content_digest)
        self.assertEqual(hashlib.sha256(event).digest(), chain_hash)
        self.assertTrue(event.endswith(content_digest))
        vector = EVENTS[0]
        self.assertEqual((content_digest.hex(), chain_hash.hex()), (vector["content_digest"], vector["chain_hash"]))
        # What the page shows is also what verify.py hashes, byte by byte.
        parsed = as_event(row_of(vector))
        self.assertEqual(
            event, verify.EVENT_DOMAIN + verify.GENESIS + b"".join(map(verify.frame, verify.event_fields(parsed)))
        )

    def test_the_commands_in_the_documentation_are_those_of_the_program(self):
        with open(os.path.join(ROOT, "docs", "chain-hash.md"), encoding="utf-8") as file:
            text = "".join(file.read().split())
        commands = re.findall(r"copy\(.*?header\)", "".join(verify.__doc__.split()))
        self.assertEqual(len(commands), 2)
        for command in commands:
            self.assertIn(command, text)
        for columns in (verify.EVENT_COLUMNS, verify.HEAD_COLUMNS[:4]):
            self.assertTrue(any("select" + ",".join(columns) in command for command in commands), columns)


class Times(unittest.TestCase):
    # Each pair was printed by PostgreSQL 15: the text, and extract(epoch) in microseconds.
    PRINTED = {
        "1970-01-01 00:00:00+00": 0,
        "1969-12-31 23:59:59.999999+00": -1,
        "2024-07-02 12:00:15.1+05:30": 1719901815100000,
        "2024-07-02 06:30:15.1+00": 1719901815100000,
        "2024-07-01 21:30:15.1-09": 1719901815100000,
        "0044-03-15 12:00:00+00:57:44 BC": -63517784264000000,
        "0001-01-01 00:00:00+00": -62135596800000000,
        "0001-12-31 23:59:59.999999+00 BC": -62135596800000001,
        "4714-11-24 00:00:00+00 BC": -210866803200000000,
        "1900-02-28 00:00:00+00": -2203977600000000,
        "2000-02-29 00:00:00+00": 951782400000000,
        "12024-02-29 20:00:00+00": 317278756800000000,
        "294246-12-31 23:59:59+00": 9223371244799000000,
    }

    def test_times_are_read_to_the_microsecond_in_any_zone_and_century(self):
        for text, microseconds in self.PRINTED.items():
            self.assertEqual(verify.parse_timestamp(text.encode()), microseconds, text)

    def test_a_time_that_no_event_can_have_is_a_fault_of_the_event(self):
        for text in (b"infinity", b"-infinity", b"294276-12-31 23:59:59+00"):
            with self.assertRaises(verify.Fault, msg=text):
                verify.parse_timestamp(text)

    def test_a_time_in_another_style_is_unusable(self):
        for text in (b"07/01/2024 06:30:15.123456 UTC", b"2024-07-01 00:00:00", b"2024-07-01", b"", b"now"):
            with self.assertRaisesRegex(verify.Unusable, "datestyle", msg=text):
                verify.parse_timestamp(text)


class Csv(Run):
    def split(self, record):
        return verify.split_record(record, "here")

    def test_null_is_not_the_empty_string(self):
        self.assertEqual(self.split(b'a,,"",b'), [b"a", None, b"", b"b"])
        self.assertEqual(self.split(b'"",'), [b"", None])
        self.assertEqual(self.split(b","), [None, None])
        self.assertEqual(self.split(b'"a"'), [b"a"])

    def test_quotes_commas_and_line_ends_belong_to_their_field(self):
        self.assertEqual(self.split(b'"{""a"": ""b, c""}",x,"1\n2"'), [b'{"a": "b, c"}', b"x", b"1\n2"])
        records = list(verify.read_records(io.BytesIO(b'a,"1\n2\r\n"\r\nb,c\n'), "f"))
        self.assertEqual(records, [("f line 1", [b"a", b"1\n2\r\n"]), ("f line 4", [b"b", b"c"])])

    def test_what_copy_does_not_write_is_unusable(self):
        for record in (b'"a"b,c', b'a"b"', b'a,"b" ,c'):
            with self.assertRaises(verify.Unusable, msg=record):
                self.split(record)

    def test_a_megabyte_of_quotes_is_read(self):
        value = b'"' * (1 << 20)
        self.assertEqual(self.split(b'"' + value * 2 + b'",x'), [value, b"x"])

    def test_columns_may_come_in_any_order_and_with_others(self):
        table = [dict(row, extra="x,y") for row in rows()]
        self.assertEqual(self.run_on(csv(table, ["extra", *reversed(COLUMNS)]))[0], 0)

    def test_a_log_without_tags_may_be_exported_without_their_column(self):
        self.assertEqual(self.run_on(csv(chain(3), verify.EVENT_COLUMNS))[0], 0)
        self.assertEqual(self.run_on([dict(row, tags=None) for row in chain(3)])[0], 0)
        self.assertEqual(self.run_on(csv(rows(), verify.EVENT_COLUMNS))[0], 1)

    def test_contents_of_an_unknown_version_are_not_called_broken(self):
        columns = [*COLUMNS, "content_version"]
        for version in (1, None):
            self.assertEqual(self.run_on(csv([dict(row, content_version=version) for row in rows()], columns))[0], 0)
        newer = csv([dict(row, content_version=2) for row in rows()], columns)
        self.assert_unusable(newer, "line 2: content_version 2 is not known to this program")

    def test_tags_are_read_as_postgresql_prints_them(self):
        for printed, tags in (
            ("{}", []),
            ("{order:42}", ["order:42"]),
            ("{NULLS,a}", ["NULLS", "a"]),
            ('{"","\n",",","NULL","a b","a\\"b","a\\\\",ä}', ["", "\n", ",", "NULL", "a b", 'a"b', "a\\", "ä"]),
        ):
            self.assertEqual(verify.parse_tags(printed.encode()), [tag.encode() for tag in tags])
        for printed in ("", "{", "a", "{a,}", "{,a}", "{a,NULL}", "[2:3]={a,b}", "{{a},{b}}", '{"a}', "{a}b"):
            with self.assertRaises(verify.Unusable, msg=printed):
                verify.parse_tags(printed.encode())

    def test_unusable_input_says_what_is_wrong_and_where(self):
        good = csv(rows())
        self.assert_unusable(b"", "empty")
        self.assert_unusable(b"SET\n" + good, "the header lacks tenant")
        self.assert_unusable(good.replace(b"chain_hash", b"hash", 1), "the header lacks chain_hash")
        self.assert_unusable(good[:-1], "cut")
        self.assert_unusable(good[: good.rindex(b'"')] + b"\n", "inside a quoted field")
        self.assert_unusable(good + b"default,x\n", "line 10: 2 fields, where the header has 17")
        for column, value, words in (
            ("version", "one", "line 2: version one is no integer"),
            ("version", None, "line 2: version is NULL"),
            ("version", 1 << 63, "no integer of its type"),
            ("schema_version", 1 << 31, "no integer of its type"),
            ("event_id", "x", "event_id x is no uuid"),
            ("tenant_uuid", "default", "tenant_uuid default is no uuid"),
            ("tags", "order:42", "tags order:42 is no text[]"),
            ("salt", "\\001\\002", "bytea_output"),
            ("occurred_at", "Mon Jul 01 06:30:15 2024 UTC", "datestyle"),
        ):
            self.assert_unusable([dict(rows()[0], **{column: value})], words)
        status, _, err = self.run_on(good, "--anchor", self.path("missing"))
        self.assertEqual(status, 2)
        self.assertIn("missing", err)

    def test_standard_input_works_as_a_program(self):
        done = subprocess.run([sys.executable, VERIFY, "-"], input=csv(rows()), capture_output=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertEqual(done.stdout, b"8 events in 2 streams: intact\n")


class Tampering(Run):
    def test_an_intact_log_is_intact(self):
        self.assertEqual(self.run_on(rows()), (0, ["8 events in 2 streams: intact"], ""))
        self.assertEqual(self.run_on([], "--allow-empty"), (0, ["0 events in 0 streams: intact"], ""))

    def test_a_change_of_any_hashed_field_is_named_at_its_version_and_nowhere_else(self):
        changes = {
            "event_id": "0190b5a0-3c00-7000-8000-00000000000f",
            "event_type": "AccountDebited",
            "schema_version": 2,
            "subject": "person-8",
            "tags": "{order:43}",
            "occurred_at": "2024-07-01 00:00:00.000001+02",
            "recorded_at": "2024-07-01 06:30:02.5+00",
            "recorded_by": "somebody",
            "salt": "\\x" + "00" * 16,
            "payload": '{"n": 2.0}',
            "metadata": '{"actor": "x"}',
        }
        hashed = set(verify.Event._fields) - {"tenant_uuid", "stream", "version", "content_digest"}
        self.assertEqual(set(changes), hashed, "every field of an event is tried")
        for column, value in changes.items():
            with self.subTest(column):
                table = chain(4)
                table[1][column] = value
                self.assert_problems(table, ("default/account-1 version 2", "it was changed"))

    def test_a_change_of_any_field_shows_also_without_the_content(self):
        """eventstream.proof: the digest in place of salt, payload and metadata."""
        columns = [*(column for column in COLUMNS if column not in verify.CONTENT_COLUMNS), "content_digest"]

        def proof():
            table = chain(4)
            for row in table:
                event = as_event(row)
                digest = verify.content_digest(event.salt, event.payload, event.metadata)
                row["content_digest"] = "\\x" + digest.hex()
            return table

        self.assertEqual(self.run_on(csv(proof(), columns))[0], 0)
        for column, value in (("content_digest", "\\x" + "00" * 32), ("event_type", "AccountDebited"), ("recorded_by", "somebody")):
            with self.subTest(column):
                table = proof()
                table[1][column] = value
                status, lines, _ = self.run_on(csv(table, columns))
                self.assertEqual(status, 1)
                self.assertTrue(any("default/account-1 version 2" in line and "it was changed" in line for line in lines), lines)

    def test_null_is_told_from_empty(self):
        for subject, forged in ((None, ""), ("", None)):
            table = rehash([dict(chain(1)[0], subject=subject)])
            table[0]["subject"] = forged
            self.assert_problems(table, ("default/account-1 version 1", "it was changed"))

    def test_another_time_zone_of_the_session_is_no_change(self):
        table = chain(2)
        table[0]["recorded_at"] = "2024-07-01 12:00:01+05:30"
        self.assertEqual(self.run_on(table)[0], 0)

    def test_a_changed_event_whose_hash_was_recomputed_shows_at_the_next(self):
        table = chain(4)
        table[1]["payload"] = '{"n": 200}'
        previous = bytes.fromhex(table[0]["chain_hash"][2:])
        table[1]["chain_hash"] = "\\x" + verify.chain_hash(previous, as_event(table[1])).hex()
        self.assert_problems(table, ("default/account-1 version 3", "or the event before it was"))

    def test_a_deleted_event_leaves_a_gap(self):
        self.assert_problems(chain(4)[:1] + chain(4)[2:], ("default/account-1 version 3", "version 2 is missing"))
        self.assert_problems(chain(9)[:1] + chain(9)[5:], ("default/account-1 version 6", "versions 2 to 5 are missing"))
        self.assert_problems(chain(4)[1:], ("default/account-1 version 2", "version 1 is missing"))

    def test_an_event_that_was_closed_up_over_a_gap_breaks_the_chain(self):
        table = chain(4)
        del table[1]
        for version, row in enumerate(table, 1):
            row["version"] = version
        self.assert_problems(
            table, ("default/account-1 version 2", "it was changed"), ("default/account-1 version 3", "it was changed")
        )

    def test_swapped_events_break_the_chain(self):
        table = chain(3)
        for column in set(COLUMNS) - {"version", "stream", "tenant", "tenant_uuid"}:
            table[1][column], table[2][column] = table[2][column], table[1][column]
        self.assert_problems(
            table,
            ("default/account-1 version 2", "it was changed"),
            ("default/account-1 version 3", "global_position does not lie after"),
            ("default/account-1 version 3", "recorded_at lies before"),
            ("default/account-1 version 3", "it was changed"),
        )

    def test_an_inserted_event_shows_at_itself_or_after(self):
        table = chain(3)
        table.insert(1, dict(table[1], payload="{}"))
        self.assert_problems(
            table,
            ("default/account-1 version 2", "it was changed"),
            ("default/account-1 version 2", "it comes twice"),
            ("default/account-1 version 2", "global_position does not lie after"),
        )

    def test_an_event_moved_to_another_stream_or_tenant_breaks_the_chain(self):
        moved = dict(chain(3)[2], stream="account-2")
        self.assert_problems(
            chain(2) + chain(2, "account-2") + [moved], ("default/account-2 version 3", "it was changed")
        )
        other = [dict(row, tenant="other", tenant_uuid=OTHER_UUID) for row in chain(1)]
        self.assert_problems(other, ("other/account-1 version 1", "it was changed"))

    def test_another_name_of_the_tenant_is_no_change(self):
        self.assertEqual(self.run_on([dict(row, tenant="other") for row in chain(3)])[0], 0)

    def test_another_uuid_of_the_tenant_is_said_to_be_possible_until_an_event_fits(self):
        self.assert_problems(
            [dict(row, tenant_uuid=OTHER_UUID) for row in chain(2)],
            ("default/account-1 version 1", "or the tenant's uuid"),
            ("default/account-1 version 2", "or the tenant's uuid"),
        )
        table = chain(3)
        table[2]["payload"] = "{}"
        _, lines, _ = self.run_on(table)
        self.assertNotIn("uuid", lines[0])

    def test_tags_that_are_not_in_their_order_are_a_problem(self):
        for tags in ("{b,a}", "{a,a}", "{a,B}", "{ž,z}"):
            self.assert_problems([dict(chain(1)[0], tags=tags)], ("default/account-1 version 1", "not in byte order"))

    def test_values_that_no_intact_log_holds_are_problems_and_not_the_end(self):
        for column, value, words in (
            ("occurred_at", "infinity", "occurred_at is infinity"),
            ("recorded_at", "-infinity", "recorded_at is -infinity"),
            ("occurred_at", "294276-12-31 23:59:59+00", "occurred_at lies beyond"),
            ("payload", None, "payload is NULL"),
            ("tenant_uuid", None, "tenant_uuid is NULL"),
            ("salt", "\\x00", "its salt has 1 bytes, not 16"),
            ("chain_hash", "\\x", "its chain hash is , but"),
        ):
            with self.subTest(column):
                table = chain(2)
                table[1][column] = value
                self.assert_problems(table, ("default/account-1 version 2", words))
        table = chain(3)
        table[1]["chain_hash"] = None
        self.assert_problems(table, ("default/account-1 version 2", "chain_hash is NULL"))
        table = chain(2) + [dict(chain(1)[0], stream=None)]
        self.assert_problems(table, ("default/ version 1", "stream is NULL"))
        self.assert_problems([dict(chain(1)[0], version=0)], ("default/account-1 version 0", "versions start at 1"))

    def test_a_stream_that_comes_back_means_that_the_input_is_not_ordered(self):
        for other in ("account-0", "account-2", "b-1"):
            self.assert_unusable_order(chain(1) + chain(1, other) + chain(2)[1:])
        first, second, third = chain(1, "b-1"), chain(1, "a-1"), chain(1, "c-1")
        self.assert_unusable_order(first + second + third + chain(2, "c-0")[:1] + chain(2, "b-1")[1:])

    def assert_unusable_order(self, table):
        status, _, err = self.run_on(table)
        self.assertEqual(status, 2)
        self.assertIn("comes back after other streams", err)

    def test_any_order_of_the_streams_will_do(self):
        table = chain(2, "b-1") + chain(2, "B-1") + chain(2, "a-1") + chain(2, "é-1") + chain(2, "c-1")
        self.assertEqual(self.run_on(table)[:2], (0, ["10 events in 5 streams: intact"]))

    def test_names_cannot_forge_lines_of_the_report(self):
        table = [dict(chain(1)[0], stream="x-1\ndefault/y-1 version 1: fine")]
        status, lines, _ = self.run_on(table)
        self.assertEqual((status, len(lines)), (1, 2))
        self.assertTrue(lines[0].startswith("default/x-1\\ndefault/y-1 version 1: fine version 1: its chain hash"))


class Anchors(Run):
    def heads(self, table, name="heads.csv"):
        path = self.path(name)
        status, lines, err = self.run_on(table, "--save-heads", path)
        self.assertEqual((status, err), (0, ""), lines)
        self.assertTrue(lines[-1].endswith("heads saved"))
        return path

    def test_saved_heads_hold_for_the_same_log_and_a_longer_one(self):
        heads = self.heads(rows())
        with open(heads, "rb") as file:
            self.assertEqual(file.read().count(b"\n"), 3)
        self.assertEqual(self.run_on(rows(), "--anchor", heads)[1], ["8 events in 2 streams, 2 anchors compared: intact"])
        renamed = [dict(row, tenant=f"{row['tenant']} AG") for row in rows()]
        self.assertEqual(self.run_on(renamed, "--anchor", heads)[0], 0)
        early = self.heads(chain(2))
        self.assertEqual(self.run_on(chain(5), "--anchor", early)[0], 0)

    def test_heads_printed_by_the_database_are_read(self):
        head = chain(2)[1]["chain_hash"]
        for printed in (head, head[2:]):
            heads = self.path("heads.csv", f"{HEADS}default,{UUID},account-1,2,{printed}\n".encode())
            self.assertEqual(self.run_on(chain(3), "--anchor", heads)[0], 0)

    def test_a_cut_tail_is_found(self):
        anchor = self.heads(chain(4))
        self.assert_problems(
            chain(3), ("default/account-1 version 4", "the stream ends at 3"), options=["--anchor", anchor]
        )

    def test_a_deleted_stream_is_found(self):
        anchor = self.heads(chain(2) + chain(3, "account-2"))
        missing = ("default/account-2 version 3", "the stream is missing")
        self.assert_problems(chain(2), missing, options=["--anchor", anchor])
        self.assert_problems([], ("default/account-1 version 2", "missing"), missing, options=["--anchor", anchor])

    def test_a_chain_rehashed_whole_is_found(self):
        anchor = self.heads(chain(4))
        forged = chain(4)
        forged[0]["payload"] = '{"n": 100}'
        rehash(forged)
        self.assertEqual(self.run_on(forged)[0], 0, "the chain alone cannot tell")
        self.assert_problems(
            forged, ("default/account-1 version 4", "the chain was rewritten"), options=["--anchor", anchor]
        )

    def test_an_anchored_version_that_is_gone_is_found(self):
        anchor = self.heads(chain(2))
        self.assert_problems(
            chain(1) + chain(3)[2:],
            ("default/account-1 version 3", "version 2 is missing"),
            ("default/account-1 version 2", "but is missing"),
            options=["--anchor", anchor],
        )

    def test_anchors_of_several_days_are_compared_together(self):
        first, second = self.heads(chain(2), "first.csv"), self.heads(chain(4), "second.csv")
        self.assertIn("2 anchors", self.run_on(chain(5), "--anchor", first, "--anchor", second)[1][-1])
        forged = chain(5)
        forged[2]["payload"] = "{}"
        rehash(forged)
        self.assert_problems(
            forged, ("default/account-1 version 4", "rewritten"), options=["--anchor", first, "--anchor", second]
        )

    def test_heads_of_a_broken_log_are_not_saved_over_good_ones(self):
        heads = self.heads(chain(2))
        with open(heads, "rb") as file:
            before = file.read()
        broken = chain(3)
        broken[0]["payload"] = "{}"
        status, lines, _ = self.run_on(broken, "--save-heads", heads)
        self.assertEqual(status, 1)
        self.assertTrue(lines[-1].endswith("heads not saved"))
        self.assertEqual(self.run_on(b"nonsense\n", "--save-heads", heads)[0], 2)
        with open(heads, "rb") as file:
            self.assertEqual(file.read(), before)
        self.assertEqual(sorted(os.listdir(self.folder)), ["events.csv", "heads.csv"])

    def test_no_events_and_no_heads_are_no_all_clear(self):
        header = csv([])
        self.assert_unusable(header, "holds no events")
        heads = self.path("kept.csv", b"kept")
        self.assert_unusable(header, "holds no events", "--save-heads", heads)
        with open(heads, "rb") as file:
            self.assertEqual(file.read(), b"kept")
        none = self.path("none.csv", HEADS.encode())
        self.assert_unusable(csv(chain(2)), "hold no heads", "--anchor", none)
        self.assertEqual(self.run_on(header, "--allow-empty")[0], 0)
        self.assertEqual(self.run_on(csv(chain(2)), "--allow-empty", "--anchor", none)[0], 0)
        # What is anchored must be there all the same.
        some = self.heads(chain(2))
        self.assertEqual(self.run_on(header, "--allow-empty", "--anchor", some)[0], 1)
        self.assertEqual(self.run_on(header, "--anchor", some)[0], 1)

    def test_anchors_that_are_no_heads_are_unusable(self):
        header, start = HEADS.encode(), f"default,{UUID},account-1,".encode()
        good = start + b"2," + b"ab" * 32 + b"\n"
        for content, words in (
            (b"tenant,stream\n", "lacks tenant_uuid, version, chain_hash"),
            (header + start + b",00\n", "an empty field"),
            (header + start + b"2,abc\n", "bytea"),
            (header + start + b"2,ab\n", "no head"),
            (header + start + b"0," + b"ab" * 32 + b"\n", "no head"),
            (header + good.replace(UUID.encode(), b"default"), "no uuid"),
            (header + good + good.replace(b"ab" * 32, b"cd" * 32), "two hashes for default/account-1 version 2"),
        ):
            self.assert_unusable(chain(1), words, "--anchor", self.path("anchor.csv", content))


if __name__ == "__main__":
    unittest.main()
