"""What reading by tags costs, in pages: what is given away, however many events bear a tag that others chose as well (kinds: size, a rare category)."""

import random

import pytest
from costs import pages
from database import rows, value

ADD = """select es_append_events('{category}-' || n % 50, b.events) from generate_series(1, {batches}) n cross join lateral (
    select jsonb_agg(jsonb_build_object('type', 'T', 'payload', i, 'tags', case when (n + i) % 7 = 0 then '["company:1", "odd"]'::jsonb else '["company:1"]' end)) as events
    from generate_series(1, 100) i where n > 0) b"""


@pytest.fixture(scope="module")
def log(quiet_server):
    from database import Database

    database = Database(quiet_server, "tag_costs").create()
    with database.connect() as session:
        session.execute("select es_append('rare-1', 'T', '1', tags => '{company:1}')")
        session.execute(ADD.format(category="common", batches=200))
        session.execute("select es_append('rare-2', 'T', '2', tags => '{company:1,odd}')")
        session.execute(ADD.format(category="common", batches=200))
        session.execute("vacuum analyze")
    yield database
    database.drop()


@pytest.mark.parametrize("categories", ["{rare}", "{nowhere}", "{rare,nowhere}"])
@pytest.mark.parametrize("tags", ["{company:1}", "{company:1,odd}"])
def test_a_rare_category_with_a_common_tag_is_found_at_once(log, categories, tags):
    with log.connect() as session:
        ask = f"select global_position from es_read_all(0, 10, categories => '{categories}', tags => '{tags}')"
        expected = {("{rare}", "{company:1}"): 2, ("{rare}", "{company:1,odd}"): 1, ("{rare,nowhere}", "{company:1}"): 2, ("{rare,nowhere}", "{company:1,odd}"): 1}
        assert len(rows(session, ask)) == expected.get((categories, tags), 0)
        # A descent of each index now and then, and some misses before: not the 40,000 that bear the tag.
        assert pages(session, ask) < 1000


def test_reading_by_tags_and_categories_is_what_a_filter_gives(log):
    with log.connect() as session:
        for number in range(60):
            category = ("rare", "mixed", "common")[number % 3]
            session.execute(f"select es_append('{category}-9', 'T', '1', tags => %s)", (random.Random(number).sample(["company:1", "odd", "x", "y"], 2),))
        for seed in range(40):
            chance = random.Random(seed)
            categories = chance.sample(["rare", "mixed", "common", "nowhere"], chance.randrange(1, 4))
            tags = chance.sample(["company:1", "odd", "x", "y"], chance.randrange(1, 3))
            after, most = chance.randrange(0, 41000), chance.choice([1, 5, 50, 10000])
            last = value(session, "select last_position from es_log_info()")
            filtered = "from eventstream.events where category = any (%s) and tags @> %s::text[] and global_position > %s order by global_position limit %s"
            wanted = rows(session, f"select global_position {filtered}", categories, tags, after, most)
            assert rows(session, "select global_position from es_read_all(%s, %s, categories => %s, tags => %s)", after, most, categories, tags) == wanted, (seed, last)
