#!/usr/bin/env python3
"""Verifies the chains of an eventstream log from what psql prints, and trusts no function of the database.

    export PGOPTIONS='-c timezone=UTC -c datestyle=ISO -c bytea_output=hex' PGCLIENTENCODING=UTF8
    psql -X -q -v ON_ERROR_STOP=1 -d DATABASE -c 'copy (
        select tenant, tenant_uuid, stream, version, event_id, event_type, schema_version, subject, occurred_at, recorded_at,
            recorded_by, salt, chain_hash, payload, metadata, global_position, tags
        from (table eventstream.events union all
            select r.* from es_chain_heads() h, es_read(h.stream) r where left(h.stream, 1) = chr(36)) e, (select tenant_uuid from es_log_info()) t
        order by tenant, stream, version
    ) to stdout with (format csv, header)' | python3 verify.py -

--save-heads FILE keeps every stream's last version and hash once all chains are intact; store it where the database's
administrators cannot write. --anchor FILE compares with such heads, also those of es_chain_heads():

    copy (select tenant, tenant_uuid, stream, version, encode(chain_hash, 'hex') as chain_hash from es_chain_heads())
        to stdout with (format csv, header)

Who may not read payloads exports eventstream.proof instead, which has content_digest in place of salt, payload and metadata; where content_digest is there beside them, it counts for events
of which these are not whole, because fields are protected (docs/chain-hash.md).

A stream is known by its tenant's uuid, whatever the tenant is called by now.

Prints a line a problem (`tenant/stream version N: problem`) and a last line with the counts.
Exit status: 0 intact, 1 problems found, 2 the input could not be used, or holds no events (--allow-empty: 0). docs/chain-hash.md has the exact bytes.
Needs Python 3.9 and its standard library; memory does not grow with the events (8 bytes a stream, and the anchors).
"""

import argparse
import array
import hashlib
import os
import re
import struct
import sys
from typing import List, NamedTuple, Optional
from uuid import UUID

EVENT_DOMAIN = b"eventstream/event/1\0"
CONTENT_DOMAIN = b"eventstream/content/1\0"
GENESIS = bytes(32)
SALT_BYTES = 16
NULL = b"\0"
INT64 = range(-(1 << 63), 1 << 63)
INT32 = range(-(1 << 31), 1 << 31)
# PostgreSQL's own bound of a row is 1 GiB; quoting may double it. Only an unbalanced quote reaches this.
MAX_RECORD_BYTES = 2 << 30

EVENT_COLUMNS = (
    "tenant tenant_uuid stream version event_id event_type schema_version subject occurred_at recorded_at recorded_by salt "
    "chain_hash payload metadata global_position"
).split()
# Without them no event has tags, and all have contents of version 1.
OPTIONAL_EVENT_COLUMNS = ["tags", "content_version", "content_digest"]
#: What the content digest covers: not needed where that is given (eventstream.proof), and not whole where fields of the event are protected.
CONTENT_COLUMNS = ("salt", "payload", "metadata")
HEAD_COLUMNS = "tenant tenant_uuid stream version chain_hash".split()


class Unusable(Exception):
    """The input is not what the documented command prints, so that nothing can be said about the log."""


class Fault(Exception):
    """One event holds a value that no intact log holds."""


class Event(NamedTuple):
    """An event as the hash sees it: text as its UTF-8 bytes, times in microseconds since 1970-01-01 UTC."""

    tenant_uuid: bytes
    stream: bytes
    version: int
    event_id: bytes
    event_type: bytes
    schema_version: int
    subject: Optional[bytes]
    tags: List[bytes]
    occurred_at: int
    recorded_at: int
    recorded_by: bytes
    salt: Optional[bytes]
    payload: Optional[bytes]
    metadata: Optional[bytes]
    content_digest: Optional[bytes]

    def is_by_digest(self):
        """Whether its content is not there, or not whole, and is taken for what its digest says."""
        return self.content_digest is not None and None in (self.salt, self.payload, self.metadata)


# The hash


def frame(value):
    """One field: the byte of NULL, or the byte of a value, its length as 8 bytes big-endian, and its bytes."""
    return NULL if value is None else b"\1" + struct.pack(">Q", len(value)) + value


def integer(value):
    """An integer's bytes: 8, big-endian, two's complement."""
    return struct.pack(">q", value)


def content_digest(salt, payload, metadata):
    return hashlib.sha256(CONTENT_DOMAIN + salt + frame(payload) + frame(metadata)).digest()


