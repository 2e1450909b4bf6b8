"""Gets libvirt's tests: from Debian's source package, into .cache/libvirt-data."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("HOSTEL_TEST_CACHE") or ROOT / ".cache") / "libvirt-data"
VERSION = "9.0.0"
# Of libvirt's source: its tests, and what some of them read besides.
PARTS = ("tests", "src/cpu_map", "src/conf/schemas", "src/qemu/qemu_capabilities.c")


def tests() -> Path:
    """The folder ``tests`` of libvirt, unpacked when it is first wanted."""
    folder = CACHE / VERSION
    is_whole = all((folder / "libvirt" / part).exists() for part in PARTS)
    if not is_whole or not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        fetch_package("libvirt", VERSION, folder)
        (original,) = folder.glob("libvirt_*.orig.tar.xz")
        target = folder / "libvirt"
        target.mkdir()
        wanted = [f"*/{part}" for part in PARTS]
        # tar keeps the links, of which the trees of sysfs are full.
        run("tar", "-xf", str(original), "-C", str(target), "--strip-components=1", "--wildcards", *wanted)
        (folder / "ready").touch()
    return folder / "libvirt" / "tests"


def fetch_package(package: str, version: str, folder: Path) -> None:
    """Download a source package; where the system names no place for sources, from where its binaries come.

    Raises:
        SystemExit: it cannot be had, or is of another version.
    """
    download = ["apt-get", "source", "--download-only", "-qq", package]
    print(f"fetching the source of {package} {version}", file=sys.stderr)
    if subprocess.run(download, cwd=folder, capture_output=True, check=False).returncode == 0:
        if any(folder.glob(f"{package}_{version}.orig.tar.*")):
            return
        raise SystemExit(f"this system's {package} is not {version}: unpack the source, and name it with --tests")
    places = run("apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT)", "Created-By: Packages")
    lines = {f"deb-src {place}\n" for place in places.splitlines() if len(place.split()) == 3}
    sources = folder / "sources.list"
    sources.write_text("".join(sorted(lines)))
    lists = folder / "lists"
    (lists / "partial").mkdir(parents=True)
    apart = []
    for name, value in (("Etc::SourceList", sources), ("Etc::SourceParts", "-"), ("State::Lists", lists)):
        apart += ["-o", f"Dir::{name}={value}"]
    try:
        run("apt-get", *apart, "-qq", "update", cwd=folder)
        run(download[0], *apart, *download[1:], cwd=folder)
    except subprocess.CalledProcessError as error:
        reason = f"the source of {package} {version} cannot be fetched: unpack it, and name it with --tests"
        raise SystemExit(reason) from error


def run(*command: str, cwd: Path | None = None) -> str:
    """Run a command; returns what it prints."""
    return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout
