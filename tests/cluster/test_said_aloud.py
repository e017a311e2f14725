"""What would go wrong without a word is refused, or said: names that are taken, folds in use, settings that end at once, reasons left empty, positions
that cannot be, statements of a hint."""

import threading
from types import SimpleNamespace

import psycopg
import pytest
from database import rows, value
from operating import check, create_projection, wait_for_status
from server import wait_until

ADDS = """'{"on": {"Added": [{"add": {"/sum": "/amount"}}]}}'"""
COUNTS = """'{"on": {"*": [{"increment": "/sum"}]}}'"""


def register(session, name: str, category: str, rules: str = ADDS, **given) -> list[SimpleNamespace]:
    more = "".join(f", {key} => {value}" for key, value in given.items())
    return said(session, f"""select es_register_fold('{name}', '{category}', rules => {rules}, initial_state => '{{"sum": 0}}'{more})""")


def said(session, statement: str, *args) -> list[SimpleNamespace]:
    """The NOTICEs and WARNINGs of a statement."""
    heard = []

    def keep(diag):
        # What psycopg gives is over with the call.
        parts = ("severity", "sqlstate", "message_primary", "message_hint")
        heard.append(SimpleNamespace(**{part: getattr(diag, part) for part in parts}))

    session.add_notice_handler(keep)
    try:
        session.execute(statement, args or None)
    finally:
        session.remove_notice_handler(keep)
    return heard


def refused(session, statement: str) -> psycopg.errors.Diagnostic:
    with pytest.raises(psycopg.Error) as error:
        session.execute(statement)
    return error.value.diag


def table(session, name: str, category: str, **given) -> None:
    more = "".join(f", {key} => '{value}'" for key, value in given.items())
    session.execute(
        f"""select es_create_state_table('{name}', '{category}', '[{{"name": "sum", "type": "numeric", "path": "/sum"}}]'{more})"""
    )


def test_a_fold_does_not_move_to_another_category(database):
    with database.connect() as session:
        register(session, "sums", "account")
        session.execute("""select es_append('account-1', 'Added', '{"amount": 1}')""")
        with pytest.raises(psycopg.Error) as error:
            register(session, "sums", "order")
        diag = error.value.diag
        assert diag.sqlstate == "ES005" and 'is the fold of category "account"' in diag.message_primary
        assert value(session, "select es_state('account-1')") == {"sum": 1}
        session.execute(diag.message_hint[diag.message_hint.index("select ") :])
        register(session, "sums", "order")


def test_who_registers_a_name_in_two_categories_at_a_time(database):
    with database.connect() as one, database.connect() as other:
        with one.transaction():
            register(one, "sums", "account")
            outcome = []

            def go():
                try:
                    register(other, "sums", "order")
                except psycopg.Error as error:
                    outcome.append(error.diag)

            waiting = threading.Thread(target=go)
            waiting.start()
            def blocked():
                with database.connect() as look:
                    return value(look, "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()") == 1

            wait_until(blocked, 20, "the second one to wait")
        waiting.join()
        assert [diag.sqlstate for diag in outcome] == ["ES005"]
        assert 'category "account"' in outcome[0].message_primary


def test_a_fold_that_state_tables_use_stays(database):
    with database.connect() as session:
        register(session, "sums", "account")
        register(session, "spare", "account", is_default="false")
        table(session, "by_name", "account", fold="sums")
        table(session, "by_default", "account", mode="inline")
        diag = refused(session, "select es_unregister_fold('sums')")
        assert diag.sqlstate == "2BP01"
        assert 'state table "by_default"' in diag.message_primary and 'state table "by_name"' in diag.message_primary
        session.execute("select es_unregister_fold('spare')")
        with pytest.raises(psycopg.Error) as error:
            register(session, "sums", "account", is_default="false")
        assert error.value.sqlstate == "ES005" and 'state table "by_default"' in str(error.value)
        assert '"by_name"' not in str(error.value)
        session.execute("select es_drop_projection('by_default')")
        assert refused(session, "select es_unregister_fold('sums')").sqlstate == "2BP01"
        session.execute("select es_drop_projection('by_name')")
        session.execute("select es_unregister_fold('sums')")


