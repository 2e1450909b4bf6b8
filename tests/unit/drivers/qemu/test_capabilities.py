"""The document of capabilities, from answers and files of our own making."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers.qemu import capabilities
from hostel.model.capabilities import Capabilities

ANSWER = """[
  {"name": "none", "cpu-max": 1},
  {"name": "pc-q35-9.0", "alias": "q35", "cpu-max": 288, "deprecated": false},
  {"name": "pc-i440fx-1.4", "cpu-max": 255, "deprecated": true},
  {"name": "pc-i440fx-9.0", "alias": "pc", "cpu-max": 255, "is-default": true}
]"""
CPU = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\nstepping\t: 7\nmicrocode\t: 0x10\n"


def test_the_usual_machine_comes_first_and_aliases_follow_what_they_stand_for() -> None:
    found = capabilities.machines(ANSWER, "pc")
    assert [(item.name, item.canonical, item.max_cpus, item.deprecated) for item in found] == [
        ("pc-i440fx-9.0", None, 255, None),
        ("pc", "pc-i440fx-9.0", 255, None),
        ("pc-q35-9.0", None, 288, None),
        ("q35", "pc-q35-9.0", 288, None),
        ("pc-i440fx-1.4", None, 255, True),
    ]
    assert capabilities.machines("", "pc") == []


def test_a_host_without_qemu_has_no_guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert capabilities.capabilities(tmp_path / "cache").guests == []


def host(root: Path) -> Capabilities:
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text(f"{CPU}address sizes\t: 46 bits physical, 48 bits virtual\n\n{CPU}")
    (root / "sys/kernel/iommu_groups/0").mkdir(parents=True)
    cpus = root / "sys/devices/system/cpu"
    cpus.mkdir(parents=True)
    (cpus / "present").write_text("0\n")
    (cpus / "online").write_text("0\n")
    (root / "etc").mkdir()
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    return capabilities.capabilities(root / "cache", root)


def test_the_processor_is_named_by_its_maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = host(tmp_path).host
    assert found is not None
    assert (found.cpu.vendor, found.cpu.microcode, found.iommu) == ("Intel", 16, True)
    assert found.cpu.signature is not None
    assert (found.cpu.signature.family, found.cpu.signature.model, found.cpu.signature.stepping) == (6, 85, 7)
    assert found.cpu.address_bits is not None
    assert found.cpu.address_bits.bits == 46


def test_the_host_has_one_identity_that_does_not_tell_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = host(tmp_path).host
    again = capabilities.capabilities(tmp_path / "cache", tmp_path).host
    assert found is not None and again is not None
    assert found.uuid == again.uuid
    assert "01234567" not in str(found.uuid)


def test_a_host_that_says_nothing_has_a_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    text = capabilities.capabilities(tmp_path / "cache", tmp_path).format()
    assert "<iommu support='no'/>" in text
