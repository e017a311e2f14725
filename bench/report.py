"""What was measured: one row a target, in the terminal and as a Markdown file."""
import datetime
import statistics
import subprocess
import sys
from dataclasses import dataclass, field

from machine import facts, load_average

# More than this much of a core used by others, and a number says more about them.
QUIET_CORES = 0.15


@dataclass
class Row:
    measure: str
    against: str
    target: str
    values: list  # one a round: what the target is about
    unit: str
    sides: str  # the rates or latencies behind it
    is_met: bool | None  # None: no target
    others_cores: float = 0.0

    def cells(self):
        median = statistics.median(self.values)
        spread = f"{min(self.values):{self.form}} … {max(self.values):{self.form}}" if len(self.values) > 1 else ""
        met = {True: "yes", False: "**no**", None: ""}[self.is_met]
        noise = f"{self.others_cores:.2f}" + (" (!)" if self.others_cores > QUIET_CORES else "")
        return [self.measure, self.against, self.target, f"{median:{self.form}}{self.unit}", spread, self.sides, met, noise]

    @property
    def form(self):
        return ".3f" if self.unit == " ×" else ",.0f" if abs(statistics.median(self.values)) >= 100 else ".2f"


HEADINGS = ["measure", "against", "target", "median", "spread", "rates or times", "met", "others' cores"]


@dataclass
class Report:
    root: object
    chosen: object
    rows: list = field(default_factory=list)
    notes: list = field(default_factory=list)
    machine: dict = field(default_factory=dict)
    name: str = ""
    busiest: float = 0.0

    def describe(self, server):
        self.server = server
        self.machine = facts(server)
        self.began = datetime.datetime.now(datetime.timezone.utc)
        self.first_load = load_average()

    def begin(self, name):
        self.name, self.busiest = name, 0.0

    def others(self, watch):
        """Notes what others used during a run; the worst of a measure's runs stands in its rows."""
        self.busiest = max(self.busiest, watch.others_cores + watch.stolen_cores)
        if watch.others_cores > QUIET_CORES:
            warn(f"others used {watch.others_cores:.2f} cores during this run")
        if watch.stolen_cores > QUIET_CORES:
            warn(f"the hypervisor kept {watch.stolen_cores:.2f} cores from us during this run")

    def add(self, measure, against, target, values, sides, is_met, unit=""):
        row = Row(measure, against, target, values, unit, sides, is_met, self.busiest)
        self.rows.append(row)
        print("    " + " | ".join(cell for cell in row.cells() if cell), file=sys.stderr, flush=True)

    def add_ratio(self, measure, against, target, ours, theirs, what="/s"):
        """A row whose target is: our rate is at least `target` times theirs (None: no target)."""
        ratios = [one / other for one, other in zip(ours, theirs)]
        sides = f"{statistics.median(ours):,.0f} : {statistics.median(theirs):,.0f} {what}"
        is_met = None if target is None else statistics.median(ratios) >= target
        self.add(measure, against, "" if target is None else f"≥ {target:.2f} ×", ratios, sides, is_met, " ×")

    def note(self, line):
        self.notes.append(f"{self.name}: {line}")
        print("    " + line, file=sys.stderr, flush=True)

    def table(self):
        cells = [HEADINGS] + [row.cells() for row in self.rows]
        widths = [max(len(row[column]) for row in cells) for column in range(len(HEADINGS))]
        lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
        return "\n".join([lines[0], "| " + " | ".join("-" * width for width in widths) + " |", *lines[1:]])

    def write(self, is_whole):
        """Writes the file and returns its path relative to the checkout."""
        last = self.root / "target/bench/last.md"
        last.write_text(self.text())
        if not is_whole:
            return last.relative_to(self.root)
        path = self.root / f"bench/results/{self.began:%Y-%m-%d}-pg{self.server.major}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(self.text())
        return path.relative_to(self.root)

    def text(self):
        about = {
            "command": f"`{self.chosen.command}`",
            "commit": commit(self.root),
            "PostgreSQL": self.server.version,
            **self.machine,
            "runs": f"{self.chosen.rounds} rounds of {self.chosen.seconds} s a side",
            "load average before": self.first_load,
        }
        lines = [f"# Benchmarks of {self.began:%Y-%m-%d %H:%M} UTC", ""]
        lines += [f"- {name}: {value}" for name, value in about.items()]
        lines += ["", "What the rows mean: ../README.md. others' cores: what other programs, and the hypervisor, used at worst"]
        lines += [f"during one run of the row; marked (!) above {QUIET_CORES}.", "", self.table(), ""]
        lines += [f"- {note}" for note in self.notes]
        return "\n".join(lines) + "\n"


def warn(line):
    print(f"    warning: {line}: take the number with care", file=sys.stderr, flush=True)


def commit(root):
    git = ["git", "-C", root]
    if subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True).returncode != 0:
        return "unknown"
    short = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    built_from = ["src", "crates", "sql", "Cargo.lock"]
    changed = subprocess.run([*git, "status", "--short", "--", *built_from], capture_output=True, text=True).stdout
    return short + (" with changes not committed" if changed else "")
