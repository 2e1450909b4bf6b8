"""The host's processors and memory through our virsh beside real virsh and a real libvirtd."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import libvirtd

pytestmark = [pytest.mark.requires_tool("virsh"), pytest.mark.requires_tool("libvirtd")]

BOTH = (
    "nodeinfo", "nodecpumap", "nodecpumap --pretty", "maxvcpus foo", "freecell 99", "freecell --all --cellno 0",
    "nodecpustats 99", "nodememstats 99",
)  # fmt: skip
INVENTED = (
    *BOTH, "nodecpustats", "nodecpustats 7", "freecell", "freecell 0", "freecell 1", "freecell --all", "nodememstats",
    "maxvcpus", "maxvcpus kvm",
)  # fmt: skip
# Of what changes from moment to moment: its form.
CHANGING = (
    "nodecpustats",
    "nodecpustats 0",
    "nodememstats",
    "nodememstats 0",
    "freecell",
    "freecell 0",
    "freecell --all",
)


@pytest.fixture(scope="module")
def real() -> Iterator[libvirtd.Libvirtd]:
    with libvirtd.running() as daemon:
        daemon.skip_unless_recorded()
        yield daemon


def run(command: list[str], line: str, home: Path) -> tuple[int, str, str]:
    environment = {**os.environ, "LC_ALL": "C", "HOSTEL_HOME": str(home)}
    done = subprocess.run([*command, *line.split()], capture_output=True, text=True, timeout=60, env=environment)
    return done.returncode, done.stdout, done.stderr


def ours(uri: str) -> list[str]:
    return [sys.executable, "-m", "hostel", "virsh", "-c", uri]


@pytest.mark.parametrize("line", BOTH)
def test_lines_about_this_host_are_virshs(real: libvirtd.Libvirtd, line: str, tmp_path: Path) -> None:
    assert run(ours("qemu:///session"), line, tmp_path) == run(["virsh", "-c", real.uri], line, tmp_path)


@pytest.mark.parametrize("line", INVENTED)
def test_lines_about_the_invented_host_are_virshs(line: str, tmp_path: Path) -> None:
    uri = "test:///default"
    assert run(ours(uri), line, tmp_path) == run(["virsh", "-c", uri], line, tmp_path)


@pytest.mark.parametrize("line", CHANGING)
def test_what_changes_has_the_form_of_virshs(real: libvirtd.Libvirtd, line: str, tmp_path: Path) -> None:
    found = [run(command, line, tmp_path) for command in (ours("qemu:///session"), ["virsh", "-c", real.uri])]
    shapes = [[word for word in text.split() if not word.isdecimal()] for _, text, _ in found]
    assert shapes[0] == shapes[1]
    assert [(code, error) for code, _, error in found] == [(0, "")] * 2
