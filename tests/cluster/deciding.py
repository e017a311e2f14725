"""A bank that is decided on: what the tests of deciders and of commands have in common."""

from __future__ import annotations

import psycopg
import pytest
from database import Database, value
from psycopg.types.json import Jsonb

FOLD = """select es_register_fold('balance', 'account', initial_state => '{"balance": 0, "movements": 0}', rules => '{"on": {
    "Credited": [{"add": {"/balance": "/amount"}}, {"increment": "/movements"}],
    "Debited": [{"subtract": {"/balance": "/amount"}}, {"increment": "/movements"}]}, "otherwise": "ignore"}')"""

DECIDE = """create or replace function decide(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $$
declare
    amount numeric := command.payload ->> 'amount';
begin
    case command.command_type
    when 'Deposit' then
        return jsonb_build_array(es_make_event('Credited', jsonb_build_object('amount', amount)));
    when 'Withdraw' then
        perform es_require((state ->> 'balance')::numeric >= amount, 'insufficient_funds', format('only %s are there', state ->> 'balance'),
                           jsonb_build_object('available', state -> 'balance'));
        return jsonb_build_object('events', jsonb_build_array(es_make_event('Debited', jsonb_build_object('amount', amount))),
                                  'result', jsonb_build_object('left', (state ->> 'balance')::numeric - amount));
    when 'Nothing' then
        return '[]';
    end case;
end $$"""

TRANSFER = """
create function transfer_streams(command eventstream.command) returns jsonb immutable language sql as
$$ select jsonb_build_object('streams', jsonb_build_array(command.payload ->> 'to')) $$;
create function transfer(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $$
declare
    amount numeric := command.payload ->> 'amount';
    there numeric := state -> command.stream ->> 'balance';
begin
    perform es_require(there >= amount, 'insufficient_funds', format('only %s are there', there));
    return jsonb_build_array(
        es_make_event('Debited', jsonb_build_object('amount', amount)),
        es_make_event('Credited', jsonb_build_object('amount', amount), stream => command.payload ->> 'to'));
end $$;
select es_register_decider('transfer', 'account', 'transfer(jsonb, eventstream.command)',
    boundary => 'transfer_streams(eventstream.command)', is_default => false);
"""

COMMANDS = {"Deposit": {"schema": {"type": "object", "required": ["amount"], "properties": {"amount": {"type": "number", "exclusiveMinimum": 0}}}, "example": {"amount": 1.5}},
            "Withdraw": {"schema": {"type": "object", "required": ["amount"], "properties": {"amount": {"type": "number", "exclusiveMinimum": 0}}}},
            "Nothing": {"description": "nothing happens"}}  # fmt: skip


def open_bank(session) -> None:
    session.execute(FOLD)
    session.execute(DECIDE)
    session.execute("select es_register_decider('cashier', 'account', 'decide(jsonb, eventstream.command)', commands => %s)", (Jsonb(COMMANDS),))


def bank(database: Database) -> Database:
    with database.connect() as session:
        open_bank(session)
        session.execute(TRANSFER)
    return database


def send(session, command_type="Deposit", payload=None, stream="account-1", **more):
    names = "".join(f", {name} => %s" for name in more)
    given = Jsonb({"amount": 10} if payload is None else payload)
    values = [Jsonb(each) if isinstance(each, dict) else each for each in more.values()]
    return value(session, f"select es_command(%s, %s, %s{names})", stream, command_type, given, *values)


def refused(call, *args, **more):
    with pytest.raises(psycopg.Error) as error:
        call(*args, **more)
    return error.value.diag


def decider(session, body, name="other", category="account", language="plpgsql", volatility="stable", **more) -> None:
    """Registers one whose function has that body."""
    session.execute(f"create or replace function {name}(state jsonb, command eventstream.command) returns jsonb {volatility} language {language} as $body$ {body} $body$")
    names = "".join(f", {key} => %s" for key in more)
    values = [Jsonb(each) if isinstance(each, dict) else each for each in more.values()]
    session.execute(f"select es_register_decider(%s, %s, %s{names})", (name, category, f"{name}(jsonb, eventstream.command)", *values))


def balance(session, stream="account-1"):
    return value(session, "select (es_state(%s) ->> 'balance')::numeric", stream)
