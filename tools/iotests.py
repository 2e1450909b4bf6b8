#!/usr/bin/env python3
"""Run QEMU's own suite, qemu-iotests, on our qemu-img and qemu-io.

The suite is no part of this repository: it is taken from Debian's source package of the QEMU that is installed, with
Debian's updates, into .cache/iotests. Only tests that need no virtual machine are run: tests/iotests/FORMAT.txt lists
those that pass with QEMU's own tools, and beside some the reason why they do not pass with ours.

    tools/iotests.py                    every format that has a list
    tools/iotests.py qcow2 061 112      two tests, and what differs
    tools/iotests.py --real raw         QEMU's own tools, to see that the lists are right
    tools/iotests.py --keep DIR qcow2   leave each failing test's output in DIR

Ends with 1 where a test fails without a reason beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "iotests"
LISTS = ROOT / "tests" / "iotests"
FORMATS = sorted(path.stem for path in LISTS.glob("*.txt"))
PARTS = ("tests/qemu-iotests/", "python/")  # of QEMU's source: the tests, and the Python modules they import
TOOLS = ("qemu-img", "qemu-io", "qemu-nbd")
TIMEOUT = 900  # seconds of one test


class Ended(NamedTuple):
    """How a test ended: ``pass``, ``fail``, ``timeout`` or ``not run``; and the suite's own words."""

    name: str
    outcome: str
    seconds: float
    words: str


# ---- the suite


def suite() -> Path:
    """The suite of the installed QEMU, prepared when it is first wanted."""
    version = run("dpkg-query", "-W", "-f", "${source:Version}", "qemu-utils").strip()
    folder = CACHE / version.replace(":", "_")
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        fetch(version, folder)
        prepare(folder)
        (folder / "ready").touch()
    return folder / "qemu"


def fetch(version: str, folder: Path) -> None:
    """Download the source package; where the system names no place for sources, from where its binaries come."""
    download = ["apt-get", "source", "--download-only", "-qq", f"qemu={version}"]
    print(f"fetching the source of QEMU {version}", file=sys.stderr)
    if subprocess.run(download, cwd=folder, capture_output=True, check=False).returncode == 0:
        return
    places = run("apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT)", "Created-By: Packages")
    lines = {f"deb-src {place}\n" for place in places.splitlines() if len(place.split()) == 3}
    sources = folder / "sources.list"
    sources.write_text("".join(sorted(lines)))
    lists = folder / "lists"
    (lists / "partial").mkdir(parents=True)
    apart = [
        "-o",
        f"Dir::Etc::SourceList={sources}",
        "-o",
        "Dir::Etc::SourceParts=-",
        "-o",
        f"Dir::State::Lists={lists}",
    ]
    run("apt-get", *apart, "-qq", "update", cwd=folder)
    run(download[0], *apart, *download[1:], cwd=folder)


def prepare(folder: Path) -> None:
    """Unpack the parts that are needed, and bring them to the version that is installed."""
    target = folder / "qemu"
    target.mkdir()
    (original,) = folder.glob("qemu_*.orig.tar.*")
    (debian,) = folder.glob("qemu_*.debian.tar.*")
    wanted = [f"*/{part.rstrip('/')}" for part in PARTS]
    run("tar", "-xf", str(original), "-C", str(target), "--strip-components=1", "--wildcards", *wanted)
    run("tar", "-xf", str(debian), "-C", str(folder))
    patches = folder / "debian" / "patches"
    for line in (patches / "series").read_text().splitlines():
        if re.fullmatch(r"v\d+\.\d+\.\d+\.diff", line):
            update(target, (patches / line).read_bytes())
    shutil.rmtree(folder / "debian")
    tests = target / "tests" / "qemu-iotests"
    for path in (*tests.glob("[0-9][0-9][0-9]"), *(each.with_suffix("") for each in tests.glob("tests/*.out"))):
        path.chmod(0o755)


def update(target: Path, patch: bytes) -> None:
    """Apply what a patch changes in the parts that we have."""
    begins = tuple(f"diff --git a/{part}".encode() for part in PARTS)
    files = re.split(rb"(?m)^(?=diff --git )", patch)
    ours = b"".join(each for each in files if each.startswith(begins) and b"\nBinary files " not in each)
    if ours:
        subprocess.run(["patch", "-p1", "-E", "-s"], cwd=target, input=ours, check=True)


def run(*command: str, cwd: Path | None = None) -> str:
    """Run a command; returns what it prints."""
    return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


# ---- the tools


