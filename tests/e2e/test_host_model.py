"""A guest whose processor shall be as the host's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel import guest
from hostel.drivers.base import DomainXmlFlag
from hostel.drivers.qemu.cpu.decode import host_model
from hostel.drivers.qemu.cpu.known import known
from hostel.drivers.qemu.driver import QemuDriver
from hostel.model.domain.domain import Domain
from hostel.objects import Connection
from support.session import disk, domain_xml, session, wait_for_report

pytestmark = pytest.mark.qemu
CPU = (
    "<cpu mode='host-model'><topology sockets='1' dies='1' cores='2' threads='1'/>"
    "<feature policy='disable' name='aes'/></cpu>"
)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    (tmp_path / "disk.img").write_bytes(guest.image(label="cpu", mode=guest.Mode.WAIT).ljust(1 << 20, b"\0"))
    with session(tmp_path) as opened:
        yield opened


def test_a_guest_starts_that_is_not_to_have_what_no_qemu_has(driver: QemuDriver, tmp_path: Path) -> None:
    features = "".join(
        f"<feature policy='{policy}' name='{name}'/>"
        for policy, name in (("disable", "pconfig"), ("forbid", "avx"), ("require", "osxsave"), ("require", "aes"))
    )
    cpu = f"<cpu mode='custom' match='exact' check='none'><model>qemu64</model>{features}</cpu>"
    xml = domain_xml(tmp_path, disk(tmp_path / "disk.img")).replace("<devices>", f"{cpu}<devices>")
    ref = driver.domain_create(driver.domain_define_xml(xml))
    live = Domain.parse(driver.domain_get_xml_desc(ref)).cpu
    assert live is not None
    assert [(item.policy, item.name) for item in live.features] == [("forbid", "avx"), ("require", "aes")]
    assert features.count("feature") == driver.domain_get_xml_desc(ref, DomainXmlFlag.INACTIVE).count("<feature ")


def test_it_is_named_in_the_live_document_and_the_guest_gets_all_of_it(driver: QemuDriver, tmp_path: Path) -> None:
    xml = domain_xml(tmp_path, disk(tmp_path / "disk.img")).replace("<vcpu>1<", "<vcpu>2<")
    ref = driver.domain_create(driver.domain_define_xml(xml.replace("<devices>", f"{CPU}<devices>")))
    wait_for_report(tmp_path, 1)
    live = Domain.parse(driver.domain_get_xml_desc(ref)).cpu
    assert live is not None and live.model is not None and live.topology is not None
    named = host_model(known("/usr/bin/qemu-system-x86_64", tmp_path / "asked", kvm=False))
    assert named is not None
    assert (live.mode, live.match, live.model.name, live.model.fallback) == ("custom", "exact", named.model, "forbid")
    assert live.topology.cores == 2
    policies = {feature.name: feature.policy for feature in live.features}
    assert policies["aes"] == "disable"
    assert {name for name, policy in policies.items() if policy == "require"} == {*named.more} - {"aes"}
    stored = driver.domain_get_xml_desc(ref, DomainXmlFlag.INACTIVE)
    assert "<cpu mode='host-model'" in stored
    (first, _) = json.loads(driver.domain_qemu_monitor_command(ref, '{"execute": "query-cpus-fast"}'))["return"]
    for name, wanted in (("unavailable-features", []), ("aes", False), (named.more[-1], True)):
        asked = {"execute": "qom-get", "arguments": {"path": first["qom-path"], "property": name}}
        assert json.loads(driver.domain_qemu_monitor_command(ref, json.dumps(asked)))["return"] == wanted
