#!/usr/bin/env bash
# Tells the ledger's story on a running server, imports bank transactions and verifies them, then lets tables follow the log. `make demo`
# calls it.
#
# Environment: PGHOST, PGPORT, PGUSER, PGDATABASE as for psql (a superuser, and a server that preloads eventstream);
# PSQL names another psql; DATA is a CSV of your own in the form of examples/ledger/transactions.csv.
# A log cannot be emptied: where the database holds the story already, a new one is made beside it (NAME_2, NAME_3 …).
# Exit status: 0 only if everything went as told. The errors that the story shows are checked to be the right ones.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
data=${DATA:-$here/ledger/transactions.csv}
read -r -a psql <<<"${PSQL:-psql}"

bold='' plain=''
if [[ -t 1 ]]; then bold=$'\e[1m' plain=$'\e[0m'; fi
heading() { printf '\n%s=== %s ===%s\n' "$bold" "$*" "$plain"; }
ask() { "${psql[@]}" -X -q -A -t -v ON_ERROR_STOP=1 -c "$1"; }

# Lines as they come, answers and errors in their order, although it is a pipe.
lines=()
if command -v stdbuf >/dev/null; then lines=(stdbuf -oL); fi

# tell FILE: the SQL with its comments, and what the server answers.
tell() {
    "${lines[@]}" "${psql[@]}" -X -q -a -v ON_ERROR_STOP=1 <"$1" 2>&1 |
        sed -E -e '/^\\(set|pset) /d' -e "s/^-- == .* ==\$/$bold&$plain/"
}

[[ -f $data ]] || { echo "demo: $data: there is no such file" >&2; exit 1; }

database=$(ask 'select current_database()')
wanted=$database
for ((n = 2; ; n++)); do
    PGDATABASE=$database ask 'set client_min_messages = warning; create extension if not exists eventstream'
    [[ $(PGDATABASE=$database ask "select to_regnamespace('ledger') is not null") == t ]] || break
    database=${wanted}_$n
    if [[ $(ask "select exists (select from pg_database where datname = '${database//\'/\'\'}')") == f ]]; then
        ask "create database \"${database//\"/\"\"}\" encoding 'UTF8' template template0"
    fi
done
export PGDATABASE=$database

heading "The ledger's story (examples/ledger/ledger.sql)"
tell "$here/ledger/ledger.sql"

heading "The ledger's states (examples/ledger/state.sql)"
tell "$here/ledger/state.sql"

heading "Import: $(basename "$data")"
"$here/ledger/import.sh" "$data"

heading 'The same file again: every event is recognised by its id, nothing is written'
again=$("$here/ledger/import.sh" "$data")
printf '%s\n' "${again##*$'\n'}"
[[ $again == *' 0 written,'* ]] || { echo 'demo: the second import wrote something' >&2; exit 1; }

heading 'The states of all accounts, by rules and by a function, on three days'
"${psql[@]}" -X -q -f "$here/ledger/states.sql"

heading 'Read models that follow the log (examples/live)'
"$here/live/live.sh"

heading 'A course with a limited number of places (examples/course)'
"$here/course/course.sh"

heading 'Stock that is reserved for ten seconds, and comes back by itself (examples/reservation)'
"$here/reservation/reservation.sh"

heading 'A card that is charged once, outside of the database (examples/outside/outside.sql)'
tell "$here/outside/outside.sql"

heading 'What is declared, and what has changed since it was reviewed (examples/definitions/definitions.sql)'
tell "$here/definitions/definitions.sql"

heading 'A clerk who is not shown a name, and a case worker who is (examples/customers/customers.sql)'
tell "$here/customers/customers.sql"

heading 'One login, two tenants by token (examples/tokens)'
"$("$here/../tools/venv")/bin/python" "$here/tokens/tokens.py"

heading 'Go on'
cat <<END
  The database is $database. Things to try in psql:
      select es_state('account-cash');
      select version, event_type, state ->> 'balance' as balance from es_history('account-cash');
      select stream, version, last_occurred_at from eventstream.streams order by version desc limit 10;
      select name, status, detail from eventstream.health;
  examples/ has payables, receivables and an inventory too; docs/guide.md explains the ideas, docs/ledger.md how to model,
  docs/projections.md how tables follow the log, docs/clients.md how programs do.
END
