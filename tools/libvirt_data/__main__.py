"""Run libvirt's own test data through our model.

The data is no part of this repository: it is taken from Debian's source package of libvirt 9.0 into
.cache/libvirt-data. tests/libvirt_data/SUITE.txt lists the cases that come out otherwise on purpose, with the reason.

    make libvirt-data                                       every suite: a table
    make libvirt-data TESTS="networkxml2xml"                one suite: every case that does not come out right
    make libvirt-data TESTS="networkxml2xml nat-network"    some cases, and what differs
    make libvirt-data TESTS="--tests DIR"                   the folder tests of a source that is unpacked already

Ends with 1 where a case comes out otherwise without a reason beside it.
"""

from __future__ import annotations

import argparse
import difflib
import fnmatch
import sys
import traceback
from pathlib import Path
from typing import NamedTuple

from hostel.errors import HostelError
from libvirt_data import source
from libvirt_data.case import Case, Suite, Tree, with_newline
from libvirt_data.registry import SUITES

LISTS = source.ROOT / "tests" / "libvirt_data"


class Ended(NamedTuple):
    """How a case came out.

    Attributes:
        case: which.
        is_right: whether it did as libvirt's does.
        outcome: ``equal``, ``different``, ``refused``, ``taken`` or ``broken``.
        words: what differs, or why it was refused.
    """

    case: Case
    is_right: bool
    outcome: str
    words: str


class Count(NamedTuple):
    """A row of the table."""

    cases: int
    compared: int
    equal: int
    changing: int
    changed: int
    must_fail: int
    refused: int

    def row(self, name: str) -> str:
        """The row."""
        return (
            f"| {name} | {self.cases} | {_rate(self.equal, self.compared)} | {_rate(self.changed, self.changing)} "
            f"| {_rate(self.refused, self.must_fail)} |"
        )


def _rate(part: int, whole: int) -> str:
    return f"{part}/{whole} ({100 * part / whole:.0f}%)" if whole else ""


def judge(suite: Suite, case: Case) -> Ended:
    """Run a case; whatever it raises that is no refusal counts against us, also where refusing is right."""
    try:
        ours = suite.run(case)
    except HostelError as error:
        return Ended(case, case.must_fail, "refused", f"{type(error).__name__}: {error}\n")
    except Exception:
        return Ended(case, False, "broken", traceback.format_exc())
    if case.must_fail or case.expect is None:
        return Ended(case, not case.must_fail, "taken", ours)
    theirs = case.expected()
    if suite.equal(ours, theirs):
        return Ended(case, True, "equal", "")
    lines = theirs.splitlines(keepends=True), with_newline(ours, theirs).splitlines(keepends=True)
    return Ended(case, False, "different", "".join(difflib.unified_diff(*lines, "libvirt", "ours")))


def count(ended: list[Ended]) -> Count:
    """Count what came out how."""
    compared = [each for each in ended if each.case.expect is not None]
    changing = [each for each in compared if not each.case.is_plain]
    must_fail = [each for each in ended if each.case.must_fail]
    rights = [sum(each.is_right for each in some) for some in (compared, changing, must_fail)]
    return Count(len(ended), len(compared), rights[0], len(changing), rights[1], len(must_fail), rights[2])


def reasons(suite: str) -> dict[str, str]:
    """The cases that come out otherwise on purpose, each (a pattern of names) with why."""
    path = LISTS / f"{suite}.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    pairs = (line.partition(": ") for line in lines if line and not line.startswith("#"))
    return {name: reason for name, _, reason in pairs}


class Explained(NamedTuple):
    """What of the cases that came out otherwise has a reason.

    Attributes:
        reasons: of each such case by its name; None where there is none.
        stale: patterns of names with a reason that is needed no longer.
    """

    reasons: dict[str, str | None]
    stale: list[str]

    @property
    def surprises(self) -> list[str]:
        """What is to be looked at, a line each."""
        strange = [f"{name} comes out otherwise" for name, reason in self.reasons.items() if reason is None]
        return strange + [f"comes out right now: take {pattern} out of tests/libvirt_data" for pattern in self.stale]


def explain(suite: Suite, ended: list[Ended]) -> Explained:
    """Find the reasons of a suite's cases."""
    known = reasons(suite.name)
    found: dict[str, str | None] = {}
    used = set()
    for name in (each.case.name for each in ended if not each.is_right):
        pattern = next((pattern for pattern in known if fnmatch.fnmatchcase(name, pattern)), None)
        used.add(pattern)
        found[name] = known[pattern] if pattern is not None else None
    return Explained(found, [pattern for pattern in known if pattern not in used])


def run_suite(suite: Suite, tree: Tree, arguments: argparse.Namespace) -> tuple[Count, int]:
    """Run a suite's cases; returns the row, and how many came out otherwise without a reason."""
    cases = [case for case in suite.cases(tree) if not arguments.cases or case.name in arguments.cases]
    ended = [judge(suite, case) for case in cases]
    explained = explain(suite, ended)
    if arguments.cases:
        explained = explained._replace(stale=[])
    for each in (each for each in ended if not each.is_right and arguments.suite):
        reason = explained.reasons[each.case.name]
        print(f"{each.case.name}: {each.outcome}{'  ' + reason if reason else ''}")
        if arguments.cases or arguments.diff:
            print(each.words)
    if arguments.cases:
        for each in (each for each in ended if each.is_right):
            print(f"{each.case.name}: {each.outcome}\n{each.words}")
    for pattern in explained.stale:
        print(f"comes out right now: take {pattern} out of tests/libvirt_data/{suite.name}.txt")
    return count(ended), len(explained.surprises)


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=Path, help="the folder tests of libvirt's source")
    parser.add_argument("--diff", action="store_true", help="show what differs in every case of the suite")
    parser.add_argument("suite", nargs="?", choices=[[], *SUITES], default=[], help="a suite", metavar="SUITE")
    parser.add_argument("cases", nargs="*", help="cases of it", metavar="CASE")
    arguments = parser.parse_args()
    tree = Tree(arguments.tests or source.tests())
    suites = [SUITES[arguments.suite]] if arguments.suite else list(SUITES.values())
    counts = []
    surprises = 0
    for suite in suites:
        row, strange = run_suite(suite, tree, arguments)
        counts.append((suite.name, row))
        surprises += strange
    if not arguments.cases:
        print("| suite | cases | as libvirt's | of these, not as they went in | refused, of what must be |")
        print("|---|---|---|---|---|")
        for name, row in counts:
            print(row.row(name))
        print(Count(*map(sum, zip(*(row for _, row in counts), strict=True))).row("all"))
        print(f"otherwise without a known reason: {surprises}")
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
