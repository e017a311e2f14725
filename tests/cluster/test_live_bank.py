"""Real input: 47,527 transactions of a bank through a state table and through a PL/pgSQL projection, while four clients append more; at
the end both equal es_category_state, row for row.

`EVENTSTREAM_BANK` names the folder or file of the bank's data (transactions.csv); without it the same number of accounts and
transactions is generated. `BANK_EVENTS` takes fewer.
"""

import csv
import os
import pathlib
import random
import time
from decimal import Decimal

from database import Database, rows, value, verify
from models import Appenders
from psycopg.types.json import Jsonb
from server import wait_until

EVENTS = int(os.environ.get("BANK_EVENTS", "47527"))
ACCOUNTS = 1201

RULES = """{"on": {
    "Credited": [{"add": {"/balance": "/amount"}}, {"increment": "/movements"}, {"set": {"/last": "/purpose"}}],
    "Debited": [{"subtract": {"/balance": "/amount"}}, {"increment": "/movements"}, {"set": {"/last": "/purpose"}}]
}}"""

SETUP = """
create table balances_by_hand (stream text primary key, version bigint not null, balance numeric not null, movements bigint not null, last text);
create function on_movement(event eventstream.event) returns void language plpgsql as $$
declare
    amount numeric := (event.payload ->> 'amount')::numeric * case event.event_type when 'Credited' then 1 else -1 end;
begin
    insert into public.balances_by_hand as b values (event.stream, event.version, amount, 1, event.payload ->> 'purpose')
    on conflict (stream) do update
    set version = excluded.version, balance = b.balance + excluded.balance, movements = b.movements + 1, last = excluded.last;
end $$;
"""

COLUMNS = [
    {"name": "balance", "type": "numeric", "path": "/balance"},
    {"name": "movements", "type": "bigint", "path": "/movements"},
    {"name": "last", "type": "text", "path": "/last"},
]


def transactions() -> list[tuple[str, str, str, str]]:
    """(account, direction, amount, purpose), in the order in which they were booked."""
    given = os.environ.get("EVENTSTREAM_BANK")
    if given is None:
        choice = random.Random(1)
        purposes = ["household", "pension", "interest", ""]
        return [
            (str(choice.randrange(ACCOUNTS) + 1), choice.choice(["credit", "debit"]), f"{choice.randrange(1, 9_000_000) / 100:.2f}", choice.choice(purposes))
            for _ in range(EVENTS)
        ]  # fmt: skip
    return [(row["account_id"], row["direction"], row["amount"], row["purpose"]) for row in read_file(given)[:EVENTS]]


def read_file(given: str) -> list[dict[str, str]]:
    path = pathlib.Path(given)
    with (path / "transactions.csv" if path.is_dir() else path).open(newline="") as file:
        return sorted(csv.DictReader(file), key=lambda row: (row["date"], int(row["account_id"]), int(row["seq"])))


#: The bank rounded some amounts: so far its balances lie from the exact sums at most.
ROUNDED = Decimal("0.80")


def printed_balances(count: int) -> dict[str, Decimal]:
    """What the bank itself printed as each account's balance after so many transactions; nothing where the data are made up."""
    given = os.environ.get("EVENTSTREAM_BANK")
    return {row["account_id"]: Decimal(row["bank_balance"]) for row in read_file(given)[:count]} if given else {}


def load(session, booked: list[tuple[str, str, str, str]]) -> None:
    """In the order of booking, 500 to a call; an account's are in the order in which they happened."""
    for first in range(0, len(booked), 500):
        streams: dict[str, list] = {}
        for account, direction, amount, purpose in booked[first : first + 500]:
            event_type = {"credit": "Credited", "debit": "Debited"}[direction]
            streams.setdefault(f"account-{account}", []).append(
                f'{{"type": "{event_type}", "payload": {{"amount": {amount}, "purpose": "{purpose}"}}}}'
            )
        appends = ", ".join(
            f'{{"stream": "{stream}", "events": [{", ".join(events)}]}}' for stream, events in sorted(streams.items())
        )
        session.execute("select count(*) from es_append_streams(%s::jsonb)", (f"[{appends}]",))


