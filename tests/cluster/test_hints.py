"""A HINT is followed as it is printed, by somebody in a hurry: each of its statements runs, shows what it promises to show, and what was refused passes then, where the
HINT says that it would. Statements that end sessions, drop logs or set sequences are followed where they are tested (test_guard, test_periods, test_live_copies)."""

import re
from dataclasses import dataclass, field

import psycopg
import pytest
from database import rows, value

#: A statement ends with a semicolon, or with the sentence.
STATEMENT = re.compile(r"(?:select|set|alter) [^;]+?(?:;|\)\.(?= |$))")

ACCOUNT = """select es_register_fold('account', 'account', initial_state => '{"balance": 0}', rules => '{"on": {
    "Credited": [{"add": {"/balance": "/amount"}}]}, "otherwise": "error"}')"""
DECIDE = """create function decide(state jsonb, command eventstream.command) returns jsonb stable language sql as
$$ select jsonb_build_array(es_make_event('Credited', command.payload)) $$"""
DECIDER = f"""{ACCOUNT}; {DECIDE}; select es_register_decider('cashier', 'account', 'decide(jsonb, eventstream.command)',
    commands => '{{"Deposit": {{"schema": {{"type": "object", "required": ["amount"]}}}}}}')"""
OTHER = """create function streams(command eventstream.command) returns jsonb immutable language sql as $$ select '{"streams": ["other-1"]}'::jsonb $$;
select es_register_fold('other', 'other', rules => '{"on": {}}');
select es_register_decider('cashier', 'account', 'decide(jsonb, eventstream.command)', boundary => 'streams(eventstream.command)')"""
NO_BOUNDARY = OTHER.replace("""'{"streams": ["other-1"]}'::jsonb""", "null::jsonb")
ITEMS = OTHER.replace('"streams": ["other-1"]', '"items": [{"tags": ["a:1"]}]')
CREDITED = """select es_create_event_type('Credited', json_schema => '{"type": "object", "required": ["amount"]}', example => '{"amount": 1}')"""
UPCAST = "create function up(p jsonb, m jsonb) returns jsonb immutable language sql as $$ select p || '{\"currency\": \"EUR\"}' $$"
BROKEN_UPCAST = "create function up(p jsonb, m jsonb) returns jsonb immutable language sql as $$ select null::jsonb $$"
SECOND = f"""{CREDITED}; {UPCAST}; select es_register_upcaster('Credited', 1, 'up(jsonb, jsonb)');
    select es_create_event_type('Credited', 2, json_schema => '{{"type": "object", "required": ["currency"]}}')"""
HANDLER = """create table seen (n int); create function see(e eventstream.event) returns void language sql as $$ insert into seen values (1) $$;
select es_create_projection('seen', 'see(eventstream.event)', categories => '{account}')"""
TABLE = """select es_create_state_table('balances', 'account', '[{"name": "balance", "type": "numeric", "path": "/balance"}]')"""
APPEND = """select es_append('account-1', 'Credited', '{"amount": 1}')"""
DEPOSIT = """select es_command('account-1', 'Deposit', '{"amount": 1}')"""
CLOSED = """select es_close_period('{account}', '2024-12-31T22:59:59.999999Z', 'CLOSE-2024')"""


def rule(**settings) -> str:
    return "select es_alter_category('account', '{" + ", ".join(f'"{name}": "{setting}"' for name, setting in settings.items()) + "}')"


@dataclass
class Case:
    """What is refused, what its HINT says to run (how many statements), and what comes of it."""

    sqlstate: str
    refused: str
    before: str = "select"
    statements: int = 1
    #: Each statement shows something.
    shows: bool = False
    #: What was refused passes then.
    passes: bool = False
    #: By whom it is asked.
    role: str | None = None
    says: str = ""
    never: list[str] = field(default_factory=list)


