"""What is Python's own: floats, moments without a zone, exceptions that travel between processes."""

import datetime
import decimal
import pickle
import threading

import eventstream_client as es
import pytest


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"), (0.1 + 0.2, "0.30000000000000004"), (1e22, "1e+22"), (decimal.Decimal("1400.50"), "1400.50"), (decimal.Decimal("-0"), "-0"),
        (decimal.Decimal("1e400"), "1E+400"), (True, "true"), (None, "null"), ("a\"\\\n\u2028é", '"a\\"\\\\\\n\u2028é"'), ({"a": [1, (2,)]}, '{"a":[1,[2]]}'),
    ],
)  # fmt: skip
def test_json_is_written_to_the_last_digit(value, text):
    assert es.dumps(value) == text


@pytest.mark.parametrize("text", ["1400.50", "-0", "-0.0", "1E+400", "1" * 5000, "0.1234567890123456789", "0E-10", '{"a":[1,2.50]}'])
def test_json_comes_back_as_it_was(text):
    assert es.dumps(es.loads(text)) == text
    assert es.dumps(10**5000) == "1" + "0" * 5000


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": [float("nan")]}, "/a/0 is nan"), (decimal.Decimal("Infinity"), "is Infinity"), (decimal.Decimal("sNaN"), "sNaN"), ({1: 2}, "the key 1"), ({"a": datetime.datetime.now()}, "/a is a datetime"),
        ({"a": b"x"}, "/a is a bytes"),
    ],
)  # fmt: skip
def test_what_json_does_not_have_is_refused_with_its_place(value, words):
    with pytest.raises((TypeError, ValueError), match=words):
        es.dumps(value)


def test_a_moment_without_a_zone_is_refused(database, address):
    with es.Client(conninfo(address)) as client:
        naive = datetime.datetime(2024, 1, 1)
        with pytest.raises(ValueError, match="no zone"):
            client.append("account-1", [es.NewEvent("Any", {}, occurred_at=naive)])
        with pytest.raises(ValueError, match="no zone"):
            client.state("account-1", as_of=naive)
        with pytest.raises(TypeError, match="list of names"):
            list(client.read_all(categories="account"))
        zoned = naive.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=2)), microsecond=123456)
        client.append("account-1", [es.NewEvent("Any", {}, occurred_at=zoned)])
        (event,) = client.read("account-1")
        assert event.occurred_at == zoned and event.recorded_at.tzinfo is not None
        with pytest.raises(es.Invalid) as error:
            client.append("account", [es.NewEvent("Any", {})])
        again = pickle.loads(pickle.dumps(error.value))
        assert (type(again), again.sqlstate, again.detail, str(again)) == (es.Invalid, "ES004", error.value.detail, str(error.value))
        assert error.value.__cause__.sqlstate == "ES004"


def test_threads_share_a_client_and_wait_for_its_connections(database, address):
    with es.Client(conninfo(address), max_connections=3) as client:
        threads = [threading.Thread(target=client.append, args=(f"account-{n}", [es.NewEvent("Any", {})])) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(list(client.read_all())) == 20
        with database.connect() as session:
            assert session.execute("select count(*) <= 3 from pg_stat_activity where datname = current_database() and backend_type = 'client backend' and application_name = ''").fetchone()[0]


def conninfo(address):
    return f"host={address['PGHOST']} port={address['PGPORT']} user={address['PGUSER']} dbname={address['PGDATABASE']}"
