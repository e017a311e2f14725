"""One login, four tenants, through pgbouncer in transaction mode: eight clients share fewer sessions, each with its tenant's tokens, and look for a word of the others' in whatever they are shown. They
leave behind what a client can: settings, prepared statements, cursors, transactions that fail, connections that break."""

from __future__ import annotations

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from database import rows, value, verify
from minting import Bank, use
from pooling import pooled
from psycopg.types.json import Jsonb

CLIENTS, SESSIONS = 8, 3
TENANTS = ("north", "east", "south", "west")
#: Each way, with DISCARD ALL and without.
SECONDS = float(os.environ.get("TOKEN_SECONDS", 3))


def canary(tenant: str) -> str:
    return f"canary-of-{tenant}-{sum(tenant.encode())}"


@pytest.fixture
def bank(database):
    return Bank(database, tenants=TENANTS)


READS = [
    "select payload::text, tenant from es_read_all()",
    "select payload::text, tenant from es_read('account-1')",
    "select payload::text, tenant from eventstream.events",
    "select stream, tenant from eventstream.streams",
    "select es_state('account-1')::text, null",
    "select role, tenant from eventstream.grants where tenant <> '*'",
    "select stream, null from es_last_append()",
]


class Client:
    def __init__(self, bank: Bank, connect, number: int):
        self.bank, self.connect, self.tenant = bank, connect, TENANTS[number % len(TENANTS)]
        self.random, self.others = random.Random(number), [canary(tenant) for tenant in TENANTS if tenant != TENANTS[number % len(TENANTS)]]
        self.done, self.refused, self.crossed = 0, 0, []
        self.ways = [self.append, self.append, self.read, self.read, self.cursor, self.prepared, self.fail, self.without, self.leave, self.steal, self.command, self.consume, self.reveal, self.listen]
        self.shown, self.heard = set(), 0

    def work(self, end: float) -> "Client":
        while time.monotonic() < end:
            try:
                with self.connect() as session:
                    session.add_notify_handler(self.hear)
                    while time.monotonic() < end and self.random.random() < 0.97:
                        self.transaction(session)
            except psycopg.OperationalError:
                pass
        return self

    def hear(self, notice: psycopg.Notify) -> None:
        """Of a session that LISTENs, whichever client began that: a position, and no word."""
        self.heard += 1
        if not notice.payload.isdigit():
            self.crossed.append(notice.payload)

    def look(self, found: list[tuple], way: str = "") -> None:
        text = repr(found)
        if canary(self.tenant) in text:
            self.shown.add(way)
        self.crossed += [word for word in self.others if word in text]
        self.crossed += [row for row in found if len(row) > 1 and row[1] not in (None, self.tenant)]
        self.done += 1

    def transaction(self, session: psycopg.Connection) -> None:
        way = self.random.choice(self.ways)
        try:
            way(session)
        except psycopg.Error as error:
            if session.broken or error.sqlstate is None:
                raise
            assert error.sqlstate in ("ES042", "ES043", "ES044", "22012", "26000", "42P05"), error
            self.refused += 1

    def begin(self, session: psycopg.Connection) -> None:
        assert use(session, self.bank.token(self.tenant)) == self.tenant

    def append(self, session):
        with session.transaction():
            self.begin(session)
            stream = f"account-{self.random.randrange(3)}"
            session.execute("select es_append(%s, 'Opened', %s)", (stream, Jsonb({"mark": canary(self.tenant)})))
            self.look(rows(session, "select stream, null from es_last_append()"))

    def read(self, session):
        with session.transaction():
            self.begin(session)
            self.look(rows(session, self.random.choice(READS)))

    def cursor(self, session):
        with session.transaction():
            self.begin(session)
            session.execute("declare c cursor for select payload::text, tenant from eventstream.events")
            for _ in range(3):
                self.look(rows(session, "fetch 2 from c"))

    def prepared(self, session):
        with session.transaction():
            self.begin(session)
            session.execute("deallocate all")
            session.execute("prepare p as select payload::text, tenant from eventstream.events")
            self.look(rows(session, "execute p"))

    def fail(self, session):
        with session.transaction():
            self.begin(session)
            session.execute("select 1 / 0")

    def without(self, session):
        self.look(rows(session, self.random.choice(READS)))

    def leave(self, session):
        session.execute(f"set eventstream.tenant = '{self.random.choice(TENANTS)}'")
        session.execute("""set eventstream.metadata = '{"actor": "left"}'""")
        session.execute("prepare left_behind as select payload::text, tenant from eventstream.events")

    def command(self, session):
        """Each tenant has the same keys, and what was answered under them."""
        with session.transaction():
            self.begin(session)
            number = self.random.randrange(3)
            asked = Jsonb({"mark": canary(self.tenant)})
            self.look(rows(session, "select es_command(%s, 'Do', %s, command_key => %s)::text, null", f"order-{number}", asked, f"k-{number}"), "command")

    def consume(self, session):
        with session.transaction():
            self.begin(session)
            found = rows(session, "select (event).payload::text, (event).tenant, lease_id from es_fetch('sub', 'me', 5)")
            self.look([row[:2] for row in found], "consume")
            if found:
                session.execute("select es_ack(%s)", (found[0][2],))

    def reveal(self, session):
        with session.transaction():
            self.begin(session)
            self.look(rows(session, "select r::text, null from es_reveal('account-0', 'CASE-1', max_count => 3) r"), "reveal")

    def listen(self, session):
        session.execute("listen eventstream")

    def steal(self, session):
        other = self.random.choice([tenant for tenant in TENANTS if tenant != self.tenant])
        with session.transaction():
            use(session, self.bank.token(other, key=self.bank.keys[self.tenant]))
            self.look(rows(session, "select payload::text, tenant from eventstream.events"))