def test_another_definition_under_the_name_is_said(database):
    with database.connect() as session:
        assert register(session, "sums", "account") == []
        assert register(session, "sums", "account") == []
        assert register(session, "sums", "account", snapshot_every=7) == []
        [heard] = register(session, "sums", "account", COUNTS)
        assert (heard.severity, heard.message_primary) == ("NOTICE", 'fold "sums" was registered already, and is another one now')
        table(session, "one", "account")
        table(session, "two", "account", fold="sums", mode="inline")
        session.execute("select es_wait_for('one')")
        wait_for_status(session, "projection one", "ok")
        [heard] = register(session, "sums", "account")
        assert heard.message_primary.endswith('; state tables "one", "two" are filled again')
        [heard] = register(session, "others", "account")
        assert heard.message_primary == 'fold "others" is the default one of category "account" now, and "sums" is not any more'
        assert register(session, "more", "account", is_default="false") == []


def test_another_upcaster_is_said(database):
    with database.connect() as session:
        for name in ["up", "other"]:
            session.execute(f"create function {name}(jsonb, jsonb) returns jsonb immutable language sql as 'select $1'")
        one = "select es_register_upcaster('Added', 1, '{}(jsonb, jsonb)')"
        assert said(session, one.format("up")) == []
        assert said(session, one.format("up")) == []
        [heard] = said(session, one.format("other"))
        assert heard.message_primary == 'the upcaster of "Added" from schema version 1 was registered already, and is another one now'


ALONE = ["select es_use_tenant('default')", "select es_set_as_of('2024-10-31', 'UTC')"]


@pytest.mark.parametrize("call", ALONE)
def test_what_is_set_for_a_transaction_that_is_none(database, call):
    with database.connect() as session:
        [heard] = said(session, call)
        assert (heard.severity, heard.sqlstate) == ("WARNING", "25P01")
        # The hint's statement does what was meant.
        session.execute(heard.message_hint[heard.message_hint.index("set ") :])
        assert value(session, "show " + heard.message_hint.split("set ")[1].split(" =")[0]) != ""
        # Bound parameters come by another way.
        [heard] = said(session, call.replace("'default'", "%s"), "default") if "tenant" in call else said(session, call)
        assert heard.sqlstate == "25P01"


@pytest.mark.parametrize("call", ALONE)
def test_what_is_set_for_a_transaction(database, call):
    with database.connect() as session:
        perform = call.replace("select", "perform")
        session.execute(f"create function meant() returns void language plpgsql as $$ begin {perform}; end $$")
        session.execute(f"create function also_meant() returns void language sql as $$ {call} $$")
        session.execute(f"create procedure done() language plpgsql as $$ begin {perform}; end $$")
        with session.transaction():
            assert said(session, call) == []
            session.execute("savepoint s")
            assert said(session, call) == []
        for statement in ["select meant()", "call done()", f"do $$ begin {perform}; end $$", f"{call}; select 1"]:
            assert said(session, statement) == [], statement


@pytest.mark.parametrize("call", ALONE)
def test_what_is_set_within_a_pipeline_holds_for_the_rest_of_it(database, call):
    with database.connect() as session:
        heard = []
        session.add_notice_handler(lambda notice: heard.append(notice.sqlstate))
        for before in [["select 1"], []]:
            with session.pipeline():
                for statement in [*before, call]:
                    session.execute(statement)
                [setting] = session.execute("select nullif(current_setting('eventstream.tenant') || current_setting('eventstream.as_of'), '') is not null").fetchone()
            assert setting and heard == []
        with session.pipeline():
            session.execute(call)
        assert heard == ["25P01"], "a pipeline of it alone"
        with pytest.raises(psycopg.errors.DivisionByZero), session.pipeline():
            session.execute(call)
            session.execute("select 1 / 0")
        session.execute("select 1")
        assert len(heard) == 1


