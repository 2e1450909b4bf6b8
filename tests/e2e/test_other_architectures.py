"""Guests of another architecture than the host's run by emulation, on their own boards, with their own firmware."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest

from hostel.drivers.base import DomainState
from hostel.drivers.qemu.driver import QemuDriver
from hostel.model.domain.domain import Domain

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-system-aarch64"), pytest.mark.requires_tool("qemu-img")]

MACHINE = """<domain type='qemu'><name>arm</name><memory unit='MiB'>{memory}</memory><vcpu>2</vcpu>
<os{how}><type arch='aarch64' machine='virt'>hvm</type>{boot}</os>{features}
<cpu mode='custom' match='exact'><model>cortex-a57</model></cpu><devices>
<serial type='file'><source path='{serial}'/></serial>{devices}</devices></domain>"""
DEVICES = """<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{disk}'/>
<target dev='vda' bus='virtio'/></disk><disk type='file' device='cdrom'><target dev='sda' bus='scsi'/></disk>
<interface type='user'><model type='virtio'/></interface><controller type='usb' model='qemu-xhci'/>
<input type='keyboard' bus='usb'/><graphics type='vnc'/><video><model type='virtio'/></video>
<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"""
UART = 0x0900_0000  # the board's PL011: QEMU, hw/arm/virt.c


def kernel(text: bytes) -> bytes:
    """A guest that writes a text to its serial port and switches itself off by PSCI (Arm DEN 0022, SYSTEM_OFF)."""
    words = [0xD2A00000 | UART >> 16 << 5]  # movz x0, UART, lsl 16
    for letter in text:
        words += [0x52800001 | letter << 5, 0xB9000001]  # movz w1, letter; str w1, [x0]
    words += [0x52800100, 0x72B08000, 0xD4000002, 0x14000000]  # w0 = 0x84000008; hvc 0; b .
    return struct.pack(f"<{len(words)}I", *words)


def test_guest_speaks_and_switches_itself_off(driver: QemuDriver, tmp_path: Path) -> None:
    image, serial = tmp_path / "kernel", tmp_path / "serial"
    image.write_bytes(kernel(b"from another world"))
    words = {"how": "", "boot": f"<kernel>{image}</kernel>", "features": "<features><gic version='3'/></features>"}
    xml = MACHINE.format(
        memory=128, serial=serial, devices="<rng model='virtio'><backend model='builtin'/></rng>", **words
    )
    ref = driver.domain_create(driver.domain_define_xml(xml))
    deadline = time.monotonic() + 60
    while driver.domain_get_state(ref).state == DomainState.RUNNING:
        assert time.monotonic() < deadline, serial.read_bytes()
        time.sleep(0.05)
    assert serial.read_bytes() == b"from another world"


@pytest.mark.requires_tool("/usr/share/AAVMF/AAVMF_CODE.fd")
def test_its_firmware_looks_for_what_to_boot(driver: QemuDriver, tmp_path: Path) -> None:
    disk, serial = tmp_path / "disk.raw", tmp_path / "serial"
    disk.write_bytes(bytes(1 << 20))
    words = {"how": " firmware='efi'", "boot": "", "features": "<features><acpi/></features>"}
    xml = MACHINE.format(memory=512, serial=serial, devices=DEVICES.format(disk=disk), **words)
    ref = driver.domain_create(driver.domain_define_xml(xml))
    live = Domain.parse(driver.domain_get_xml_desc(ref))
    assert live.devices.emulator is not None and live.devices.emulator.endswith("qemu-system-aarch64")
    assert live.os is not None and live.os.nvram is not None and live.os.type.machine != "virt"
    deadline = time.monotonic() + 120
    while b"BdsDxe" not in serial.read_bytes():
        assert time.monotonic() < deadline, serial.read_bytes()
        time.sleep(0.2)