@pytest.mark.parametrize("resets", [True, False], ids=["with DISCARD ALL", "without"])
def test_nothing_of_another_tenant_is_seen_through_a_pooler(bank, resets):
    for tenant in TENANTS:
        with bank.admin(tenant) as session:
            session.execute("select es_grant('web', 'reveal'), es_create_subscription('sub')")
            session.execute("create or replace function public.decide(state jsonb, command eventstream.command) returns jsonb stable language sql as "
                            "$$ select jsonb_build_object('result', command.payload, 'events', jsonb_build_array(jsonb_build_object('type', 'Done', 'payload', command.payload))) $$")
            session.execute("""select es_register_fold('order', 'order', rules => '{"on": {}}')""")
            session.execute("""select es_register_decider('order', 'order', 'public.decide(jsonb, eventstream.command)', commands => '{"Do": {}}')""")
            session.execute("select es_register_fold('mark', 'account', rules => '{\"on\": {\"Opened\": [{\"set\": {\"/mark\": \"/mark\"}}]}}')")
        with bank.connect() as session, session.transaction():
            use(session, bank.token(tenant))
            for number in range(3):
                session.execute("select es_append(%s, 'Opened', %s)", (f"account-{number}", Jsonb({"mark": canary(tenant)})))
    with pooled(bank.database, bank.role, SESSIONS, resets) as connect, ThreadPoolExecutor(CLIENTS) as threads:
        end = time.monotonic() + SECONDS
        clients = list(threads.map(lambda number: Client(bank, connect, number).work(end), range(CLIENTS)))
    assert [client.crossed for client in clients if client.crossed] == []
    assert min(client.done for client in clients) > 5 and min(client.refused for client in clients) > 0
    assert set.union(*(client.shown for client in clients)) >= {"command", "consume", "reveal"}
    # DISCARD ALL is an UNLISTEN, too.
    assert resets or sum(client.heard for client in clients) > 0
    print(f"{sum(client.done for client in clients)} looks, {sum(client.refused for client in clients)} refusals, none crossed")
    for tenant in TENANTS:
        with bank.admin(tenant) as session:
            assert value(session, "select bool_and(payload ->> 'mark' = %s and metadata ->> 'actor' = 'clerk-7') from es_read_all()", canary(tenant))
    with bank.admin("default") as session:
        assert verify(session) == []