CASES = {
    "an event type that is a slip": Case("ES017", APPEND.replace("Credited", "Creditted"), f"{CREDITED}; {rule(event_types='declared')}", passes=True,
                                         says='Is it a slip? Declared are: "Credited".'),
    "an event type, where none is declared": Case("ES017", APPEND, rule(event_types="declared"), passes=True, says="Is it spelt right?"),
    "no version": Case("ES017", APPEND, f"{APPEND}; {rule(expected_version='required')}", shows=True),
    "no actor": Case("ES017", APPEND, rule(actor="required"), passes=True),
    "no id": Case("ES017", APPEND, rule(event_id="required"), shows=True),
    "another name": Case("ES017", APPEND, rule(id_pattern="uuid"), shows=True),
    "a rule that needs a fold": Case("ES005", rule(foldable="required"), passes=True),
    "a fold that is gone": Case("ES017", APPEND, f"{ACCOUNT}; {rule(foldable='required')}; select es_unregister_fold('account')", statements=2, passes=True),
    "an event that is not foldable": Case("ES017", APPEND.replace("Credited", "Other"), f"{ACCOUNT}; {rule(foldable='required')}"),
    "a payload": Case("ES016", APPEND.replace("amount", "n"), CREDITED, shows=True),
    "a version that is none": Case("ES016", APPEND.replace("}')", "}', schema_version => 7)"), CREDITED, shows=True),
    "a payload of a command": Case("ES016", DEPOSIT.replace("amount", "n"), DECIDER, shows=True),
    "an example of a command": Case("ES016", """select es_register_decider('d', 'account', 'decide(jsonb, eventstream.command)',
        commands => '{"A": {"schema": {"type": "object"}, "example": 5}}')""", f"{ACCOUNT}; {DECIDE}", statements=0, says="Nothing of this call was kept"),
    "an example of an event type": Case("ES016", """select es_create_event_type('A', json_schema => '{"type": "object"}', example => '5')""", statements=0,
                                        says="Nothing of this call was kept"),
    "an old example in a new version": Case("ES016", """select es_create_event_type('Credited', 2, json_schema => '{"type": "object", "required": ["b"]}')""",
                                            f"{CREDITED}; {UPCAST}; select es_register_upcaster('Credited', 1, 'up(jsonb, jsonb)')", statements=0,
                                            says="Nothing of this call was kept"),
    "a type that is there": Case("ES005", CREDITED, CREDITED, shows=True),
    "a type that is not": Case("ES005", "select es_drop_event_type('Nothing')", CREDITED, shows=True),
    "a version without a way to it": Case("ES005", "select es_create_event_type('Credited', 2)", f"{CREDITED}; {UPCAST.replace('function up(', 'function your_function(')}", passes=True),
    "an upcaster that leads to a version": Case("ES005", "select es_unregister_upcaster('Credited', 1)", f"{SECOND}; select es_append('account-1', 'Credited', '{{\"currency\": 1}}')",
                                                passes=True, says="of one that nobody has declared"),
    "an event in a closed period": Case("ES018", APPEND.replace("}')", "}', occurred_at => '2024-06-01T00:00:00Z')"), f"{APPEND}; {CLOSED}", shows=True),
    "nothing to reopen": Case("ES005", "select es_reopen_period('{account}', '2024-12-31T22:59:59.999999Z', 'CHG-1')", f"{APPEND}; {CLOSED}", shows=True),
    "a decider of another category": Case("ES005", "select es_register_decider('cashier', 'other', 'decide(jsonb, eventstream.command)')", DECIDER, passes=True),
    "a boundary without an answer": Case("ES037", DEPOSIT, f"{DECIDER}; {NO_BOUNDARY}", statements=0,
                                         says="An empty object is: the command's own stream", never=["empty array"]),
    "a query without a fold": Case("ES010", DEPOSIT, f"{DECIDER}; {ITEMS}", statements=0,
                                   says="es_register_fold('places', null, rules => …)", never=["for a category"]),
    "a function of a decider": Case("2BP01", "drop function decide(jsonb, eventstream.command)", DECIDER, passes=True, never=["upcaster", "projection"]),
    "a function of a boundary": Case("2BP01", "drop function streams(eventstream.command)", f"{DECIDER}; {OTHER}", passes=True, never=["upcaster", "projection"]),
    "a function of an upcaster": Case("2BP01", "drop function up(jsonb, jsonb)", f"{UPCAST}; select es_register_upcaster('It''s', 1, 'up(jsonb, jsonb)')", passes=True, never=["decider"]),
    "a function of a fold": Case("2BP01", "drop function make(jsonb, eventstream.event)",
                                 "create function make(s jsonb, e eventstream.event) returns jsonb immutable language sql as 'select s';"
                                 "select es_register_fold('A \"b\"', 'account', handler => 'make(jsonb, eventstream.event)')", passes=True, never=["decider"]),
    "a function of an invariant": Case("2BP01", "drop function never(eventstream.event[])",
                                       "create function never(e eventstream.event[]) returns text stable language sql as 'select null::text';"
                                       "select es_register_invariant('never mind', '{account}', 'never(eventstream.event[])')", passes=True, never=["decider"]),
    "a function of a projection": Case("2BP01", "drop function see(eventstream.event)", HANDLER, passes=True, never=["decider"]),
    "a state table": Case("2BP01", "drop table balances", f"{ACCOUNT}; {TABLE}"),
    "a tenant that is none": Case("ES040", "set eventstream.tenant = 'other'; select es_stream_version('account-1')", shows=True, says="renamed", never=["create"]),
    "an append without the right": Case("42501", APPEND, role="somebody", passes=True),
    "a stream without the right": Case("42501", "select * from es_read('account-1')", APPEND, role="somebody", passes=True, says="'read', tenant => 'default', category => 'account'"),
    "a query without the right": Case("42501", "select * from es_query('{}')", role="somebody", passes=True, says="For one category: the same with category => '<its name>'."),
    "a query of a category without the right": Case("42501", """select * from es_query('{"categories": ["account"]}')""", role="somebody", passes=True, says="category => 'account'"),
    "a type without the right": Case("42501", CREDITED, role="somebody", passes=True, never=["For one category"]),
    "a command without the right": Case("42501", DEPOSIT, DECIDER, role="somebody", passes=True),
    "a rehearsal without the right to read": Case("42501", DEPOSIT.replace("es_command", "es_simulate_command"),
                                                  f"{DECIDER}; select es_grant('somebody', 'command', category => 'account')", role="somebody", passes=True,
                                                  says="'read', tenant => 'default', category => 'account'"),
    "a rehearsal without the right to read all of it": Case("42501", DEPOSIT.replace("es_command", "es_simulate_command"),
                                                            f"{DECIDER}; {OTHER}; select es_grant('somebody', 'command', category => 'account');"
                                                            "select es_grant('somebody', 'read', category => 'account')", role="somebody", passes=True,
                                                            says="category => 'other'"),
    "an event that a fold cannot take": Case("ES013", "select es_state('account-1')", f"""{ACCOUNT}; select es_append('account-1', 'Credited', '{{"amount": "x"}}')""", shows=True),
    "states of which one cannot be made": Case("ES013", "select * from es_category_state('account')",
                                               f"""{ACCOUNT}; select es_append('account-1', 'Credited', '{{"amount": "x"}}')""", shows=True),
    "an upcaster that fails": Case("ES014", "select * from es_read('account-1')", f"{APPEND}; {BROKEN_UPCAST}; "
                                   "select es_register_upcaster('Credited', 1, 'up(jsonb, jsonb)')", shows=True),
}  # fmt: skip


