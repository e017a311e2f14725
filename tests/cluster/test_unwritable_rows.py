"""A stream that folds, but whose state cannot be a row of a state table, or of a temporal view, costs its own row and no other.

Kinds: what a column's type cannot take (a text, out of range, a domain), what the owner has put on the table (a constraint of each kind, a trigger),
by the table's ways of being written (a batch, the first fill, a rebuild); what is no stream's fault; size (many wrong ones among many); rights.
"""

import json
import random
import string

import psycopg
import pytest
from database import rows, value

RULES = json.dumps({"on": {"Limited": [{"set": {"/limit": "/limit"}}]}})
TRIGGER = """create function refuse() returns trigger language plpgsql as $$ begin
    if new."limit" > 100 then raise 'no such limit' using detail = 'secret'; end if; return new; end $$;
    create trigger refuses before insert or update on limits for each row execute function refuse()"""

#: The column's type, what its owner does to the table, the wrong value, the error, and what the operator is told of it without the payload.
FAULTS = {
    "a text for a number": ("numeric", "", "many", "22P02", 'column "limit" (numeric) cannot take a string'),
    "out of range": ("smallint", "", 70000, "22003", 'column "limit" (smallint) cannot take a number'),
    "an array for a number": ("int", "", [7], "22P02", 'column "limit" (int) cannot take an array'),
    "a domain": ("public.small", "", 500, "23514", 'column "limit" (public.small) cannot take a number'),
    "a check": ("int", 'alter table limits add constraint small_one check ("limit" < 100)', 500, "23514", 'constraint "small_one"'),
    "not null": ("int", 'alter table limits alter "limit" set not null', None, "23502", 'column "limit"'),
    "a trigger": ("int", TRIGGER, 500, "P0001", "SQLSTATE P0001"),
    "a trigger in our words": ("int", TRIGGER.replace("using detail", "using errcode = 'ES005', detail"), 500, "ES005", "SQLSTATE ES005"),
    "unique": ("int", 'create unique index only_one on limits ("limit")', 1, "23505", 'constraint "only_one"'),
    "exclusion": ("int", 'alter table limits add constraint apart exclude ("limit" with =)', 1, "23P01", 'constraint "apart"'),
    "foreign key": ("int", 'alter table limits add constraint known foreign key ("limit") references kinds', 500, "23503", 'constraint "known"'),
    "too large for an index": ("text", 'create index by_limit on limits ("limit")', "LONG", "54000", "SQLSTATE 54000"),
}


def limit(session, number, given):
    session.execute("select es_append(%s, 'Limited', %s)", (f"account-{number}", json.dumps({"limit": given})))


def run(session):
    session.execute("select es_run_projection('limits')")


def of_table(session):
    return [(stream, version, str(given)) for stream, version, given in rows(session, 'select stream, version, "limit" from limits order by stream')]


def letters(session):
    return rows(session, "select stream, version, error_sqlstate from eventstream.dead_letters order by global_position")


def status(session):
    return value(session, "select status from eventstream.projections")


def registered(session):
    session.execute("create domain small as int check (value < 100)")
    session.execute("create table kinds (n int primary key); insert into kinds select generate_series(1, 99)")
    session.execute("select es_register_fold('limits', 'account', rules => %s::jsonb)", (RULES,))


def table(session, type_name, setup):
    """With what its owner puts on it; nothing is filled before it is asked for."""
    columns = json.dumps([{"name": "limit", "type": type_name, "path": "/limit"}])
    session.execute("select es_create_state_table('limits', 'account', %s)", (columns,))
    if setup:
        session.execute(setup)


def prepared(session, type_name, setup):
    registered(session)
    table(session, type_name, setup)


@pytest.fixture(params=FAULTS)
def fault(request, quiet):
    type_name, setup, wrong, sqlstate, told = FAULTS[request.param]
    if wrong == "LONG":
        # It must not be compressed away.
        wrong = "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=20_000))
    with quiet.connect(autocommit=True) as session:
        registered(session)
        yield session, lambda: table(session, type_name, setup), wrong, sqlstate, told


