"""Rules of categories: what breaks one is recorded by no door, and what is no rule costs nothing.

Asked of the kinds: isolation (an open append, an idle session that has known another answer, an older snapshot), transaction (rollback, savepoint, own earlier
events, two who alter at once), session (interval styles, metadata of the session; all other settings: test_settings_of_sessions), role (manage narrowed, append without
read), code of others (folds that raise, say payloads, call back), tenant, size (500 categories with rules, 3,000 of streams, 400 streams in a call, long patterns), time (a clock's
edge, intervals with months), text (hostile names, patterns, JSON of other types), DDL (guard, a fold dropped and registered anew), copies (dump and restore), death (kill -9 after the
commit), verification (acts, a row changed by hand), retries, reader of the answer (hints typed as printed, personal data not repeated). Drivers: the fuzzer over all functions."""

import threading
import uuid

import psycopg
import pytest
from database import Database, forced, rows, value, verify
from deciding import open_bank, send
from operating import run_psql
from psycopg.types.json import Jsonb
from server import run, wait_until

RULES = '{"on": {"Posted": [{"add": {"/sum": "/amount"}}], "StreamClosed": []}}'
ID = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.fixture
def session(database):
    with database.connect() as connection:
        yield connection


def alter(session, category="account", **settings):
    return value(session, "select es_alter_category(%s, %s)", category, Jsonb(settings))


def append(session, payload="{}", stream="account-1", event_type="Posted", **more):
    names = "".join(f", {name} => %s" for name in more)
    return value(session, f"select es_append(%s, %s, %s{names})", stream, event_type, payload, *more.values())


def refused(call, *args, **more):
    with pytest.raises(psycopg.Error) as error:
        call(*args, **more)
    return error.value.diag


def breaks(rule, call, *args, **more):
    diag = refused(call, *args, **more)
    assert diag.sqlstate == "ES017", diag.message_primary
    assert f"breaks the rule {rule} of category" in diag.message_primary
    assert f'"rule":"{rule}"' in diag.message_detail.replace(" ", "")
    return diag


def typed(session, diag):
    """What the HINT says to run, run as it is printed."""
    return rows(session, diag.message_hint[diag.message_hint.index("select") : diag.message_hint.rindex(";")])


def fold(session, name="sums", rules=RULES, **more):
    names = "".join(f", {key} => %s" for key in more)
    session.execute(f"select es_register_fold(%s, 'account', rules => %s, initial_state => '{{\"sum\": 0}}'{names})", (name, rules, *more.values()))


def events(session):
    return value(session, "select count(*) from eventstream.events")


def test_each_rule_refuses_what_breaks_it_and_says_what_to_do(session):
    assert alter(session, event_types="declared") == "account"
    diag = breaks("event_types", append, session)
    assert diag.message_primary == (
        'event 1 for stream "account-1" breaks the rule event_types of category "account": event type "Posted" is not declared'
    )
    assert '"stream":"account-1"' in diag.message_detail.replace(" ", "")
    typed(session, diag)
    assert append(session) == 1
    alter(session, expected_version="required")
    assert typed(session, breaks("expected_version", append, session)) == [(1,)]
    assert append(session, expected_version=1) == 2
    assert append(session, stream="account-2", expected_version=0) == 1
    alter(session, expected_version=None, actor="required")
    diag = breaks("actor", append, session)
    for metadata in ({"actor": ""}, {"actor": " "}, {"actor": 17}, {"actor": None}, {"Actor": "x"}, {"x": {"actor": "y"}}):
        breaks("actor", append, session, metadata=Jsonb(metadata))
    assert append(session, metadata='{"actor": "ada"}') == 3
    session.execute(diag.message_hint[diag.message_hint.index("set eventstream.metadata") :])
    assert append(session) == 4
    session.execute("reset eventstream.metadata")
    alter(session, actor="optional", event_id="required")
    assert len(typed(session, breaks("event_id", append, session))) == 1
    assert append(session, event_id=uuid.uuid4()) == 5
    alter(session, event_id=None, max_future="1 hour")
    diag = refused(session.execute, "select es_append('account-1', 'Posted', '1', occurred_at => clock_timestamp() + interval '2 hours')")
    assert diag.sqlstate == "ES017" and "7200 seconds ahead of the clock, more than 3600" in diag.message_primary
    session.execute("select es_append('account-1', 'Posted', '1', occurred_at => clock_timestamp() + interval '59 minutes')")
    alter(session, max_future=None, event_types="any")
    assert append(session, event_type="Undeclared") == 7
    assert append(session, stream="other-1", event_type="Undeclared") == 1
    seen = rows(session, "select * from eventstream.categories where category = 'account'")
    assert seen == rows(session, "select 'account', 'any', 'optional', 'optional', 'optional', null::text, 'optional', null::interval, 'any', 'default'")


