"""Stock that is reserved for a while, and other commands for later: what the tests of scheduled commands have in common."""

from __future__ import annotations

from database import rows, value
from deciding import send
from psycopg.types.json import Jsonb
from server import wait_until

#: What is reserved comes back by itself, unless it was bought before.
STOCK = """
select es_register_fold('available', 'stock', initial_state => '{"available": 0}', rules => '{"on": {
    "Received": [{"add": {"/available": "/quantity"}}], "Reserved": [{"subtract": {"/available": "/quantity"}}],
    "Released": [{"add": {"/available": "/quantity"}}], "Bought": []}}');
create function keep_stock(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $$
declare
    quantity int := command.payload ->> 'quantity';
    release text := 'release-' || (command.payload ->> 'reservation');
begin
    case command.command_type
    when 'Receive' then
        return jsonb_build_array(es_make_event('Received', command.payload));
    when 'Reserve' then
        perform es_require((state ->> 'available')::int >= quantity, 'sold_out', format('only %s are there', state ->> 'available'));
        return jsonb_build_object(
            'events', jsonb_build_array(es_make_event('Reserved', command.payload)),
            'schedule', jsonb_build_array(jsonb_build_object(
                'command_type', 'Release', 'payload', command.payload, 'command_key', release,
                'run_at', command.decided_at + (command.payload ->> 'for')::interval)));
    when 'Release' then
        return jsonb_build_array(es_make_event('Released', command.payload));
    when 'Buy' then
        return jsonb_build_object('events', jsonb_build_array(es_make_event('Bought', command.payload)), 'unschedule', jsonb_build_array(release));
    end case;
end $$;
select es_register_decider('warehouse', 'stock', 'keep_stock(jsonb, eventstream.command)');
"""


def open_warehouse(session, quantity=10, stream="stock-pump") -> None:
    session.execute(STOCK)
    send(session, "Receive", {"quantity": quantity}, stream)


def reserve(session, reservation="r-1", quantity=3, seconds=0.5, stream="stock-pump") -> dict:
    return send(session, "Reserve", {"reservation": reservation, "quantity": quantity, "for": f"{seconds} s"}, stream)


def buy(session, reservation="r-1", stream="stock-pump") -> dict:
    return send(session, "Buy", {"reservation": reservation}, stream)


def available(session, stream="stock-pump") -> int:
    return int(value(session, "select es_state(%s) ->> 'available'", stream))


def schedule(session, key=None, command_type="Deposit", payload=None, stream="account-1", after="0", **more) -> dict:
    names = "".join(f", {name} => %s" for name in more)
    given = Jsonb({"amount": 10} if payload is None else payload)
    values = [Jsonb(each) if isinstance(each, dict) else each for each in more.values()]
    return value(
        session, f"select es_schedule_command(%s, %s, %s, clock_timestamp() + %s::interval, command_key => %s{names})",
        stream, command_type, given, after, key, *values,
    )  # fmt: skip


def unschedule(session, key, reason="not wanted", **more) -> str | None:
    names = "".join(f", {name} => %s" for name in more)
    return value(session, f"select es_unschedule_command(%s, %s{names})", key, reason, *more.values())


def stage(session, key) -> str | None:
    return value(session, "select stage from _eventstream.scheduled_commands where command_key = %s", key)


def wait_for(session, key, wanted="done", seconds=20) -> tuple:
    """The row of a scheduled command once it has come to that stage."""
    wait_until(lambda: stage(session, key) == wanted, seconds, f"{key} to be {wanted}")
    columns = "attempts, error_sqlstate, error_message, finished_at is not null, payload is null"
    return rows(session, f"select {columns} from _eventstream.scheduled_commands where command_key = %s", key)[0]


def wait_for_all(session, count, wanted="done", seconds=60) -> None:
    statement = "select count(*) from _eventstream.scheduled_commands where stage = %s"
    wait_until(lambda: value(session, statement, wanted) == count, seconds, f"{count} commands to be {wanted}")
