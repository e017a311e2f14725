"""A year of books in the form of hledger's journals (tests/data/journal.hledger), posted entry by entry by es_command: what an entry is, that it balances in each currency, and that what it asserts
of an account holds once it is posted."""

import re
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import pytest
from database import gaps, rows, value, verify
from deciding import refused
from psycopg.types.json import Jsonb

JOURNAL = Path(__file__).parent.parent / "data" / "journal.hledger"

BOOKS = """
create function posted(state jsonb, event eventstream.event) returns jsonb immutable language sql as $$
    select state || jsonb_build_object(event.payload ->> 'currency',
        coalesce((state ->> (event.payload ->> 'currency'))::numeric, 0) + (event.payload ->> 'amount')::numeric) $$;
select es_register_fold('holdings', 'account', handler => 'posted(jsonb, eventstream.event)');
select es_register_fold('entries', 'entry', initial_state => '{"posted": false}', rules => '{"on": {"Entered": [{"set": {"/posted": {"value": true}}}]}}');

create function accounts_of(command eventstream.command) returns jsonb immutable language sql as $$
    select jsonb_build_object('streams', jsonb_agg(distinct 'account-' || (p ->> 'account'))) from jsonb_array_elements(command.payload -> 'postings') p $$;
create function post(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $$
declare
    off record;
begin
    perform es_require(not (state -> command.stream ->> 'posted')::bool, 'posted_before', 'the entry is posted already');
    select p ->> 'currency' as currency, sum((p ->> 'amount')::numeric) as amount into off
        from jsonb_array_elements(command.payload -> 'postings') p group by 1 having sum((p ->> 'amount')::numeric) <> 0 limit 1;
    perform es_require(off is null, 'unbalanced', format('it is off by %s %s', off.amount, off.currency));
    return jsonb_build_array(es_make_event('Entered', command.payload - 'postings'))
        || (select jsonb_agg(es_make_event('Posted', p - 'account', stream => 'account-' || (p ->> 'account')) order by n)
            from jsonb_array_elements(command.payload -> 'postings') with ordinality _ (p, n));
end $$;
select es_register_decider('post', 'entry', 'post(jsonb, eventstream.command)', boundary => 'accounts_of(eventstream.command)');

create function as_asserted(events eventstream.event[]) returns text stable language sql as $$
    select format('account %s has %s %s after version %s, and the journal says %s', e.stream, there.amount, e.payload ->> 'currency', e.version, e.payload ->> 'asserted')
    from unnest(events) e cross join lateral (select (es_state_at_version(e.stream, e.version) ->> (e.payload ->> 'currency'))::numeric as amount) there
    where (e.payload ->> 'asserted')::numeric is distinct from there.amount and e.payload ? 'asserted' limit 1 $$;
select es_register_invariant('as asserted', '{account}', 'as_asserted(eventstream.event[])', event_types => '{Posted}');
create function sums_to_nothing(events eventstream.event[]) returns text stable language sql as $$
    select format('the transaction is off by %s %s', sum((e.payload ->> 'amount')::numeric), e.payload ->> 'currency')
    from unnest(events) e group by e.payload ->> 'currency' having sum((e.payload ->> 'amount')::numeric) <> 0 limit 1 $$;
select es_register_invariant('sums to nothing', '{account}', 'sums_to_nothing(eventstream.event[])', event_types => '{Posted}');
"""

ENTRY = re.compile(r"(\d{4}-\d\d-\d\d) \* \((\d+)\) (.+)")
POSTING = re.compile(r"    (\S+)\s+(-?[\d.]+) ([A-Z]{3})(?: = (-?[\d.]+) [A-Z]{3})?")


def entries() -> list[dict]:
    found = []
    for line in JOURNAL.read_text().splitlines():
        if entry := ENTRY.fullmatch(line):
            found.append({"date": entry[1], "code": entry[2], "description": entry[3], "postings": []})
        elif posting := POSTING.fullmatch(line):
            account, amount, currency, asserted = posting.groups()
            given = {"account": account, "amount": Decimal(amount), "currency": currency}
            found[-1]["postings"].append(given | ({"asserted": Decimal(asserted)} if asserted else {}))
        else:
            assert not line or line.startswith(";"), line
    return found


def post(session, entry):
    payload = {key: entry[key] for key in ("date", "description")} | {"postings": [{**each, "amount": str(each["amount"]), **({"asserted": str(each["asserted"])} if "asserted" in each else {})} for each in entry["postings"]]}
    return value(session, "select es_command(%s, 'Post', %s, command_key => %s, occurred_at => %s)", f"entry-{entry['code']}", Jsonb(payload), entry["code"], f"{entry['date']}T12:00Z")


@pytest.fixture
def session(database):
    with database.connect() as connection:
        connection.execute(BOOKS)
        yield connection


def test_a_year_of_a_journal_is_posted_with_its_assertions(session):
    journal = entries()
    assert len(journal) >= 200 and len({each["currency"] for entry in journal for each in entry["postings"]}) == 3
    assert sum("asserted" in each for entry in journal for each in entry["postings"]) > 100
    holds = defaultdict(Decimal)
    for entry in journal:
        first = post(session, entry)
        assert post(session, entry) == {**first, "replayed": True}
        for each in entry["postings"]:
            holds[f"account-{each['account']}", each["currency"]] += each["amount"]
    there = rows(session, "select stream, h.key, h.value::numeric from es_category_state('account') cross join lateral jsonb_each_text(state) h")
    assert {(stream, currency): amount for stream, currency, amount in there} == holds
    assert value(session, "select count(*) from es_read_all(categories => '{account}')") == sum(len(entry["postings"]) for entry in journal)
    assert verify(session) == [] and gaps(session) == []


def test_what_the_journal_gets_wrong_is_refused_whole(session):
    journal = entries()
    for entry in journal[:30]:
        post(session, entry)
    before = value(session, "select last_position from es_log_info()")
    wrong = next(entry for entry in journal[30:] if any("asserted" in each for each in entry["postings"]))
    by_a_cent = {**wrong, "postings": [{**each, "asserted": each["asserted"] + Decimal("0.01")} if "asserted" in each else each for each in wrong["postings"]]}
    diag = refused(post, session, by_a_cent)
    assert diag.sqlstate == "ES019" and "the journal says" in diag.message_primary
    unbalanced = {**journal[30], "postings": [{**each, "amount": each["amount"] + 1} for each in journal[30]["postings"]]}
    assert refused(post, session, unbalanced).sqlstate == "ES033"
    # What goes past the decider meets the invariant.
    diag = refused(session.execute, "select es_append('account-assets:bank:eur', 'Posted', '{\"amount\": 1, \"currency\": \"EUR\"}')")
    assert diag.sqlstate == "ES019" and "off by 1 EUR" in diag.message_primary
    assert value(session, "select count(*) from es_read_all(after_position => %s)", before) == 0
    for entry in journal[30:]:
        post(session, entry)