def test_what_streams_are_called_is_asked_when_they_are_begun(session):
    append(session, stream="account-old name")
    alter(session, id_pattern="[0-9]{4}|uuid-.+")
    assert typed(session, breaks("id_pattern", append, session, stream="account-17")) == [("[0-9]{4}|uuid-.+",)]
    for bad in ("account-10000", "account-1000\u00e9", "account-x1000", "account-uuid-"):
        breaks("id_pattern", append, session, stream=bad)
    assert append(session, stream="account-1000") == append(session, stream="account-uuid-x") == 1
    # One that is there goes on, and ends.
    assert append(session, stream="account-old name") == 2
    session.execute("select es_close_stream('account-old name', 'over')")
    alter(session, id_pattern="uuid")
    breaks("id_pattern", append, session, stream=f"account-{ID.upper()}")
    assert append(session, stream=f"account-{ID}") == 1
    alter(session, id_pattern="ulid")
    breaks("id_pattern", append, session, stream=f"account-{ID[:-1]}8")
    assert append(session, stream="account-01ARZ3NDEKTSV4RRFFQ69G5FAV") == 1
    # What is only checked to be absent is not begun.
    alter(session, id_pattern="x")
    streams = [{"stream": "account-y", "expected_version": 0, "events": []}, {"stream": "account-x", "events": [{"type": "A", "payload": 1}]}]
    session.execute("select es_append_streams(%s)", (Jsonb(streams),))


def test_what_looks_like_personal_data_is_refused_and_never_told(session):
    append(session, stream="account-old@example.org")
    alter(session, personal_data="refused", event_types="declared", id_pattern="[0-9]+")
    for more in ({"stream": "account-ada@example.org"}, {"tags": ["x", "tel:06641234567"]}, {"event_type": "4111 1111 1111 1111"}):
        diag = breaks("personal_data", append, session, **more)
        told = f"{diag.message_primary} {diag.message_detail} {diag.message_hint} {diag.context}"
        assert not any(secret in told for secret in ("ada", "1234567", "1111")), told
    diag = breaks("personal_data", append, session, stream="account-old@example.org", event_type="a@b.example")
    assert "example" not in f"{diag.message_primary} {diag.message_detail}"
    alter(session, event_types="any")
    assert append(session, stream="account-old@example.org") == 2
    assert append(session, stream="account-1000", tags=["order:42", ID]) == 1
    assert append(session, stream="account-1000", subject="ada@example.org") == 2


def test_every_door_in_is_judged(session):
    alter(session, actor="required")
    good, bad = {"type": "Posted", "payload": 1, "metadata": {"actor": "ada"}}, {"type": "Posted", "payload": 1}
    diag = breaks("actor", session.execute, "select es_append_events('account-1', %s)", (Jsonb([good, bad]),))
    assert "event 2 for stream" in diag.message_primary
    streams = [{"stream": "other-1", "events": [bad]}, {"stream": "account-1", "events": [bad]}]
    breaks("actor", session.execute, "select es_append_streams(%s)", (Jsonb(streams),))
    assert events(session) == 0
    append(session, metadata='{"actor": "ada"}')
    breaks("actor", session.execute, "select es_close_stream('account-1', 'over')")
    # A handler says who it is.
    session.execute(
        "create function again(event eventstream.event) returns void language sql as $$ select es_append('account-2', 'Posted', '1') $$"
    )
    session.execute("select es_create_projection('again', 'again(eventstream.event)', mode => 'inline', categories => '{other}')")
    append(session, stream="other-1")
    assert value(session, "select metadata ->> 'actor' from es_read('account-2')") == "projection again"
    alter(session, event_id="required")
    breaks("event_id", append, session, stream="other-1")
    alter(session, event_types="declared", expected_version="required")
    session.execute("set eventstream.metadata = '{\"actor\": \"ada\"}'")
    # What closes a stream is eventstream's own: neither its type nor its id is anybody's, and it is over whatever came.
    session.execute("select es_close_stream('account-1', 'over')")


