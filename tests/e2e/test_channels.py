"""A channel of a guest as a stream: here, through a daemon's client, and with libvirt's refusals."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from lxml import etree

from hostel.drivers.base import ConsoleStream
from hostel.drivers.qemu.driver import QemuDriver
from hostel.errors import ErrorCode, VirtError
from support import hosteld
from support.linux import Linux
from support.linux_guest import LinuxGuest

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("busybox"),
    pytest.mark.requires_tool("dpkg-deb"),
]
CHANNELS = (
    "<channel type='pty'><target type='virtio' name='org.pty'/></channel>"
    "<channel type='unix'><target type='virtio' name='org.test'/></channel>"
)
ECHO = "exec 3<>/dev/vport0p2; read -r line <&3; echo answer to $line >&3; read -r line <&3"
HOLD = "exec 3<>/dev/vport0p2; sleep 600"


def read_line(stream: ConsoleStream) -> bytes:
    said, deadline = b"", time.monotonic() + 60
    while not said.endswith(b"\n"):
        assert time.monotonic() < deadline, said
        said += stream.read(4096, 0.5) or b""
    return said


def states(driver: QemuDriver) -> list[str | None]:
    """What the document says of both channels."""
    document = etree.fromstring(driver.domain_get_xml_desc(driver.domain_lookup_by_name("linux")))
    return [each.get("state") for each in document.iterfind("devices/channel/target")]


def refused(driver: QemuDriver, name: str | None) -> VirtError:
    with pytest.raises(VirtError) as caught:
        driver.domain_open_channel(driver.domain_lookup_by_name("linux"), name)
    return caught.value


def test_channel_goes_both_ways_to_one_at_a_time(driver: QemuDriver, tmp_path: Path, linux: Linux) -> None:
    guest = LinuxGuest(driver, linux, tmp_path)
    domain = guest.define(ECHO, CHANNELS, modules=("virtio_pci", "virtio_console"))
    assert refused(driver, "org.test").code is ErrorCode.OPERATION_INVALID
    assert driver.domain_get_security_label_list(domain) == []
    domain = driver.domain_create(domain)
    assert str(refused(driver, "nosuch")) == "internal error: cannot find channel nosuch"
    assert str(refused(driver, None)) == "internal error: channel channel0 is not using a UNIX socket"
    stream = driver.domain_open_channel(domain, "org.test")
    try:
        assert "Active channel stream exists for this domain" in str(refused(driver, "channel1"))
        driver.domain_open_channel(domain, "channel1", force=True).close()
        stream.write(b"this\n")
        assert read_line(stream) == b"answer to this\n"
        assert states(driver) == ["disconnected", "connected"]
        stream.write(b"done\n")
    finally:
        stream.close()
    guest.wait(domain)


def test_a_channel_that_the_guest_has_open_is_still_open_when_it_is_restored(
    driver: QemuDriver, tmp_path: Path, linux: Linux
) -> None:
    guest = LinuxGuest(driver, linux, tmp_path)
    devices = CHANNELS.replace("org.test", "org.qemu.guest_agent.0")
    domain = driver.domain_create(guest.define(HOLD, devices, modules=("virtio_pci", "virtio_console")))
    assert states(driver) == ["disconnected", "disconnected"]
    deadline = time.monotonic() + 60
    while states(driver) != ["disconnected", "connected"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    driver.domain_managed_save(domain)
    assert states(driver) == [None, None]
    with driver.events.listen() as listener:
        domain = driver.domain_create(domain)
        told = list(iter(lambda: listener.get(1), None))
    details = [event.detail for event in told if event.kind == "agent-lifecycle"]
    assert details == [{"state": 2, "reason": 1}, {"state": 1, "reason": 2}]
    assert states(driver) == ["disconnected", "connected"]
    driver.domain_destroy(domain)


def test_clients_open_channels_and_read_labels(tmp_path: Path) -> None:
    document = tmp_path / "d.xml"
    document.write_text(
        "<domain type='qemu'><name>talk</name><memory>65536</memory><os><type>hvm</type></os>"
        f"<devices>{CHANNELS}</devices></domain>"
    )
    with hosteld.process(directory=tmp_path) as daemon:
        daemon.virsh("create", "--paused", str(document), uri="qemu:///session")
        try:
            told = daemon.python(
                "d = c.lookupByName('talk')\n"
                "print(d.securityLabelList())\n"
                "s = c.newStream()\n"
                "d.openChannel('org.test', s, 0)\n"
                "try: d.openChannel('org.test', c.newStream(), 0)\n"
                "except libvirt.libvirtError as e: print(e)\n"
                "s.abort()\n"
                "s = c.newStream()\n"
                "d.openChannel('org.test', s, 0)\n"  # nobody has it any more
                "s.finish()\n",
                uri="qemu:///session",
            )
            active = "operation failed: Active channel stream exists for this domain"
            assert told.splitlines() == ["[['', False]]", active]
        finally:
            daemon.virsh("destroy", "talk", uri="qemu:///session")
