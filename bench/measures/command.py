"""Commands: es_command with a fold by rules, a PL/pgSQL decider and a key, 8 clients, against the same by hand in one PL/pgSQL function with es_load(for_update) and
es_append, without a key; and a repetition in a loop against a STABLE function of ours in the same loop."""
import time

CLIENTS = 8
STREAMS = 1_000
LEAST = 0.70
LEAST_REPLAYED = 0.50

SETUP = """
select es_register_fold('till', 'till', initial_state => '{"balance": 0, "movements": 0}', rules => '{"on": {
    "Credited": [{"add": {"/balance": "/amount"}}, {"increment": "/movements"}], "Debited": [{"subtract": {"/balance": "/amount"}}, {"increment": "/movements"}]}}');
create function decide_on_till(state jsonb, command eventstream.command) returns jsonb stable language plpgsql as $$
begin
    perform es_require(command.command_type = 'Deposit' or (state ->> 'balance')::numeric >= (command.payload ->> 'amount')::numeric, 'insufficient_funds', 'there is not so much');
    return jsonb_build_array(es_make_event(case command.command_type when 'Deposit' then 'Credited' else 'Debited' end, command.payload));
end $$;
select es_register_decider('till', 'till', 'decide_on_till(jsonb, eventstream.command)');
create function decide_by_hand(stream text, command_type text, payload jsonb) returns bigint language plpgsql as $$
declare
    loaded record;
begin
    select * into loaded from es_load(stream, for_update => true);
    if command_type <> 'Deposit' and (loaded.state ->> 'balance')::numeric < (payload ->> 'amount')::numeric then
        raise 'there is not so much';
    end if;
    return es_append(stream, case command_type when 'Deposit' then 'Credited' else 'Debited' end, payload, expected_version => loaded.version);
end $$;
select es_grant('bench_client', 'command'), es_grant('bench_client', 'append'), es_grant('bench_client', 'read');
do $$ begin
    for s in 1..%(streams)s loop
        perform es_append_events('till-' || s, (select jsonb_agg(jsonb_build_object('type', 'Credited', 'payload', '{"amount": 100.00}'::jsonb)) from generate_series(1, 10)));
    end loop;
end $$;
"""

#: In one backend: no round trip is in it.
REPLAYED = """do $$ begin for n in 1..1000 loop perform es_command('till-1', 'Deposit', '{"amount": 12.50}', command_key => 'again'); end loop; end $$"""
STABLE = """do $$ begin for n in 1..1000 loop perform es_state('till-1'); end loop; end $$"""


def measure(bench):
    database = bench.database("bench")
    with bench.connect(database) as connection:
        if connection.execute("select to_regproc('decide_by_hand') is null").fetchone()[0]:
            connection.execute(SETUP % {"streams": STREAMS})

    def side(script):
        def run(seconds):
            return bench.pgbench.run(database, "bench_client", [script], CLIENTS, seconds, streams=STREAMS)

        return run

    mine, others = bench.interleave(side("command"), side("command_by_hand"))
    bench.report.add_ratio(
        "es_command, rules, a PL/pgSQL decider, a key", "the same by hand, es_load and es_append, no key", LEAST, [each.tps for each in mine], [each.tps for each in others]
    )
    with bench.connect(database) as connection:
        connection.execute("select es_command('till-1', 'Deposit', '{\"amount\": 12.50}', command_key => 'again')")

        def loop(statement):
            def run(seconds):
                began, count = time.perf_counter(), 0
                while time.perf_counter() - began < seconds:
                    connection.execute(statement)
                    count += 1000
                return count / (time.perf_counter() - began)

            return run

        mine, others = bench.interleave(loop(REPLAYED), loop(STABLE))
    bench.report.add_ratio("es_command replayed, in a loop", "es_state in the same loop", LEAST_REPLAYED, mine, others)