def test_a_state_table_of_another_shape_has_a_way_to_it(database):
    with database.connect() as session:
        register(session, "sums", "account")
        table(session, "sums", "account")
        diag = refused(
            session,
            """select es_create_state_table('sums', 'account', '[{"name": "sum", "type": "text", "path": "/sum"}]', if_not_exists => true)""",
        )
        assert diag.sqlstate == "ES005" and "columns" in diag.message_primary
        assert "es_alter_projection" not in diag.message_hint and "docs/upgrade.md" in diag.message_hint
        drop = diag.message_hint[diag.message_hint.index("select es_drop") :].split(";")[0]
        session.execute(drop)
        assert value(session, "select to_regclass('sums') is null")


def test_what_cannot_be_undone_has_a_reason(database):
    with database.connect() as session:
        session.execute("select es_append('account-1', 'Added', '{}')")
        session.execute("select es_create_subscription('all')")
        lease = value(session, "select lease_id from es_fetch('all', 'me') limit 1")
        position = value(session, "select global_position from eventstream.events")
        for reason in ["", " ", "\t\n"]:
            for statement in [
                "select es_close_stream('account-1', %s)",
                "select es_drop_dead_letter(1, %s)",
                f"select es_nack('{lease}', {position}, %s, dead_letter => true)",
            ]:
                with pytest.raises(psycopg.Error) as error:
                    session.execute(statement, (reason,))
                assert error.value.sqlstate == "ES005" and "reason must not be empty" in str(error.value), statement
        session.execute(f"select es_nack('{lease}', {position}, '')")
        session.execute("select es_close_stream('account-1', 'moved')")


def test_an_event_is_skipped_for_a_reason(database):
    with database.connect() as session:
        create_projection(session, "picky", max_retries=0)
        session.execute("""select es_append('account-1', 'Added', '{"refuse": true}')""")
        wait_for_status(session, "projection picky", "critical")
        position = value(session, "select failed_position from eventstream.projections")
        assert "reason must not be empty" in refused(session, f"select es_skip_event('picky', {position}, ' ')").message_primary
        session.execute(f"select es_skip_event('picky', {position}, 'a test')")


def test_positions_that_cannot_be(database):
    with database.connect() as session:
        register(session, "sums", "account")
        table(session, "sums", "account")
        session.execute("""select es_append('account-1', 'Added', '{"amount": 1}', subject => 'ada')""")
        session.execute("select es_create_subscription('all')")
        lease = value(session, "select lease_id from es_fetch('all', 'me') limit 1")
        last = value(session, "select last_position from es_log_info()")
        negative = ["select es_wait_for('sums', up_to => -1)", f"select es_ack('{lease}', -1)"]
        negative += ["select * from es_read_subject('ada', -1)", "select * from es_verify(-1)", "select * from es_read_all(-1)"]
        for statement in negative:
            diag = refused(session, statement)
            assert (diag.sqlstate, "must be 0 or more, not -1" in diag.message_primary) == ("ES005", True), statement
        for statement in ["es_read_subject('ada', {})", "es_read_all({})", "es_verify({} + 1)"]:
            assert refused(session, f"select * from {statement.format(last + 1)}").sqlstate == "ES025", statement
            session.execute(f"select * from {statement.format(last)}")
        assert rows(session, "select version from es_read_subject('ada')") == [(1,)]


def test_a_grant_for_a_category_that_nobody_has_used(database):
    with database.connect() as session:
        session.execute("create role said_reader")
        try:
            session.execute("select es_append('account-1', 'Added', '{}')")
            grant = "select es_grant('said_reader', 'read', category => '{}')"
            [heard] = said(session, grant.format("acount"))
            assert (heard.severity, 'category "acount" has no streams yet' in heard.message_primary) == ("NOTICE", True)
            assert said(session, grant.format("account")) == []
            assert said(session, "select es_grant('said_reader', 'read')") == []
            assert value(session, "select count(*) from eventstream.grants where category = 'acount'") == 1
        finally:
            session.execute("drop role said_reader")


@pytest.mark.parametrize("create", ["es_create_subscription('of_{0}', '{{{0}}}')",
    "es_create_projection('of_{0}', 'nothing(eventstream.event)', categories => '{{{0}}}')"])  # fmt: skip