def test_what_is_decided_on_behind_a_lock_needs_no_version_and_under_a_key_no_ids(session):
    open_bank(session)
    alter(session, expected_version="required", foldable="required", personal_data="refused")
    assert send(session)["version"] == 1 and send(session)["version"] == 2
    breaks("personal_data", send, session, stream="account-ada@example.org")
    alter(session, event_id="required")
    breaks("event_id", send, session)
    first = send(session, command_key="k-1")
    assert len(first["event_ids"]) == 1 and send(session, command_key="k-1") == first | {"replayed": True}
    assert str(value(session, "select event_id from es_read('account-1', 3)")) == first["event_ids"][0]
    alter(session, actor="required")
    breaks("actor", send, session, command_key="k-2")
    assert send(session, command_key="k-2", metadata={"actor": "ada"})["version"] == 4


def test_a_retry_is_recognised_before_it_is_judged(session):
    fold(session)
    event_id = uuid.uuid4()
    assert append(session, '{"amount": 1}', event_id=event_id) == 1
    alter(session, event_types="declared", expected_version="required", actor="required", id_pattern="x", personal_data="refused", foldable="required")
    assert append(session, '{"amount": 1}', event_id=event_id) == 1
    assert rows(session, "select replayed from es_last_append()") == [(True,)]
    assert refused(append, session, '{"amount": 1}', event_id=uuid.uuid4()).sqlstate == "ES017"


def test_what_the_default_fold_cannot_take_is_not_recorded(session):
    diag = refused(alter, session, foldable="required")
    assert diag.sqlstate == "ES005" and "settings.foldable" in diag.message_primary
    typed(session, diag)
    append(session, '{"amount": "x"}')
    alter(session, foldable="required")
    breaks("foldable", append, session, '{"amount": 1}', stream="account-8")
    fold(session)
    # The category has another default now, which cannot take what is there.
    diag = breaks("foldable", append, session, '{"amount": 1}')
    assert 'its default fold cannot take it: fold "sums" failed' in diag.message_primary and "ES013" in diag.message_detail
    problem = diag.message_hint[diag.message_hint.index("select") : diag.message_hint.rindex(";")]
    assert [stream for stream, _ in rows(session, problem)] == ["account-1"]
    assert append(session, '{"amount": 1}', stream="account-2") == 1
    for payload in ('{"amount": "x"}', "{}", "[]", "null"):
        breaks("foldable", append, session, payload, stream="account-2")
    breaks("foldable", append, session, stream="account-3", payload='{"amount": []}')
    assert append(session, stream="account-6", event_type="Unknown") == 1
    fold(session, rules=RULES[:-1] + ', "otherwise": "error"}')
    breaks("foldable", append, session, stream="account-7", event_type="Unknown")
    fold(session)
    assert rows(session, "select * from es_load('account-2')") == [({"sum": 1}, 1)]
    # Several events of a call: all or none.
    batch = [{"type": "Posted", "payload": {"amount": n}} for n in (1, 2, "x", 3)]
    breaks("foldable", session.execute, "select es_append_events('account-2', %s)", (Jsonb(batch),))
    session.execute("select es_append_events('account-2', %s)", (Jsonb(batch[:2]),))
    streams = [{"stream": "account-4", "events": batch[:2]}, {"stream": "account-5", "events": batch}, {"stream": "other-1", "events": batch}]
    breaks("foldable", session.execute, "select es_append_streams(%s)", (Jsonb(streams),))
    session.execute("select es_append_streams(%s)", (Jsonb([streams[0], streams[2]]),))
    assert value(session, "select string_agg(stream || state, ' ' order by stream) from es_category_state('account', on_error => 'report') where stream <> 'account-6'") == (
        'account-2{"sum": 4} account-4{"sum": 3}'
    )
    # Nothing that was undone is told to whoever looks after the database, but for what was there.
    assert rows(session, "select from eventstream.health where status <> 'ok' and detail ~ 'account-[23]'") == []
    session.execute("select es_close_stream('account-2', 'over')")
    session.execute("select es_unregister_fold('sums')")
    session.execute("select es_unregister_fold('account')")
    diag = breaks("foldable", append, session, stream="account-9")
    assert "has no default fold" in diag.message_primary
    session.execute(diag.message_hint[diag.message_hint.index("select es_alter") :])
    assert append(session, stream="account-9") == 1


