"""Inline projections while clients append: made, paused, resumed, rebuilt, dropped, none of their events is missing or there twice; a
failing one fails the append, whole.
"""

import os
import random
import threading

import psycopg
import pytest
from database import rows, value, verify
from models import Appenders, Model, Models, Table
from server import wait_until

#: Rounds of pausing, resuming and rebuilding; `ROUNDS=50` runs it for long.
ROUNDS = int(os.environ.get("ROUNDS", "6"))


def paused_at(session, name: str) -> int | None:
    return value(
        session,
        "select g.global_position from _eventstream.projection_progress g join _eventstream.projections p on p.id = g.projection_id"
        " where p.name = %s and g.status = 'paused'",
        name,
    )


def test_an_inline_projection_is_made_paused_resumed_and_rebuilt_while_clients_append(database):
    choice = random.Random(int(os.environ.get("EVENTSTREAM_SEED", "1")))
    models = Models(
        database,
        Model("made_early", mode="inline"),
        Model("made_batch", "batch", mode="inline"),
        Model("made_late", mode="inline"),
        Table("made_table", "inline"),
    )
    early, batch, late, table = models.models
    done = {"pause": 0, "rebuild": 0}
    with Appenders(database, count=4, pause=0.001) as others, database.connect() as session:
        early.create(session)
        others.wait_for(200)
        for model in (batch, late, table):
            model.create(session)
        assert models.differences(session) == {}
        for _ in range(ROUNDS):
            for model in models.models:
                others.wait_for(choice.randrange(1, 60))
                what = choice.choice(("pause", "rebuild"))
                done[what] += 1
                if what == "pause":
                    session.execute("select es_pause_projection(%s)", (model.name,))
                    # What it noted is where it stands: not an event more, not one less.
                    at = paused_at(session, model.name)
                    others.wait_for(choice.randrange(1, 60))
                    assert model.differences(session, at) == [], "paused"
                    session.execute("select es_resume_projection(%s)", (model.name,))
                else:
                    session.execute("select es_rebuild_projection(%s)", (model.name,))
                assert models.differences(session) == {}, what
    with database.connect() as session:
        assert models.differences(session) == {}
        assert verify(session) == []
        events = value(session, "select count(*) from eventstream.events")
    print(f"{done} among {events} events")


def test_a_failing_inline_projection_fails_the_append_and_leaves_nothing_of_it(database):
    model = Model("strict", mode="inline", before="if event.payload ->> 'token' = 'bad' then raise exception 'bad token' using errcode = 'ZZ002'; end if;")
    with database.connect() as session:
        models = Models(database, Model("other", mode="inline"), model).create()
        session.execute("select es_append('account-1', 'Moved', '{\"token\": \"good\"}')")
        before = rows(session, "select * from eventstream.events"), rows(session, "select * from other_seen")
        for append in (
            "select es_append('account-1', 'Moved', '{\"token\": \"bad\"}')",
            'select es_append_events(\'account-2\', \'[{"type": "Moved", "payload": {"token": "good"}}, {"type": "Moved", "payload": {"token": "bad"}}]\')',
        ):
            with pytest.raises(psycopg.Error) as error:
                session.execute(append)
            assert error.value.sqlstate == "ZZ002"
            assert 'projection "strict"' in error.value.diag.context
        assert (rows(session, "select * from eventstream.events"), rows(session, "select * from other_seen")) == before
        # An append that is undone by a savepoint takes its effects with it, and the transaction goes on.
        with session.transaction():
            session.execute("select es_append('account-1', 'Moved', '{\"token\": \"first\"}')")
            with pytest.raises(psycopg.Error), session.transaction():
                session.execute("select es_append('account-1', 'Moved', '{\"token\": \"bad\"}')")
            session.execute("select es_append('account-1', 'Moved', '{\"token\": \"second\"}')")
        assert models.differences(session) == {}
        assert rows(session, "select token from strict_seen order by n") == [("good",), ("first",), ("second",)]


def test_creating_one_waits_for_open_appends_and_holds_up_no_reader(database):
    """The lock step: whoever has appended before is caught up with, whoever appends after applies by itself."""
    with database.connect() as early, database.connect() as maker, database.connect() as reader:
        early.execute("begin")
        early.execute("select es_append('account-1', 'Moved', '{\"token\": \"open\"}')")
        model = Model("waits", mode="inline")
        model_made = []
        thread = threading.Thread(target=lambda: model_made.append(model.create(maker)), daemon=True)
        thread.start()
        wait_until(
            lambda: value(
                reader, "select count(*) from pg_stat_activity where pid = %s and wait_event_type = 'Lock'", maker.info.backend_pid
            ),
            10,
            "the creation to wait",
        )
        assert not model_made
        # Reading goes on meanwhile; the open append's own transaction, too.
        assert value(reader, "select count(*) from es_read_all()") == 0
        early.execute("select es_append('account-1', 'Moved', '{\"token\": \"open too\"}')")
        early.execute("commit")
        thread.join(20)
        assert model_made
        early.execute("select es_append('account-1', 'Moved', '{\"token\": \"after\"}')")
        assert rows(reader, "select token from waits_seen order by n") == [("open",), ("open too",), ("after",)]
