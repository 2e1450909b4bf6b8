"""Mediated devices by the real ``mdevctl`` on a host whose files and kernel are ours; the real kernel's news."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.mediated import ADDRESS, KIND, PARENT, MediatedHost

pytestmark = [
    pytest.mark.requires_tool("mdevctl"),
    pytest.mark.requires_tool("unshare"),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts are root's"),
]
UUID = "0d5c2a9c-2f5f-4d0c-9f1f-6f3d6d0f3a11"
NAME = f"mdev_{UUID}_{ADDRESS}".replace("-", "_").replace(":", "_").replace(".", "_")
CAPABILITY = f"<capability type='mdev'><type id='{KIND}'/><uuid>{UUID}</uuid></capability>"
DOCUMENT = f"<device><parent>{PARENT}</parent>{CAPABILITY}</device>"
LINES = f"""
nodedev-list --cap mdev --inactive
nodedev-define FILE
nodedev-define FILE
nodedev-list --cap mdev --inactive
nodedev-info {NAME}
nodedev-destroy {NAME}
nodedev-autostart {NAME}
nodedev-start {NAME}
nodedev-start {NAME}
nodedev-info {NAME}
nodedev-undefine {NAME}
nodedev-undefine {NAME}
nodedev-autostart {NAME} --disable
nodedev-destroy {NAME}
nodedev-info {NAME}
nodedev-create FILE
nodedev-info {NAME}
nodedev-create FILE
nodedev-destroy {NAME}
nodedev-create WRONG
"""
RUN = """
import json, pathlib, sys
import hostel
from hostel.drivers.store import Directories
from support.virsh import run_lines

directories = Directories.under(pathlib.Path(sys.argv[1]))
lines = [line.split() for line in sys.argv[2:]]
opener = lambda uri, read_only: hostel.open(uri, directories, read_only=read_only)
print(json.dumps([(out + err).strip() for _, out, err in run_lines("qemu:///session", opener, lines)]))
"""
FACTS = f"Name:           {NAME}\nParent:         {PARENT}\nActive:         %s\nPersistent:     %s\nAutostart:      %s"


def test_devices_are_defined_made_and_taken_away(tmp_path: Path) -> None:
    host = MediatedHost(tmp_path / "host")
    file, wrong = tmp_path / "m.xml", tmp_path / "w.xml"
    file.write_text(DOCUMENT)
    wrong.write_text(DOCUMENT.replace(KIND, "none-V9"))
    lines = [line.replace("FILE", str(file)).replace("WRONG", str(wrong)) for line in LINES.strip().splitlines()]
    words = [sys.executable, "-c", RUN, str(tmp_path / "home"), *lines]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with host.running():
        done = subprocess.run(
            host.command(words), capture_output=True, text=True, timeout=120, check=False, env=environment
        )
    assert done.returncode == 0, done.stderr
    answers: list[str] = json.loads(done.stdout)
    refused = f"error: Failed to define node device from '{file}'\nerror: internal error: "
    expected: list[str] = [
        "",
        f"Node device '{NAME}' defined from '{file}'",
        refused + "Unable to define mediated device: "
        f"Error: Cowardly refusing to overwrite existing config for {ADDRESS}/{UUID}",
        NAME,
        FACTS % ("no", "yes", "no"),
        f"error: Failed to destroy node device '{NAME}'\n"
        f"error: Requested operation is not valid: Device '{NAME}' is not active",
        f"Device {NAME} marked as autostarted",
        f"Device {NAME} started",
        f"error: Failed to start device {NAME}\nerror: Requested operation is not valid: Device is already active",
        FACTS % ("yes", "yes", "yes"),
        f"Undefined node device '{NAME}'",
        f"error: Failed to undefine node device '{NAME}'\n"
        f"error: Requested operation is not valid: Node device '{NAME}' is not defined",
        f"error: failed to unmark device {NAME} as autostarted\n"
        "error: Requested operation is not valid: cannot set autostart for transient device",
        f"Destroyed node device '{NAME}'",
        f"error: Could not find matching device '{NAME}'\n"
        f"error: Node device not found: no node device with matching name '{NAME}'",
        f"Node device {NAME} created from {file}",
        FACTS % ("yes", "no", "no"),
    ]
    assert answers[: len(expected)] == expected
    again, destroyed, unknown = answers[len(expected) :]
    assert again.startswith(f"error: Failed to create node device from {file}\nerror: internal error: Unable to start")
    assert destroyed == f"Destroyed node device '{NAME}'"
    assert "Unable to start mediated device: " in unknown and "none-V9" in unknown


WATCH = """
import subprocess, sys
from hostel.drivers.events import EventBus
from hostel.drivers.nodedev.driver import SysfsNodeDeviceDriver
from hostel.drivers.nodedev.watch import WatchedDevices

with WatchedDevices(EventBus(None), SysfsNodeDeviceDriver().look).listen() as listener:
    for words in ("add hot0 type veth peer name hot1", "delete hot0"):
        subprocess.run(["ip", "link", *words.split()], check=True)
        for event in sorted([listener.get(10), listener.get(10)]):
            print(event.name[:9], event.detail["event"])
"""


@pytest.mark.requires_tool("ip")
def test_devices_that_come_and_go_are_told() -> None:
    words = ["sh", "-c", f'mount -t sysfs none /sys && exec "{sys.executable}" -c "$1"', "sh", WATCH]
    done = subprocess.run(["unshare", "-n", "-m", *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["net_hot0_ 0", "net_hot1_ 0", "net_hot0_ 1", "net_hot1_ 1"], done.stderr
