"""es_definitions: the same declarations give the same rows, wherever, whenever and in whatever order they were made, and another declaration gives others.

Asked of the kinds: copies (another database, other ids, other times; a dump and restore), role (what each may read), tenant, session (settings that change texts), code of others (a function
replaced, dropped), size (a hundred declarations), bad input."""

import pytest
from database import Database, rows, value
from deciding import open_bank, refused

MADE = "select kind, name, definition::text from es_definitions()"


def declare(session, rest=True) -> None:
    open_bank(session)
    session.execute("create function up(p jsonb, m jsonb) returns jsonb immutable language sql as $$ select p $$")
    session.execute("create function seen(events eventstream.event[]) returns void language sql as $$ select $$")
    session.execute("create function judge(events eventstream.event[]) returns text stable language sql as $$ select null::text $$")
    session.execute("create function forget() returns void language sql as $$ select $$")
    statements = [
        "select es_register_upcaster('Credited', 1, 'up(jsonb, jsonb)')",
        "select es_create_event_type('Credited', 10, example => '{\"amount\": 1.50}')",
        "select es_create_event_type('Noted', 2)",
        "select es_protect('Whispered', pointers => '{/who}')",
        "select es_alter_category('account', '{\"actor\": \"required\"}')",
        "select es_create_projection('copies', 'seen(eventstream.event[])', categories => '{account}', reset => 'forget()')",
        "select es_create_projection('all', 'seen(eventstream.event[])')",
        "select es_create_subscription('mails', categories => '{mail}')",
        "select es_register_invariant('judged', '{account}', 'judge(eventstream.event[])')",
    ]
    for statement in statements if rest else statements[::-1]:
        session.execute(statement)


@pytest.fixture
def session(database):
    with database.connect() as connection:
        yield connection


def test_the_same_declarations_give_the_same_rows_everywhere(database, session):
    declare(session)
    found = rows(session, MADE)
    assert [row[:2] for row in found] == [
        ("category_rule", "account"), ("decider", "cashier"), ("event_type", "Credited 10"), ("event_type", "Noted 2"), ("fold", "balance"),
        ("invariant", "judged"), ("projection", "all"), ("projection", "copies"), ("protection", "event Whispered 1"), ("subscription", "mails"), ("upcaster", "Credited 1"),
    ]  # fmt: skip
    other = Database(database.server, f"{database.name}_2").create()
    with other.connect() as second:
        # Other ids, oids, positions, times; declared in another order.
        second.execute("select es_append('other-1', 'Happened', '{}')")
        second.execute("select es_create_subscription('gone'); select es_drop_subscription('gone')")
        second.execute("create function meanwhile() returns int language sql as $$ select 1 $$")
        declare(second, rest=False)
        assert rows(second, MADE) == found
        second.execute("set datestyle = 'German, DMY'; set extra_float_digits = -15; set search_path = pg_catalog, public; set quote_all_identifiers = on")
        assert rows(second, "select kind, name, definition::text from public.es_definitions()") == found
    other.drop()


def test_what_differs_is_shown(session):
    declare(session)
    before = dict(((kind, name), definition) for kind, name, definition in rows(session, MADE))

    def changed(*statements):
        for statement in statements:
            session.execute(statement)
        after = dict(((kind, name), definition) for kind, name, definition in rows(session, MADE))
        different = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        before.clear()
        before.update(after)
        return different

    # A function's body is a part of what calls it.
    replaced = "create or replace function decide(state jsonb, command eventstream.command) returns jsonb stable language sql as $$ select '[]'::jsonb $$"
    assert changed(replaced) == {("decider", "cashier")}
    assert value(session, "select definition #> '{source,handler,0}' from es_definitions() where kind = 'decider'") == "sql"
    assert changed("create or replace function up(p jsonb, m jsonb) returns jsonb immutable language sql as $$ select p || '{}' $$") == {("upcaster", "Credited 1")}
    assert changed("create or replace function forget() returns void language sql as $$ select 1 $$") == {("projection", "copies")}
    assert changed("create or replace function judge(events eventstream.event[]) returns text stable language sql as $$ select 'no' $$") == {("invariant", "judged")}
    assert changed("select es_alter_category('account', '{\"max_future\": \"24 hours\"}')") == {("category_rule", "account")}
    # The scale of a number too.
    assert changed("select es_alter_event_type('Credited', 10, '{\"example\": {\"amount\": 1.5}}')") == {("event_type", "Credited 10")}
    assert changed("select es_drop_event_type('Noted', 2)") == {("event_type", "Noted 2")}
    assert changed("select es_unregister_decider('cashier')") == {("decider", "cashier")}
    session.execute("set eventstream.allow_drop = on")
    assert changed("drop function seen(eventstream.event[]) cascade") == {("projection", "copies"), ("projection", "all")}
    assert "does not exist any more" in before[("projection", "all")]
    # Events, and what is closed or granted, are no definitions.
    session.execute("create role r nologin")
    try:
        assert changed("select es_append('x-1', 'T', '{}')", "select es_close_period('{x}', now() - interval '1 year', 'C-1')", "select es_grant('r', 'read')") == set()
    finally:
        session.execute("drop owned by r; drop role r")