def test_foldable_sees_what_readers_see(session):
    """The events before in the transaction, late ones in their place, and old versions as upcasters make them."""
    session.execute("create function up(p jsonb, m jsonb) returns jsonb immutable language sql as $$ select jsonb_build_object('amount', p -> 'old') $$")
    session.execute("select es_register_upcaster('Posted', 1, 'up(jsonb, jsonb)')")
    session.execute(
        "create function first_opened(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$ begin"
        " if not (event).event_type = 'Opened' and not state ? 'opened' then raise exception 'not opened yet: %', (event).payload; end if;"
        " return state || case (event).event_type when 'Opened' then '{\"opened\": true}' else '{}' end::jsonb; end $$"
    )
    session.execute(
        "select es_register_fold('opened', 'account', 'first_opened(jsonb, eventstream.event)', fold_order => 'occurred_at')"
    )
    alter(session, foldable="required")
    diag = breaks("foldable", append, session, '{"old": 17}')
    assert "not opened yet: {\"amount\": 17}" in diag.message_primary and '"sqlstate":"P0001"' in diag.message_detail.replace(" ", "")
    with session.transaction():
        append(session, event_type="Opened", occurred_at="2024-01-01Z")
        assert append(session, '{"old": 17}', occurred_at="2024-02-01Z") == 2
    with pytest.raises(psycopg.Error, match="not opened yet"):
        append(session, '{"old": 17}', occurred_at="2023-12-31Z")
    with session.transaction():
        append(session, '{"old": 17}')
        with pytest.raises(psycopg.Error, match="not opened yet"), session.transaction():
            append(session, '{"old": 17}', occurred_at="2023-12-31Z")
        assert append(session, '{"old": 18}') == 4
    assert rows(session, "select * from es_load('account-1')") == [({"opened": True}, 4)] and verify(session) == []


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_foldable_builds_on_what_is_committed_by_then(database, level):
    """Under any snapshot: whether an event can be taken depends on what the stream has, and not on what a transaction may see of it."""
    with database.connect(autocommit=False) as late, database.connect() as other:
        fold(other, rules='{"on": {"Posted": [{"add": {"/sum": "/amount"}}], "Named": [{"set": {"/sum": "/name"}}]}}')
        alter(other, foldable="required")
        append(other, '{"amount": 1}')
        late.execute(f"set transaction isolation level {level}")
        assert value(late, "select es_state('account-1')") == {"sum": 1}
        append(other, '{"name": "x"}', event_type="Named")
        breaks("foldable", append, late, '{"amount": 1}')
        late.rollback()
        append(other, '{"amount": 1}', stream="account-2")
        late.execute(f"set transaction isolation level {level}")
        assert value(late, "select es_state('account-2')") == {"sum": 1}
        append(other, '{"amount": 1}', stream="account-2")
        assert append(late, '{"amount": 1}', stream="account-2") == 3
        late.commit()
        assert value(other, "select es_state('account-2')") == {"sum": 3}


