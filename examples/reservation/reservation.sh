#!/usr/bin/env bash
# Shows stock that is reserved for a while, and comes back by itself unless it was paid. On a running server with workers, in a database with the extension. examples/demo.sh
# calls it.
#
# Environment: PGHOST, PGPORT, PGUSER, PGDATABASE as for psql; PSQL names another psql; RESERVED_FOR is the while, in seconds (10).
# Exit status: 0 only if exactly what was not paid came back, and not before its time.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
read -r -a psql <<<"${PSQL:-psql}"
ask() { "${psql[@]}" -X -q -A -t -v ON_ERROR_STOP=1 -c "$1"; }

"${psql[@]}" -X -q -a -v ON_ERROR_STOP=1 -v seconds="${RESERVED_FOR:-10}" -f "$here/reservation.sql" 2>&1 | sed -E '/^\\set /d'

printf '%s\n' "-- == 3. ${RESERVED_FOR:-10} seconds later ==" "select es_state('shelf-pump');"
for ((waited = 0; waited < 600; waited++)); do
    [[ $(ask "select count(*) from eventstream.scheduled_commands where stage = 'pending'") == 0 ]] && break
    sleep 0.1
done
available=$(ask "select es_state('shelf-pump') ->> 'available'")
stages=$(ask "select string_agg(command_key || ' ' || stage, ', ' order by command_key) from eventstream.scheduled_commands")
early=$(ask "select count(*) from es_read('shelf-pump') e join eventstream.scheduled_commands s on s.command_key = e.metadata -> 'command' ->> 'key' where e.recorded_at < s.run_at")
printf '%s are available again; %s\n' "$available" "$stages"
[[ $available == 3 && $stages == 'release-shelf-pump/o-1 done, release-shelf-pump/o-2 unscheduled' && $early == 0 ]] || { echo 'reservation: not what was reserved came back' >&2; exit 1; }
