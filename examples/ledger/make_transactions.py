#!/usr/bin/env python3
"""Makes transactions.csv: a year of invented transactions of twelve accounts. The same every time.

    python3 examples/ledger/make_transactions.py > examples/ledger/transactions.csv

The invented bank computes interest with more than two places and prints amounts and balances rounded, as a real
one was seen to do: so the exact sum of the printed amounts drifts from the printed balance by some cents.
"""

import calendar
import csv
import datetime
import decimal
import random
import sys

CENT = decimal.Decimal("0.01")
HEADER = "trans_id,account_id,seq,date,direction,operation,amount,purpose,bank_balance".split(",")


def cents(chance, low, high):
    return decimal.Decimal(chance.randrange(low * 100, high * 100)) * CENT


def days(chance, opened):
    """What happens on each day of 2024 from `opened` on: (date, direction, operation, amount or None, purpose)."""
    salary, rent = cents(chance, 1800, 4200), cents(chance, 500, 1100)
    day = opened
    yield day, "credit", "cash_deposit", cents(chance, 200, 2000), ""
    while day < datetime.date(2024, 12, 31):
        day += datetime.timedelta(days=1)
        if day.day == 5:
            yield day, "credit", "transfer_in", salary, "salary"
        if day.day == 6:
            yield day, "debit", "transfer_out", rent, "household"
        if day.day == 10 and salary > 3000:
            yield day, "debit", "transfer_out", cents(chance, 80, 81), "insurance"
        if chance.random() < 0.25:
            yield day, "debit", "card_withdrawal", cents(chance, 5, 120), ""
        if chance.random() < 0.12:
            yield day, "debit", "cash_withdrawal", cents(chance, 20, 300), ""
        if chance.random() < 0.04:
            yield day, "credit", "cash_deposit", cents(chance, 50, 600), ""
        if day.day == calendar.monthrange(day.year, day.month)[1]:
            yield day, "credit", "bank", None, "interest"
            yield day, "debit", "bank", decimal.Decimal("2.90"), "statement_fee"


def account(chance, account_id):
    balance, rate = decimal.Decimal(0), decimal.Decimal(chance.randrange(100, 300)) / 10000
    opened = datetime.date(2024, 1, 1) + datetime.timedelta(days=chance.randrange(90))
    seq = 0
    for day, direction, operation, amount, purpose in days(chance, opened):
        exact = balance * rate / 12 if amount is None else amount
        if direction == "debit" and exact > balance:
            continue  # not covered: the bank declines
        balance += exact if direction == "credit" else -exact
        seq += 1
        yield [day.isoformat(), account_id, seq, direction, operation, exact.quantize(CENT), purpose, balance.quantize(CENT)]


def main():
    chance = random.Random(2024)
    rows = sorted(
        (row for account_id in range(101, 113) for row in account(chance, account_id)),
        key=lambda row: (row[0], row[1], row[2]),
    )
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(HEADER)
    for number, (day, account_id, seq, direction, operation, amount, purpose, balance) in enumerate(rows):
        out.writerow([500001 + 7 * number, account_id, seq, day, direction, operation, amount, purpose, balance])


if __name__ == "__main__":
    main()