def test_what_makes_a_state_too_large_is_not_recorded(session):
    fold(session, rules='{"on": {"Posted": [{"append": {"/all": "/text"}}]}}')
    alter(session, foldable="required")
    session.execute("set eventstream.max_state_bytes = '64kB'")
    text = Jsonb({"text": "x" * 30000})
    assert append(session, text) == 1 and append(session, text) == 2
    diag = breaks("foldable", append, session, text)
    assert "ES007" in diag.message_primary and events(session) == 2


def test_a_fold_that_is_at_fault_is_told_as_it_is(session):
    session.execute("create table rates (rate int)")
    session.execute(
        "create function rated(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as"
        " $$ begin return jsonb_build_object('rate', (select rate from public.rates)); end $$"
    )
    session.execute("select es_register_fold('rated', 'account', 'rated(jsonb, eventstream.event)')")
    alter(session, foldable="required")
    append(session)
    session.execute("alter table rates rename to rates_before")
    assert refused(append, session).sqlstate == "42P01"
    session.execute("alter table rates_before rename to rates")
    assert append(session) == 2
    session.execute("create or replace function rated(state jsonb, event eventstream.event) returns jsonb immutable language sql as $$ select null::jsonb $$")
    breaks("foldable", append, session)
    session.execute(
        "create or replace function rated(state jsonb, event eventstream.event) returns jsonb immutable language sql as"
        " $$ select to_jsonb(public.es_append('account-1', 'X', '1')) $$"
    )
    assert refused(append, session).sqlstate == "0A000"
    assert events(session) == 2


def test_who_may_not_read_is_not_told_what_a_fold_says(database):
    with database.connect() as session:
        clerk = database.role(f"{database.name}_clerk")
        session.execute("select es_grant(%s, 'append')", (clerk,))
        session.execute(
            "create function tells(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$ begin"
            " raise notice 'a secret'; if (event).event_type = 'Bad' then raise exception 'a secret: %', state; end if;"
            " if (event).event_type = 'Lost' then perform 1 from public.secret_table; end if; return state; end $$"
        )
        session.execute("select es_register_fold('tells', 'account', 'tells(jsonb, eventstream.event)')")
        alter(session, foldable="required")
        assert "a secret: {}" in breaks("foldable", append, session, event_type="Bad").message_primary
        with database.connect(user=clerk) as there:
            heard = []
            there.add_notice_handler(lambda diag: heard.append(diag.message_primary))
            assert append(there) == 1
            for event_type in ("Bad", "Lost"):
                diag = refused(append, there, event_type=event_type)
                told = f"{diag.message_primary} {diag.message_detail} {diag.message_hint} {diag.context}"
                assert diag.sqlstate == ("ES017" if event_type == "Bad" else "42P01") and "secret" not in told, told
            assert heard == [] and append(there) == 2


@pytest.mark.parametrize(
    "settings",
    [
        None, "null", "[]", '"x"', "1", '{"event_type": "any"}', '{"event_types": "Any"}', '{"event_types": true}', '{"event_types": ["any"]}',
        '{"expected_version": "yes"}', '{"expected_version": 1}', '{"actor": ""}', '{"actor": {}}', '{"event_id": "uuid"}', '{"id_pattern": ""}',
        '{"id_pattern": "("}', '{"id_pattern": "a)|(b"}', '{"id_pattern": "(a)\\\\1"}', '{"id_pattern": "(?=a)"}', '{"id_pattern": "a{1000}{1000}"}',
        '{"id_pattern": "%s"}' % ("x" * 1001), '{"foldable": "required"}', '{"foldable": 0}', '{"max_future": ""}', '{"max_future": "x"}',
        '{"max_future": 24}', '{"max_future": "1 month"}', '{"max_future": "1 year"}', '{"max_future": "-1 second"}', '{"max_future": "99999999999 days"}',
        '{"max_future": "1000000000 hours 1000000000 days"}', '{"personal_data": "none"}', '{"actor": "required", "x\u200b": 1}',
    ],
)  # fmt: skip
def test_bad_input(session, settings):
    alter(session, max_future="1 day 2 hours")
    before = rows(session, "select * from _eventstream.category_rules")
    diag = refused(session.execute, "select es_alter_category('account', %s)", (settings,))
    assert diag.sqlstate == "ES005" and diag.message_primary.startswith("settings"), diag.message_primary
    assert rows(session, "select * from _eventstream.category_rules") == before


