"""What a rule that is taken back opens is opened by the commit that leaves the act behind, and by nothing before: what code is shown in the transaction could outlive its rollback (a sequence, a lock of the session,
an SQLSTATE), and then somebody would have looked without a trace.

WAYS: where code is run with what events say, in the transaction or at its commit. It notes in a sequence that it has seen the canary, and fails then."""

import psycopg
import pytest
from database import rows, value

CANARY = "Mia Q. Canary"
PROTECT = "select es_protect('Named', pointers => '{/name}')"
SPY = """
create sequence told;
create table looks (l text);
create function spy(t text) returns bool language plpgsql as $$ begin if t like '%Canary%' then perform nextval('told'); raise exception using errcode = 'XX' || '0T1', message = 'told'; end if; return true; end $$;
create function fixed_spy(t text) returns bool immutable language plpgsql as $$ begin return public.spy(t); end $$;
create function keep(state jsonb, event eventstream.event) returns jsonb immutable language sql as $$ select state || event.payload $$;
select es_register_fold('kept', 'customer', 'keep(jsonb, eventstream.event)');
"""
TABLE = """select es_create_state_table('t', 'customer', '[{"name": "name", "type": "text", "path": "/name"}]', mode => 'inline');"""
ON_ROW = "create function on_row() returns trigger language plpgsql as $$ begin perform public.spy(new::text); return new; end $$;"
REBUILD = "select es_rebuild_projection('t')"
READ = "public.spy((select string_agg(payload::text, ' ') from es_read('customer-1')))"
# What is made beforehand, what is done in the transaction, and what shows that the way is one, afterwards (None: the same).
WAYS = {
    "es_read": ("", f"select {READ}", None),
    "es_read, raw": ("", "select public.spy(payload::text) from es_read('customer-1', raw => true)", None),
    "the view": ("", "select public.spy(payload::text) from eventstream.events", None),
    "a search": ("", "select public.spy(q::text) from es_query('{\"payload\": {\"/name\": \"Mia Q. Canary\"}}') q", None),
    "es_state": ("", "select public.spy(es_state('customer-1')::text)", None),
    "a history of states": ("", "select public.spy(h::text) from es_history('customer-1') h", None),
    "a materialized view": ("create materialized view m as select public.spy(payload::text) from eventstream.events with no data", "refresh materialized view m", None),
    "a cursor that the commit fills": ("", f"declare h cursor with hold for select {READ}", f"select {READ}"),
    "a trigger that waits for the commit": (f"create function late() returns trigger language plpgsql as $$ begin perform {READ}; return null; end $$; create constraint trigger late after insert on looks initially deferred for each row execute function late()",
                                            "insert into looks values ('x')", None),
    "a fold": ("create function tells(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$ begin perform public.fixed_spy(event.payload::text); return '{}'; end $$; select es_register_fold('kept', 'customer', 'tells(jsonb, eventstream.event)')",
               "select es_state('customer-1')", None),
    "the fold of an inline table": ("create function tells(state jsonb, event eventstream.event) returns jsonb immutable language plpgsql as $$ begin perform public.fixed_spy(event.payload::text); return '{}'; end $$; select es_register_fold('kept', 'customer', 'tells(jsonb, eventstream.event)');" + TABLE, "", REBUILD),
    "a trigger of an inline table": (TABLE + ON_ROW + "create trigger on_row before insert or update on t for each row execute function on_row()", "", REBUILD),
    "a trigger of an inline table that is rebuilt": (TABLE + ON_ROW + "create trigger on_row before insert or update on t for each row execute function on_row()", REBUILD, REBUILD),
    "a trigger of an inline table that goes on": (TABLE + ON_ROW + "create trigger on_row before insert or update on t for each row execute function on_row()", "select es_pause_projection('t'), es_resume_projection('t')", REBUILD),
    "a trigger of an inline table, by an append": (TABLE + ON_ROW + "create trigger on_row before insert or update on t for each row execute function on_row()", "select es_append('customer-1', 'Other', '{}')", None),
    "a trigger of an inline table, by a fold": (TABLE + ON_ROW + "create trigger on_row before insert or update on t for each row execute function on_row()",
                                                "select es_register_fold('kept', 'customer', 'keep(jsonb, eventstream.event)', initial_state => jsonb_build_object('x', random()))", REBUILD),
    "a check of an inline table": (TABLE + "alter table t add check (public.spy(name))", "", REBUILD),
    "an index of an inline table": (TABLE + "create index on t (public.fixed_spy(name))", "", REBUILD),
    "a generated column of an inline table": (TABLE + "alter table t add spied bool generated always as (public.fixed_spy(name)) stored", "", REBUILD),
    "an inline table made meanwhile": ("", TABLE + ON_ROW + "create trigger on_row before insert or update on t for each row execute function on_row(); select es_rebuild_projection('t'); drop function on_row() cascade; select es_drop_projection('t', drop_table => true)",
                                       TABLE + ON_ROW + "create trigger on_row before insert or update on t for each row execute function on_row(); select es_rebuild_projection('t')"),
    "an upcaster": ("select es_create_event_type('Named', 1, example => '{\"name\": \"Ada\"}'); create function up(p jsonb, m jsonb) returns jsonb immutable language plpgsql as $$ begin perform public.fixed_spy(p::text); return p; end $$; select es_register_upcaster('Named', 1, 'up(jsonb, jsonb)')",
                    "select count(*) from es_read('customer-1')", None),
    "an inline handler": ("create function see(event eventstream.event) returns void language sql as $$ select public.spy(event::text) $$", "select es_create_projection('seen', 'see(eventstream.event)', mode => 'inline'); select es_drop_projection('seen')", None),
    "a handler that is run": ("create function see(event eventstream.event) returns void language sql as $$ select public.spy(event::text) $$", "select es_create_projection('seen', 'see(eventstream.event)'); select es_run_projection('seen'); select es_drop_projection('seen')",
                              "select es_create_projection('seen', 'see(eventstream.event)', mode => 'inline')"),
    "a decider": ("create function says(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $$ begin perform public.spy(state::text); return '{}'; end $$; select es_register_decider('says', 'customer', 'says(jsonb, eventstream.command)')",
                  "select es_command('customer-1', 'Say', '{}')", None),
    "an invariant, at the commit": ("create function holds(events eventstream.event[]) returns text stable language sql as $$ select case when public.spy((select string_agg(payload::text, ' ') from public.es_read('customer-1'))) then null end $$; select es_register_invariant('holds', '{customer}', 'holds(eventstream.event[])')", "select es_append('customer-1', 'Other', '{}')", None),
}
NARROWER = {
    "es_unprotect": "select es_unprotect('Named')",
    "another rule": "select es_protect('Named', pointers => '{}')",
    "another in its place": "select es_unprotect('Named'); select es_protect('Named', pointers => '{/n}')",
}


@pytest.fixture
def session(quiet):
    with quiet.connect() as connection:
        connection.execute("set client_min_messages = error")
        yield connection


def was_told(session):
    return value(session, "select is_called from told")


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_what_is_opened_is_shown_to_no_code_before_the_commit(session, way):
    made, look, afterwards = way
    session.execute(SPY)
    session.execute(made or "select 1")
    session.execute(PROTECT)
    session.execute(f"select es_append('customer-1', 'Named', '{{\"name\": \"{CANARY}\"}}')")
    acts = "select count(*) from eventstream.administration where payload ->> 'kind' = 'protection'"
    for narrower in NARROWER.values():
        before = value(session, acts)
        for end in ("rollback", "commit"):
            try:
                session.execute(f"begin; {narrower}; {look}; {end}")
            except psycopg.Error:
                session.execute("rollback")
                assert value(session, acts) == before
                assert not was_told(session), end
                raise
            assert not was_told(session), end
        assert value(session, acts) > before
        with pytest.raises(psycopg.Error, match="told"):
            session.execute(f"begin; {look if afterwards is None else afterwards}; commit")
        session.execute("rollback; close all; alter sequence told restart")
        session.execute(PROTECT)
    assert CANARY not in str(rows(session, "select payload from eventstream.events"))
