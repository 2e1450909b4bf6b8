"""Memory, processors, keys, pictures and numbers of running guests."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel import guest
from hostel.drivers.base import DomainRef, DomainXmlFlag
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.machine import MemoryFlag, StatsFlag, VcpuFlag
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.qemu.keyboard import CODES, numbers
from hostel.errors import VirtError
from hostel.model.domain.domain import Domain
from hostel.objects import Connection
from support.moving import eventually
from support.session import disk, domain_xml, held, session, wait_for_report
from support.virsh import Ours

pytestmark = pytest.mark.qemu
MIB = 1 << 20
SCREEN = "<video><model type='vga'/></video>"


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    (tmp_path / "disk.img").write_bytes(guest.image(label="calls", mode=guest.Mode.WAIT).ljust(MIB, b"\0"))
    with session(tmp_path) as opened:
        yield opened


@pytest.fixture
def ref(driver: QemuDriver, tmp_path: Path) -> DomainRef:
    xml = domain_xml(tmp_path, disk(tmp_path / "disk.img"), SCREEN)
    ref = driver.domain_create(driver.domain_define_xml(xml.replace("<vcpu>1<", "<vcpu current='1'>3<")))
    wait_for_report(tmp_path, 1)
    return ref


def stored(driver: QemuDriver, ref: DomainRef) -> Domain:
    return Domain.parse(driver.domain_get_xml_desc(ref, DomainXmlFlag.INACTIVE))


def test_processors_are_plugged_in_and_the_documents_follow(driver: QemuDriver, ref: DomainRef) -> None:
    assert driver.domain_get_info(ref).vcpus == 1
    driver.domain_set_vcpus_flags(ref, 2, Affect.LIVE)
    assert driver.domain_get_info(ref).vcpus == 2
    cpus = json.loads(driver.domain_qemu_monitor_command(ref, '{"execute": "query-cpus-fast"}'))["return"]
    assert len(cpus) == 2
    driver.domain_set_vcpus_flags(ref, 3, Affect.LIVE | Affect.CONFIG)
    found = stored(driver, ref).vcpu
    assert found is not None
    assert (found.value, found.current) == (3, None)
    with pytest.raises(VirtError, match="greater than max allowable"):
        driver.domain_set_vcpus_flags(ref, 4, Affect.LIVE)
    with pytest.raises(VirtError, match="unplug request"):  # a guest without ACPI does not answer
        driver.domain_set_vcpus_flags(ref, 1, Affect.LIVE)
    driver.domain_set_vcpus_flags(ref, 8, Affect.CONFIG, VcpuFlag.MAXIMUM)
    found = stored(driver, ref).vcpu
    assert found is not None
    assert (found.value, found.current) == (8, 3)


def test_processors_are_plugged_in_one_by_one(driver: QemuDriver, ref: DomainRef, tmp_path: Path) -> None:
    driver.domain_set_vcpu(ref, "2", 1, Affect.LIVE)
    query = '{"execute": "query-hotpluggable-cpus"}'
    answer = json.loads(driver.domain_qemu_monitor_command(ref, query))["return"]
    assert sorted(slot["props"]["socket-id"] for slot in answer if "qom-path" in slot) == [0, 2]
    assert driver.domain_get_info(ref).vcpus == 2
    driver.domain_set_vcpu(ref, "1", 1, Affect.CONFIG)
    found = stored(driver, ref).vcpu
    assert found is not None
    assert (found.value, found.current) == (3, 2)
    for which, state, affect, words in (
        ("2", 1, Affect.LIVE, "vcpu '2' is already in requested state"),
        ("0", 0, Affect.LIVE, "vcpu '0' can't be unplugged"),
        ("3", 1, Affect.LIVE, "vcpu 3 is not present in live config"),
        ("3", 1, Affect.CONFIG, "vcpu 3 is not present in persistent config"),
        ("0", 0, Affect.CONFIG, "vCPU '0' can't be modified"),
        ("x", 0, Affect.CONFIG, "Failed to parse bitmap 'x'"),
        ("1", 2, Affect.CONFIG, "unsupported state value"),
    ):
        with pytest.raises(VirtError, match=words):
            driver.domain_set_vcpu(ref, which, state, affect)
    driver.domain_set_vcpu(ref, "1", 0, Affect.CONFIG)
    driver.domain_set_vcpu(ref, "2", 1, Affect.CONFIG)
    driver.domain_destroy(ref)
    ref = driver.domain_create(ref)
    answer = json.loads(driver.domain_qemu_monitor_command(ref, query))["return"]
    names = {slot["props"]["socket-id"]: slot["qom-path"].rpartition("/")[2] for slot in answer if "qom-path" in slot}
    assert names.keys() == {0, 2} and names[2] == "vcpu2"  # what is plugged in can be taken out
    vcpus = Domain.parse(driver.domain_get_xml_desc(ref)).vcpus
    assert vcpus is not None and [entry.enabled for entry in vcpus.vcpus] == [True, False, True]
    image = tmp_path / "memory"
    driver.domain_save_flags(ref, str(image))
    ref = driver.domain_restore_flags(str(image))
    answer = json.loads(driver.domain_qemu_monitor_command(ref, query))["return"]
    assert sorted(slot["props"]["socket-id"] for slot in answer if "qom-path" in slot) == [0, 2]


def test_memory_is_asked_of_the_balloon_and_written_down(driver: QemuDriver, ref: DomainRef) -> None:
    driver.domain_set_memory_flags(ref, 16 << 10, Affect.CONFIG)
    found = stored(driver, ref)
    assert found.current_memory is not None
    assert found.current_memory.to_kib() == 16 << 10
    with pytest.raises(VirtError, match="higher than max memory"):
        driver.domain_set_memory_flags(ref, 64 << 10, Affect.LIVE)
    driver.domain_set_memory_flags(ref, 24 << 10, Affect.LIVE)
    driver.domain_set_memory_flags(ref, 64 << 10, Affect.CONFIG, MemoryFlag.MAXIMUM)
    found = stored(driver, ref)
    assert found.memory is not None
    assert found.memory.to_kib() == 64 << 10
    with pytest.raises(VirtError, match="active domain"):
        driver.domain_set_memory_flags(ref, 64 << 10, Affect.LIVE, MemoryFlag.MAXIMUM)


def test_memory_is_what_the_guests_balloon_leaves(driver: QemuDriver, ref: DomainRef, tmp_path: Path) -> None:
    driver.domain_set_memory_flags(ref, 24 << 10, Affect.LIVE)
    assert "<currentMemory unit='KiB'>32768</currentMemory>" in driver.domain_get_xml_desc(ref)  # only asked
    place: list[str] = []

    def is_there() -> bool:
        told = driver.domain_qemu_monitor_command(ref, "info pci", human=True)
        function = next(part for part in told.split("Bus ") if '"balloon0"' in part)
        place[:] = re.findall(r"BAR0: I/O at (0x[0-9a-f]{1,4}) ", function)
        return bool(place)

    assert eventually(is_there)  # the firmware has given it its registers
    # What a driver does that has given 2048 pages of 4 KiB back: it writes so into the device's "actual".
    driver.domain_qemu_monitor_command(ref, f"o /w {int(place[0], 16) + 0x18} 2048", human=True)
    assert "<currentMemory unit='KiB'>24576</currentMemory>" in driver.domain_get_xml_desc(ref)
    assert driver.domain_get_info(ref).memory == 24 << 10
    with held(tmp_path) as machine:
        assert machine.domain.current_memory is not None and machine.domain.current_memory.to_kib() == 24 << 10
    driver.domain_save_flags(ref, str(tmp_path / "saved"))
    assert "<currentMemory unit='KiB'>24576</currentMemory>" in driver.domain_save_image_get_xml_desc(
        str(tmp_path / "saved")
    )


def test_memory_statistics_are_what_is_known(driver: QemuDriver, ref: DomainRef) -> None:
    found = driver.domain_memory_stats(ref)
    assert found["actual"] == 32 << 10
    assert found["rss"] > 1024
    driver.domain_set_memory_stats_period(ref, 5, Affect.LIVE | Affect.CONFIG)
    assert "<stats period='5'/>" in driver.domain_get_xml_desc(ref)
    assert "<stats period='5'/>" in driver.domain_get_xml_desc(ref, DomainXmlFlag.INACTIVE)


def test_statistics_of_running_and_other_domains(driver: QemuDriver, ref: DomainRef, tmp_path: Path) -> None:
    driver.domain_define_xml(domain_xml(tmp_path, disk(tmp_path / "disk.img"), name="other"))
    found = {item.name: stats for item, stats in driver.connect_get_all_domain_stats([])}
    assert found["guest"]["state.state"] == 1
    assert found["guest"]["vcpu.current"] == 1
    assert found["guest"]["vcpu.0.state"] == 1
    assert found["guest"]["block.0.name"] == "vda"
    assert int(found["guest"]["block.0.rd.bytes"]) > 0
    assert found["guest"]["block.0.capacity"] == MIB
    # The end of what was written, and what the host gives for it.
    assert 0 < int(found["guest"]["block.0.allocation"]) <= MIB
    assert found["guest"]["block.0.physical"] == (tmp_path / "disk.img").stat().st_blocks * 512
    assert found["guest"]["block.0.backingIndex"] == 1
    assert found["other"]["block.0.capacity"] == found["other"]["block.0.physical"] == MIB
    assert int(found["guest"]["cpu.time"]) > 0
    assert found["other"]["state.state"] == 5
    [(_, only)] = driver.connect_get_all_domain_stats([ref], StatsFlag.STATE)
    assert set(only) == {"state.state", "state.reason"}


def test_screen_is_a_picture_and_keys_reach_the_guest(driver: QemuDriver, ref: DomainRef) -> None:
    picture = driver.domain_screenshot(ref)
    assert picture.mime == "image/png"
    assert picture.content.startswith(b"\x89PNG\r\n")
    with pytest.raises(VirtError, match="no such screen ID"):
        driver.domain_screenshot(ref, 1)
    driver.domain_send_key(ref, 0, 50, [CODES["KEY_LEFTCTRL"], CODES["KEY_LEFTALT"], CODES["KEY_DELETE"]])
    with pytest.raises(VirtError, match="cannot translate"):
        driver.domain_send_key(ref, 0, 0, [250])


def test_key_codes_are_those_of_the_pc() -> None:
    names = ["KEY_ESC", "KEY_A", "KEY_ENTER", "KEY_F12", "KEY_UP", "KEY_RIGHTALT"]
    assert numbers(0, [CODES[name] for name in names]) == [0x01, 0x1E, 0x1C, 0x58, 0xC8, 0xB8]


def test_monitor_commands_answer_as_qemu_does(driver: QemuDriver, ref: DomainRef) -> None:
    said = json.loads(driver.domain_qemu_monitor_command(ref, '{"execute": "query-status", "id": 7}'))
    assert said["return"]["status"] == "running"
    assert said["id"] == 7
    said = json.loads(driver.domain_qemu_monitor_command(ref, '{"execute": "no-such-command"}'))
    assert said["error"]["class"] == "CommandNotFound"
    assert "running" in driver.domain_qemu_monitor_command(ref, "info status", human=True)
    with pytest.raises(VirtError, match="is no QMP command"):
        driver.domain_qemu_monitor_command(ref, "info status")


CHANNEL = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"


def test_agent_that_is_not_there_is_told_from_one_that_has_no_channel(
    driver: QemuDriver, ref: DomainRef, tmp_path: Path
) -> None:
    with pytest.raises(VirtError, match="is not configured"):
        driver.domain_fs_freeze(ref)
    driver.domain_destroy(ref)
    xml = domain_xml(tmp_path, disk(tmp_path / "disk.img"), CHANNEL, name="other")
    other = driver.domain_create(driver.domain_define_xml(xml))
    with pytest.raises(VirtError, match="is not connected"):
        driver.domain_qemu_agent_command(other, '{"execute": "guest-ping"}')


@pytest.fixture
def tap() -> Iterator[str]:
    name = f"hs{os.getpid()}"
    made = subprocess.run(["ip", "tuntap", "add", "dev", name, "mode", "tap"], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("no right to make a tap device")
    try:
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "link", "del", name], check=True)


@pytest.mark.requires_tool("ip")
def test_traffic_is_counted_from_the_guests_side(driver: QemuDriver, tmp_path: Path, tap: str) -> None:
    wire = (
        f"<interface type='ethernet'><mac address='52:54:00:00:00:07'/><target dev='{tap}' managed='no'/></interface>"
    )
    user = "<interface type='user'><mac address='52:54:00:00:00:08'/></interface>"
    ref = driver.domain_create(driver.domain_define_xml(domain_xml(tmp_path, disk(tmp_path / "disk.img"), wire, user)))
    wait_for_report(tmp_path, 1)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((tap, 0))
        raw.send(b"\xff" * 14 + bytes(986))
    found = driver.domain_interface_stats(ref, "52:54:00:00:00:07")
    assert (found.rx_bytes >= 1000, found.tx_bytes) == (True, 0)
    told = dict(driver.connect_get_all_domain_stats([ref], StatsFlag.INTERFACE)[0][1])
    assert (told["net.count"], told["net.0.name"], told["net.0.tx.bytes"]) == (2, tap, 0)
    assert "net.1.name" not in told
    code, out, _ = Ours(tmp_path).run(f"domifstat guest {tap}")
    assert (code, [line.split()[1] for line in out.split("\n") if line]) == (0, list(found._fields))
    with pytest.raises(VirtError, match="'eth9' is not a known interface"):
        driver.domain_interface_stats(ref, "eth9")
    with pytest.raises(VirtError, match="Interface name not provided"):
        driver.domain_interface_stats(ref, "52:54:00:00:00:08")