@pytest.mark.parametrize("category", [None, "", "a-b", "$audit", " a", "a\u200b", "x" * 511])
def test_bad_categories(session, category):
    assert refused(alter, session, category, actor="required").sqlstate == "ES005"


def test_settings_are_set_key_by_key(session):
    heard = []
    session.add_notice_handler(lambda diag: heard.append(diag.message_primary))
    alter(session, actor="required", max_future="1 day 2 hours")
    assert heard == [
        "max_future is 1 day 02:00:00, and eventstream.max_future_skew, which counts for all categories, is 86400 seconds: the narrower one counts",
        'category "account" has no streams yet: what is appended to it is judged from its first event on',
    ]
    alter(session)
    alter(session, actor=None, event_id="optional")
    alter(session, "other", actor=None, event_id="optional")
    assert rows(session, "select category, settings from _eventstream.category_rules") == [("account", {"max_future": "1 day 02:00:00"})]
    for style in ("postgres", "iso_8601", "sql_standard", "postgres_verbose"):
        session.execute(f"set intervalstyle = '{style}'")
        alter(session, max_future="PT26H")
        assert value(session, "select settings ->> 'max_future' from _eventstream.category_rules") == "26:00:00"
        assert value(session, "select extract(epoch from max_future) from eventstream.categories") == 26 * 3600
    alter(session, max_future=None)
    assert rows(session, "select settings from _eventstream.category_rules") == [({},)]
    assert value(session, "select count(*) from eventstream.categories") == 1 and append(session) == 1


def test_two_who_alter_at_once_both_count(database):
    for is_there in (False, True):
        with database.connect(autocommit=False) as one, database.connect() as two, database.connect() as watch:
            alter(one, actor="required")
            other = threading.Thread(target=lambda two=two: alter(two, event_id="required"))
            other.start()
            wait_until(lambda watch=watch, two=two: rows(watch, "select from pg_locks where not granted and pid = %s", two.info.backend_pid), 5, "the wait")
            one.commit()
            other.join()
            assert rows(watch, "select actor, event_id from eventstream.categories") == [("required", "required")], is_there
            alter(watch, actor=None, event_id=None)


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_it_counts_from_its_commit_on_whatever_a_session_has_known(database, level):
    with database.connect(autocommit=False) as keeper, database.connect(autocommit=False) as early, database.connect() as idle:
        early.execute(f"set transaction isolation level {level}")
        append(early, stream="account-1")
        append(idle, stream="account-2")
        # It waits for nobody, and nobody for it.
        alter(keeper, actor="required")
        append(idle, stream="account-2")
        breaks("actor", append, keeper, stream="account-3")
        keeper.rollback()
        append(keeper, stream="account-3")
        keeper.commit()
        alter(keeper, actor="required")
        with pytest.raises(psycopg.Error, match="breaks the rule actor"), keeper.transaction():
            append(keeper, stream="account-3")
        keeper.commit()
        breaks("actor", append, idle, stream="account-2")
        breaks("actor", append, early, stream="account-1")
        early.rollback()


