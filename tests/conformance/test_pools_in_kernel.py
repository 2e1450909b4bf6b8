"""Pools that want more of a kernel than the host's has, in one that has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import uml

MIB = 1 << 20

pytestmark = [
    pytest.mark.requires_tool("linux.uml"),
    pytest.mark.skipif(not uml.may_boot(), reason="the kernel's root is the host's: root only"),
]


@pytest.mark.requires_tool("lvcreate")
def test_volume_groups(tmp_path: Path) -> None:
    uml.run(tmp_path, "support.kernel_pools", "logical", 256 * MIB)


def test_scsi_adapters(tmp_path: Path) -> None:
    uml.run(tmp_path, "support.kernel_pools", "scsi")


@pytest.mark.requires_tool("dmsetup")
def test_multipath_devices(tmp_path: Path) -> None:
    uml.run(tmp_path, "support.kernel_pools", "multipath")


@pytest.mark.requires_tool("tgtd")
@pytest.mark.requires_tool("iscsiadm")
def test_iscsi_targets(tmp_path: Path) -> None:
    uml.run(tmp_path, "support.kernel_pools", "iscsi")


@pytest.mark.requires_tool("exportfs")
@pytest.mark.requires_tool("showmount")
def test_network_file_systems(tmp_path: Path) -> None:
    uml.run(tmp_path, "support.kernel_pools", "nfs")