@pytest.fixture
def session(database):
    database.role("somebody", "nologin")
    with database.connect() as session:
        yield session


def ask(session, case: Case) -> None:
    if case.role:
        session.execute(f"set role {case.role}")
    try:
        session.execute(case.refused)
    finally:
        session.execute("reset role; reset eventstream.tenant")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_hint_that_is_followed_does_what_it_says(case, session):
    session.execute(case.before)
    with pytest.raises(psycopg.Error) as error:
        ask(session, case)
    diag = error.value.diag
    hint = diag.message_hint or ""
    assert diag.sqlstate == case.sqlstate, diag.message_primary
    assert case.says in hint and not any(word in hint for word in case.never), hint
    statements = STATEMENT.findall(hint)
    assert len(statements) == case.statements, hint
    for statement in statements:
        done = session.execute(statement.rstrip("."))
        assert not case.shows or done.fetchall() not in ([], [(None,)]), statement
    if case.passes:
        ask(session, case)


def test_a_reason_that_is_left_out_is_asked_for_and_said_what_for(session):
    """Whichever function wants one: PostgreSQL would else find no such function, and advise a cast."""
    asking = rows(
        session,
        """select proname, pronargs - pronargdefaults, array_position(proargnames, 'reason')
        from pg_proc where pronamespace = 'public'::regnamespace and proname ~ '^es_' and 'reason' = any (proargnames)""",
    )
    assert len(asking) >= 9
    arguments = {"es_close_period": "'{account}', '2020-01-01'", "es_reopen_period": "'{account}', '2020-01-01'", "es_reveal": "'account-1'", "es_close_stream": "'account-1'",
                 "es_close_tenant": "'acme'", "es_unschedule_command": "'k'", "es_skip_event": "'seen', 1", "es_nack": "gen_random_uuid(), 1", "es_drop_dead_letter": "1"}  # fmt: skip
    session.execute(f"{HANDLER}; {APPEND}; select es_create_tenant('acme'); set eventstream.tenant = 'default'")
    for name, needed, place in asking:
        assert needed < place, f"{name}: reason has a default"
        with pytest.raises(psycopg.Error) as caught:
            session.execute(f"select {name}({arguments[name]})")
        diag = caught.value.diag
        assert (diag.sqlstate, diag.message_primary) == ("ES005", "reason must not be NULL"), name
        assert diag.message_hint, name


