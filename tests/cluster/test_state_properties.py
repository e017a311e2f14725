"""Every way to a state gives the same one (invariant "state is a function of the chain"): full replay, any snapshot, the cache, es_history,
es_timeline, es_simulate and es_category_state, against a fold in Python that shares nothing with the product; by rules and by a PL/pgSQL handler,
in both orders, at every version, as_of and known_at; with late and equal times, streams across partitions, an upcaster registered and
the folds replaced in between.

The state has a sum (exact, with its scale), and what does not commute: the last amount, and the list of all. EVENTSTREAM_SEED=<number>
runs the same again.
"""

import datetime
import json
import os
import random
from dataclasses import dataclass, field
from decimal import Decimal

import pytest
from database import Database, near_edge, partitions, rows, value, verify
from states import maintain_until_done, problems

SEED = int(os.environ.get("EVENTSTREAM_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
STREAMS, LEAST_CASES = 20, 10_000
START = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
INITIAL = '{"sum": 0, "last": null, "list": []}'
# A fold's name → (order, how); `factor` of the second definition.
FOLDS = {
    "rules_version": ("version", "rules"),
    "rules_time": ("occurred_at", "rules"),
    "handler_version": ("version", "handler"),
    "handler_time": ("occurred_at", "handler"),
}


@dataclass
class Event:
    version: int
    type: str
    schema: int
    payload: dict
    occurred_at: datetime.datetime
    recorded_at: datetime.datetime


@dataclass
class Model:
    """What is registered, and the streams' events: all that a state depends on."""

    member: str = "amount"
    upcasts: bool = False
    streams: dict = field(default_factory=dict)

    def amount(self, event):
        """What the folds add: None where they pass the event over."""
        payload, kind = event.payload, event.type
        if self.upcasts and (kind, event.schema) == ("Old", 1):
            payload, kind = {"amount": Decimal(payload["cents"]) * Decimal("0.01"), "other": Decimal("7.0")}, "Happened"
        return payload[self.member] if kind == "Happened" else None

    def state(self, events, order):
        if order == "occurred_at":
            events = sorted(events, key=lambda event: (event.occurred_at, event.version))
        total, last, every = Decimal(0), None, []
        for event in events:
            amount = self.amount(event)
            if amount is not None:
                total, last = total + amount, amount
                every.append(amount)
        return exact({"sum": total, "last": last, "list": every})


def exact(document):
    """Numbers with their scale: 1.0 is not 1.00."""
    if isinstance(document, dict):
        return {key: exact(value) for key, value in document.items()}
    if isinstance(document, list):
        return [exact(value) for value in document]
    return document.as_tuple() if isinstance(document, Decimal) else document


def read(text):
    return None if text is None else exact(json.loads(text, parse_float=Decimal, parse_int=Decimal))


def rules(member):
    return json.dumps(
        {"on": {"Happened": [{"add": {"/sum": f"/{member}"}}, {"set": {"/last": f"/{member}"}}, {"append": {"/list": f"/{member}"}}]}}
    )


def register(session, member):
    session.execute(
        f"""create or replace function fold(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$
        declare amount jsonb := event.payload -> '{member}';
        begin
            if event.event_type <> 'Happened' then return state; end if;
            return jsonb_build_object('sum', (state ->> 'sum')::numeric + amount::numeric, 'last', amount, 'list', (state -> 'list') || amount);
        end $$"""
    )
    for name, (order, how) in FOLDS.items():
        handler, by_rules = ("fold(jsonb, eventstream.event)", None) if how == "handler" else (None, rules(member))
        session.execute(
            "select es_register_fold(%s, 'thing', %s::regprocedure, %s, %s, snapshot_every => 7, fold_order => %s)",
            (name, handler, by_rules, INITIAL, order),
        )


def register_upcaster(session):
    session.execute(
        """create function from_cents(payload jsonb, metadata jsonb) returns jsonb immutable language sql as
        $$ select jsonb_build_object('amount', (payload ->> 'cents')::numeric * 0.01, 'other', 7.0) $$"""
    )
    session.execute("select es_register_upcaster('Old', 1, 'from_cents(jsonb, jsonb)', 'Happened')")


def number(chance):
    return Decimal(chance.randrange(-10_000, 10_000)).scaleb(-chance.choice((0, 1, 2, 2, 2, 5)))


def new_events(chance, stream):
    """A batch: mostly in order, with equal times, some late by a little or a lot."""
    latest = max((event.occurred_at for event in stream), default=START)
    batch = []
    for _ in range(chance.choice((1, 1, 2, 5))):
        moved = chance.choice((0, 0, 1, 1, 2, 5))
        if chance.random() < 0.2:
            moved = -chance.choice((0, 1, 3, 20))
        occurred_at = max(START, latest + moved * DAY)
        latest = max(latest, occurred_at)
        if chance.random() < 0.2:
            batch.append(("Old", 1, {"cents": Decimal(chance.randrange(10_000))}, occurred_at))
        elif chance.random() < 0.1:
            batch.append(("Ignored", 1, {}, occurred_at))
        else:
            batch.append(("Happened", 2, {"amount": number(chance), "other": number(chance)}, occurred_at))
    return batch


def as_json(batch):
    def text(document):
        return "{" + ", ".join(f'"{key}": {format(value, "f")}' for key, value in document.items()) + "}"

    return "[" + ", ".join(
        f'{{"type": "{kind}", "schema_version": {schema}, "payload": {text(payload)}, "occurred_at": "{occurred_at.isoformat()}"}}'
        for kind, schema, payload, occurred_at in batch
    ) + "]"


def append(session, chance, model, name):
    """Appends a batch; es_simulate must have foreseen every fold's state."""
    stream = model.streams.setdefault(name, [])
    batch = new_events(chance, stream)
    foreseen = {fold: read(value(session, "select es_simulate(%s, %s::jsonb, %s)::text", name, as_json(batch), fold)) for fold in FOLDS}
    session.execute("select es_append_events(%s, %s::jsonb)", (name, as_json(batch)))
    recorded = rows(session, "select version, recorded_at from es_read(%s, from_version => %s)", name, len(stream) + 1)
    for (version, recorded_at), (kind, schema, payload, occurred_at) in zip(recorded, batch, strict=True):
        stream.append(Event(version, kind, schema, payload, occurred_at, recorded_at))
    for fold, (order, _) in FOLDS.items():
        assert foreseen[fold] == model.state(stream, order), f"es_simulate of {fold} on {name}, seed {SEED}"
    return len(FOLDS)


def grow(session, chance, model):
    return sum(append(session, chance, model, f"thing-{chance.randrange(STREAMS)}") for _ in range(STREAMS * 6))


class Asked:
    """One session's answers, each compared with the model's; counts them."""

    def __init__(self, session, model, label):
        self.session, self.model, self.label, self.cases = session, model, label, 0

    def same(self, got, expected, what):
        self.cases += 1
        assert got == expected, f"{what}, {self.label}, seed {SEED}: got {got}, expected {expected}"

    def versions(self, name, fold, order):
        stream = self.model.streams[name]
        wanted = list(range(len(stream) + 1))
        answers = rows(
            self.session, "select v, es_state_at_version(%s, v, %s)::text from unnest(%s::bigint[]) v", name, fold, wanted
        )
        for version, state in answers:
            self.same(read(state), self.model.state(stream[:version], order), f"{fold} of {name} at version {version}")
        state, version = rows(self.session, "select state::text, version from es_load(%s, %s)", name, fold)[0]
        self.same((read(state), version), (self.model.state(stream, order), len(stream)), f"es_load of {name} by {fold}")
        self.same(read(value(self.session, "select es_state(%s, %s)::text", name, fold)), self.model.state(stream, order), f"{fold} of {name}")

    def moments(self, chance, name, fold, order):
        stream = self.model.streams[name]
        tick = datetime.timedelta(microseconds=1)
        times = [event.occurred_at + chance.choice((-tick, 0 * tick, tick)) for event in chance.sample(stream, min(12, len(stream)))]
        known = [event.recorded_at + chance.choice((-tick, 0 * tick, tick)) for event in chance.choices(stream, k=len(times))]
        known = [None if chance.random() < 0.4 else moment for moment in known]
        answers = rows(
            self.session,
            "select m.as_of, m.known_at, es_state_at(%s, m.as_of, m.known_at, %s)::text"
            " from unnest(%s::timestamptz[], %s::timestamptz[]) m (as_of, known_at)",
            name, fold, times, known,
        )
        for as_of, known_at, state in answers:
            events = [event for event in stream if event.occurred_at <= as_of and (known_at is None or event.recorded_at <= known_at)]
            self.same(read(state), self.model.state(events, order), f"{fold} of {name} as of {as_of}, known at {known_at}")

    def history(self, name, fold, order):
        stream = self.model.streams[name]
        told = rows(self.session, "select version, state::text from es_history(%s, fold => %s) order by version", name, fold)
        self.same([version for version, _ in told], [event.version for event in stream], f"versions of es_history of {name}")
        for version, state in told:
            self.same(read(state), self.model.state(stream[:version], order), f"es_history of {name} by {fold} at {version}")

    def timeline(self, chance, name, fold, order):
        stream = self.model.streams[name]
        known_at = chance.choice((None, stream[len(stream) // 2].recorded_at))
        known = [event for event in stream if known_at is None or event.recorded_at <= known_at]
        points = sorted({event.occurred_at for event in known})
        expected = []
        for place, point in enumerate(points):
            events = [event for event in known if event.occurred_at <= point]
            until = points[place + 1] if place + 1 < len(points) else None
            expected.append((point, until, max(event.version for event in events), self.model.state(events, order)))
        told = rows(
            self.session, "select valid_from, valid_to, version, state::text from es_timeline(%s, %s, %s) order by 1", name, known_at, fold
        )
        self.same(len(told), len(expected), f"rows of es_timeline of {name}")
        for (valid_from, valid_to, version, state), row in zip(told, expected, strict=True):
            self.same((valid_from, valid_to, version, read(state)), row, f"es_timeline of {name} by {fold}, known at {known_at}")

    def category(self, chance, fold, order):
        every = [event for stream in self.model.streams.values() for event in stream]
        as_of = chance.choice(every).occurred_at
        known_at = chance.choice((None, chance.choice(every).recorded_at))
        told = {
            stream: (version, read(state))
            for stream, version, state in rows(
                self.session, "select stream, version, state::text from es_category_state('thing', %s, %s, %s)", as_of, known_at, fold
            )
        }
        for name, stream in self.model.streams.items():
            events = [event for event in stream if event.occurred_at <= as_of and (known_at is None or event.recorded_at <= known_at)]
            expected = (max(event.version for event in events), self.model.state(events, order)) if events else None
            self.same(told.get(name), expected, f"es_category_state of {name} by {fold} as of {as_of}, known at {known_at}")

    def everything(self, chance):
        for fold, (order, _) in FOLDS.items():
            for name in self.model.streams:
                self.versions(name, fold, order)
                self.moments(chance, name, fold, order)
                self.history(name, fold, order)
                self.timeline(chance, name, fold, order)
            self.category(chance, fold, order)


@pytest.fixture(scope="module")
def things(shared_server):
    database = Database(shared_server, "state_properties").create()
    database.make_partitions_small(256)
    yield database
    database.drop()


def test_every_way_to_a_state_gives_the_same_one(things):
    chance = random.Random(SEED)
    model = Model()
    cases = 0
    with things.connect() as writer, things.connect() as cached, things.connect() as plain:
        plain.execute("set eventstream.state_cache_size = 0")
        near_edge(writer, 200)
        register(writer, model.member)

        def ask_everybody(when):
            nonlocal cases
            for label, session in (("kept states", cached), ("no kept states", plain)):
                asked = Asked(session, model, f"{label}, {when}")
                asked.everything(chance)
                cases += asked.cases

        cases += grow(writer, chance, model)
        ask_everybody("without snapshots")
        maintain_until_done(writer)
        for name in chance.sample(sorted(model.streams), 5):
            for fold in FOLDS:
                writer.execute("select es_snapshot(%s, %s)", (name, fold))
        cases += grow(writer, chance, model)
        ask_everybody("with snapshots behind")
        register_upcaster(writer)
        model.upcasts = True
        ask_everybody("after an upcaster was registered")
        maintain_until_done(writer)
        model.member = "other"
        register(writer, model.member)
        ask_everybody("after the folds were replaced")
        maintain_until_done(writer)
        ask_everybody("with snapshots of the new folds")
        assert problems(writer, thorough=True) == []
        assert value(writer, "select count(*) from eventstream.snapshots where is_current") > 100
        assert len(partitions(writer)) > 2, "the streams did not cross partitions"
        assert verify(writer) == []
    print(f"{cases} cases, seed {SEED}")
    assert cases >= LEAST_CASES
