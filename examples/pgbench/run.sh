#!/usr/bin/env bash
# Many clients change a balance in a table of their own and append the change to the log, in one transaction; some
# roll back. Afterwards the sum of every account's events must be its balance.
#
#   examples/pgbench/run.sh
#
# Environment: PGHOST, PGPORT, PGUSER, PGDATABASE as for psql (the database has `create extension eventstream`; the
# role appends, reads and audits); PSQL and PGBENCH name other programs.
#   CLIENTS   16 by default
#   DURATION  seconds, 5 by default
#   ACCOUNTS  how many of the 100,000 accounts are used, 1000 by default: the fewer, the more clients meet
# It can be run again in the same database: balances and events go on from where they are.
# Exit status: 0 only if every client finished without an error and every balance is the sum of its events.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
clients=${CLIENTS:-16}
duration=${DURATION:-5}
accounts=${ACCOUNTS:-1000}
read -r -a psql <<<"${PSQL:-psql}"
read -r -a pgbench <<<"${PGBENCH:-pgbench}"

for number in "$clients" "$duration" "$accounts"; do
    [[ $number =~ ^[1-9][0-9]{0,5}$ ]] || { echo "run.sh: $number is not a number from 1" >&2; exit 1; }
done
((accounts <= 100000)) || { echo 'run.sh: there are 100,000 accounts' >&2; exit 1; }

if [[ $("${psql[@]}" -X -q -A -t -c "select to_regclass('pgbench_accounts') is null") == t ]]; then
    "${pgbench[@]}" -i -q -s 1 2>&1 | grep -v '^NOTICE' >&2
fi

"${pgbench[@]}" -n -M prepared -c "$clients" -j 2 -T "$duration" -D "accounts=$accounts" -f "$here/balance.sql"
"${psql[@]}" -X -q -f "$here/check.sql"
echo "every balance is the sum of its events"
