"""Fold rules count as Python's decimal module counts: products, quotients and rounding in every mode, and balances under keys from the payload."""

import decimal
import json
import random
from decimal import Decimal

from database import value
from psycopg.types.json import Jsonb

MODES = {
    "half_up": decimal.ROUND_HALF_UP,
    "half_down": decimal.ROUND_HALF_DOWN,
    "half_even": decimal.ROUND_HALF_EVEN,
    "up": decimal.ROUND_UP,
    "down": decimal.ROUND_DOWN,
    "ceiling": decimal.ROUND_CEILING,
    "floor": decimal.ROUND_FLOOR,
}


def number(choice: random.Random, digits: int = 12) -> Decimal:
    return Decimal(choice.randint(-(10**digits), 10**digits)).scaleb(-choice.randint(0, digits))


def quantized(exact: Decimal, scale: int, mode: str) -> Decimal:
    return exact.quantize(Decimal(1).scaleb(-scale), rounding=MODES[mode])


def test_products_quotients_and_rounding_are_those_of_pythons_decimal(quiet):
    choice = random.Random(20241031)
    # So exact that no quotient of these numbers is rounded twice: no tie can lie beyond the digits that are kept.
    decimal.getcontext().prec = 120
    with quiet.connect() as session:
        for scale, mode in [(scale, mode) for scale in (0, 2, 5) for mode in MODES]:
            rounding = {"scale": scale, "mode": mode}
            rules = {
                "on": {
                    "E": [
                        {"set": {"/product": "/a", "/quotient": "/a", "/rounded": "/a"}},
                        {"multiply": {"/product": "/b"}},
                        {"divide": {"/quotient": {"by": "/b", **rounding}}},
                        {"round": {"/rounded": rounding}},
                    ]
                }
            }
            fold = f"{mode}_{scale}"
            session.execute("select es_register_fold(%s, 'n', rules => %s)", (fold, Jsonb(rules)))
            pairs = [(number(choice), number(choice) or Decimal(1)) for _ in range(60)]
            # Ties, and what lies beside them.
            pairs += [(Decimal(n).scaleb(-scale - 1), Decimal(2)) for n in (-25, -15, -5, 5, 15, 25, 149, 151)]
            for a, b in pairs:
                payload = f'{{"a": {a:f}, "b": {b:f}}}'
                event = f'[{{"type": "E", "payload": {payload}}}]'
                text = value(session, "select es_simulate('n-1', %s::jsonb, fold => %s)::text", event, fold)
                state = json.loads(text, parse_float=Decimal, parse_int=Decimal)
                expected = {"product": a * b, "quotient": quantized(a / b, scale, mode), "rounded": quantized(a, scale, mode)}
                assert state == expected and scales(state) == scales(expected), (mode, scale, a, b)


def scales(numbers: dict) -> dict:
    return {key: number.as_tuple().exponent for key, number in numbers.items()}


def test_balances_under_keys_are_those_of_a_dictionary(quiet):
    choice = random.Random(7)
    balances: dict[str, Decimal] = {}
    with quiet.connect() as session:
        session.execute(
            "select es_register_fold('wallet', 'wallet', rules => %s)",
            (Jsonb({"on": {"Moved": [{"add": {"/balances/{/currency}": "/amount"}}]}}),),
        )
        events = []
        for _ in range(500):
            currency = choice.choice(["EUR", "CHF", "-", "0", "a/b", "{x}", "~1", "ü"])
            amount = number(choice, 6)
            balances[currency] = balances.get(currency, Decimal(0)) + amount
            events.append(f'{{"type": "Moved", "payload": {{"currency": {json.dumps(currency)}, "amount": {amount:f}}}}}')
        session.execute("select es_append_events('wallet-1', %s::jsonb)", (f"[{', '.join(events)}]",))
        text = value(session, "select es_state('wallet-1')::text")
    state = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    assert state == {"balances": balances}
