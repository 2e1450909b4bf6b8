"""How much of its memory a virtio-mem device gives the guest, changed while it runs and in the definition."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.drivers.base import DomainRef, DomainXmlFlag
from hostel.drivers.base.domain import Affect
from hostel.drivers.qemu.driver import QemuDriver
from hostel.errors import VirtError
from hostel.model.domain.domain import Domain
from hostel.objects import Connection
from support.session import session
from support.virsh import Ours

pytestmark = pytest.mark.qemu
BOTH = Affect.LIVE | Affect.CONFIG
GUEST = """<domain type='qemu'><name>guest</name><maxMemory slots='2' unit='MiB'>512</maxMemory>
<memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os>
<cpu><numa><cell id='0' cpus='0' memory='65536' unit='KiB'/></numa></cpu><devices>
<memory model='virtio-mem'><target><size unit='MiB'>128</size><node>0</node><block unit='MiB'>2</block>
<requested unit='MiB'>0</requested></target></memory></devices></domain>"""


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with session(tmp_path) as opened:
        yield opened


def requested(driver: QemuDriver, ref: DomainRef, flags: DomainXmlFlag = DomainXmlFlag.NONE) -> int | None:
    (device,) = Domain.parse(driver.domain_get_xml_desc(ref, flags)).devices.memories
    return device.target.requested.to_kib() if device.target.requested is not None else None


def test_the_request_is_changed_and_nothing_else(driver: QemuDriver, tmp_path: Path) -> None:
    ref = driver.domain_create(driver.domain_define_xml(GUEST))
    virsh = Ours(tmp_path)
    assert virsh.run("update-memory-device guest --requested-size 32MiB --live --config")[0] == 0
    assert (requested(driver, ref), requested(driver, ref, DomainXmlFlag.INACTIVE)) == (32 << 10, 32 << 10)
    question = {"path": "/machine/peripheral/virtiomem0", "property": "requested-size"}
    asked = json.dumps({"execute": "qom-get", "arguments": question})
    assert json.loads(driver.domain_qemu_monitor_command(ref, asked))["return"] == 32 << 20
    code, out, _ = virsh.run("update-memory-device guest --requested-size 64MiB --print-xml")
    assert (code, requested(driver, ref)) == (0, 32 << 10)
    assert Domain.parse(f"<domain type='qemu'><devices>{out}</devices></domain>").devices.memories
    for size, reason in (("200MiB", "smaller than or equal to @size"), ("3MiB", "integer multiple of block size")):
        code, _, complaint = virsh.run(f"update-memory-device guest --requested-size {size}")
        assert code == 1
        assert reason in complaint
    with pytest.raises(VirtError, match="nothing but the requested size"):
        driver.domain_update_device_flags(ref, out.replace(">131072<", ">65536<"), BOTH)
    with pytest.raises(VirtError, match="memory not found"):
        elsewhere = re.sub("<(address|alias)[^>]*>", "", out).replace("<node>0<", "<node>1<")
        driver.domain_update_device_flags(ref, elsewhere, BOTH)
    assert requested(driver, ref) == 32 << 10
