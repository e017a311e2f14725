"""Consumers of a subscription do what they like (fetch, acknowledge all or a part, nack, fall asleep, take dead letters back) while the
upcaster breaks and is mended, and a model in Python knows what must come of it: no event is lost, none is held by two leases, each stream comes in order, none dies too early."""

import random

import psycopg
import pytest
from database import Database, rows, value

STEPS = 350
MAX_DELIVERIES = 4
STREAMS = 90
# The payload that the upcaster cannot read while it is broken.
FRAGILE = 4


class Lease:
    def __init__(self, lease_id, consumer, events):
        self.id, self.consumer, self.events = lease_id, consumer, events


class Model:
    """`events`: position → (stream, version). What is done of each stream, what is held, what is dead."""

    def __init__(self, database: Database, seed: int):
        self.choice = random.Random(seed)
        self.sessions = [database.connect() for _ in range(4)]
        self.admin = database.connect()
        self.leases: dict = {}
        self.over: list = []
        self.acknowledged: set[int] = set()
        self.dead: set[int] = set()
        self.retried: set[int] = set()
        self.waiting: dict[int, float] = {}
        self.deliveries: dict[int, int] = {}
        self.events: dict[int, tuple[str, int]] = {}
        # What the upcaster may have failed for: it has been delivered in vain, nobody knows how often.
        self.fragile: set[int] = set()
        self.is_broken = False
        self.log: list[str] = []
        self.history: list[tuple[str, list[int]]] = []

    def note(self, what, positions):
        self.history.append((what, list(positions)))

    def story(self, position):
        """What happened to the stream of an event."""
        own = {p for p, (stream, _) in self.events.items() if stream == self.events[position][0]}
        lines = [f"{what}: {[p for p in positions if p in own]}" for what, positions in self.history if own & set(positions)]
        return f"{position} of {sorted(own)}:\n" + "\n".join(lines)

    # -- what happens ----------------------------------------------------------------------------------------------

    def append(self):
        stream = f"order-{self.choice.randrange(STREAMS)}"
        count = self.choice.randint(1, 4)
        self.admin.execute(
            "select es_append_events(%s, (select jsonb_agg(jsonb_build_object('type', case when n %% 5 = 0 then 'Other' else 'Moved' end,"
            " 'payload', n)) from generate_series(%s::int, %s::int) n))",
            (stream, self.choice.randint(1, 5), count + 5),
        )
        last = max(self.events, default=0)
        for position, name, version, event_type, payload in rows(
            self.admin,
            "select e.global_position, s.name, e.version, e.event_type, e.payload #>> '{}' from _eventstream.events e"
            " join _eventstream.streams s on s.id = e.stream_id where e.global_position > %s and e.tenant_id > 0 order by 1",
            last,
        ):
            self.events[position] = (name, version)
            if payload == str(FRAGILE):
                self.fragile.add(position)
            if event_type == "Other":
                self.acknowledged.add(position)  # not the subscription's

    def look_at_the_dead(self):
        dead = {position for (position,) in rows(self.admin, "select global_position from _eventstream.dead_letters")}
        for position in dead - self.dead:
            self.last = position
            self.note("dead", [position])
            is_early = self.deliveries.get(position, 0) < MAX_DELIVERIES and position not in self.fragile
            assert not is_early, f"{position} died after {self.deliveries.get(position)}"
            assert position not in self.acknowledged
        self.dead = dead
        self.retried -= dead

    def fetch(self, consumer=None, most=None):
        number = self.choice.randrange(len(self.sessions)) if consumer is None else consumer
        most = most or self.choice.choice([1, 3, 10, 40])
        if self.is_broken:
            # A stream waits once: where an earlier event fails, it waits for that one.
            for other in list(self.waiting):
                stream, version = self.events[other]
                if any(self.events[p][0] == stream and self.events[p][1] < version for p in self.fragile):
                    del self.waiting[other]
        found = rows(
            self.sessions[number],
            "select lease_id, attempt, (event).global_position, (event).stream, (event).version from es_fetch('orders', %s, %s, '50 min')",
            f"consumer-{number}",
            most,
        )
        self.look_at_the_dead()
        if not found:
            return 0
        assert len(found) <= most and len({row[0] for row in found}) == 1
        positions = [row[2] for row in found]
        self.last = positions[0]
        assert positions == sorted(set(positions)), "not the order of the log"
        holds = value(self.admin, "select positions from _eventstream.subscription_leases where lease_id = %s", found[0][0])
        assert positions == holds, f"the lease holds {holds}"
        held = {position for lease in self.leases.values() for position in lease.events}
        busy = {self.events[position][0] for position in held}
        expected: dict[str, int] = {}
        self.note(f"fetched by {number} with {str(found[0][0])[:4]}, attempts {[row[1] for row in found]}", positions)
        for _, attempt, position, stream, version in found:
            self.last = position
            assert self.events[position] == (stream, version)
            assert position not in held, f"{position} is held by two"
            assert stream not in busy, f"{stream} is held by two"
            assert position not in self.acknowledged, f"{position} was acknowledged"
            assert position not in self.dead, f"{position} is dead"
            assert position not in self.waiting, f"{position} is to wait"
            self.deliveries[position] = self.deliveries.get(position, 0) + 1
            assert not self.is_broken or position not in self.fragile, f"{position} cannot be upcast"
            assert 1 <= attempt <= self.deliveries[position] or position in self.fragile, "an attempt too many"
            if position not in self.retried:
                for before, (name, earlier) in self.events.items():
                    if name == stream and earlier < version and before not in positions and before not in self.retried:
                        assert before in self.acknowledged or before in self.dead, f"{stream} {version} comes before {earlier}"
        self.leases[found[0][0]] = Lease(found[0][0], number, positions)
        del expected
        return len(found)

    def a_lease(self):
        return self.choice.choice(list(self.leases.values())) if self.leases else None

    def acknowledge(self, lease, up_to=None):
        session = self.sessions[self.choice.randrange(len(self.sessions))]
        done = [position for position in lease.events if up_to is None or position <= up_to]
        assert value(session, "select es_ack(%s, %s)", lease.id, up_to) == len(done)
        self.note(f"acknowledged {str(lease.id)[:4]} up to {up_to}", done)
        self.acknowledged.update(done)
        self.retried.difference_update(done)
        self.leave(lease, done)

    def leave(self, lease, gone):
        lease.events = [position for position in lease.events if position not in gone]
        if not lease.events:
            del self.leases[lease.id]
            self.over.append(lease)

    def nack(self, lease):
        position = self.choice.choice(lease.events)
        stream = self.events[position][0]
        dead = self.choice.random() < 0.15
        later = self.choice.random() < 0.5
        if position in self.retried:
            gone = [position]
        else:
            gone = [p for p in lease.events if p >= position and self.events[p][0] == stream and p not in self.retried]
        count = value(
            self.sessions[lease.consumer],
            "select es_nack(%s, %s, 'no', %s, %s)",
            lease.id,
            position,
            "1 hour" if later else "0",
            dead,
        )
        # A single event of the same stream that lies behind leaves the lease, too.
        if count != len(gone):
            gone = [p for p in lease.events if p >= position and self.events[p][0] == stream]
            assert count == len(gone)
        # A stream waits once: what was nacked behind this event comes after it, whenever that is.
        for other in [p for p in self.waiting if p > position and self.events[p][0] == stream]:
            del self.waiting[other]
        if dead:
            self.deliveries[position] = max(self.deliveries[position], MAX_DELIVERIES)
        self.look_at_the_dead()
        self.note(f"nacked {str(lease.id)[:4]} {'dead' if dead else 'later' if later else ''} {position}, left", gone)
        if dead:
            assert position in self.dead
        elif later and position not in self.dead:
            self.waiting[position] = 1
        self.leave(lease, gone)

    def fall_asleep(self, lease):
        """The clock goes on by an hour."""
        for table in ("slots", "leases"):
            self.admin.execute(
                f"update _eventstream.subscription_{table} set lease_until = clock_timestamp() - interval '1 second' where lease_id = %s",
                (lease.id,),
            )
        self.note(f"slept {str(lease.id)[:4]}", lease.events)
        del self.leases[lease.id]
        self.over.append(lease)

    def come_too_late(self):
        if self.over:
            lease = self.choice.choice(self.over)
            for statement in ("select es_ack(%s)", "select es_extend_lease(%s, '1 s')", "select es_nack(%s, 1, 'no')"):
                with pytest.raises(psycopg.Error) as late:
                    self.sessions[lease.consumer].execute(statement, (lease.id,))
                assert late.value.sqlstate == "ES024"

    def let_them_retry(self):
        self.admin.execute("update _eventstream.subscription_parked set retry_at = clock_timestamp()")
        self.waiting.clear()
        self.note('all may retry', list(self.events))

    def take_back(self):
        if self.dead:
            position = self.choice.choice(sorted(self.dead))
            letter = value(self.admin, "select id from _eventstream.dead_letters where global_position = %s", position)
            assert value(self.admin, "select es_retry_dead_letter(%s)", letter) == "orders"
            self.note("taken back", [position])
            self.retried.add(position)
            self.deliveries[position] = 0
            self.dead.discard(position)

    def break_or_mend(self, is_broken=None):
        self.is_broken = not self.is_broken if is_broken is None else is_broken
        self.admin.execute(
            "create or replace function moved_2(payload jsonb, metadata jsonb) returns jsonb immutable language sql as"
            f" $$ select to_jsonb(1 / ((payload #>> '{{}}')::int - {FRAGILE if self.is_broken else 0})) $$"
        )
        self.note("broken" if self.is_broken else "mended", self.fragile)

    def step(self):
        lease = self.a_lease()
        what = self.choice.choices(
            ["append", "fetch", "all", "part", "nack", "sleep", "late", "retry", "back", "extend", "upcaster"],
            [20, 40, 14, 10, 12, 8, 3, 3, 3, 3, 2],
        )[0]
        self.log.append(what)
        if what == "append":
            self.append()
        elif what == "fetch":
            self.fetch()
        elif what == "late":
            self.come_too_late()
        elif what == "retry":
            self.let_them_retry()
        elif what == "back":
            self.take_back()
        elif what == "upcaster":
            self.break_or_mend()
        elif lease is None:
            self.fetch()
        elif what == "all":
            self.acknowledge(lease)
        elif what == "part":
            self.acknowledge(lease, self.choice.choice(lease.events))
        elif what == "nack":
            self.nack(lease)
        elif what == "extend":
            assert value(self.sessions[lease.consumer], "select es_extend_lease(%s, '1 s')", lease.id) == len(lease.events)
        else:
            self.fall_asleep(lease)

    def finish(self):
        """Everything that is left is delivered and acknowledged."""
        self.break_or_mend(False)
        self.let_them_retry()
        for lease in list(self.leases.values()):
            self.fall_asleep(lease)
        quiet = 0
        while quiet < 12:  # a call moves on no more slots than a consumer's share
            self.let_them_retry()
            number = self.choice.randrange(len(self.sessions))
            if self.fetch(number, 100):
                quiet = 0
                for lease in list(self.leases.values()):
                    self.acknowledge(lease)
            else:
                quiet += 1


@pytest.mark.parametrize("seed", range(8))
def test_whatever_consumers_do_nothing_is_lost_doubled_or_out_of_order(database, seed):
    with database.connect() as session:
        session.execute(
            "select es_create_subscription('orders', categories => '{order}', event_types => '{Moved}', max_deliveries => %s)",
            (MAX_DELIVERIES,),
        )
        session.execute("select es_append('other-1', 'Moved', '1')")
    model = Model(database, seed)
    model.break_or_mend(False)
    model.admin.execute("select es_register_upcaster('Moved', 1, 'moved_2(jsonb, jsonb)')")
    model.events[value(model.admin, "select es_horizon()")] = ("other-1", 1)
    model.acknowledged |= set(model.events)
    try:
        for _ in range(STEPS):
            model.step()
        model.finish()
    except AssertionError as error:
        raise AssertionError(f"seed {seed}, after {len(model.log)} steps: {error}\n{model.story(model.last)}") from error
    for position in sorted(set(model.events) - model.acknowledged - model.dead)[:1]:
        raise AssertionError(f"lost: {model.story(position)}")
    assert not model.acknowledged & model.dead
    assert len(model.deliveries) > 100
    assert rows(model.admin, "select * from _eventstream.subscription_parked") == []
