"""A day ends with the instant before the next date's first, in every zone that the server knows, on every day from 1990 to 2037: as Python's
zoneinfo says from the same files, and as the server's own clocks show.
"""

import datetime
import pathlib
import subprocess
import zoneinfo

import psycopg
import pytest
from database import rows, value
from server import BIN

FIRST, LAST = datetime.date(1990, 1, 1), datetime.date(2037, 12, 31)
DAYS = (LAST - FIRST).days + 1
DAY = datetime.timedelta(days=1)
EPOCH = datetime.datetime(2000, 1, 1)

#: Where an end is not a whole day after the one before: all others follow.
ENDS = """
with ends as materialized (
    select d.day::date as day, es_day_end(d.day::date, %s) as ends from generate_series(%s::date, %s::date, interval '1 day') d (day)
), steps as (
    select day, ends, extract(epoch from ends - lag(ends) over (order by day)) as step from ends
)
select day - date '2000-01-01', ((extract(epoch from ends) + 0.000001) - 946684800)::bigint from steps where step is distinct from 86400 order by 1
"""


def the_servers_files() -> None:
    """Zones are read from where the server reads them, so that both have the same rules."""
    share = subprocess.run([BIN / "pg_config", "--sharedir"], check=True, capture_output=True, text=True).stdout.strip()
    own = pathlib.Path(share) / "timezone"
    zoneinfo.reset_tzpath(to=[str(own)] if own.is_dir() else ["/usr/share/zoneinfo"])


