"""What a proxy knows goes into the metadata of what its sessions append: eventstream.metadata, where the statement does not say otherwise.
"""

import psycopg
import pytest
from database import rows, value
from psycopg.types.json import Jsonb

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def metadata(session, stream: str) -> list[str]:
    return [text for (text,) in rows(session, "select metadata::text from es_read(%s) order by version", stream)]


def test_a_sessions_defaults_are_merged_and_explicit_members_win(quiet):
    with quiet.connect() as session:
        with session.transaction():
            session.execute("""set local eventstream.metadata = ' { "actor": "ada", "n": 1.50 } '""")
            session.execute("select es_append('a-1', 'X', '{}')")
            session.execute("select es_append('a-1', 'X', '{}', metadata => '{\"actor\": \"bob\", \"m\": 2.00}')")
            batch = [{"type": "X", "payload": {}}, {"type": "X", "payload": {}, "metadata": {"n": None}}]
            session.execute("select es_append_events('a-1', %s)", (Jsonb(batch),))
            session.execute("select es_append_streams(%s)", (Jsonb([{"stream": "a-2", "events": batch[:1]}]),))
            session.execute("select es_close_stream('a-2', 'done')")
        session.execute("select es_append('a-1', 'X', '{}')")
        assert metadata(session, "a-1") == [
            '{"n": 1.50, "actor": "ada"}',
            '{"m": 2.00, "n": 1.50, "actor": "bob"}',
            '{"n": 1.50, "actor": "ada"}',
            '{"n": null, "actor": "ada"}',
            "{}",
        ]
        assert metadata(session, "a-2") == ['{"n": 1.50, "actor": "ada"}'] * 2
        assert rows(session, "select * from es_verify()") == []
        session.execute("set eventstream.metadata = '{}'")
        session.execute("select es_append('a-3', 'X', '{}', metadata => '{\"m\": 1}')")
        session.execute("set eventstream.metadata = ''")
        session.execute("select es_append('a-3', 'X', '{}')")
        assert metadata(session, "a-3") == ['{"m": 1}', "{}"]


@pytest.mark.parametrize("size", [512, 513, 16_384, 16_385])
def test_it_may_be_as_long_as_the_reference_says(quiet, size):
    text = '{"a": "' + "x" * (size - 9) + '"}'
    assert len(text) == size
    with quiet.connect() as session:
        if size > 16_384:
            with pytest.raises(psycopg.Error, match="at most 16384 bytes"):
                session.execute("select set_config('eventstream.metadata', %s, false)", (text,))
            return
        session.execute("select set_config('eventstream.metadata', %s, false)", (text,))
        session.execute("select es_append('a-1', 'X', '{}')")
        assert metadata(session, "a-1") == [text]


def test_what_is_no_object_is_refused_when_it_is_set_or_else_when_it_is_used(quiet):
    with quiet.connect() as session:
        for wrong in ("actor", "[]", '"x"', "{", '{"a": }', "1", "null", '{"a": "%s"}' % ("x" * 17_000)):
            with pytest.raises(psycopg.Error) as refused:
                session.execute("select set_config('eventstream.metadata', %s, false)", (wrong,))
            assert "JSON object" in refused.value.diag.message_primary + (refused.value.diag.message_detail or ""), wrong
        session.execute(f'alter database "{quiet.name}" set eventstream.metadata = \'{{"actor": "db"}}\'')
    with quiet.connect() as session:
        session.execute("select es_append('a-1', 'X', '{}')")
        assert metadata(session, "a-1") == ['{"actor": "db"}']
        # As a restore of settings, or an older library, may have left it.
        session.execute("update pg_db_role_setting set setconfig = '{eventstream.metadata=nonsense}' where setdatabase = "
                        "(select oid from pg_database where datname = current_database())")
    with quiet.connect() as session:
        with pytest.raises(psycopg.Error) as refused:
            session.execute("select es_append('a-1', 'X', '{}')")
        assert refused.value.sqlstate == "ES005"
        assert "eventstream.metadata" in refused.value.diag.message_primary


def test_a_retry_from_a_session_with_other_defaults_is_a_retry(quiet):
    with quiet.connect() as session:
        append = "select es_append('a-1', 'X', '{}', event_id => '01890a5d-ac96-774b-bcce-b302099a8057')"
        for actor in ("ada", "bob"):
            session.execute("select set_config('eventstream.metadata', %s, false)", ('{"actor": "%s"}' % actor,))
            assert value(session, append) == 1
        assert metadata(session, "a-1") == ['{"actor": "ada"}']


