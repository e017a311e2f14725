"""Tags of events: a set, shown wherever the event is, part of what a retry repeats and of what the chain hash covers."""

import uuid

import psycopg
import pytest
from database import forced, rows, value, verify
from outside import check_outside
from psycopg.types.json import Jsonb

TAGS = ["order:42", "customer:7", "order:42", "Ž", "a"]
SET = ["a", "customer:7", "order:42", "Ž"]


@pytest.fixture
def session(database):
    with database.connect() as connection:
        yield connection


def append(session, stream, tags, event_id=None):
    return value(session, "select es_append(%s, 'Paid', '1', event_id => %s, tags => %s)", stream, event_id, tags)


def batch(tags, event_id=None):
    return Jsonb([{"type": "Paid", "payload": 1, "event_id": event_id and str(event_id), "tags": tags}])


def refused(session, statement, *parameters):
    with pytest.raises(psycopg.Error) as error:
        session.execute(statement, parameters)
    return error.value


def test_tags_are_a_set_and_shown_wherever_the_event_is(session):
    session.execute("create table seen (tags text[])")
    session.execute(
        "create function saw(event eventstream.event) returns void language sql as 'insert into public.seen values (event.tags)'"
    )
    session.execute("select es_create_projection('seen', 'saw(eventstream.event)'::regprocedure, mode => 'inline')")
    session.execute("select es_create_subscription('outside')")
    append(session, "account-1", TAGS)
    value(session, "select es_append_events('account-1', %s)", batch(TAGS))
    rows(session, "select es_append_streams(%s)", Jsonb([{"stream": "account-1", "events": batch(TAGS).obj}]))
    for none in (None, []):
        append(session, "account-1", none)
        value(session, "select es_append_events('account-1', %s)", batch(none))
    expected = [(SET,)] * 3 + [(None,)] * 4
    for question in (
        "select tags from es_read('account-1')",
        "select tags from es_read_all(0)",
        "select tags from eventstream.events order by version",
        "select tags from _eventstream.events where tenant_id > 0 order by version",
        "select (event).tags from es_fetch('outside', 'me', max_count => 10) order by (event).version",
        "select tags from seen",
    ):
        assert rows(session, question) == expected, question
    assert verify(session) == []
    assert check_outside(session)[0] == 0


def test_an_event_that_would_be_has_the_tags_that_it_is_given(session):
    session.execute(
        "create function tagged(state jsonb, event eventstream.event) returns jsonb immutable language sql as 'select to_jsonb(event.tags)'"
    )
    session.execute("select es_register_fold('tagged', 'account', 'tagged(jsonb, eventstream.event)'::regprocedure)")
    assert value(session, "select es_simulate('account-1', %s)", batch(TAGS)) == SET
    append(session, "account-1", TAGS)
    assert value(session, "select es_state('account-1')") == SET


def test_a_retry_repeats_the_tags_in_whatever_order(session):
    event_id = uuid.uuid4()
    assert append(session, "account-1", TAGS, event_id) == 1
    assert append(session, "account-1", list(reversed(SET)), event_id) == 1
    assert value(session, "select es_append_events('account-1', %s)", batch(TAGS, event_id)) == 1
    assert value(session, "select replayed from es_last_append()")
    for other in (None, SET[1:], [*SET, "b"]):
        error = refused(session, "select es_append('account-1', 'Paid', '1', event_id => %s, tags => %s)", event_id, other)
        assert error.sqlstate == "ES006" and "with another set of tags" in str(error)


@pytest.mark.parametrize("tags", [[""], ["a", " b"], ["a\nb"], ["a\u200bb"], ["a\u202eb"], ["e\u0301"], ["x" * 256], [f"t:{n}" for n in range(33)]])
def test_what_is_no_tag_is_refused_by_its_place(session, tags):
    places = "tags" if len(tags) > 32 else f"tags[{len(tags) - 1}]"
    error = refused(session, "select es_append('account-1', 'Paid', '1', tags => %s)", tags)
    assert error.sqlstate == "ES005" and str(error).startswith(f"{places} must "), error
    error = refused(session, "select es_append_events('account-1', %s)", batch(tags))
    assert error.sqlstate == "ES005" and str(error).startswith(f"events[0].{places} must "), error
    assert value(session, "select count(*) from eventstream.events") == 0


def test_what_is_no_array_of_texts_is_refused(session):
    for tags in ("order:42", {"order": 42}, [42], [None]):
        error = refused(session, "select es_append_events('account-1', %s)", batch(tags))
        assert error.sqlstate == "ES005" and "events[0].tags" in str(error)
    assert refused(session, "select es_append('account-1', 'Paid', '1', tags => '{a,NULL}')").sqlstate == "ES005"
    assert append(session, "account-1", [f"t:{n}" for n in range(32)]) == 1


@pytest.mark.parametrize("tags", [None, ["a"], ["a", "customer:7", "order:43", "Ž"], [*SET, "b"], [*SET, None]])
def test_tags_that_somebody_changed_are_found(session, tags):
    append(session, "account-1", TAGS)
    append(session, "account-1", None)
    with forced(session):
        session.execute("update _eventstream.events set tags = %s where version = 1", (tags,))
    assert ("account-1", 1) in [(stream, version) for stream, version, _ in verify(session)]
    assert check_outside(session)[0] != 0
