"""Lists in docs/ that are complete: each says what the code has, and nothing else."""

import re

from source import ROOT, files


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def section(page: str, title: str) -> str:
    """What stands below a title of a page, up to the next one of its level or above."""
    _, _, below = read(page).partition(f"\n{title}\n")
    assert below, f"{page} has no {title}"
    level = len(title) - len(title.lstrip("#"))
    return re.split(rf"\n#{{1,{level}}} ", below)[0]


AUDIT = read("crates/core/src/audit.rs")
#: Of these only what is done to their dead letters is an act.
NO_ACTS = {"ScheduledCommand"}


def test_each_act_of_administration_is_listed():
    kinds = dict(re.findall(r'^        (\w+) = "(\w+)",$', AUDIT, re.M))
    told = {}
    for kind, changes, event_type in re.findall(r'\(Self::(\w+), ([\w |]+)\) => "(\w+)"', AUDIT):
        for change in changes.split(" | "):
            told.setdefault(kind, {})[change] = event_type
    assert kinds.keys() == told.keys() and len(told) >= 16
    rows = {(kinds[kind], *(changes[change] for change in ("Made", "Altered", "Dropped"))) for kind, changes in told.items() if kind not in NO_ACTS}
    acts = section("docs/privileges.md", "## Acts of administration")
    assert set(re.findall(r"^\| `(\w+)` \| `(\w+)` \| `(\w+)` \| `(\w+)` \|$", acts, re.M)) == rows
    others = set(re.findall(r'pub const \w+: &str = "(\w+)";', AUDIT)) - {"EventsRevealed"}
    (listed,) = re.findall(r"They are ([^.]+)\.", acts)
    assert set(re.findall(r"`(\w+)`", listed)) == others


def test_each_check_of_health_is_listed():
    checks = set()
    for path in files(".rs", "src/ops/health"):
        text = path.read_text(encoding="utf-8")
        # Its name as it is, or what it begins with.
        begins = re.findall(r'Check::(?:ok|bad)\(\s*(?:format!\()?"([a-z ]+?) ?["{]', text) + re.findall(r'\bname = (?:\|\| )?format!\(\s*"([a-z ]+?) \{', text)
        checks |= set(begins)
    assert len(checks) >= 25
    listed = re.findall(r"^\| `([^`]+)` \|", section("docs/operate.md", "## Health"), re.M)
    # What is written large says which one.
    assert {re.sub(r"( of| by)? [A-Z].*", r"\1", check) for check in listed} == checks


def test_each_privilege_is_listed_wherever_they_all_are():
    privileges = re.findall(r'^        \w+ = "(\w+)",$', read("crates/core/src/privilege.rs"), re.M)
    assert len(privileges) >= 9
    (granted,) = re.findall(r"Grants a privilege \(([^:]+):", section("docs/reference.md", "### es_grant"))
    tables = [section("docs/guide.md", "## Tenants and privileges"), read("docs/privileges.md").partition("\n## ")[0]]
    for listed in [re.findall(r"`(\w+)`", granted)] + [re.findall(r"^\| `(\w+)` \|", table, re.M) for table in tables]:
        assert sorted(listed) == sorted(privileges)
    (narrowed,) = re.findall(r"matches!\(self, ([^)]+)\)", read("crates/core/src/privilege.rs"))
    narrowed = sorted(name.lower() for name in re.findall(r"Self::(\w+)", narrowed))
    for page in ("docs/guide.md", "docs/reference.md"):
        (said,) = re.findall(r"((?:`\w+`,? (?:and )?)+)can be narrowed to (?:a|one)\s+category", read(page))
        assert sorted(re.findall(r"`(\w+)`", said)) == narrowed, page


def test_kinds_of_checks_of_two_words_are_alerts_of_their_own():
    """A notification says the check's name without which one it is about."""
    (listed,) = re.findall(r"OF_TWO_WORDS: \[&str; \d+\] =\s*\[([^\]]+)\]", read("src/ops/watch.rs"))
    checks = {re.sub(r"( of| by)? [A-Z].*", "", check) for check in re.findall(r"^\| `([^`]+)` \|", section("docs/operate.md", "## Health"), re.M)}
    # The last is never bad.
    checks = {check.removesuffix(" of scheduled commands") for check in checks} - {"settings of role"}
    assert set(re.findall(r'"([^"]+)"', listed)) == {check for check in checks if " " in check}