@pytest.mark.parametrize("way", ["batch", "fill", "rebuild"])
def test_a_row_that_cannot_be_written_keeps_no_others_back(fault, way):
    session, make_table, wrong, sqlstate, told = fault
    if way != "fill":
        make_table()
        run(session)
    if way == "rebuild":
        limit(session, 2, 22)
        run(session)
        assert of_table(session) == [("account-2", 1, "22")]
    for number, given in ((1, 1), (2, wrong), (3, 3), (4, 4)):
        limit(session, number, given)
    if way == "fill":
        make_table()
    if way == "rebuild":
        session.execute("select es_rebuild_projection('limits')")
    run(session)
    right = [("account-1", 1, "1"), ("account-3", 1, "3"), ("account-4", 1, "4")]
    newest = 2 if way == "rebuild" else 1
    assert (status(session), of_table(session), letters(session)) == ("running", right, [("account-2", newest, sqlstate)])
    reason = value(session, "select reason from eventstream.dead_letters")
    assert reason.startswith("its row cannot be written: ") and told in reason
    [(level, detail)] = rows(session, "select status, detail from eventstream.health where name = 'dead letters of limits'")
    assert level == "critical" and told in detail and "account-2" in detail
    assert "many" not in detail and "no such limit" not in detail and "secret" not in detail
    # It comes back with newer events that make it one that can be written, and is no dead letter any more.
    limit(session, 2, 50)
    limit(session, 3, 33)
    run(session)
    assert of_table(session) == [("account-1", 1, "1"), ("account-2", newest + 1, "50"), ("account-3", 2, "33"), ("account-4", 1, "4")]
    assert letters(session) == []


def test_a_batch_leaves_the_row_as_it_was_and_a_rebuild_after_the_cause_is_mended_brings_it(quiet):
    with quiet.connect(autocommit=True) as session:
        prepared(session, "int", 'alter table limits add constraint small_one check ("limit" < 100)')
        for number in (1, 2):
            limit(session, number, number)
        run(session)
        limit(session, 2, 500)
        limit(session, 1, 11)
        run(session)
        assert of_table(session) == [("account-1", 2, "11"), ("account-2", 1, "2")]
        assert letters(session) == [("account-2", 2, "23514")]
        session.execute("alter table limits drop constraint small_one")
        session.execute("select es_rebuild_projection('limits')")
        run(session)
        assert of_table(session) == [("account-1", 2, "11"), ("account-2", 2, "500")] and letters(session) == []


@pytest.mark.parametrize("way", ["batch", "fill"])
def test_many_wrong_ones_among_many_are_each_found(quiet, way):
    with quiet.connect(autocommit=True) as session:
        registered(session)
        if way == "batch":
            table(session, "int", "")
            run(session)
        wrong = {number for number in range(1200) if number % 7 == 3 or number in (0, 499, 500, 1199)}
        appends = [
            {"stream": f"account-{number:04}", "events": [{"type": "Limited", "payload": {"limit": "many" if number in wrong else number}}]}
            for number in range(1200)
        ]
        session.execute("select count(*) from es_append_streams(%s)", (json.dumps(appends),))
        if way == "fill":
            table(session, "int", "")
        run(session)
        assert [int(stream[-4:]) for stream, *_ in of_table(session)] == [number for number in range(1200) if number not in wrong]
        assert {int(stream[-4:]) for stream, *_ in letters(session)} == wrong
        assert status(session) == "running"


@pytest.mark.parametrize("way", ["batch", "rebuild"])
def test_a_value_that_goes_from_one_stream_to_another_collides_with_nothing(quiet, way):
    """Rows are written by name, and the one that takes the value comes before the one that gives it up."""
    with quiet.connect(autocommit=True) as session:
        prepared(session, "int", 'create unique index only_one on limits ("limit")')
        for number in (1, 2, 3):
            limit(session, number, number)
        run(session)
        limit(session, 3, 30)
        limit(session, 2, 3)
        limit(session, 1, 2)
        if way == "rebuild":
            session.execute("select es_rebuild_projection('limits')")
        run(session)
        assert of_table(session) == [("account-1", 2, "2"), ("account-2", 2, "3"), ("account-3", 2, "30")]
        assert letters(session) == []


