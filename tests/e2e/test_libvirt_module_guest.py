"""hostel.libvirt on a running machine: QEMU's monitor and its events, and a serial port that calls back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hostel import guest, libvirt
from hostel.libvirt import qemu

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-system-x86_64")]
_XML = """<domain type='qemu'><name>g</name><memory unit='MiB'>32</memory>
<os><type arch='x86_64' machine='q35'>hvm</type></os><devices><disk type='file' device='disk'>
<driver name='qemu' type='raw'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>
<serial type='pty'/></devices></domain>"""


def run_until(reached: Callable[[], bool]) -> None:
    """Run the event loop until something is so."""
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        libvirt.virEventRunDefaultImpl()


def test_files_are_named_as_the_program_sees_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTEL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    with libvirt.open("qemu:///session") as connection:
        domain = connection.createXML(_XML.format(disk=disk), libvirt.VIR_DOMAIN_START_PAUSED)
        assert len(domain.getCPUStats(False)) > 0
        assert domain.save("saved") == 0
        assert (tmp_path / "saved").stat().st_size > 0
        assert "<name>g</name>" in connection.saveImageGetXMLDesc("saved")
        assert connection.restore("saved") == 0
        connection.lookupByName("g").destroy()
        with pytest.raises(libvirt.libvirtError, match=f"'{tmp_path}/nosuch'"):
            connection.saveImageGetXMLDesc("nosuch")


def test_monitor_events_and_serial_port_reach_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTEL_HOME", str(tmp_path))
    disk = tmp_path / "disk.img"
    disk.write_bytes(guest.image(label="heard", mode=guest.Mode.WAIT).ljust(1 << 20, b"\0"))
    libvirt.virEventRegisterDefaultImpl()
    with libvirt.open("qemu:///session") as connection:
        domain = connection.createXML(_XML.format(disk=disk), libvirt.VIR_DOMAIN_START_PAUSED)
        try:
            stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
            domain.openConsole(None, stream)
            heard = bytearray()

            def readable(stream: Any, events: int, kept: bytearray) -> None:
                data = stream.recv(100)
                if data != -2:
                    kept += data

            stream.eventAddCallback(libvirt.VIR_STREAM_EVENT_READABLE, readable, heard)
            said: list[tuple[str, str, Any]] = []

            def told(
                connection: Any, domain: Any, event: str, seconds: int, micros: int, details: Any, to: Any
            ) -> None:
                assert abs(seconds - time.time()) < 60 and 0 <= micros < 1_000_000
                to.append((domain.name(), event, details))

            number = qemu.qemuMonitorEventRegister(connection, domain, "RES.*", told, said, 1)
            assert (
                json.loads(qemu.qemuMonitorCommand(domain, '{"execute":"query-status"}', 0))["return"]["running"]
                is False
            )
            assert domain.resume() == 0
            run_until(lambda: b"heard" in heard and bool(said))
            assert said[0][:2] == ("g", "RESUME")
            assert "running" in qemu.qemuMonitorCommand(domain, "info status", qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)
            qemu.qemuMonitorEventDeregister(connection, number)
            with pytest.raises(libvirt.libvirtError, match="event callback id 0 not registered"):
                qemu.qemuMonitorEventDeregister(connection, number)
            stream.finish()
        finally:
            domain.destroy()
