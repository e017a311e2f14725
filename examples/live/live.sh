#!/usr/bin/env bash
# Shows read models that follow the log: state tables while a loop appends, a handler that fails and is mended, a rebuild. On a
# running server with workers, in a database where examples/ledger/ledger.sql and state.sql have run. examples/demo.sh calls it.
#
# Environment: PGHOST, PGPORT, PGUSER, PGDATABASE as for psql; PSQL names another psql; SALES and ITEMS (thousands): how much happens.
# Exit status: 0 only if everything went as told.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
sales=${SALES:-250} items=${ITEMS:-20000}
read -r -a psql <<<"${PSQL:-psql}"
lines=()
if command -v stdbuf >/dev/null; then lines=(stdbuf -oL); fi
bold='' plain=''
if [[ -t 1 ]]; then bold=$'\e[1m' plain=$'\e[0m'; fi

run() { "${lines[@]}" "${psql[@]}" -X -q -v ON_ERROR_STOP=1 -v SHOW_CONTEXT=never -P footer=off "$@" 2>&1; }
ask() { run -A -t -c "set timezone = 'UTC'" -c "$1"; }
title() { printf '%s-- == %s ==%s\n' "$bold" "$1" "$plain"; }

# tell FROM TO: the sections of live.sql with these numbers, and what the server answers.
tell() {
    { echo "set timezone = 'UTC';"; sed -n "/^-- == $1\\. /,\$p" "$here/live.sql" | sed "/^-- == $(($2 + 1))\\. /,\$d"; } | run -a |
        sed -E -e "/^(set timezone|\\\\set) /d" -e "s/^-- == .* ==\$/$bold&$plain/"
}

# The loop: sales over the counter, each three events in three streams, all or nothing, committed one by one.
sell() {
    run -c "
        do \$\$
        begin
            for sale in 1..$sales loop
                perform es_append_streams(jsonb_build_array(
                    jsonb_build_object('stream', 'account-cash', 'events', jsonb_build_array(jsonb_build_object(
                        'type', 'AccountDebited', 'payload', jsonb_build_object('amount', 12.50)))),
                    jsonb_build_object('stream', 'account-sales', 'events', jsonb_build_array(jsonb_build_object(
                        'type', 'AccountCredited', 'payload', jsonb_build_object('amount', 12.50)))),
                    jsonb_build_object('stream', 'stock-lamp', 'events', jsonb_build_array(jsonb_build_object(
                        'type', 'StockShipped', 'payload', jsonb_build_object('quantity', 1))))));
                commit;
                perform pg_sleep(0.001);
            end loop;
        end
        \$\$"
}

watch_sales() {
    printf '      time   cash in the table   lamps on hand   sales in revenue   behind the log\n'
    while
        ask "select to_char(clock_timestamp(), 'HH24:MI:SS.MS') || to_char(b.balance, '999G999G990.00') || to_char(s.on_hand, '999G999G999G990')
                    || to_char(coalesce((select sum(sales) from ledger.revenue), 0), '999G999G999G999G990')
                    || to_char((select max(lag) from eventstream.projections), '999G999G999G990') || ' positions'
             from ledger.balances b, ledger.stock_levels s where b.stream = 'account-cash' and s.stream = 'stock-lamp'"
        kill -0 "$1" 2>/dev/null
    do sleep 0.4; done
}

check_tables() {
    ask "select es_wait_for('ledger.balances'), es_wait_for('ledger.stock_levels'), es_wait_for('revenue')" >/dev/null
    local wrong
    wrong=$(ask "select count(*) from (
                     select stream, version, state -> 'balance' from es_category_state('account')
                     except select stream, version, to_jsonb(balance) from ledger.balances
                     union all
                     select stream, version, state -> 'on_hand' from es_category_state('stock')
                     except select stream, version, to_jsonb(on_hand) from ledger.stock_levels) differences")
    [[ $wrong == 0 ]] || { echo "live: $wrong rows are not the states of their streams" >&2; exit 1; }
    ask "select 'All ' || (select count(*) from ledger.balances) || ' balances and ' || (select count(*) from ledger.stock_levels)
                || ' stock levels are what es_category_state() folds from the events, to the last digit.'"
}

tell 21 22
sell &
seller=$!
watch_sales $seller
wait $seller
check_tables

echo
tell 23 23

echo
title "24. A rebuild, while people read"
echo "$items items more, then the table is made anew from the log. Readers see the old rows until the new ones are all there."
run -c "
    do \$\$
    begin
        for batch in 0..$items / 1000 - 1 loop
            perform es_append_streams((
                select jsonb_agg(jsonb_build_object('stream', 'stock-item_' || batch * 1000 + n, 'events', jsonb_build_array(
                    jsonb_build_object('type', 'StockReceived', 'payload', jsonb_build_object('quantity', n)))))
                from generate_series(1, 1000) n));
            commit;
        end loop;
    end
    \$\$"
ask "select es_wait_for('ledger.stock_levels', timeout => '60s')" >/dev/null
ask "select es_rebuild_projection('ledger.stock_levels')" >/dev/null
printf '      time     rebuilt         of   per cent   rows that readers see\n'
while
    # One statement: what it sees is of one moment.
    seen=$(ask "select to_char(clock_timestamp(), 'HH24:MI:SS.MS') || to_char(coalesce(p.done, r.rows), '999G990') || to_char(coalesce(p.total, r.rows), '99G999G990')
                       || to_char(coalesce(p.percent, 100), '999999990.0') || to_char(r.rows, '999G999G999G999G999G990') || case when p.name is null then '   done' else '' end
                from (select count(*) as rows from ledger.stock_levels) r left join eventstream.progress p on p.name = 'ledger.stock_levels'")
    printf '%s\n' "$seen"
    [[ $seen != *done ]]
do sleep 0.2; done
check_tables
