"""What a real libvirtd says that it can do: we read all of it, and write it again without a change."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hostel.codec.xml import Element
from hostel.model.capabilities import Capabilities
from hostel.model.domain_capabilities import DomainCapabilities
from hostel.model.storage_capabilities import StoragePoolCapabilities, storage_capabilities
from support import libvirtd
from support.libvirtd import Libvirtd

pytestmark = [pytest.mark.requires_tool("virsh"), pytest.mark.requires_tool("libvirtd")]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Libvirtd]:
    with libvirtd.running() as daemon:
        yield daemon


def said(daemon: Libvirtd, command: str) -> str:
    return daemon.virsh(command).stdout.strip("\n") + "\n"


@pytest.mark.parametrize(
    ("command", "cls"),
    [("capabilities", Capabilities),
     ("domcapabilities --virttype qemu", DomainCapabilities),
     ("domcapabilities --virttype qemu --machine q35", DomainCapabilities),
     ("pool-capabilities", StoragePoolCapabilities)],
)  # fmt: skip
def test_capabilities_are_read_and_written_without_a_change(daemon: Libvirtd, command: str, cls: type[Element]) -> None:
    text = said(daemon, command)
    document = cls.parse(text)
    assert list(document.unknown_paths()) == []
    assert document.format() == text


def test_ours_of_pools_are_libvirts_where_the_same_pools_are_there(daemon: Libvirtd) -> None:
    text = said(daemon, "pool-capabilities")
    there = [pool.type for pool in StoragePoolCapabilities.parse(text).pools if pool.supported]
    assert storage_capabilities(there).format() == text
