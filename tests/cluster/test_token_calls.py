"""Every es_* function and every view, from the catalog: without a token a role that needs one is refused, whatever it asks; with the token of one tenant no answer, error or notice has a word of
another's; and what names something of another tenant's is answered as what names nothing. What comes later is asked, too."""

from __future__ import annotations

import re

import psycopg
import pytest
from database import rows, value
from minting import Bank, use
from test_memory import BY_NAME, FUNCTIONS, PLAIN, TYPES
from test_rights_first import FREE, WRONG

MARK = {"acme": "4711", "bank": "0815"}

CODE = """
create function public.see(event eventstream.event) returns void language plpgsql as $$ begin raise 'no: %', event.payload; end $$;
create function public.judge(events eventstream.event[]) returns text stable language sql as 'select null';
create function public.decide(state jsonb, command eventstream.command) returns jsonb stable language sql as $$ select '{"result": null}'::jsonb $$;
"""
#: Whatever has a name, or a text, of the tenant's own.
FILL = """
select es_append('account-MARK', 'Opened-MARK', '{"mark": "MARK"}', metadata => '{"actor": "MARK"}', subject => 'person-MARK', tags => '{order:MARK}', event_id => 'a1890a5d-ac96-774b-bcce-b3022222MARK');
select es_create_event_type('Typed-MARK', 1, example => '{"mark": "MARK"}', description => 'MARK');
select es_register_fold('fold-MARK', 'account', rules => '{"on": {"Opened-MARK": [{"set": {"/mark": "/mark"}}]}}', is_default => true);
select es_snapshot('account-MARK');
select es_register_decider('decider-MARK', 'account', 'public.decide(jsonb, eventstream.command)');
select es_register_invariant('invariant-MARK', '{other_MARK}', 'public.judge(eventstream.event[])');
select es_protect('Secret-MARK', pointers => '{/MARK}');
select es_alter_category('category_MARK', '{"id_pattern": "MARK"}');
select es_close_period('{closed_MARK}', '2024-01-01Z', 'MARK');
select es_create_subscription('subscription-MARK');
select es_nack(lease_id, (event).global_position, 'MARK', dead_letter => true) from es_fetch('subscription-MARK', 'consumer-MARK', 1);
select es_create_projection('projection-MARK', 'public.see(eventstream.event)', mode => 'async', max_retries => 0, on_error => 'skip');
select es_run_projection('projection-MARK');
select es_command('account-MARK', 'Do-MARK', '{}', command_key => 'key-MARK');
select es_schedule_command('account-MARK', 'Do-MARK', '{"mark": "MARK"}', '2100-01-01Z', 'later-MARK');
select es_begin_command('operation-MARK', 'key-MARK', '{"mark": "MARK"}');
select es_grant('clerk_MARK', 'read');
"""

#: Names of another tenant's things, by argument.
OTHERS = {
    "stream": ["account-MARK"],
    "category": ["category_MARK", "closed_MARK"],
    "event_type": ["Opened-MARK", "Typed-MARK", "Secret-MARK"],
    "name": ["fold-MARK", "decider-MARK", "invariant-MARK", "subscription-MARK", "projection-MARK"],
    "fold": ["fold-MARK"],
    "decider": ["decider-MARK"],
    "projection": ["projection-MARK"],
    "subscription": ["subscription-MARK"],
    "operation": ["operation-MARK"],
    "command_key": ["key-MARK", "later-MARK"],
    "subject": ["person-MARK"],
    "event_id": ["a1890a5d-ac96-774b-bcce-b3022222MARK"],
    "categories": ["{category_MARK}", "{closed_MARK}"],
    "event_types": ["{Opened-MARK}"],
    "tags": ["{order:MARK}"],
    "criteria": ['{"event_types": ["Opened-MARK"]}', '{"tags": ["order:MARK"]}'],
    "tenant": ["bank"],
}
NOBODYS = {"bank": "bonk", MARK["bank"]: "0899"}


def all_of(error: psycopg.Error) -> str:
    diag = error.diag
    return " ".join(str(part) for part in (diag.sqlstate, diag.message_primary, diag.message_detail, diag.message_hint, diag.context))


class Asked:
    """A session with a transaction that is open, and the token of a tenant in it."""

    def __init__(self, bank: Bank, tenant: str | None):
        self.session, self.said = bank.connect(), []
        self.session.add_notice_handler(lambda notice: self.said.append(f"{notice.message_primary} {notice.message_detail}"))
        self.session.execute("begin")
        if tenant:
            assert use(self.session, bank.token(tenant)) == tenant
        self.session.execute("savepoint s")

    def answer(self, statement: str) -> tuple[str | None, str]:
        """The SQLSTATE of the error, and all that was said."""
        self.said.clear()
        state = None
        try:
            told = repr(self.session.execute(statement).fetchall())
        except psycopg.Error as error:
            state, told = error.sqlstate, all_of(error)
        self.session.execute("rollback to s")
        return state, "\n".join([told, *self.said])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.session.close()


