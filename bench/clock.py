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