class Customers(Appenders):
    """Move money on the bank's own accounts meanwhile."""

    def _once(self, session, choice, number) -> None:
        event = {"amount": choice.randrange(1, 10_000), "purpose": f"client {number}"}
        session.execute(
            "select es_append(%s, %s, %s)",
            (f"account-{choice.randrange(ACCOUNTS) + 1}", choice.choice(["Credited", "Debited"]), Jsonb(event)),
        )
        self.appended[number] += 1
        time.sleep(choice.uniform(0, 2 * self.pause))


SAME = (
    "select * from {} m full join es_category_state('account') s using (stream)"
    " where (m.version, m.balance, m.movements, m.last) is distinct from"
    " (s.version, (s.state ->> 'balance')::numeric, (s.state ->> 'movements')::bigint, s.state ->> 'last') limit 5"
)


def test_a_banks_transactions_reach_both_models_while_clients_append(new_server):
    server = new_server("bank", max_worker_processes=12, **{"eventstream.partition_size": 16384})
    database = Database(server, "bank").create()
    booked = transactions()
    with database.connect() as session:
        session.execute(SETUP)
        session.execute("select es_register_fold('balance', 'account', rules => %s, initial_state => '{}')", (RULES,))
        session.execute("select es_create_state_table('balances', 'account', %s)", (Jsonb(COLUMNS),))
        session.execute("select es_create_projection('by_hand', 'on_movement(eventstream.event)', categories => '{account}')")
        with Customers(database, count=4, pause=0.002) as customers:
            began = time.monotonic()
            load(session, booked)
            loaded = time.monotonic() - began
            # The table is rebuilt in the middle of it.
            session.execute("select es_rebuild_projection('balances')")
            customers.wait_for(200)
        last = value(session, "select last_position from es_log_info()")
        began = time.monotonic()
        for name in ("balances", "by_hand"):
            session.execute("select es_wait_for(%s, up_to => %s, timeout => '120 s')", (name, last))
        behind = time.monotonic() - began
        wait_until(lambda: value(session, "select count(*) from eventstream.progress") == 0, 30, "the rebuild")
        events = value(session, "select count(*) from eventstream.events")
        assert events == len(booked) + sum(customers.appended)
        for table in ("balances", "balances_by_hand"):
            assert rows(session, SAME.format(table)) == []
        # The sum of it all, from the input itself.
        booked_sum = sum(Decimal(amount) * (1 if direction == "credit" else -1) for _, direction, amount, _ in booked)
        by_clients = value(
            session,
            "select coalesce(sum((payload ->> 'amount')::numeric * case event_type when 'Credited' then 1 else -1 end), 0)"
            " from eventstream.events where payload ->> 'purpose' like 'client %'",
        )
        assert value(session, "select sum(balance) from balances") == booked_sum + by_clients
        assert value(session, "select sum(movements) from balances_by_hand") == events
        by_client = "select stream, sum((payload ->> 'amount')::numeric * case event_type when 'Credited' then 1 else -1 end) from eventstream.events where payload ->> 'purpose' like 'client %%' group by stream"
        moved = dict(rows(session, by_client))
        found = {stream: balance - moved.get(stream, 0) for stream, balance in rows(session, "select stream, balance from balances")}
        printed = printed_balances(EVENTS)
        assert [account for account, balance in printed.items() if abs(found[f"account-{account}"] - balance) > ROUNDED] == []
        assert verify(session) == []
    print(f"{len(printed)} balances as the bank printed them; {len(booked)} transactions in {loaded:.1f} s, {sum(customers.appended)} by clients; both models followed {behind:.1f} s later")