def test_no_ids_times_or_oids_are_in_it(session):
    declare(session)
    keys = {key for (found,) in rows(session, "select definition from es_definitions()") for key in found}
    assert keys & {"id", "tenant_id", "registered_at", "created_at", "registrant_oid", "start_position", "created_by", "period_id"} == set()
    assert {"name", "handler", "rules", "commands", "source", "registrant", "search_path"} <= keys


def test_a_category_has_its_own(session):
    declare(session)
    of = lambda category: [row[:2] for row in rows(session, f"select kind, name from es_definitions('{category}')")]  # noqa: E731
    assert of("account") == [("category_rule", "account"), ("decider", "cashier"), ("fold", "balance"), ("invariant", "judged"), ("projection", "all"), ("projection", "copies")]
    assert of("mail") == [("projection", "all"), ("subscription", "mails")]
    assert of("nothing") == [("projection", "all")]


def test_a_role_is_shown_what_it_may_read(database, session):
    declare(session)
    role = database.role("reader_of_mail")
    with database.connect(role) as reader:
        assert refused(reader.execute, "select * from es_definitions()").sqlstate == "42501"
        session.execute(f"select es_grant('{role}', 'read', category => 'mail')")
        # Event types and upcasters are of no category; what takes all categories is for who may read all.
        assert rows(reader, "select kind, name from es_definitions()") == [("event_type", "Credited 10"), ("event_type", "Noted 2"), ("protection", "event Whispered 1"), ("subscription", "mails"), ("upcaster", "Credited 1")]
        assert rows(reader, "select kind, name from es_definitions('account')") == []
        session.execute(f"select es_grant('{role}', 'read')")
        assert rows(reader, MADE) == rows(session, MADE)


def test_tenants_have_their_own(session):
    declare(session)
    session.execute("select es_create_tenant('b')")
    session.execute("set eventstream.tenant = 'b'")
    assert rows(session, MADE) == []
    declared = "select es_create_event_type('Other')"
    session.execute(declared)
    assert [row[:2] for row in rows(session, MADE)] == [("event_type", "Other 1")]


def test_many_are_sorted_by_number_too(session):
    for version in (10, 2, 1, 100):
        session.execute("select es_create_event_type(%s, 1)", (f"T{version}",))
    session.execute("create function up(p jsonb, m jsonb) returns jsonb immutable language sql as $$ select p $$")
    for version in range(1, 12):
        session.execute("select es_register_upcaster('Z', %s, 'up(jsonb, jsonb)')", (version,))
        session.execute("select es_create_event_type('Z', %s)", (version,))
    names = [name for kind, name, _ in rows(session, MADE) if kind == "event_type"]
    assert names == ["T1 1", "T10 1", "T100 1", "T2 1", *(f"Z {version}" for version in range(1, 12))]


@pytest.mark.parametrize("category", ["''", "'a-b'", "repeat('x', 600)", "repeat('x', 2000000)", "E'a\\nb'"])
def test_a_category_must_be_one(session, category):
    assert refused(session.execute, f"select * from es_definitions({category})").sqlstate in ("ES004", "ES005")