def event_fields(event):
    """The values of an event that its chain hash covers, in their order, as bytes (None for NULL)."""
    return (
        event.tenant_uuid,
        event.stream,
        integer(event.version),
        event.event_id,
        event.event_type,
        integer(event.schema_version),
        event.subject,
        integer(len(event.tags)),
        *event.tags,
        integer(event.occurred_at),
        integer(event.recorded_at),
        event.recorded_by,
        event.content_digest if event.is_by_digest() else content_digest(event.salt, event.payload, event.metadata),
    )


def chain_hash(previous, event):
    return hashlib.sha256(EVENT_DOMAIN + previous + b"".join(map(frame, event_fields(event)))).digest()


# CSV, as COPY writes it: unlike Python's csv module this tells NULL (nothing) from an empty string ("").

FIELD = re.compile(rb'(?:"([^"]*(?:""[^"]*)*)"|([^",]*))(,|\Z)')


def split_record(record, where):
    """The fields of one record without its line end: bytes, or None for NULL."""
    if b'"' not in record:
        return [field or None for field in record.split(b",")]
    fields, at, delimiter = [], 0, b","
    while delimiter:
        match = FIELD.match(record, at)
        if match is None:
            raise Unusable(f"{where}: not CSV as COPY writes it")
        quoted, plain, delimiter = match.groups()
        fields.append((plain or None) if quoted is None else quoted.replace(b'""', b'"'))
        at = match.end()
    return fields


def read_records(file, name):
    """Yields (place in the file, fields) for every record. A line end inside quotes does not end a record."""
    line_number = 0
    while True:
        start = line_number + 1
        parts, quotes, size = [], 0, 0
        while True:
            line = file.readline(MAX_RECORD_BYTES)
            if not line:
                if parts:
                    raise Unusable(f"{name} line {start}: the input ends inside a quoted field")
                return
            if not line.endswith(b"\n"):
                raise Unusable(f"{name} line {line_number + 1}: the input ends in the middle of a line, so it was cut")
            line_number += 1
            parts.append(line)
            quotes += line.count(b'"')
            size += len(line)
            if size > MAX_RECORD_BYTES:
                raise Unusable(f"{name} line {start}: a record of more than {MAX_RECORD_BYTES} bytes; is a quote missing?")
            if quotes % 2 == 0:
                break
        record = b"".join(parts)[:-1]
        where = f"{name} line {start}"
        yield where, split_record(record[:-1] if record.endswith(b"\r") else record, where)


def read_table(file, name, columns, optional=()):
    """Yields (place, {column: field}) for every row; the header may have the columns in any order, and more. A field of an optional
    column that is not there is None."""
    records = read_records(file, name)
    where, header = next(records, (name, None))
    if header is None:
        raise Unusable(f"{name}: empty; a header with the names of the columns was expected")
    header = [(field or b"").decode("utf-8", "replace").lstrip("\ufeff") for field in header]
    missing = [column for column in columns if column not in header and not (column in CONTENT_COLUMNS and "content_digest" in header)]
    if missing:
        raise Unusable(f"{where}: the header lacks {', '.join(missing)} (it has {', '.join(header)[:300]})")
    indexes = [(column, header.index(column)) for column in (*columns, *optional) if column in header]
    absent = {column: None for column in (*columns, *optional) if column not in header}
    for where, fields in records:
        if len(fields) != len(header):
            raise Unusable(f"{where}: {len(fields)} fields, where the header has {len(header)}")
        yield where, {**absent, **{column: fields[index] for column, index in indexes}}


# Values, as PostgreSQL prints them

INTEGER = re.compile(rb"-?[0-9]{1,20}")
UUID_TEXT = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
TAG = re.compile(rb'(?:"((?:[^"\\]|\\.)*)"|([^"\\{},\s]+))(,|\Z)', re.DOTALL)
HEX = re.compile(rb"(?:\\x)?((?:[0-9a-fA-F]{2})*)")
TIMESTAMP = re.compile(
    rb"([0-9]{4,})-([0-9]{2})-([0-9]{2}) ([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6}))?"
    rb"([+-])([0-9]{2,})(?::([0-9]{2}))?(?::([0-9]{2}))?( BC)?"
)


def parse_integer(field, allowed=INT64):
    if not INTEGER.fullmatch(field) or int(field) not in allowed:
        raise Unusable(f"{shown(field)} is no integer of its type")
    return int(field)


def parse_uuid(field):
    if not UUID_TEXT.fullmatch(field):
        raise Unusable(f"{shown(field)} is no uuid")
    return bytes.fromhex(field.decode().replace("-", ""))


