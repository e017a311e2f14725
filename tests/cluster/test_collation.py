"""What is unique and sorted here does not depend on a collation: not on the database's, and not on the version of the library that the operating system
brings (an upgrade of it silently changes the order, and an index that was built by the old one finds a name no more, or takes it twice)."""

import psycopg
import pytest
from database import Database, rows, value, verify

NAMES = ["Z", "a", "z", "ä", "é", "ß", "ss", "A", "a b", "a_b", "aa", "I", "ı", "🦀"]


@pytest.fixture
def swedish(shared_server):
    """A database that sorts z before ä before ö, and lower case before upper case."""
    made = Database(shared_server, "swedish")
    with shared_server.connect("postgres") as admin:
        try:
            admin.execute("create database swedish template template0 locale_provider icu icu_locale 'sv' encoding 'UTF8'")
        except psycopg.errors.FeatureNotSupported as error:
            pytest.skip(str(error))
    with made.connect() as session:
        session.execute("create extension eventstream")
        assert rows(session, "select n from unnest(array['Z', 'a']) n order by n") == [("a",), ("Z",)], "it sorts by language"
    yield made
    made.drop()


def test_no_table_of_ours_leans_on_a_collation_of_the_system(swedish):
    with swedish.connect() as session:
        leaning = """
            select c.relname, a.attname, o.collname
            from pg_attribute a
            join pg_class c on c.oid = a.attrelid
            join pg_collation o on o.oid = a.attcollation
            where c.relnamespace = '_eventstream'::regnamespace and c.relkind in ('r', 'p', 'i', 'I') and a.attnum > 0 and o.collname <> 'C'
        """
        assert rows(session, leaning) == []
        session.execute("select es_append('a-1', 'X', '{}')")
        # Partitions that are made later, too.
        session.execute("set eventstream.partition_size = 100; select setval('_eventstream.positions', 16777216)")
        session.execute("select es_append('a-1', 'X', '{}')")
        assert rows(session, leaning) == []


def test_names_are_ordered_by_their_bytes_and_found_in_any_database(swedish):
    with swedish.connect() as session:
        for name in NAMES:
            session.execute("select es_append('n-' || %s, 'X', '{}')", (name,))
            session.execute("select es_append('n-' || %s, 'X', '{}', expected_version => 1)", (name,))
        wanted = [f"n-{name}" for name in sorted(NAMES, key=str.encode)]
        assert [stream for (stream,) in rows(session, "select stream from eventstream.streams order by stream")] == wanted
        assert value(session, "select count(*) from eventstream.streams where version = 2") == len(NAMES)
        assert value(session, "select count(*) from eventstream.stream_names where stream >= 'n-a' and stream < 'n-b'") == 4
        assert verify(session) == []
