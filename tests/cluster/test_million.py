"""One stream of a million events: the sum by rules and by handler equals PostgreSQL's numeric sum digit for digit, and the backend that folds
it takes no more memory for a million events than for ten thousand."""

import pathlib
import threading

import pytest
from database import Database, value
from states import HANDLER, INITIAL

EVENTS = 1_000_000
BATCH = 10_000
MOST_GROWTH_KB = 16 * 1024
RULES = '{"on": {"Added": [{"add": {"/sum": "/n"}}], "Taken": [{"subtract": {"/sum": "/n"}}]}}'
FILL = """
    select es_append_events('account-1', (
        select jsonb_agg(jsonb_build_object('type', case when random() < 0.5 then 'Added' else 'Taken' end, 'payload', jsonb_build_object('n',
            round((random() * 2e9 - 1e9)::numeric * 10::numeric ^ (random() * 8)::int, (random() * 9)::int))))
        from generate_series(1, %s)))
"""
SUM = "select sum(case event_type when 'Added' then n else -n end)::text from (select event_type, (payload ->> 'n')::numeric as n from eventstream.events) e"


@pytest.fixture(scope="module")
def million(shared_server):
    database = Database(shared_server, "million").create()
    with database.connect() as session:
        session.execute("set synchronous_commit = off")
        session.execute("set eventstream.durability = session")
        for _ in range(EVENTS // BATCH):
            session.execute(FILL, (BATCH,))
        session.execute(HANDLER.format(name="total_of", factor="(case event.event_type when 'Added' then 1 else -1 end)"))
        session.execute("select es_register_fold('handler', 'account', 'total_of(jsonb, eventstream.event)', initial_state => %s)", (INITIAL,))
        session.execute("select es_register_fold('rules', 'account', rules => %s, initial_state => %s)", (RULES, INITIAL))
    yield database
    database.drop()


def private_kb(pid: int) -> int:
    """What the backend alone holds: VmHWM would count the shared buffers that it touches."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def peak_kb(session, statement: str, *parameters) -> int:
    """The most that the backend held while it ran the statement, sampled."""
    peak, is_over = [private_kb(session.info.backend_pid)], threading.Event()

    def sample():
        while not is_over.wait(0.005):
            peak.append(private_kb(session.info.backend_pid))

    sampler = threading.Thread(target=sample)
    sampler.start()
    session.execute(statement, parameters)
    is_over.set()
    sampler.join()
    return max(peak)


@pytest.mark.parametrize("fold", ["rules", "handler"])
def test_a_million_decimals_add_up_digit_for_digit(million, fold):
    with million.connect() as session:
        assert value(session, "select es_state('account-1', %s) ->> 'sum'", fold) == value(session, SUM)


@pytest.mark.parametrize("fold", ["rules", "handler"])
def test_a_fold_of_a_million_events_takes_no_more_memory_than_one_of_ten_thousand(million, fold):
    with million.connect() as session:
        few = peak_kb(session, "select es_state_at_version('account-1', 10000, %s)", fold)
        many = peak_kb(session, "select es_state_at_version('account-1', %s, %s)", EVENTS, fold)
        assert many - few < MOST_GROWTH_KB
