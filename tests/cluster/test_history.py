"""How a state came to be, where nothing can be written: on a standby, es_history, es_timeline, es_explain_state and es_simulate say what
they say on the primary."""

import pytest
from database import Database, rows, value
from server import wait_until

FOLD = """
create function fold_account(state jsonb, event eventstream.event) returns jsonb language plpgsql immutable as $$
begin
    return jsonb_build_object('balance', (state ->> 'balance')::numeric + (event.payload ->> 'amount')::numeric,
                              'folded', state -> 'folded' || to_jsonb(event.version));
end
$$
"""
ASKED = [
    "select * from es_history('account-1', fold => '{fold}')",
    "select * from es_history('account-1', 20, 3, '{fold}')",
    "select * from es_timeline('account-1', fold => '{fold}')",
    "select * from es_timeline('account-1', (select recorded_at from es_read('account-1', 17, 1)), '{fold}')",
    "select es_explain_state('account-1', '2024-01-10 00:00:00+00', fold => '{fold}') - 'milliseconds' - 'started_from' - 'folded'",
    "select es_simulate('account-1', '[{{\"type\": \"Credited\", \"payload\": {{\"amount\": 1}}, \"occurred_at\": \"2024-01-05T12:00:00Z\"}}]',"
    " '{fold}')",
    "select es_simulate('account-9', '[{{\"type\": \"Credited\", \"payload\": {{\"amount\": 1}}}}]', '{fold}')",
]


@pytest.fixture
def pair(new_server):
    primary = new_server("primary", wal_level="replica", max_wal_senders=4)
    database = Database(primary, "books").create()
    with database.connect() as session:
        session.execute(FOLD)
        for order in ("version", "occurred_at"):
            session.execute(
                "select es_register_fold(%s, 'account', 'fold_account(jsonb, eventstream.event)',"
                " initial_state => '{\"balance\": 0, \"folded\": []}', fold_order => %s)",
                (order, order),
            )
        for place in range(1, 31):
            day = place // 2 if place % 7 == 0 else place
            session.execute(
                "select es_append('account-1', 'Credited', jsonb_build_object('amount', %s / 100.0), occurred_at => %s)",
                (place, f"2024-01-{max(day, 1):02} 00:00:00+00"),
            )
    return database, Database(new_server.adopt(primary.make_standby("standby")), "books")


def test_a_standby_tells_the_same_history(pair):
    primary, standby = pair
    with primary.connect() as here, standby.connect() as there:
        target = value(here, "select pg_current_wal_flush_lsn()")
        wait_until(lambda: value(there, "select pg_last_wal_replay_lsn() >= %s", target), 30, "the standby to catch up")
        for fold in ("version", "occurred_at"):
            for question in ASKED:
                answer = rows(here, question.format(fold=fold))
                assert answer
                assert rows(there, question.format(fold=fold)) == answer
        assert value(there, "select pg_is_in_recovery()")
