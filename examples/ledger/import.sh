#!/usr/bin/env bash
# Loads a CSV of bank transactions as events, verifies every chain and compares the sums with the bank's.
#
#   examples/ledger/import.sh FILE
#
# FILE has the header  trans_id,account_id,seq,date,direction,operation,amount,purpose,bank_balance
# (examples/ledger/transactions.csv is a small one; import.sql says what each column must be).
# The database is the one that psql connects to: set PGHOST, PGPORT, PGUSER, PGDATABASE as for psql. PSQL names
# another psql. The database needs `create extension eventstream`; the role needs append, read and audit.
#
# Running it again writes nothing: the event ids are derived from trans_id. An interrupted run goes on where it
# stopped, and a file that has grown adds what is new. A transaction that was imported with other content before
# stops the import with ES006.
# Exit status: 0 imported and verified, 1 a bad call or file, 3 refused, or something did not add up.
set -euo pipefail

header=trans_id,account_id,seq,date,direction,operation,amount,purpose,bank_balance
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)

die() {
    printf 'import: %s\n' "$*" >&2
    exit 1
}

[[ $# -eq 1 ]] || die "usage: $0 FILE.csv"
file=$1
[[ -f $file && -r $file ]] || die "$file: there is no such file, or it cannot be read"
IFS= read -r first <"$file" || [[ -n ${first-} ]] || die "$file is empty"
[[ ${first%$'\r'} == "$header" ]] || die "$file: the first line must be
  $header
and is
  ${first:0:200}"

# psql would take this line for the end of the file and import half of it.
! grep -qx $'\\\\\\.\r\\?' "$file" || die "$file: a line consists of \\. and nothing else"

read -r -a psql <<<"${PSQL:-psql}"
lines=() # progress as it happens, although it may go through a pipe
if command -v stdbuf >/dev/null; then lines=(stdbuf -oL); fi

# Errors without psql's "psql:…/import.sql:NN: " in front.
{
    "${lines[@]}" "${psql[@]}" -X -q -v ON_ERROR_STOP=1 -f "$here/import.sql" <"$file" 2>&1 >&3 |
        sed -E 's/^psql:.*import\.sql:[0-9]+: /import: /' >&2
} 3>&1