def test_a_retry_brings_the_row_once_the_cause_is_mended_and_older_dead_letters_do_not_take_it_back(quiet):
    with quiet.connect(autocommit=True) as session:
        prepared(session, "int", 'alter table limits add constraint small_one check ("limit" < 100)')
        run(session)
        for given in (500, 600):
            limit(session, 2, given)
            run(session)
        assert letters(session) == [("account-2", 1, "23514"), ("account-2", 2, "23514")]
        retry = "select es_retry_dead_letter(max(id)) from eventstream.dead_letters"
        with pytest.raises(psycopg.errors.CheckViolation):
            session.execute(retry)
        session.execute("alter table limits drop constraint small_one")
        session.execute(retry)
        assert of_table(session) == [("account-2", 2, "600")] and letters(session) == []


@pytest.mark.parametrize("way", ["batch", "fill"])
def test_of_two_streams_that_have_no_row_yet_the_first_by_its_events_or_by_its_name_gets_the_value(quiet, way):
    with quiet.connect(autocommit=True) as session:
        registered(session)
        if way == "batch":
            table(session, "int", 'create unique index only_one on limits ("limit")')
            run(session)
        for number in (2, 1):
            limit(session, number, 7)
        if way == "fill":
            table(session, "int", 'create unique index only_one on limits ("limit")')
        run(session)
        first, second = ("account-2", "account-1") if way == "batch" else ("account-1", "account-2")
        assert of_table(session) == [(first, 1, "7")] and letters(session) == [(second, 1, "23505")]


def test_of_two_streams_with_one_value_the_one_that_has_it_keeps_it_also_in_a_rebuild(quiet):
    with quiet.connect(autocommit=True) as session:
        prepared(session, "int", 'create unique index only_one on limits ("limit")')
        limit(session, 2, 7)
        run(session)
        limit(session, 1, 7)
        run(session)
        assert of_table(session) == [("account-2", 1, "7")] and letters(session) == [("account-1", 1, "23505")]
        session.execute("select es_rebuild_projection('limits')")
        run(session)
        assert of_table(session) == [("account-2", 1, "7")] and letters(session) == [("account-1", 1, "23505")]
        limit(session, 2, 8)
        limit(session, 1, 9)
        run(session)
        assert of_table(session) == [("account-1", 2, "9"), ("account-2", 2, "8")] and letters(session) == []


CASTS = {kind: fault for kind, fault in FAULTS.items() if fault[1] == ""}
CASTS["no date"] = ("date", "", "soon", "22007", 'column "limit" (date) cannot take a string')


@pytest.fixture(params=CASTS)
def view(request, quiet):
    """Five accounts; the states of 1 and 3 do not fit."""
    type_name, _, wrong, sqlstate, told = CASTS[request.param]
    with quiet.connect(autocommit=True) as session:
        registered(session)
        columns = json.dumps([{"name": "name", "type": "text", "path": "/name"}, {"name": "limit", "type": type_name, "path": "/limit"}])
        session.execute("select es_create_temporal_view('limits', 'account', %s)", (columns,))
        right = "2024-01-01" if type_name == "date" else 7
        for number in range(5):
            limit(session, number, wrong if number in (1, 3) else right)
        yield session, right, sqlstate, told