def parse_content_version(field):
    if parse_integer(field) != 1:
        raise Unusable(f"{shown(field)} is not known to this program, which hashes contents of version 1: take a newer one")
    return 1


def parse_tags(field):
    """The elements of a text[] of one dimension. Their order is part of what is hashed, and there is one right one."""
    inside, at, delimiter, tags = field[1:-1], 0, b",", []
    if field[:1] != b"{" or field[-1:] != b"}":
        raise Unusable(f"{shown(field)} is no text[]")
    while delimiter and inside:
        match = TAG.match(inside, at)
        if match is None or match.group(2) == b"NULL":
            raise Unusable(f"{shown(field)} is no text[] of tags")
        quoted, plain, delimiter = match.groups()
        tags.append(plain if quoted is None else re.sub(rb"\\(.)", rb"\1", quoted, flags=re.DOTALL))
        at = match.end()
    if any(after <= before for before, after in zip(tags, tags[1:])):
        raise Fault(f"are {shown(field)}: not in byte order, each once")
    return tags


def parse_bytes(field):
    match = HEX.fullmatch(field)
    if match is None:
        raise Unusable(f"{shown(field)} is no bytea in hex; set bytea_output to hex")
    return bytes.fromhex(match.group(1).decode())


def parse_timestamp(field):
    """Microseconds since 1970-01-01 UTC of a timestamptz in ISO style, of any time zone, by integers only."""
    if field in (b"infinity", b"-infinity"):
        raise Fault(f"is {field.decode()}, which no event may have")
    match = TIMESTAMP.fullmatch(field)
    if match is None:
        raise Unusable(f"{shown(field)} is no time in ISO style with a time zone; set datestyle to ISO")
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    fraction, sign, *offset, before_christ = match.groups()[6:]
    if before_christ:
        year = 1 - year
    offset_hours, offset_minutes, offset_seconds = (int(part or 0) for part in offset)
    offset_total = offset_hours * 3600 + offset_minutes * 60 + offset_seconds
    seconds = days_since_1970(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
    seconds -= offset_total if sign == b"+" else -offset_total
    microseconds = seconds * 1_000_000 + int((fraction or b"").ljust(6, b"0"))
    if microseconds not in INT64:
        raise Fault("lies beyond the times that a chain hash can hold")
    return microseconds


def days_since_1970(year, month, day):
    """Days in the proleptic Gregorian calendar (year 0 is 1 BC), for any year: datetime stops at 1 and 9999."""
    if month <= 2:
        year -= 1
    month_from_march = (month + 9) % 12
    days_before_month = (153 * month_from_march + 2) // 5
    days_before_year = 365 * year + year // 4 - year // 100 + year // 400
    return days_before_year + days_before_month + day - 1 - 719_468


def shown(field):
    """A field for a message: short, on one line."""
    text = field.decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= 600 else text[:600] + "…"


class Key(NamedTuple):
    """A stream."""

    tenant: bytes
    tenant_uuid: bytes
    stream: bytes

    def lasting(self):
        """What it is known by when its tenant has another name."""
        return self.tenant_uuid, self.stream

    def place(self, version):
        return f"{shown(self.tenant)}/{shown(self.stream)} version {version}"


# The check


PARSERS = {
    "tenant_uuid": parse_uuid,
    "version": parse_integer,
    "event_id": parse_uuid,
    "schema_version": lambda field: parse_integer(field, INT32),
    "tags": parse_tags,
    "content_version": parse_content_version,
    "occurred_at": parse_timestamp,
    "recorded_at": parse_timestamp,
    "salt": parse_bytes,
    "content_digest": parse_bytes,
    "chain_hash": parse_bytes,
    "global_position": parse_integer,
}


def read_events(file, name):
    """Yields (place in the file, {column: value}, the first Fault of the values or None) for every event."""
    for where, row in read_table(file, name, EVENT_COLUMNS, OPTIONAL_EVENT_COLUMNS):
        fault = None
        for column, field in row.items():
            try:
                if field is None:
                    if column == "version":
                        raise Unusable("is NULL")
                    if column == "tags":
                        row[column] = []
                    elif column not in ("subject", "content_version", "content_digest") and not (
                        column in CONTENT_COLUMNS and row["content_digest"] is not None
                    ):
                        raise Fault("is NULL")
                elif column in PARSERS:
                    row[column] = PARSERS[column](field)
            except Fault as found:
                fault = fault or Fault(f"{column} {found}")
            except Unusable as reason:
                raise Unusable(f"{where}: {column} {reason}") from None
        yield where, row, fault


class Verifier:
    """Checks events that come stream by stream, and keeps no more than the head of the current one."""

    def __init__(self, report, anchors, anchored_names, save_head):
        self.report = report
        self.anchors = anchors
        self.anchored_names = anchored_names
        self.save_head = save_head
        self.events = self.streams = self.by_digest = 0
        self.key = self.head = None
        # Tenants of which an event's hash was right: their uuids are.
        self.fitted = set()
        # Streams in byte order cannot come back; these are looked at only once the order is another one.
        self.earlier = array.array("q")
        self.earlier_set = None

    def check(self, where, row, fault):
        key = Key(row["tenant"] or b"", row["tenant_uuid"] or b"", row["stream"] or b"")
        if key != self.key:
            self.finish_stream()
            self.begin_stream(where, key)
        self.events += 1
        problems = [str(fault)] if fault else self.problems(row)
        for problem in problems:
            self.report(key.place(row["version"]), problem)
        self.check_anchor(key, row)
        # Going on from the stored hash names each changed event once, not all that follow it.
        self.head = row

    def begin_stream(self, where, key):
        digest = hash(key)
        if self.earlier_set is None and self.key is not None and key < self.key:
            self.earlier_set, self.earlier = set(self.earlier), None
        if self.earlier_set is None:
            self.earlier.append(digest)
        elif digest in self.earlier_set:
            raise Unusable(
                f"{where}: {shown(key.tenant)}/{shown(key.stream)} comes back after other streams; "
                "the events must be ordered by tenant, stream, version"
            )
        else:
            self.earlier_set.add(digest)
        self.key = key
        self.streams += 1

    def finish_stream(self):
        """Ends the current stream: what is left of its anchors lies beyond its end."""
        if self.key is None:
            return
        for version, _ in sorted(self.anchors.pop(self.key.lasting(), {}).items()):
            last = self.head["version"]
            if version > last:
                self.report(self.key.place(version), f"it was there when the heads were saved, but the stream ends at {last}")
            else:
                self.report(self.key.place(version), "it was there when the heads were saved, but is missing")
        if self.save_head and self.key.tenant_uuid and self.head["chain_hash"] is not None:
            self.save_head(self.key, self.head["version"], self.head["chain_hash"])
        self.head = None

    def finish(self):
        """Ends the log: a stream that is still anchored never came."""
        self.finish_stream()
        missing = sorted((Key(self.anchored_names[uuid], uuid, stream), max(versions)) for (uuid, stream), versions in self.anchors.items())
        for key, version in missing:
            self.report(key.place(version), "it was there when the heads were saved, but the stream is missing")

    def problems(self, row):
        """What is wrong with an event whose values are usable, given the head before it."""
        version = row["version"]
        last = self.head["version"] if self.head else 0
        if version <= last:
            yield f"it comes twice, or out of order after version {last}" if version > 0 else "versions start at 1"
        elif version > last + 1:
            missing = f"version {last + 1} is" if version == last + 2 else f"versions {last + 1} to {version - 1} are"
            yield f"{missing} missing before it"
        if self.head:
            yield from self.order_problems(row)
        if row["salt"] is not None and len(row["salt"]) != SALT_BYTES:
            yield f"its salt has {len(row['salt'])} bytes, not {SALT_BYTES}"
            return
        previous = self.head["chain_hash"] if self.head else GENESIS
        # Without the event before it (whose own problem is reported) nothing can be said about the hash.
        if version == last + 1 and previous is not None:
            event = Event(*(row[field] for field in Event._fields))
            self.by_digest += event.is_by_digest()
            computed = chain_hash(previous, event)
            if computed == row["chain_hash"]:
                self.fitted.add(row["tenant_uuid"])
            else:
                or_else = "" if row["tenant_uuid"] in self.fitted else ", or the tenant's uuid"
                yield (
                    f"its chain hash is {row['chain_hash'].hex()}, but its content and its predecessor give "
                    f"{computed.hex()}: it was changed, or the event before it was{or_else}"
                )

    def order_problems(self, row):
        for column, is_wrong, rule in (
            ("global_position", lambda a, b: b <= a, "does not lie after"),
            ("recorded_at", lambda a, b: b < a, "lies before"),
        ):
            before, now = self.head[column], row[column]
            if isinstance(before, int) and is_wrong(before, now):
                yield f"its {column} {rule} that of version {self.head['version']}"

    def check_anchor(self, key, row):
        anchored = self.anchors.get(key.lasting())
        expected = anchored.pop(row["version"], None) if anchored else None
        if expected is not None and expected != row["chain_hash"]:
            found = row["chain_hash"].hex() if row["chain_hash"] is not None else "NULL"
            self.report(
                key.place(row["version"]),
                f"its chain hash is {found}, but was {expected.hex()} when the heads were saved: the chain was rewritten",
            )


def read_anchors(paths):
    """All saved heads, as {(tenant's uuid, stream): {version: hash}}, and {tenant's uuid: name}."""
    anchors, names = {}, {}
    for path in paths:
        with open(path, "rb") as file:
            for where, row in read_table(file, path, HEAD_COLUMNS):
                if None in row.values():
                    raise Unusable(f"{where}: an empty field")
                try:
                    version, head = parse_integer(row["version"]), parse_bytes(row["chain_hash"])
                    key = Key(row["tenant"], parse_uuid(row["tenant_uuid"]), row["stream"])
                except Unusable as reason:
                    raise Unusable(f"{where}: {reason}") from None
                if version < 1 or len(head) != len(GENESIS):
                    raise Unusable(f"{where}: no head of a stream")
                names[key.tenant_uuid] = key.tenant
                versions = anchors.setdefault(key.lasting(), {})
                if versions.setdefault(version, head) != head:
                    raise Unusable(f"{where}: the anchors hold two hashes for {key.place(version)}")
    return anchors, names


def csv_line(*fields):
    return b",".join(b'"' + field.replace(b'"', b'""') + b'"' for field in fields) + b"\n"


def verify(input_path, anchor_paths, heads_path, out, allow_empty=False):
    """Runs the whole check; returns the number of problems, each of which went to `out`."""
    anchors, anchored_names = read_anchors(anchor_paths)
    anchored = sum(map(len, anchors.values()))
    if anchor_paths and not anchored and not allow_empty:
        raise Unusable("the anchors hold no heads, so nothing would be compared; --allow-empty if none were saved on purpose")
    problem_count = 0

    def report(subject, problem):
        nonlocal problem_count
        problem_count += 1
        print(f"{subject}: {problem}", file=out)

    unfinished = f"{heads_path}.unfinished" if heads_path else None
    heads = open(unfinished, "wb") if heads_path else None
    try:
        if heads:
            heads.write(csv_line(*(column.encode() for column in HEAD_COLUMNS)))

        def save_head(key, version, head):
            uuid = str(UUID(bytes=key.tenant_uuid)).encode()
            heads.write(csv_line(key.tenant, uuid, key.stream, str(version).encode(), head.hex().encode()))

        verifier = Verifier(report, anchors, anchored_names, save_head if heads else None)
        with open(0, "rb", closefd=False) if input_path == "-" else open(input_path, "rb") as file:
            for event in read_events(file, "standard input" if input_path == "-" else input_path):
                verifier.check(*event)
        verifier.finish()
        if not verifier.events and not problem_count and not allow_empty:
            # Of another database, or exported by a role that may read nothing: no all-clear.
            raise Unusable("the input holds no events; --allow-empty if the log has none")
        if heads:
            heads.flush()
            os.fsync(heads.fileno())
            heads.close()
            if problem_count == 0:
                os.replace(unfinished, heads_path)
    finally:
        if heads:
            heads.close()
            if os.path.exists(unfinished):
                os.remove(unfinished)
    found = "intact" if problem_count == 0 else f"{problem_count} problem{'s' if problem_count > 1 else ''}"
    compared = f", {anchored} anchors compared" if anchor_paths else ""
    kept = "" if not heads_path else (", heads saved" if problem_count == 0 else ", heads not saved")
    by_digest = f", {verifier.by_digest} of them by their content digests alone" if verifier.by_digest else ""
    print(f"{verifier.events} events in {verifier.streams} streams{by_digest}{compared}: {found}{kept}", file=out)
    return problem_count


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", help="the events as CSV, or - for standard input")
    parser.add_argument("--anchor", action="append", default=[], metavar="HEADS", help="heads saved earlier (repeatable)")
    parser.add_argument("--allow-empty", action="store_true", help="no events at all are no reason to fail")
    parser.add_argument("--save-heads", metavar="FILE", help="write the heads there if every chain is intact")
    options = parser.parse_args(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        return 1 if verify(options.input, options.anchor, options.save_heads, sys.stdout, options.allow_empty) else 0
    except (Unusable, OSError) as reason:
        sys.stdout.flush()
        print(f"verify.py: {reason}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
