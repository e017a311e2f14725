"""es_metrics() is what Prometheus reads (Debian's promtool says so), and its numbers are those of the database."""

import math
import re
import shutil
import subprocess
import time

import psycopg
import pytest
from database import last_position, position_of, rows, value
from debian import unpacked
from operating import create_projection
from states import append

SAMPLE = re.compile(r'^(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')


def promtool() -> str:
    """The one that is installed, or Debian's."""
    return shutil.which("promtool") or str(next(unpacked("prometheus").glob("**/bin/promtool")))


def unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda escaped: {"n": "\n"}.get(escaped[1], escaped[1]), text)


def samples(page: str) -> dict[tuple, float]:
    """By name and labels; every line must be a sample, or HELP and TYPE before the samples of their metric."""
    found: dict[tuple, float] = {}
    types: dict[str, str] = {}
    helped = None
    for line in page.splitlines():
        if line.startswith("# HELP "):
            helped = line.split(" ", 3)[2]
            assert helped not in types, line
            continue
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == helped and kind in ("counter", "gauge", "histogram"), line
            types[name] = kind
            continue
        parts = SAMPLE.match(line)
        assert parts, line
        labels = LABEL.findall(parts["labels"] or "")
        assert "".join(f'{key}="{text}",' for key, text in labels).rstrip(",") == (parts["labels"] or ""), line
        family = parts["name"]
        if family not in types:
            family = re.sub(r"_(bucket|sum|count)$", "", family)
            assert types.get(family) == "histogram", line
        assert (types[family] == "counter") == family.endswith("_total"), line
        key = (parts["name"], *sorted((key, unescape(text)) for key, text in labels))
        assert key not in found, line
        found[key] = float(parts["value"])
    assert page.endswith("\n")
    return found


@pytest.fixture
def awkward(database):
    """Names that a label must escape, in two tenants."""
    names = ['quo"ted', "back\\slash", "naïve ☃"]
    with database.connect() as session:
        session.execute("select es_create_tenant('the \"other\" \\ one')")
        for tenant in ("default", 'the "other" \\ one'):
            session.execute("select set_config('eventstream.tenant', %s, false)", (tenant,))
            create_projection(session, "handler")
            for name in names:
                session.execute("select es_create_projection(%s, 'handler(eventstream.event)')", (name,))
        session.execute("set eventstream.tenant = 'default'")
        append(session, "account-1", 7)
        for name in names:
            session.execute("select es_wait_for(%s)", (name,))
    return database


