"""Commands where another part of the product meets them: appends that make more streams than they can keep the names of, and events that a fold cannot take (kinds: isolation and
size; role and the reader of the answer)."""

import threading

import psycopg
import pytest
from database import rows, value
from deciding import refused
from psycopg.types.json import Jsonb
from server import wait_until

ECHO = """
select es_register_fold('account', 'account', initial_state => '{"balance": 0}', rules => '{"on": {"AccountCredited": [{"add": {"/balance": "/amount"}}]}}');
create function echo(state jsonb, command eventstream.command) returns jsonb stable language sql as $$ select command.payload -> 'answer' $$;
create function echo_boundary(command eventstream.command) returns jsonb immutable language sql as $$ select coalesce(command.payload -> 'boundary', '{}') $$;
select es_register_decider('echo', 'account', 'echo(jsonb, eventstream.command)', boundary => 'echo_boundary(eventstream.command)');
"""


def command(session, stream, answer, boundary=None):
    return value(session, "select es_command(%s, 'X', %s)", stream, Jsonb({"answer": answer, "boundary": boundary or {}}))


@pytest.mark.parametrize("how", ["named in the boundary", "its own stream"])
def test_a_stream_that_is_found_absent_stays_so_beside_appends_of_any_size(database, how):
    with database.connect() as session, database.connect(autocommit=False) as decider, database.connect() as writer:
        session.execute(ECHO)
        if how == "its own stream":
            command(decider, "account-zz99", [])
        else:
            command(decider, "account-bb", [{"type": "AccountCredited", "payload": {"amount": 1}}], {"streams": ["account-zz99"]})
        names = [f"account-aa{n:03}" for n in range(70)] + ["account-zz99"]
        appends = [{"stream": name, "events": [{"type": "AccountCredited", "payload": {"amount": 1}}]} for name in names]
        done = []
        writing = threading.Thread(target=lambda: done.append(len(rows(writer, "select * from es_append_streams(%s)", Jsonb(appends)))))
        writing.start()
        wait_until(lambda: rows(session, "select from pg_locks where not granted and pid = %s", writer.info.backend_pid), 10, "the wait for the decision")
        assert done == []
        decider.commit()
        writing.join(20)
        assert done == [71]


def test_what_a_fold_cannot_take_is_not_told_to_who_may_not_read_it(database):
    with database.connect() as session:
        session.execute(ECHO)
        clerk = database.role(f"{database.name}_clerk")
        session.execute("select es_grant(%s, 'command', category => 'account')", (clerk,))
        session.execute("select es_append('account-bad', 'AccountCredited', '{\"amount\": \"SECRET 4000-1234\"}')")
        with database.connect(user=clerk) as there:
            diag = refused(command, there, "account-bad", [])
            assert diag.sqlstate == "ES013"
            assert "SECRET" not in f"{diag.message_primary}{diag.message_detail}{diag.message_hint}{diag.context}"
            session.execute("select es_grant(%s, 'read', category => 'account')", (clerk,))
            assert "SECRET" in refused(command, there, "account-bad", []).message_primary


def test_an_actor_that_nobody_sees_is_none(database):
    with database.connect() as session:
        session.execute("select es_alter_category('account', '{\"actor\": \"required\"}')")
        for actor in ("\u2060", "\u200b", " "):
            with pytest.raises(psycopg.Error) as error:
                session.execute("select es_append('account-1', 'A', '1', metadata => %s)", (Jsonb({"actor": actor}),))
            assert error.value.sqlstate == "ES017"
        session.execute("select es_append('account-1', 'A', '1', metadata => '{\"actor\": \"ann\"}')")