@pytest.fixture
def bank(quiet):
    made = Bank(quiet)
    for mark in MARK.values():
        quiet.role(f"clerk_{mark}")
    with quiet.connect() as session:
        session.execute(CODE)
        for tenant, mark in MARK.items():
            session.execute(f"set eventstream.tenant = '{tenant}'")
            session.execute(FILL.replace("MARK", mark))
            for privilege in ("upkeep", "reveal", "admin"):
                session.execute("select es_grant(%s, %s)", (made.role, privilege))
    return made


def call(name: str, types: list[tuple[str, str]], given: list[str]) -> str:
    return f"select * from {name}({', '.join(f'({one})::{kind}' for one, (_, kind) in zip(given, types, strict=True))})"


def functions(bank: Bank) -> list[tuple[str, list[tuple[str, str]], list[str]]]:
    """Those that ask about the log: their names, arguments and what these are usually."""
    found = []
    with bank.admin() as session:
        for name, _, arguments in rows(session, FUNCTIONS):
            bare = name.split(".")[-1]
            if bare.startswith("es_") and bare not in FREE:
                types = [(argument, TYPES.get(kind, kind)) for argument, kind in (one.split(":", 1) for one in arguments)]
                found.append((name, types, [BY_NAME.get(argument, PLAIN[kind]) for argument, kind in types]))
    assert len(found) > 60
    return found


def views(bank: Bank) -> list[str]:
    with bank.admin() as session:
        found = rows(session, "select oid::regclass::text from pg_class where relnamespace = 'eventstream'::regnamespace and relkind = 'v' order by 1")
    assert len(found) > 15
    return [view for (view,) in found]


def with_others(types: list[tuple[str, str]], usual: list[str]):
    """The usual arguments, with the name of something of a tenant's in one place."""
    for place, (argument, _) in enumerate(types):
        for other in OTHERS.get(argument, []):
            yield [*usual[:place], f"'{other}'", *usual[place + 1 :]]


def test_without_a_token_every_one_is_refused(bank):
    calls = [f"table {view}" for view in views(bank)] + [call(*function) for function in functions(bank)]
    with Asked(bank, None) as asked:
        states = {statement: asked.answer(statement)[0] for statement in calls}
    assert {statement: state for statement, state in states.items() if state not in ("ES042", "42501")} == {}
    # What refuses is the token that is not there, and no missing grant.
    assert sum(state == "ES042" for state in states.values()) > len(states) * 0.8, states


def test_with_one_no_answer_has_a_word_of_another_tenant_s(bank):
    calls = [f"table {view}" for view in views(bank)]
    for name, types, usual in functions(bank):
        wrong = [[*usual[:place], one, *usual[place + 1 :]] for place, (_, kind) in enumerate(types) for one in WRONG.get(kind, []) if "repeat(" not in one]
        own = [[one.replace("MARK", MARK["acme"]) for one in given] for given in with_others(types, usual)]
        calls += [call(name, types, given) for given in [usual, *wrong, *own]]
    # So that the same calls tell much of acme's own.
    with Asked(bank, "acme") as asked:
        answers = {statement: asked.answer(statement) for statement in calls}
    assert [(statement, told[:500]) for statement, (_, told) in answers.items() if MARK["bank"] in told] == []
    own = {statement for statement, (_, told) in answers.items() if MARK["acme"] in told and MARK["acme"] not in statement}
    answered = sum(state is None for state, _ in answers.values())
    assert len(calls) > 700 and answered > 100 and len(own) > 20, (len(calls), answered, len(own), own)


VOLATILE = r"[0-9a-f]{8}-[0-9a-f-]{27}|\d{4}-\d\d-\d\d[ T]\d\d:[^ \"')]+|datetime\([^)]*\)"


def test_what_names_something_of_another_tenant_s_is_answered_as_what_names_nothing(bank):
    found, asked_of_bank = [], 0
    pairs = []
    for name, types, usual in functions(bank):
        for given in with_others(types, usual):
            right = [one.replace("MARK", MARK["bank"]) for one in given]
            wrong = list(right)
            for one, nobodys in NOBODYS.items():
                wrong = [text.replace(one, nobodys) for text in wrong]
            pairs.append((call(name, types, right), call(name, types, wrong)))
    with Asked(bank, "acme") as acme, Asked(bank, "bank") as own:
        for pair in pairs:
            right, wrong = (re.sub(VOLATILE, "…", str(acme.answer(statement))) for statement in pair)
            for one, nobodys in NOBODYS.items():
                right = right.replace(one, nobodys)
            if right != wrong:
                found.append((pair[0], right[:300], wrong[:300]))
            by_bank = [re.sub(VOLATILE, "…", str(own.answer(statement))) for statement in pair]
            asked_of_bank += by_bank[0].replace(MARK["bank"], NOBODYS[MARK["bank"]]).replace("bank", "bonk") != by_bank[1].replace("bank", "bonk")
    assert found == [], f"{len(found)} of {len(pairs)}: {found[:10]}"
    assert len(pairs) > 100 and asked_of_bank > 40, (len(pairs), asked_of_bank)