def test_whoever_may_not_read_is_told_no_declared_types(session):
    session.execute(f"{CREDITED}; {rule(event_types='declared')}; select es_grant('somebody', 'append', category => 'account')")
    slip = Case("ES017", APPEND.replace("Credited", "Credit"), role="somebody")
    with pytest.raises(psycopg.Error) as error:
        ask(session, slip)
    assert "Credited" not in str(error.value) and "Is it spelt right?" in error.value.diag.message_hint
    session.execute("select es_grant('somebody', 'read', category => 'other')")
    with pytest.raises(psycopg.Error) as error:
        ask(session, slip)
    assert 'Declared are: "Credited".' in error.value.diag.message_hint


def test_of_many_declared_types_the_likeliest_are_named(session):
    session.execute("select es_create_event_type('Type' || lpad(n::text, 3, '0')) from generate_series(1, 300) n")
    session.execute(rule(event_types="declared"))
    with pytest.raises(psycopg.Error) as error:
        session.execute("select es_append('account-1', 'Typ250', '{}')")
    told = re.search("Declared are: (.*?)\\. ", error.value.diag.message_hint)[1]
    assert told.startswith('"Type250"') and told.count("Type") == 8 and told.endswith(", …")


def test_the_rule_that_a_hint_helps_to_set_takes_no_garbage(session):
    """A fold that takes whatever comes would make foldable a rule that refuses nothing."""
    with pytest.raises(psycopg.Error) as error:
        session.execute(rule(foldable="required"))
    (statement,) = STATEMENT.findall(error.value.diag.message_hint)
    session.execute(statement)
    session.execute(rule(foldable="required"))
    with pytest.raises(psycopg.Error) as error:
        session.execute("""select es_append('account-1', 'Credited', '{"amount": "garbage"}')""")
    assert error.value.diag.sqlstate == "ES017"


