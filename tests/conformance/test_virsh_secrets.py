"""Secrets through our virsh beside real virsh and a real libvirtd."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import libvirtd

pytestmark = [pytest.mark.requires_tool("virsh"), pytest.mark.requires_tool("libvirtd")]

U = "0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f"
V = "1a81f5b2-8403-7b23-c8d6-21ccc2f80d6f"
FOR_VOLUME = "<usage type='volume'><volume>/var/lib/a.img</volume></usage>"
FILES = {
    "volume.xml": f"<secret ephemeral='no' private='no'><uuid>{U}</uuid><description>d</description>{FOR_VOLUME}"
    "</secret>",
    "private.xml": f"<secret ephemeral='yes' private='yes'><uuid>{V}</uuid></secret>",
    "public.xml": f"<secret><uuid>{V}</uuid></secret>",
    "same.xml": f"<secret><uuid>2a81f5b2-8403-7b23-c8d6-21ccc2f80d6f</uuid>{FOR_VOLUME}</secret>",
    "nameless.xml": "<secret><usage type='ceph'/></secret>",
    "none.xml": "<secrets/>",
    "plain": "pass",
    "encoded": "cGFzcw==\n",
}
LINES = f"""
secret-list
secret-define volume.xml
secret-define private.xml
secret-define same.xml
secret-define public.xml
secret-define nameless.xml
secret-define none.xml
secret-define nowhere.xml
secret-list
secret-list --private
secret-list --no-private
secret-list --ephemeral
secret-list --no-ephemeral --no-private
secret-dumpxml {U}
secret-dumpxml {V}
secret-dumpxml nobody
secret-get-value {U}
secret-set-value {U} --base64 cGFzcw==
secret-get-value {U}
secret-get-value {U} --plain
secret-set-value {U} --file plain --plain
secret-get-value {U}
secret-set-value {U} --file encoded
secret-get-value {U} --plain
secret-set-value {V} cGFzcw==
secret-get-value {V}
secret-set-value {U}
secret-set-value {U} --file nowhere
secret-set-value {U} --plain --base64 x
secret-set-value {U} --interactive --file plain
secret-undefine {U}
secret-undefine {V}
secret-undefine {V}
secret-get-value
"""


def answers(command: list[str], folder: Path, environment: dict[str, str]) -> list[tuple[str, int, str, str]]:
    found = []
    for line in LINES.strip().splitlines():
        done = subprocess.run(
            [*command, *line.split()], capture_output=True, text=True, cwd=folder, env=environment, timeout=60
        )
        found.append((line, done.returncode, done.stdout, done.stderr))
    return found


def test_the_lines_give_what_virsh_gives(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    environment = {**os.environ, "LC_ALL": "C", "HOSTEL_HOME": str(tmp_path / "home")}
    with libvirtd.running() as daemon:
        daemon.skip_unless_recorded()
        theirs = answers(["virsh", "-c", daemon.uri], tmp_path, environment)
    ours = answers([sys.executable, "-m", "hostel", "virsh", "-c", "qemu:///session"], tmp_path, environment)
    for expected, found in zip(theirs, ours, strict=True):
        assert found == expected
