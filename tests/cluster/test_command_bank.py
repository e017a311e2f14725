"""Real input: 47,527 transactions of a bank as commands through a PL/pgSQL decider, with command keys, from four clients, each sent twice, in random order: one event a transaction, balances to
the cent, and every second answer is the first.

`EVENTSTREAM_BANK` names the folder or file of the bank's data (transactions.csv), as in test_live_bank.py: then the balances are those that the bank printed, too, but for what it rounded. Without it the same number of accounts and transactions is generated. `COMMANDS` (2,000) takes
fewer or all of them; `tools/proof commands` takes 47,527. Asked of the kinds: load, size, number (exact sums), role (clients that may only send commands)."""

import json
import os
import random
import time
from collections import Counter
from decimal import Decimal

from database import Database, all_at_once, gaps, raised, rows, value, verify
from deciding import FOLD
from test_live_bank import ROUNDED, printed_balances, transactions

COMMANDS = int(os.environ.get("COMMANDS", "2000"))
CLIENTS = 4

DECIDE = """create function book(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $$
declare
    amount numeric := command.payload ->> 'amount';
begin
    perform es_require(amount >= 0, 'negative', 'an amount is not negative');
    return jsonb_build_object(
        'events', jsonb_build_array(es_make_event(case command.command_type when 'Credit' then 'Credited' else 'Debited' end, command.payload)),
        'result', to_jsonb((state ->> 'balance')::numeric + case command.command_type when 'Credit' then amount else -amount end));
end $$"""


def test_a_banks_transactions_as_commands_each_sent_twice_in_random_order(new_server):
    server = new_server("bank", **{"eventstream.partition_size": 16384})
    there = Database(server, "bank").create()
    booked = transactions()[:COMMANDS]
    clerk = there.role("bank_clerk")
    with there.connect() as session:
        session.execute(FOLD)
        session.execute(DECIDE)
        session.execute("select es_register_decider('book', 'account', 'book(jsonb, eventstream.command)', commands => %s)",
                        (json.dumps({kind: {"schema": {"type": "object", "required": ["amount"]}} for kind in ("Credit", "Debit")}),))  # fmt: skip
        session.execute("select es_grant(%s, 'command')", (clerk,))
    sent = [number for number in range(len(booked)) for _ in range(2)]
    random.Random(1).shuffle(sent)
    answers: dict[int, list[dict]] = {number: [] for number in range(len(booked))}

    def client(number):
        with there.connect(user=clerk) as connection:
            for place in sent[number::CLIENTS]:
                account, direction, amount, purpose = booked[place]
                payload = f'{{"amount": {amount}, "purpose": {json.dumps(purpose)}}}'
                answers[place].append(
                    value(connection, "select es_command(%s, %s, %s::jsonb, command_key => %s)", f"account-{account}", f"{direction.title()}", payload, f"tx-{place}")
                )

    began = time.monotonic()
    assert raised(all_at_once(CLIENTS, client, 1500)) == []
    took = time.monotonic() - began
    for number, both in answers.items():
        assert len(both) == 2 and sorted(answer["replayed"] for answer in both) == [False, True], (number, both)
        assert {**both[0], "replayed": None} == {**both[1], "replayed": None}
    expected: Counter = Counter()
    for account, direction, amount, _ in booked:
        expected[f"account-{account}"] += Decimal(amount) if direction == "credit" else -Decimal(amount)
    with there.connect() as session:
        assert value(session, "select count(*) from eventstream.events") == len(booked) == value(session, "select count(*) from _eventstream.command_answers")
        found = {stream: Decimal(balance) for stream, balance in rows(session, "select stream, state ->> 'balance' from es_category_state('account')")}
        assert found == dict(expected)
        printed = printed_balances(len(booked))
        assert [account for account, balance in printed.items() if abs(found[f"account-{account}"] - balance) > ROUNDED] == []
        # The last answer of each account tells its balance.
        assert value(session, "select count(*) from eventstream.events where metadata -> 'command' ->> 'key' is null") == 0
        assert verify(session) == [] == gaps(session)
    print(f"{len(booked)} commands, each sent twice by one of {CLIENTS} clients, in {took:.1f} s: {len(sent) / took:.0f} a second; {len(found)} accounts to the cent, {len(printed)} as the bank printed them")
