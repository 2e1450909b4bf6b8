"""Run test suites of libvirt's clients on ours, and beside it on libvirt's.

They are no part of this repository: each is given as a folder with a copy of its source. tests/client_suites/SUITE.txt
lists the scripts that come out worse on purpose, with the reason.

    make client-suites TESTS="libvirt-python DIR"            libvirt-python's tests on hostel.libvirt
    make client-suites TESTS="sys-virt DIR"                  Sys::Virt's tests on our daemon
    make client-suites TESTS="libvirt-tck DIR"               libvirt's compatibility kit on our daemon; as root
    make client-suites TESTS="libvirt-tck DIR block-info"    some scripts, and what they print

Ends with 1 where a script comes out worse than on libvirt's without a reason beside it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from client_suites.suites import SUITES

LISTS = Path(__file__).parents[2] / "tests" / "client_suites"


def reasons(suite: str) -> dict[str, str]:
    """The scripts that come out worse on purpose, and why."""
    path = LISTS / f"{suite}.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    pairs = (line.partition(": ") for line in lines if line and not line.startswith("#"))
    return {name: reason for name, _, reason in pairs}


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("source", type=Path, help="a copy of the suite's source")
    parser.add_argument("scripts", nargs="*", help="parts of the names of scripts", metavar="SCRIPT")
    arguments = parser.parse_args()
    suite, source = SUITES[arguments.suite], arguments.source.resolve()
    known = reasons(arguments.suite)
    chosen = [
        script
        for script in suite.scripts(source)
        if not arguments.scripts or any(part in script for part in arguments.scripts)
    ]
    if not chosen:
        parser.error(f"{source} has no such scripts")
    surprises = 0
    counts = [0, 0]
    print("| script | ours | libvirt's | |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="suite-") as work, suite.running(source, Path(work)) as run:
        for script in chosen:
            ours, theirs = run(script)
            counts = [counts[0] + ours.passed, counts[1] + theirs.passed]
            is_right = ours.is_as_good_as(theirs)
            reason = known.get(script, "")
            surprises += is_right == bool(reason)
            remark = reason if not is_right else "is right now: take it out of the list" if reason else ""
            print(f"| {script} | {ours} | {theirs} | {remark or ('' if is_right else 'WORSE')} |", flush=True)
            if arguments.scripts:
                print(ours.text)
    print(f"checks that pass: {counts[0]}, of libvirt's {counts[1]}; otherwise without a known reason: {surprises}")
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