def test_promtool_finds_nothing_to_complain_about(awkward):
    with awkward.connect() as session:
        page = value(session, "select es_metrics()")
    done = subprocess.run([promtool(), "check", "metrics"], input=page, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_promtool_would_complain():
    broken = "# HELP eventstream_appends appends\n# TYPE eventstream_appends counter\neventstream_appends 1\n"
    assert subprocess.run([promtool(), "check", "metrics"], input=broken, capture_output=True, text=True).returncode != 0


def test_labels_and_numbers_are_those_of_the_database(awkward):
    with awkward.connect() as session:
        found = samples(value(session, "select es_metrics()"))
        assert found["eventstream_events_appended_total",] == 7
        assert found["eventstream_appends_total",] == 1
        assert found["eventstream_last_position",] == found["eventstream_settled_position",] == last_position(session)
        assert found["eventstream_active",] == found["eventstream_scheduler_running",] == 1
        assert found["eventstream_runners",] >= 1
        for name in ('quo"ted', "back\\slash", "naïve ☃"):
            one = (("projection", name), ("tenant", "default"))
            assert found["eventstream_projection_position", *one] == last_position(session)
            assert found["eventstream_projection_lag_seconds", *one] == found["eventstream_projection_lag_positions", *one] == 0
            assert found["eventstream_projection_events_total", *one] == 7
            statuses = {
                dict(key[1:])["status"]: number
                for key, number in found.items()
                if key[0] == "eventstream_projection_status" and set(one) <= set(key[1:])
            }
            assert statuses.pop("running") == 1 and set(statuses.values()) == {0} and "stopped" in statuses
            assert ("eventstream_projection_position", ("projection", name), ("tenant", 'the "other" \\ one')) in found
        health = {
            (dict(key[1:])["tenant"] or None, dict(key[1:])["check"]): number
            for key, number in found.items()
            if key[0] == "eventstream_health_status"
        }
        levels = {"ok": 0, "warning": 1, "critical": 2}
        assert health == {
            (tenant, name): levels[status]
            for tenant, name, status in rows(session, "select tenant, name, status from eventstream.health")
        }


def test_histograms_add_up(database):
    with database.connect() as session:
        for _ in range(20):
            session.execute("select es_append('account-1', 'Added', '{}')")
        with pytest.raises(psycopg.Error):
            session.execute("select es_append('account-1', 'Added', '{}', expected_version => 3)")
        found = samples(value(session, "select es_metrics()"))
        name = "eventstream_append_duration_seconds"
        buckets = [(dict(key[1:])["le"], number) for key, number in found.items() if key[0] == f"{name}_bucket"]
        bounds = [math.inf if le == "+Inf" else float(le) for le, _ in buckets]
        counts = [number for _, number in buckets]
        assert bounds == sorted(bounds) and bounds[-1] == math.inf and counts == sorted(counts)
        # What was refused is not measured.
        assert counts[-1] == found[f"{name}_count",] == 20
        assert 20 * 0.00001 < found[f"{name}_sum",] < 20
        # What is in a bucket took as long as the bucket says.
        in_each = [count - before for count, before in zip(counts, [0, *counts])]
        assert sum(number * lower for number, lower in zip(in_each, [0, *bounds])) <= found[f"{name}_sum",]
        assert sum(number * upper for number, upper in zip(in_each, bounds) if number) >= found[f"{name}_sum",]
        stats = dict(rows(session, "select name, value from eventstream.stats where name like 'append_duration%'"))
        assert stats["append_duration_count"] == 20
        assert stats["append_duration_microseconds"] == pytest.approx(found[f"{name}_sum",] * 1e6)
        assert 0 < stats["append_duration_p50"] <= stats["append_duration_p95"] <= stats["append_duration_p99"]
        at_most = stats["append_duration_p50"] / 1e6
        assert counts[bounds.index(at_most)] >= 10
        assert at_most == bounds[0] or counts[bounds.index(at_most) - 1] < 10


def test_what_projections_do_is_measured(database):
    with database.connect() as session:
        create_projection(session, "measured")
        append(session, "account-1", 30)
        session.execute("select es_wait_for('measured')")
        found = samples(value(session, "select es_metrics()"))
        assert found["eventstream_events_projected_total",] == 30
        assert found["eventstream_projection_batch_duration_seconds_count",] >= 1
        assert found["eventstream_projection_visible_lag_seconds_count",] >= 1


def test_only_superusers_and_pg_monitor_may_ask(database):
    watcher, keeper = database.role("metrics_watcher", "login", "pg_monitor"), database.role("metrics_keeper")
    with database.connect() as session:
        session.execute(f"select es_grant('{keeper}', 'manage')")
    with database.connect(watcher) as session:
        assert samples(value(session, "select es_metrics()"))
    with database.connect(keeper) as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("select es_metrics()")


def test_what_consumers_do_is_counted(database):
    with database.connect() as session:
        session.execute("select es_create_subscription('feed')")
        for stream in range(3):
            append(session, f"account-{stream}", 2)

        def fetch(lease="30s"):
            return rows(session, "select distinct lease_id from es_fetch('feed', 'one', lease => %s)", lease)[0][0]

        fetch("100ms")
        time.sleep(0.2)
        lease = fetch()
        first, third = position_of(session, 1), position_of(session, 3)
        session.execute("select es_nack(%s, %s, 'not now', retry_after => '1 hour')", (lease, first))
        session.execute("select es_nack(%s, %s, 'never', dead_letter => true)", (lease, third))
        session.execute("select es_ack(%s)", (lease,))
        found = samples(value(session, "select es_metrics()"))
        counted = ("delivered", "acknowledged", "nacked")
        assert [found[f"eventstream_events_{what}_total",] for what in counted] == [12, 2, 4]
        assert found["eventstream_leases_expired_total",] == 1 and found["eventstream_dead_letters_total",] == 1
        feed = (("subscription", "feed"), ("tenant", "default"))
        assert found["eventstream_subscription_parked_streams", *feed] == 2
        assert found["eventstream_subscription_dead_letters", *feed] == 1
        assert found["eventstream_subscription_position", *feed] == position_of(session, 6)
        assert found["eventstream_subscription_lag_seconds", *feed] == found["eventstream_subscription_leased_events", *feed] == 0
        stats = dict(rows(session, "select name, value from eventstream.stats"))
        assert (stats["events_delivered"], stats["events_nacked"], stats["leases_expired"]) == (12, 4, 1)
