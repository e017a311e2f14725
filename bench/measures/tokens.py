"""A token a transaction: one-event es_append, 8 clients, behind es_use_token in a pipeline, against es_append without; and what es_use_token takes by itself, of a token that the session knows and of new
ones."""
import importlib.machinery
import importlib.util

from databases import STREAMS

CLIENTS = 8
LEAST = 0.90
MOST_KNOWN_US, MOST_NEW_US = 5.0, 200.0
ISSUER = "https://id.example.org"
#: More than a session remembers.
TOKENS = 300

CALLS = """
    do $$
    declare
        tokens text[] := (select array_agg(token order by n) from bench_tokens where n <= {many});
        began timestamptz := clock_timestamp();
    begin
        for n in 1 .. {calls} loop
            perform es_use_token(tokens[1 + n % {many}]);
        end loop;
        perform set_config('bench.microseconds', (extract(epoch from clock_timestamp() - began) * 1e6 / {calls})::text, false);
    end $$
"""


def measure(bench):
    loader = importlib.machinery.SourceFileLoader("mint_token", str(bench.root / "tools/mint-token"))
    mint_token = importlib.util.module_from_spec(importlib.util.spec_from_loader("mint_token", loader))
    loader.exec_module(mint_token)
    database, key = bench.database("bench"), mint_token.new_key()

    with bench.connect(database) as connection:
        connection.execute("create role bench_token login")
        connection.execute(f"revoke temp on database {database} from public")
        connection.execute("set eventstream.token_max_lifetime = '1d'")
        connection.execute(f"alter database {database} set eventstream.token_max_lifetime = '1d'")
        connection.execute("select es_require_token('bench_token'), es_grant('bench_token', 'append'), es_grant('bench_token', 'read')")
        connection.execute("select es_add_token_key('bench', %s, 'default', %s)", (mint_token.public(key), ISSUER))
        ((audience,),) = connection.execute("select log_id || '/' || incarnation from es_log_info()")

        def token():
            return mint_token.mint(key, "bench", 80_000, iss=ISSUER, aud=audience, tenant="default", sub="clerk-17")

        connection.execute("create table bench_tokens (n int, token text)")
        with connection.cursor() as cursor:
            cursor.executemany("insert into bench_tokens values (%s, %s)", [(n, token()) for n in range(1, TOKENS + 1)])
        connection.execute("grant select on bench_tokens to bench_token")

    def side(user, script):
        return lambda seconds: bench.pgbench.run(database, user, [script], CLIENTS, seconds, streams=STREAMS, category="account", token=token())

    ours, plain = bench.interleave(side("bench_token", "append_with_token"), side("bench_client", "append_to"))
    bench.report.add_ratio("es_use_token and es_append, one transaction", "es_append", LEAST, [each.tps for each in ours], [each.tps for each in plain])

    def microseconds(many, calls):
        with bench.connect(database, "bench_token") as connection:
            connection.execute("begin")
            connection.execute(CALLS.format(many=many, calls=many))
            connection.execute(CALLS.format(many=many, calls=calls))
            ((taken,),) = connection.execute("select current_setting('bench.microseconds')::float")
            connection.execute("rollback")
            return taken

    for name, many, calls, most in (
        ("es_use_token of a token that the session knows", 1, 20_000, MOST_KNOWN_US),
        ("es_use_token of a new token", TOKENS, 3_000, MOST_NEW_US),
    ):
        with bench.watched():
            taken = [microseconds(many, calls) for _ in range(bench.rounds)]
        bench.report.add(name, "", f"< {most:.0f} µs", taken, "", sorted(taken)[len(taken) // 2] < most, " µs")