def test_a_category_that_nobody_has_used_is_followed(database, create):
    with database.connect() as session:
        session.execute("select es_append('account-1', 'Added', '{}')")
        register(session, "sums", "sums")
        session.execute("create function nothing(eventstream.event) returns void language sql as 'select'")
        [heard] = said(session, "select " + create.format("acount"))
        assert (heard.severity, 'category "acount" has no streams yet' in heard.message_primary) == ("NOTICE", True)
        # One that has a fold is meant.
        assert said(session, "select " + create.format("account")) == said(session, "select " + create.format("sums")) == []


@pytest.mark.parametrize("view", ["health", "projections", "subscriptions", "progress"])
def test_who_may_not_look_is_told_of_pg_monitor(database, view):
    with database.connect() as session:
        session.execute('create role "said Looker" login')
        try:
            with database.connect(user="said Looker") as looker:
                diag = refused(looker, f"select * from eventstream.{view}")
                if diag.sqlstate == "ES041":
                    pytest.skip("no tenant at all")
                assert diag.sqlstate == "42501" and 'grant pg_monitor to "said Looker"' in diag.message_hint
                session.execute(diag.message_hint[diag.message_hint.index("grant pg_monitor") :].split(";")[0])
                looker.execute(f"select * from eventstream.{view}")
        finally:
            session.execute('drop role "said Looker"')


def test_what_an_event_is_that_was_encoded_twice(database):
    with database.connect() as session:
        register(session, "sums", "account")
        session.execute("select es_append('account-1', 'Added', to_jsonb('{\"amount\": 1}'::text))")
        session.execute("select es_append('account-2', 'Added', to_jsonb('amount 1'::text))")
        session.execute("select es_append('account-3', 'Added', '{}')")
        for stream, is_twice in [("account-1", True), ("account-2", False), ("account-3", False)]:
            diag = refused(session, f"select es_state('{stream}')")
            assert diag.sqlstate == "ES013" and ("was it encoded twice?" in diag.message_primary) == is_twice


def test_the_hint_of_an_event_that_is_not_written(database):
    with database.connect() as session:
        register(session, "sums", "account")
        diag = refused(session, """select es_simulate('account-1', '[{"type": "Added", "payload": {}}]')""")
        assert diag.sqlstate == "ES013" and "is not written" in diag.message_primary and "es_read(" not in diag.message_hint
        session.execute("select es_append('account-1', 'Added', '{}')")
        diag = refused(session, """select es_simulate('account-1', '[{"type": "Added", "payload": {"amount": 1}}]')""")
        assert diag.sqlstate == "ES013" and "es_read('account-1', from_version => 1" in diag.message_hint


def test_moments_of_events_are_finite(database):
    with database.connect() as session:
        for moment in ["2024-10-31", "infinity", "-infinity"]:
            diag = refused(session, f"""select es_append_events('account-1', '[{{"type": "A", "payload": {{}}, "occurred_at": "{moment}"}}]')""")
            assert "must be a moment with date, time and zone" in diag.message_primary and "or infinity" not in diag.message_primary


def test_what_a_dropped_extension_is_called(database):
    with database.connect() as session:
        session.execute("select es_append('account-1', 'Added', '{}')")
        for statement in ["drop extension eventstream", "drop extension eventstream cascade"]:
            diag = refused(session, statement)
            assert diag.sqlstate == "ES051" and "extension eventstream" in diag.message_primary, diag.message_primary


def test_dead_letters_of_a_state_table_have_a_way_out(database):
    with database.connect() as session:
        register(session, "sums", "account")
        table(session, "sums", "account")
        session.execute("select es_append('account-1', 'Added', '{}')")
        found = wait_for_status(session, "dead letters of sums", "critical")
        assert found.detail.startswith("1 stream could") and "es_retry_dead_letter" not in found.fix
        session.execute("create function mend(p jsonb, m jsonb) returns jsonb immutable language sql as $$ select p || '{\"amount\": 5}' $$")
        session.execute("select es_register_upcaster('Added', 1, 'mend(jsonb, jsonb)')")
        # They go when the rebuild begins, which writes the row.
        wait_until(lambda: rows(session, "select sum from sums") == [(5,)], 20, "the row to be written")
        assert check(session, "dead letters of sums") is None
