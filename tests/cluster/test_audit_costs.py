"""Verification of acts costs what there are of them, however many tenants they are spread over.

Kinds: size (eight times the tenants), tenant (one alone, among few and among many).
"""

from database import rows, value
from test_audit import log  # noqa: F401 - a fixture


def make(session, first: int, last: int) -> None:
    session.execute(f"select es_create_tenant('t' || i) from generate_series({first}, {last}) i")
    session.execute(f"select es_grant('clerk', p, tenant => 't' || i) from generate_series({first}, {last}) i, unnest('{{read,audit}}'::text[]) p")


def rows_read(session, statement: str) -> int:
    """Rows of the log's tables that a run of the statement looks at; earlier ones have made its plans."""
    so_far = "select coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::int from pg_stat_xact_all_tables where schemaname = '_eventstream'"
    rows(session, statement)
    with session.transaction():
        before = value(session, so_far)
        rows(session, statement)
        return value(session, so_far) - before


def test_the_acts_of_eight_times_the_tenants_are_verified_for_eight_times_the_rows(log):  # noqa: F811
    everything = "select count(*) from es_verify_audit()"
    with log.connect() as session, log.connect("clerk") as auditor:
        auditor.execute("set eventstream.tenant = 't7'")
        make(session, 1, 50)
        few, alone = rows_read(session, everything), rows_read(auditor, everything)
        make(session, 51, 400)
        assert rows_read(session, everything) <= 10 * few
        # A small table is gone through whole for one of its tenants, the log is not.
        assert rows_read(auditor, everything) <= 10 * alone
        assert value(session, everything) == 0 and rows(auditor, "select * from es_verify_audit()") == []
