"""Where a tool is missing we name the package that brings it: as Debian's own list of files does."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

import hostel.drivers
from hostel.drivers import tool

pytestmark = [pytest.mark.requires_tool("dpkg-query"), pytest.mark.requires_tool("setpriv")]
_REQUIRED = re.compile(r'(?:require\(|run\(\[)"([a-z0-9-]+)"')


def packages_of(path: str) -> set[str]:
    """Those that brought a file, whichever of its names they know it by."""
    names = {path, os.path.realpath(path), path.removeprefix("/usr")}
    told = subprocess.run(["dpkg-query", "-S", *names], capture_output=True, text=True, timeout=60).stdout
    return {name.partition(":")[0] for line in told.splitlines() for name in line.rpartition(": ")[0].split(", ")}


def test_the_package_of_each_tool_is_the_one_that_brings_it() -> None:
    sources = Path(hostel.drivers.__file__).parent.rglob("*.py")
    names = {name for source in sources for name in _REQUIRED.findall(source.read_text())} | set(tool.PACKAGES)
    assert {"setpriv", "dnsmasq", "lvs"} <= names
    # Debian's iptables and ebtables take turns at being behind that name.
    paths = {name: path for name in names - {"ebtables"} if (path := tool.find(name)) is not None}
    brought = {name: found for name, path in paths.items() if (found := packages_of(path))}
    assert "setpriv" in brought
    assert {name: found for name, found in brought.items() if tool.PACKAGES.get(name, name) not in found} == {}