@pytest.mark.parametrize("question", ["select * from limits", "select * from limits_at(null)", "select * from limits where stream = 'account-3'"])
def test_a_temporal_view_says_how_many_states_do_not_fit_its_columns_and_names_the_one_it_met(view, question):
    session, right, sqlstate, told = view
    with pytest.raises(psycopg.Error) as raised:
        session.execute(question)
    first = "account-3" if "account-3" in question else "account-1"
    diagnosis = raised.value.diag
    assert raised.value.sqlstate == "ES013"
    assert diagnosis.message_primary.startswith(
        f'2 streams of category "account" cannot be shown in the columns asked for; the first met is "{first}": {told}: '
    )
    detail = json.loads(diagnosis.message_detail)
    assert (detail["streams_failed"], detail["all_counted"], detail["stream"], detail["sqlstate"]) == (2, True, first, sqlstate)
    assert "on_error => 'report'" in diagnosis.message_hint
    # A stream that fits is read without the others.
    assert value(session, "select problem is null and version = 1 from limits where stream = 'account-2'")
    # Nothing of it is said of the fold, which takes them all.
    assert rows(session, "select status from eventstream.health where name = 'states by limits'") == []


def test_the_function_beside_a_temporal_view_reports_the_states_that_do_not_fit(view):
    session, right, sqlstate, told = view
    found = rows(session, """select stream, version, "limit"::text, problem from limits_at(null, on_error => 'report') order by stream""")
    assert [(stream, version, given) for stream, version, given, problem in found if problem is None] == [
        (f"account-{number}", 1, str(right)) for number in (0, 2, 4)
    ]
    failed = {stream: problem for stream, version, given, problem in found if (version, given) == (None, None)}
    assert list(failed) == ["account-1", "account-3"]
    assert all(problem.startswith(f"{told}: ") and problem.endswith(f"({sqlstate})") for problem in failed.values())
    # Of one stream.
    assert value(session, "select problem from limits_at(null, stream => 'account-3', on_error => 'report')") == failed["account-3"]


def test_a_cast_that_fails_for_no_streams_fault_is_its_own_error(quiet):
    with quiet.connect(autocommit=True) as session:
        registered(session)
        session.execute("create function known(int) returns bool language plpgsql as $$ begin return from_nowhere(); end $$")
        session.execute("create domain checked as int check (public.known(value))")
        session.execute("""select es_create_temporal_view('limits', 'account', '[{"name": "limit", "type": "public.checked", "path": "/limit"}]')""")
        limit(session, 1, 1)
        for question in ("select * from limits", "select * from limits_at(null, on_error => 'report')"):
            with pytest.raises(psycopg.errors.UndefinedFunction):
                session.execute(question)


def test_a_domain_whose_check_needs_the_sessions_search_path_is_cast_as_the_session_would(quiet):
    with quiet.connect(autocommit=True) as session:
        registered(session)
        session.execute("create function helper() returns int language sql as 'select 100'")
        session.execute("create function known(int) returns bool language plpgsql as $$ begin return $1 < helper(); end $$")
        session.execute("create domain checked as int check (public.known(value))")
        session.execute("""select es_create_temporal_view('limits', 'account', '[{"name": "limit", "type": "public.checked", "path": "/limit"}]')""")
        limit(session, 1, 1)
        assert rows(session, 'select stream, "limit" from limits') == [("account-1", 1)]


def test_a_view_that_is_there_already_is_known_by_its_columns(quiet):
    with quiet.connect(autocommit=True) as session:
        registered(session)
        make = "select es_create_temporal_view('limits', 'account', %s, if_not_exists => true)"
        columns = [{"name": "it's", "type": "int", "path": "/a\\b'c"}]
        for _ in range(2):
            session.execute(make, (json.dumps(columns),))
        with pytest.raises(psycopg.Error, match="with another list of columns"):
            session.execute(make, (json.dumps([*columns, {"name": "more", "type": "int", "path": "/more"}]),))


FOREIGN = {
    "a trigger misses a table": (
        "create function refuse() returns trigger language plpgsql as $$ begin perform from_nowhere(); return new; end $$;"
        " create trigger refuses before insert or update on limits for each row execute function refuse()",
        "42883",
    ),
    **{
        kind: (
            f"create function refuse() returns trigger language plpgsql as $$ begin raise 'it' using errcode = '{sqlstate}'; end $$;"
            " create trigger refuses before insert or update on limits for each row execute function refuse()",
            sqlstate,
        )
        for kind, sqlstate in (("a disk that is full", "53100"), ("a right that is missing", "42501"), ("a lock", "55P03"))
    },
}