def test_what_a_handler_appends_has_none_of_it(quiet):
    with quiet.connect() as session:
        session.execute("""
            create function follow(event eventstream.event) returns void language plpgsql as $$
            begin
                if event.category = 'a' then
                    perform es_append('b-1', 'Followed', '{}');
                end if;
            end $$;
            select es_create_projection('follow', 'follow(eventstream.event)', mode => 'inline')
        """)
        session.execute("""set eventstream.metadata = '{"actor": "ada", "tool": "proxy"}'""")
        session.execute("select es_append('a-1', 'X', '{}')")
        followed = value(session, "select metadata from es_read('b-1')")
        assert followed["actor"] == "projection follow" and "tool" not in followed
        assert metadata(session, "a-1") == ['{"tool": "proxy", "actor": "ada"}']


def test_a_traceparent_is_what_w3c_says_wherever_it_comes_from(quiet):
    with quiet.connect() as session:
        session.execute("select es_append('a-1', 'X', '{}', metadata => %s)", (Jsonb({"traceparent": TRACE}),))
        for wrong in ("", "00-1", TRACE.upper(), TRACE[:-1], 7, None, {"x": 1}, "00-" + "0" * 32 + TRACE[35:]):
            for statement, parameter in [
                ("select es_append('a-1', 'X', '{}', metadata => %s)", {"traceparent": wrong}),
                ("select es_append_events('a-1', %s)", [{"type": "X", "payload": {}, "metadata": {"traceparent": wrong}}]),
                ("select es_simulate('a-1', %s)", [{"type": "X", "payload": {}, "metadata": {"traceparent": wrong}}]),
            ]:
                session.execute("select es_register_fold('f', 'a', rules => '{\"on\": {}}')")
                with pytest.raises(psycopg.Error) as refused:
                    session.execute(statement, (Jsonb(parameter),))
                assert refused.value.sqlstate == "ES005" and "metadata.traceparent" in refused.value.diag.message_primary, wrong
        session.execute("set eventstream.metadata = '{\"traceparent\": \"00-1\"}'")
        with pytest.raises(psycopg.Error) as refused:
            session.execute("select es_append('a-1', 'X', '{}')")
        assert "metadata.traceparent" in refused.value.diag.message_primary
        assert value(session, "select es_stream_version('a-1')") == 1


def test_names_that_cannot_be_told_apart_are_refused_by_every_function_that_takes_one(quiet):
    names = ["acc-1\u200b2", "acc-\u202e21", "acc-cafe\u0301", "acc-1 ", "acc -1"]
    with quiet.connect() as session:
        for name in names:
            for call in ("es_append(%s, 'X', '{}')", "es_stream_version(%s)", "es_close_stream(%s, 'x')", "es_load(%s)"):
                with pytest.raises(psycopg.Error) as refused:
                    session.execute(f"select {call}", (name,))
                assert refused.value.sqlstate == "ES004", (name, call)
            label = name.removeprefix("acc-") if name != "acc -1" else " x"
            for call in (
                "es_append('a-1', %s, '{}')",
                "es_append('a-1', 'X', '{}', subject => %s)",
                "es_create_tenant(%s)",
                "es_register_fold(%s, 'a', rules => '{\"on\": {}}')",
                "es_create_subscription(%s)",
                "es_read_all(event_types => array[%s])",
                "es_read_all(categories => array[%s])",
            ):
                with pytest.raises(psycopg.Error) as refused:
                    session.execute(f"select {call}", (label,))
                assert refused.value.sqlstate == "ES005", (label, call)
        assert value(session, "select count(*) from eventstream.events") == 0


def test_a_value_date_far_ahead_is_told_what_fits(quiet):
    with quiet.connect() as session:
        with pytest.raises(psycopg.Error) as refused:
            session.execute("select es_append('a-1', 'X', '{}', occurred_at => now() + interval '3 days')")
        assert refused.value.sqlstate == "ES007"
        assert "alter database" in refused.value.diag.message_hint and "Send less" not in refused.value.diag.message_hint
        session.execute("set eventstream.max_future_skew = '400d'")
        assert value(session, "select es_append('a-1', 'X', '{}', occurred_at => now() + interval '3 days')") == 1
