#!/usr/bin/env bash
# Shows a decision over tags under load: a course with seven places, one of which is taken, and twenty clients at once who want one. On a running server, in a database
# with the extension. examples/demo.sh calls it.
#
# Environment: PGHOST, PGPORT, PGUSER, PGDATABASE as for psql; PSQL names another psql.
# Exit status: 0 only if exactly as many were enrolled as there were places.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
read -r -a psql <<<"${PSQL:-psql}"
ask() { "${psql[@]}" -X -q -A -t -v ON_ERROR_STOP=1 -c "$1"; }

"${psql[@]}" -X -q -a -v ON_ERROR_STOP=1 -f "$here/course.sql" 2>&1 | sed -E '/^\\set /d'

printf '%s\n' '-- == 3. Twenty clients at once, six places ==' "select * from course.enrol('…', 'sql');"
answers=$(mktemp)
trap 'rm -f "$answers"' EXIT
for ((client = 1; client <= 20; client++)); do
    ask "select * from course.enrol('$client', 'sql')" >>"$answers" &
done
wait
enrolled=$(grep -c '^enrolled' "$answers" || true)
full=$(grep -c '^full' "$answers" || true)
attempts=$(awk -F '|' '{ sum += $2 } END { print sum }' "$answers")
printf '%s of 20 enrolled, %s found it full, in %s attempts\n' "$enrolled" "$full" "$attempts"
taken=$(ask "select count(*) from es_read_backward(tags => '{course:sql}', event_types => '{Enrolled}')")
printf '%s of 7 places are taken; %s free\n' "$taken" "$(ask "select course.free('sql')")"
[[ $enrolled == 6 && $full == 14 && $taken == 7 ]] || { echo 'course: not as many were enrolled as there were places' >&2; exit 1; }