NOTICES = {
    "a decider without a fold": (DECIDE, "select es_register_decider('d', 'account', 'decide(jsonb, eventstream.command)')",
                                 ["category \"account\" has no default fold: commands for its streams are ES010 until es_register_fold registers one"
                                  " (rules => '{\"on\": {}}' where no state is needed)"]),
    "a decider whose fold is for queries": (f"{DECIDE}; select es_register_fold('places', null, rules => '{{\"on\": {{}}}}')",
                                            "select es_register_decider('d', 'account', 'decide(jsonb, eventstream.command)', fold => 'places')",
                                            ["category \"account\" has no default fold: commands for its streams are ES010 until es_register_fold registers one"
                                             " (rules => '{\"on\": {}}' where no state is needed)"]),
    "a decider with a fold of its own": (f"{DECIDE}; select es_register_fold('own', 'account', rules => '{{\"on\": {{}}}}', is_default => false)",
                                         "select es_register_decider('d', 'account', 'decide(jsonb, eventstream.command)', fold => 'own')", []),
    "a decider with the default fold": (f"{DECIDE}; {ACCOUNT}", "select es_register_decider('d', 'account', 'decide(jsonb, eventstream.command)')", []),
    "a category that is misspelt": (APPEND, CLOSED.replace("account", "acount"),
                                    ['category "acount" has no streams yet: is it spelt right? What is appended to it is judged from its first event on']),
    "the same closing": (f"{APPEND}; {CLOSED}", CLOSED, ["closed until 2024-12-31T22:59:59.999999+00:00 already, as it was asked for"]),
    "another reason": (f"{APPEND}; {CLOSED}", CLOSED.replace("CLOSE-2024", "CLOSE-2"),
                       ["closed until 2024-12-31T22:59:59.999999+00:00 already, as it was asked for: its reason stays, and the one that is given now is not kept"]),
    "a longer future than the setting's": (APPEND, rule(max_future="30 days"),
                                           ["max_future is 30 days, and eventstream.max_future_skew, which counts for all categories, is 86400 seconds: the narrower one counts"]),
    "as long a future as the setting's": (APPEND, rule(max_future="24 hours"), []),
}  # fmt: skip


@pytest.mark.parametrize("before, statement, told", NOTICES.values(), ids=NOTICES)
def test_what_will_not_be_as_it_was_meant_is_said(before, statement, told, session):
    session.execute(before)
    heard = []
    session.add_notice_handler(lambda diag: heard.append((diag.severity, diag.message_primary)))
    session.execute(statement)
    assert heard == [("NOTICE", text) for text in told]


ACTORS = {
    "{}": "name no actor",
    '{"actor": null}': "name no actor: it is null",
    '{"actor": 7}': "name an actor that is no text",
    '{"actor": ["ada"]}': "name an actor that is no text",
    '{"actor": " "}': "name an actor that is blank, or has letters that nobody sees",
    '{"actor": ""}': "name an actor that is blank, or has letters that nobody sees",
}


@pytest.mark.parametrize("metadata, told", ACTORS.items())
def test_an_actor_that_is_none_is_told_why(metadata, told, session):
    session.execute(rule(actor="required"))
    with pytest.raises(psycopg.Error) as error:
        session.execute("select es_append('account-1', 'Credited', '{}', metadata => %s)", (metadata,))
    assert error.value.diag.message_primary.endswith(f"its metadata {told}")


def test_what_a_decider_writes_by_others_is_written(session):
    """docs/decide.md says so: PostgreSQL holds back what a STABLE function does itself, and not what it calls."""
    session.execute(f"""{ACCOUNT}; create table noted (n int);
        create function note() returns void volatile language sql as $$ insert into noted values (1) $$;
        create function direct(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $$ begin insert into noted values (1); return '[]'; end $$;
        create function called(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $$ begin perform note(); return '[]'; end $$;
        create function appends(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as
        $$ begin perform es_append('account-2', 'Credited', '{{"amount": 1}}'); return '[]'; end $$""")
    for name, written in (("direct", 0), ("called", 1), ("appends", 0)):
        session.execute(f"select es_register_decider('d', 'account', '{name}(jsonb, eventstream.command)')")
        if written:
            session.execute(DEPOSIT)
        else:
            with pytest.raises(psycopg.errors.FeatureNotSupported):
                session.execute(DEPOSIT)
        assert value(session, "select count(*) from noted") == written, name
        session.execute("truncate noted")
    assert rows(session, "select from eventstream.events") == []