def first_instant(zone: zoneinfo.ZoneInfo, day: datetime.date) -> int:
    """The first second since 2000 whose local date is `day` or later: looked for from two days before, hour by hour, then by halves."""
    midnight = datetime.datetime.combine(day, datetime.time(), datetime.UTC)

    def is_there(at: datetime.datetime) -> bool:
        return at.astimezone(zone).date() >= day

    late = midnight - 2 * DAY
    while not is_there(late):
        late += datetime.timedelta(minutes=10)
    early = late - datetime.timedelta(minutes=10)
    while late - early > datetime.timedelta(seconds=1):
        middle = early + datetime.timedelta(seconds=int((late - early).total_seconds()) // 2)
        early, late = (early, middle) if is_there(middle) else (middle, late)
    return int((late.replace(tzinfo=None) - EPOCH).total_seconds())


def expected(name: str) -> list[tuple[int, int]]:
    """The same steps by zoneinfo: a day around whose end the offset does not change ends a local midnight."""
    zone = zoneinfo.ZoneInfo(name)
    noons = [datetime.datetime.combine(FIRST + number * DAY, datetime.time(), datetime.UTC) for number in range(-2, DAYS + 4)]
    offsets = [int(noon.astimezone(zone).utcoffset().total_seconds()) for noon in noons]
    found, before = [], None
    for number in range(DAYS):
        next_day = FIRST + (number + 1) * DAY
        around = offsets[number + 1 : number + 6]
        if len(set(around)) == 1:
            first = (next_day - EPOCH.date()).days * 86400 - around[0]
        else:
            first = first_instant(zone, next_day)
        if before is None or first - before != 86400:
            found.append(((next_day - EPOCH.date()).days - 1, first))
        before = first
    return found


def test_a_day_ends_before_the_next_dates_first_instant_in_every_zone(quiet):
    the_servers_files()
    with quiet.connect() as session:
        names = [name for (name,) in rows(session, "select name from pg_timezone_names where name not like 'posix%' order by 1")]
        names = [name for name in names if name in zoneinfo.available_timezones()]
        assert len(names) > 300
        same, different = {}, []
        for name in names:
            found = rows(session, ENDS, name, FIRST, LAST)
            rules = tuple(found)
            if rules not in same:
                same[rules] = expected(name)
            if same[rules] != found:
                different.append((name, next(pair for pair in zip(found, same[rules]) if pair[0] != pair[1])))
        assert different == []


def test_the_servers_own_clocks_change_the_date_there(quiet):
    with quiet.connect() as session:
        wrong = rows(
            session,
            """
            select z.name, d.day::date
            from pg_timezone_names z, generate_series(date '2010-01-01', date '2012-12-31', interval '1 day') d (day),
                 lateral (select es_day_end(d.day::date, z.name) as ends offset 0) e
            where z.name not like 'posix%%' and z.name not in (select abbrev from pg_timezone_abbrevs) and ((e.ends at time zone z.name)::date > d.day
                  or ((e.ends + interval '1 microsecond') at time zone z.name)::date <= d.day)
            limit 5
            """,
        )
        assert wrong == []


@pytest.mark.parametrize(
    "day, zone, ends",
    [
        ("2024-10-26", "Atlantic/Azores", "2024-10-26 23:59:59.999999"),  # midnight comes twice
        ("2006-10-28", "America/St_Johns", "2006-10-29 02:29:59.999999"),  # back over midnight, at 00:01
        ("2011-12-29", "Pacific/Apia", "2011-12-30 09:59:59.999999"),  # the next date never comes
        ("2011-12-30", "Pacific/Apia", "2011-12-30 09:59:59.999999"),  # nor does this one
        ("2018-11-03", "America/Sao_Paulo", "2018-11-04 02:59:59.999999"),  # no midnight
        ("2024-10-31", "+02:00", "2024-10-31 21:59:59.999999"),
        ("2024-10-31", "-0330", "2024-11-01 03:29:59.999999"),
        ("2024-10-31", "Z", "2024-10-31 23:59:59.999999"),
        ("2024-10-31", "Etc/GMT-2", "2024-10-31 21:59:59.999999"),
        ("294276-12-30", "UTC", None),
    ],
)
def test_days_that_end_otherwise(quiet, day, zone, ends):
    with quiet.connect() as session:
        statement = "select (es_day_end(%s, %s) at time zone 'UTC')::text"
        assert value(session, statement, day, zone) == (ends or "294276-12-30 23:59:59.999999")
        for infinite in ("infinity", "-infinity"):
            assert value(session, "select es_day_end(%s, 'UTC')::text", infinite) == infinite
        assert value(session, "select es_day_end(null, 'UTC')") is None
        for wrong in ("UTC+2", "CET-1CEST", "IST5", "Nowhere/Land", "", "+2", "../etc/passwd", "x" * 300):
            with pytest.raises(psycopg.Error) as refused:
                session.execute("select es_day_end('2024-10-31', %s)", (wrong,))
            assert refused.value.sqlstate == "ES005" and "Europe/Vienna" in refused.value.diag.message_primary, wrong
        for far in ("294277-01-01", "5874897-12-31"):
            with pytest.raises(psycopg.Error) as refused:
                session.execute("select es_day_end(%s, 'UTC')", (far,))
            assert refused.value.sqlstate == "ES005"


def test_a_days_end_is_set_for_the_transaction_and_no_longer(quiet):
    with quiet.connect() as session:
        session.execute("select es_register_fold('f', 'a', rules => '{\"on\": {\"X\": [{\"increment\": \"/n\"}]}}')")
        for day in ("30", "31"):
            session.execute(f"select es_append('a-1', 'X', '{{}}', occurred_at => '2024-10-{day} 22:30Z')")
        session.execute("select es_create_temporal_view('v', 'a', '[{\"name\": \"n\", \"type\": \"int\", \"path\": \"/n\"}]')")
        with session.transaction():
            session.execute("set local datestyle = 'SQL, DMY'")
            assert value(session, "select es_set_as_of('2024-10-30', 'Europe/London') = es_day_end('2024-10-30', 'Europe/London')")
            assert value(session, "show eventstream.as_of") == "2024-10-30T23:59:59.999999+00:00"
            assert rows(session, "select n from v") == [(1,)]
            session.execute("select es_set_as_of('infinity', 'UTC')")
            assert rows(session, "select n from v") == [(2,)]
        assert value(session, "show eventstream.as_of") == ""
        assert rows(session, "select n from v") == [(2,)]
        with pytest.raises(psycopg.Error) as refused:
            session.execute("select es_set_as_of(null, 'UTC')")
        assert refused.value.sqlstate == "ES005"