def test_tenants_and_rights(database):
    with database.connect() as session:
        clerk, keeper, narrow = (database.role(f"{database.name}_{name}") for name in ("clerk", "keeper", "narrow"))
        session.execute("select es_create_tenant('b')")
        for role, privilege, category in ((clerk, "append", None), (clerk, "read", "account"), (keeper, "manage", None), (narrow, "manage", "account")):
            session.execute("select es_grant(%s, %s, tenant => 'default', category => %s)", (role, privilege, category))
        with database.connect(user=clerk) as there:
            assert refused(alter, there, actor="required").sqlstate == "42501"
            assert refused(there.execute, "select es_alter_category(null, null)").sqlstate == "42501"
        with database.connect(user=narrow) as there:
            assert refused(alter, there, "other", actor="required").sqlstate == "42501"
            alter(there, actor="required")
            assert refused(there.execute, "select * from eventstream.categories").sqlstate == "42501"
        with database.connect(user=keeper) as there:
            alter(there, "other", actor="required")
            for table in ("select * from _eventstream.category_rules", "select * from _eventstream.category_settings(1)"):
                assert refused(there.execute, table).sqlstate == "42501"
        with database.connect(user=clerk) as there:
            append(there, stream="third-1")
            assert rows(there, "select category, actor from eventstream.categories") == [("account", "required")]
            # What a category asks is told to whoever may append, and needs no right to read.
            breaks("actor", append, there)
            breaks("actor", append, there, stream="other-1")
        session.execute("set eventstream.tenant = 'b'")
        assert append(session) == 1
        assert rows(session, "select category, actor, tenant from eventstream.categories") == [("account", "optional", "b")]


def test_rules_are_acts_and_guarded(session):
    append(session)
    alter(session, max_future="24 hours", actor="required")
    alter(session, actor="required")
    alter(session, actor=None)
    acts = rows(session, "select event_type, payload from eventstream.administration where event_type like 'Category%' order by global_position")
    assert [name for name, _ in acts] == ["CategoryAltered", "CategoryAltered"]
    assert acts[1][1]["before"] == {"category": "account", "settings": {"actor": "required", "max_future": "24:00:00"}}
    assert acts[1][1]["after"] == {"category": "account", "settings": {"max_future": "24:00:00"}}
    assert rows(session, "select * from es_verify_audit()") == [] == verify(session)
    for statement in ("delete from _eventstream.category_rules", "truncate _eventstream.category_rules", "drop table _eventstream.category_rules"):
        assert refused(session.execute, statement).sqlstate in ("ES050", "ES051", "2BP01")
    with forced(session):
        session.execute("update _eventstream.category_rules set settings = '{}'")
    assert {kind for (kind,) in rows(session, "select kind from es_verify_audit()")} == {"category_rule"}


def test_rules_stay_after_kill_9_and_in_a_copy(new_server):
    server = new_server("ruled")
    original, copy = Database(server, "original").create(), Database(server, "copy").create(extension=False)
    with original.connect() as session:
        append(session)
        alter(session, actor="required", id_pattern="[0-9]\\d*", max_future="24 hours")
    server.kill_everything()
    server.start()
    with original.connect() as session:
        breaks("actor", append, session)
        before = rows(session, "select * from eventstream.categories")
    run_psql(copy, run("pg_dump", env=server.address("original")))
    with copy.connect() as session:
        assert rows(session, "select * from eventstream.categories") == before
        breaks("actor", append, session)
        breaks("id_pattern", append, session, stream="account-x")
        assert rows(session, "select * from es_verify_audit()") == []


def test_many_categories_and_many_streams(session):
    session.execute(
        "select es_alter_category('c' || n, '{\"actor\": \"required\", \"id_pattern\": \"[0-9]{1,20}\"}') from generate_series(1, 500) n"
    )
    breaks("actor", append, session, stream="c77-1")
    breaks("id_pattern", append, session, stream="c78-x")
    assert append(session, '{"amount": 3}') == 1
    session.execute("select es_append('d' || n || '-1', 'A', '1') from generate_series(1, 3000) n")
    session.execute("select es_append('d1-' || n, 'A', '1') from generate_series(2, 3000) n")
    assert value(session, "select count(*) from eventstream.categories") == 3501
    assert value(session, "select count(*) from eventstream.categories where actor = 'required'") == 500
    fold(session)
    alter(session, foldable="required")
    streams = [{"stream": f"account-{n}", "events": [{"type": "Posted", "payload": {"amount": 1}}] * 3} for n in range(2, 402)]
    session.execute("select es_append_streams(%s)", (Jsonb(streams),))
    assert value(session, "select count(*) from es_category_state('account') where state = '{\"sum\": 3}'") == 401