def programs(folder: Path, *, real: bool) -> dict[str, str]:
    """The variables that tell the suite which tools to run."""
    found = {}
    for name in TOOLS:
        path = Path(shutil.which(name) or name)
        if not real and name != "qemu-nbd":
            path = executable(
                folder / name,
                f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT / 'src')!r})\n"
                "from hostel.cli.main import main\nsys.exit(main())\n",
            )
        found[name.upper().replace("-", "_") + "_PROG"] = str(path)
    # Tests that start a machine are not run, but the suite asks it some questions.
    formats = run(found["QEMU_IMG_PROG"], "--help")
    supported = next(line for line in formats.splitlines() if line.startswith("Supported formats:"))
    answers = (
        '#!/bin/sh\ncase "$*" in\n'
        "*'-machine help'*) echo 'pc  a machine (default)' ;;\n"
        f"*'format=help'*) echo '{supported}' ;;\n"
        "*'device help'*) printf 'name \"%s\"\\n' virtio-blk-pci virtio-scsi-pci scsi-hd ;;\n"
        "*help*|*--version*) ;;\n"
        "*) echo 'there is no machine here' >&2; exit 1 ;;\nesac\n"
    )
    found["QEMU_PROG"] = str(executable(folder / "qemu-system-x86_64", answers))
    found["QSD_PROG"] = str(executable(folder / "qemu-storage-daemon", answers))
    return found


def executable(path: Path, text: str) -> Path:
    """Write a script."""
    path.write_text(text)
    path.chmod(0o755)
    return path


# ---- running


def run_test(tree: Path, scratch: Path, environment: dict[str, str], format: str, name: str) -> Ended:
    """Run one test in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name[:8]}-", dir=scratch))
    build = folder / "tests" / "qemu-iotests"
    build.mkdir(parents=True)
    # Called by a link, the suite keeps its sources and what a build makes apart.
    (build / "check").symlink_to(tree / "tests" / "qemu-iotests" / "check")
    sockets = folder / "s"
    variables = {**os.environ, **environment, "TEST_DIR": str(build / "scratch"), "SOCK_DIR": str(sockets)}
    variables.pop("PYTHONUNBUFFERED", None)  # what comes first on one pipe is compared as well
    begun = time.monotonic()
    said = folder / "said"
    with said.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "./check", f"-{format}", name],
            cwd=build,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    ended = has_ended(process)
    # It is not waited for yet, so that its session is still its own: what it has left behind ends with it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    words = said.read_text(errors="replace").replace("\r", "\n")
    found = re.search(rf"(?m)^{re.escape(name)} +(pass|fail|not run)\b", words)
    outcome = (found[1] if found else "fail") if ended else "timeout"
    shutil.rmtree(folder, ignore_errors=True)
    return Ended(name, outcome, time.monotonic() - begun, words)


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Let a test run for as long as it may; whether it has ended by itself."""
    until = time.monotonic() + TIMEOUT
    while time.monotonic() < until:
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
            return True
        time.sleep(0.05)
    return False


def expected(format: str) -> dict[str, str]:
    """The tests of a format, each with the reason why it does not pass, or nothing."""
    found = {}
    for line in (LISTS / f"{format}.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, reason = line.partition(" ")
            found[name] = reason.strip()
    return found


def run_format(format: str, names: list[str], arguments: argparse.Namespace) -> int:
    """Run a format's tests; returns how many failed without a reason."""
    reasons = expected(format)
    wanted = names or list(reasons)
    tree = suite()
    surprises = []
    passed = 0
    with tempfile.TemporaryDirectory(prefix="iot") as scratch, ThreadPoolExecutor(arguments.jobs) as pool:
        environment = programs(Path(scratch), real=arguments.real)
        jobs = [pool.submit(run_test, tree, Path(scratch), environment, format, name) for name in wanted]
        for job in jobs:
            ended = job.result()
            reason = "" if arguments.real else reasons.get(ended.name, "")
            passed += ended.outcome == "pass"
            print(f"{ended.name:28} {ended.outcome:8} {ended.seconds:6.1f} s  {reason}", flush=True)
            if ended.outcome == "pass" and reason:
                print(f"  passes now: take the reason out of tests/iotests/{format}.txt")
            if ended.outcome != "pass":
                if not reason:
                    surprises.append(ended.name)
                if names:
                    print(ended.words)
                if arguments.keep:
                    arguments.keep.mkdir(parents=True, exist_ok=True)
                    (arguments.keep / f"{format}-{ended.name}").write_text(ended.words)
    print(f"{format}: {passed} of {len(wanted)} passed; failed without a known reason: {' '.join(surprises) or 'none'}")
    return len(surprises)


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help="run QEMU's own tools")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="tests at once")
    parser.add_argument("--keep", type=Path, help="where to leave the output of tests that do not pass")
    parser.add_argument("format", nargs="?", choices=FORMATS)
    parser.add_argument("tests", nargs="*")
    arguments = parser.parse_args()
    formats = [arguments.format] if arguments.format else FORMATS
    return 1 if sum(run_format(format, arguments.tests, arguments) for format in formats) else 0


if __name__ == "__main__":
    sys.exit(main())
