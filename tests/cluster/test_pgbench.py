"""The log and the caller's own tables change in one transaction or not at all: pgbench updates its accounts and appends each
change, from 16 clients of which some roll back; afterwards the sum of an account's events is its balance."""

import os
import subprocess

from database import rows, value
from server import BIN, ROOT

SECONDS = os.environ.get("EVENTSTREAM_PGBENCH_SECONDS", "8")


def run_example(database, **more) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(ROOT / "examples" / "pgbench" / "run.sh")],
        env={
            **os.environ,
            **database.server.address(database.name),
            "PSQL": str(BIN / "psql"),
            "PGBENCH": str(BIN / "pgbench"),
            "CLIENTS": "16",
            "DURATION": SECONDS,
            **more,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )


def test_every_balance_is_the_sum_of_its_events_after_16_clients_and_their_rollbacks(database):
    # Few accounts, so that clients meet on rows and streams.
    done = run_example(database, ACCOUNTS="50")
    assert done.returncode == 0, done.stdout
    with database.connect() as session:
        # Counted here once more, so that the example's own check is not taken on trust.
        assert (
            rows(
                session,
                "select aid, abalance, sum from pgbench_accounts a full join (select split_part(stream, '-', 2)::int as aid,"
                " sum((payload->>'delta')::bigint) from eventstream.events group by 1) e using (aid)"
                " where abalance is distinct from coalesce(sum, 0)",
            )
            == []
        )
        assert value(session, "select count(*) from eventstream.events") > 500
        assert value(session, "select last_position from es_log_info()") > value(
            session, "select count(*) from eventstream.events"
        ), "nobody rolled back"
        # The example notices a balance that changed without an event.
        session.execute("update pgbench_accounts set abalance = abalance + 1 where aid = 7")
    assert run_example(database, ACCOUNTS="50", DURATION="1").returncode != 0