@pytest.mark.parametrize("way", ["batch", "fill"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_every_row_would_meet_stops_the_table_also_beside_a_wrong_row(quiet, kind, way):
    statement, sqlstate = FOREIGN[kind]
    with quiet.connect(autocommit=True) as session:
        registered(session)
        if way == "batch":
            table(session, "int", statement)
            run(session)
        for number, given in ((1, "many"), (2, 2)):
            limit(session, number, given)
        if way == "fill":
            table(session, "int", statement)
        session.execute("""select es_alter_projection('limits', '{"max_retries": 0}')""")
        for _ in range(3):
            try:
                run(session)
            except psycopg.Error as error:
                assert error.sqlstate == "ES021"
        found = rows(session, "select status, error_sqlstate from eventstream.projections")
        assert (status(session), letters(session)) == ("stopped", []), found
        assert found[0][1] == sqlstate


@pytest.mark.parametrize("way", ["batch", "fill"])
def test_a_definition_that_is_broken_stops_the_table_and_passes_over_no_stream(quiet, way):
    """The statement cannot be made at all: that is no row's fault, though its SQLSTATE is one that a row's fault can have."""
    with quiet.connect(autocommit=True) as session:
        registered(session)
        if way == "fill":
            limit(session, 1, 1)
        table(session, "public.small", "")
        session.execute("""select es_alter_projection('limits', '{"max_retries": 0}')""")
        if way == "batch":
            run(session)
            limit(session, 1, 1)
        limit(session, 2, 2)
        session.execute("alter domain small rename to tiny")
    with quiet.connect(autocommit=True) as session:
        with pytest.raises(psycopg.Error, match="stopped|fails"):
            for _ in range(3):
                run(session)
        assert (status(session), letters(session)) == ("stopped", [])
        assert value(session, "select error_sqlstate from eventstream.projections") == "ES005"
        session.execute("alter domain tiny rename to small")
        session.execute("select es_resume_projection('limits')")
        run(session)
        run(session)
        assert of_table(session) == [("account-1", 1, "1"), ("account-2", 1, "2")]


def test_a_rebuild_that_could_write_no_row_stops_and_leaves_those_that_there_are(quiet):
    with quiet.connect(autocommit=True) as session:
        prepared(session, "int", "")
        for number in (1, 2):
            limit(session, number, 500)
        run(session)
        session.execute('alter table limits add constraint small_one check ("limit" < 100) not valid')
        session.execute("select es_rebuild_projection('limits')")
        run(session)
        assert value(session, "select error_sqlstate from eventstream.projections where attempts > 0") == "23514"
        assert len(of_table(session)) == 2 and letters(session) == []


def test_a_row_that_another_table_refers_to_stays_as_it_was_where_it_cannot_be_written_again(quiet):
    with quiet.connect(autocommit=True) as session:
        prepared(session, "int", "")
        for number in (1, 2):
            limit(session, number, number)
        run(session)
        session.execute("create table notes (stream text references limits); insert into notes values ('account-2')")
        limit(session, 2, "many")
        limit(session, 1, 11)
        session.execute("select es_rebuild_projection('limits')")
        run(session)
        assert of_table(session) == [("account-1", 2, "11"), ("account-2", 1, "2")]
        assert (status(session), letters(session)) == ("running", [("account-2", 2, "22P02")])


def test_an_inline_table_fails_the_append_that_brings_the_wrong_value(quiet):
    with quiet.connect(autocommit=True) as session:
        session.execute("select es_register_fold('limits', 'account', rules => %s::jsonb)", (RULES,))
        session.execute("""select es_create_state_table('limits', 'account', '[{"name": "limit", "type": "int", "path": "/limit"}]', mode => 'inline')""")
        limit(session, 1, 1)
        with pytest.raises(psycopg.Error) as refused:
            limit(session, 1, "many")
        assert refused.value.sqlstate == "22P02"
        assert of_table(session) == [("account-1", 1, "1")] and letters(session) == []


def test_who_may_not_read_is_told_the_column_and_the_kind_of_its_value_and_nothing_else(quiet):
    quiet.role("operator")
    with quiet.connect(autocommit=True) as session:
        prepared(session, "numeric", "")
        limit(session, 1, "many")
        run(session)
        session.execute("select es_grant('operator', 'manage', 'default')")
    with quiet.connect("operator") as operator:
        reason, detail = operator.execute("select reason, error_detail from eventstream.dead_letters").fetchone()
        assert reason == 'its row cannot be written: column "limit" (numeric) cannot take a string' and detail is None
        found = value(operator, "select detail from eventstream.health where name = 'dead letters of limits'")
        assert 'column "limit" (numeric) cannot take a string' in found and "many" not in found


#: A fold's handler, or an upcaster before rules, that fails of one stream; whatever it keeps from call to call is not taken up again after that.
CODE = {
    "handler sql": "create function code(state jsonb, event eventstream.event) returns jsonb immutable language sql as"
    " $$ select jsonb_build_object('limit', (event.payload ->> 'limit')::int) $$",
    "handler plpgsql": "create function code(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as"
    " $$ begin return jsonb_build_object('limit', (event.payload ->> 'limit')::int); end $$",
    "upcaster sql": "create function code(payload jsonb, metadata jsonb) returns jsonb immutable language sql as"
    " $$ select jsonb_build_object('limit', (payload ->> 'limit')::int) $$",
    "upcaster plpgsql": "create function code(payload jsonb, metadata jsonb) returns jsonb immutable language plpgsql as"
    " $$ begin return jsonb_build_object('limit', (payload ->> 'limit')::int); end $$",
}


@pytest.mark.parametrize("way", ["batch", "fill", "rebuild"])
@pytest.mark.parametrize("code", CODE)
def test_a_stream_whose_code_fails_leaves_nothing_in_the_code_for_the_next(quiet, code, way):
    with quiet.connect() as session:
        session.execute(CODE[code])
        if "handler" in code:
            session.execute("select es_register_fold('limits', 'account', 'code(jsonb, eventstream.event)')")
        else:
            session.execute("select es_register_fold('limits', 'account', rules => %s::jsonb)", (RULES,))
            session.execute("select es_register_upcaster('Limited', 1, 'code(jsonb, jsonb)')")
        if way != "fill":
            table(session, "int", "")
            run(session)
        for number in range(9):
            limit(session, number, "many" if number % 3 == 1 else number)
        if way == "fill":
            table(session, "int", "")
        run(session)
        if way == "rebuild":
            session.execute("select es_rebuild_projection('limits')")
            run(session)
        assert of_table(session) == [(f"account-{number}", 1, str(number)) for number in range(9) if number % 3 != 1]
        assert letters(session) == [(f"account-{number}", 1, "22P02") for number in range(9) if number % 3 == 1]
        assert status(session) == "running"


@pytest.mark.parametrize("language", ["sql", "plpgsql"])
def test_a_handler_that_fails_of_one_event_is_called_anew_for_the_next(quiet, language):
    body = "insert into seen values ((event.payload ->> 'limit')::int)"
    body = f"begin {body}; end" if language == "plpgsql" else body
    with quiet.connect() as session:
        session.execute("create table seen (n int)")
        session.execute(f"create function sees(event eventstream.event) returns void language {language} as $$ {body} $$")
        session.execute("select es_create_projection('limits', 'sees(eventstream.event)', on_error => 'skip', max_retries => 0)")
        for number in range(9):
            limit(session, number, "many" if number % 3 == 1 else number)
        run(session)
        assert [n for (n,) in rows(session, "select n from seen order by n")] == [number for number in range(9) if number % 3 != 1]
        assert len(letters(session)) == 3
