"""Clients that keep to a clock: what is due is due, however late the answer to the one before came (an open loop)."""
import multiprocessing
import time

import psycopg

# Processes are forked before they connect, so that none shares another's connection.
CONTEXT = multiprocessing.get_context("fork")


def in_processes(function, arguments):
    """Calls function(*one) in a process each; their results, in order. A failure of one ends the run."""
    with CONTEXT.Pool(len(arguments)) as pool:
        return pool.starmap(function, arguments, chunksize=1)


def ticks(began, rate, seconds, phase=0.0):
    """Sleeps until each moment that is due; gives its number."""
    for number in range(int(rate * seconds)):
        due = began + (number + phase) / rate
        late = due - time.perf_counter()
        if late > 0:
            time.sleep(late)
        yield number


def connected(address, *settings):
    connection = psycopg.connect(address, autocommit=True, prepare_threshold=0)
    for setting in settings:
        connection.execute(f"set {setting}")
    return connection


BEHIND = """
    select p.name, g.global_position from _eventstream.projection_progress g join _eventstream.projections p on p.id = g.projection_id
    where (p.name = %(name)s or %(name)s is null) and g.global_position < %(last)s
"""


def until_current(connection, name=None, most=600):
    """Until a projection (None: each) has passed what is in the log now. It looks, and does not call es_wait_for, whose statement's snapshot
    keeps old row versions for as long as it waits: a second of them makes the tables that a handler updates slow."""
    end = time.perf_counter() + most
    last = connection.execute("select last_value from _eventstream.positions").fetchone()[0]
    while behind := connection.execute(BEHIND, {"name": name, "last": last}).fetchall():
        if time.perf_counter() > end:
            raise SystemExit(f"projections are still behind after {most} s: {behind} of {last}")
        time.sleep(0.002)
