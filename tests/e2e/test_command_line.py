"""A command line of QEMU becomes a machine of ours, and a machine of ours a command line that QEMU runs."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from hostel.drivers.base import DomainState, StartFlag
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.store import Directories

pytestmark = pytest.mark.qemu


def disk(path: Path) -> Path:
    path.write_bytes(bytes(1 << 20))
    return path


def test_a_command_line_becomes_a_machine_that_runs(tmp_path: Path) -> None:
    driver = QemuDriver(Directories.under(tmp_path / "home"))
    line = (
        f"qemu-system-x86_64 -name mine -m 32 -hda {disk(tmp_path / 'a')} -cdrom {disk(tmp_path / 'b')}"
        f" -drive file={disk(tmp_path / 'c')},if=virtio,format=raw,cache=none,discard=unmap,serial=S"
        " -nic user,model=virtio,mac=52:54:00:00:00:01 -boot order=dc,menu=on -serial null -vga std"
    )
    ref = driver.domain_define_xml(driver.connect_domain_xml_from_native("qemu-argv", line))
    assert ref.name == "mine"
    driver.domain_create(ref, StartFlag.PAUSED)
    try:
        assert driver.domain_get_state(ref)[0] == DomainState.PAUSED
    finally:
        driver.domain_destroy(ref)


def test_the_command_line_of_a_document_is_taken_by_qemu(tmp_path: Path) -> None:
    driver = QemuDriver(Directories.under(tmp_path / "home"))
    source = disk(tmp_path / "a b,c")
    slices = "<slices><slice type='storage' offset='512' size='65536'/></slices>"
    driver_words = "<driver name='qemu' type='raw' copy_on_read='on' discard='unmap'/>"
    disks = f"<disk>{driver_words}<source file='{source}'>{slices}</source><target dev='vda'/></disk>"
    line = driver.connect_domain_xml_to_native(
        "qemu-argv",
        "<domain type='qemu'><name>g</name><memory unit='MiB'>32</memory><os><type>hvm</type></os>"
        f"<devices>{disks}</devices></domain>",
    )
    words = shlex.split(line)
    ask = [{"execute": "qmp_capabilities"}, {"execute": "query-named-block-nodes"}, {"execute": "quit"}]
    said = "".join(json.dumps(item) + "\n" for item in ask)
    words = [word for pair in _without_sockets(words) for word in pair]
    answer = subprocess.run(
        [*words, "-qmp", "stdio"], input=said, capture_output=True, text=True, timeout=60, check=True
    )
    nodes = [item for reply in map(json.loads, answer.stdout.splitlines()) for item in _nodes(reply)]
    assert {"libvirt-1-storage", "libvirt-1-format", "libvirt-CoR-vda"} <= set(nodes)


def _nodes(reply: dict[str, object]) -> list[str]:
    found = reply.get("return")
    return [str(item["node-name"]) for item in found] if isinstance(found, list) else []


def _without_sockets(words: list[str]) -> list[list[str]]:
    """The command line without the monitors of ours."""
    options: list[list[str]] = []
    for word in words:
        if word.startswith("-") or not options:
            options.append([word])
        else:
            options[-1].append(word)
    return [option for option in options if option[0] not in ("-chardev", "-mon")]
