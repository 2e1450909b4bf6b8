"""What a host has, from its ``/sys``; what an emulator can do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hostel.drivers.topology import CellMemory, host_bandwidth, host_cache, host_topology
from hostel.model.capabilities import Capabilities, Host, HostCpu, MigrationFeatures, PowerManagement
from hostel.model.domain_capabilities import DomainCapabilities
from libvirt_data.case import Case, Suite, Tree


def hosts(tree: Tree) -> Iterator[Case]:
    """Trees of /sys."""
    for call in tree.calls("vircaps2xmltest", "DO_TEST_FULL"):
        name, arch, offline, live = call.words
        arch = arch.removeprefix("VIR_ARCH_").lower()
        written = tree.path(f"vircaps2xmldata/vircaps-{arch}-{name}.xml")
        extra = {
            "folder": tree.path(f"vircaps2xmldata/linux-{name}"),
            "arch": arch,
            "offline": offline == "true",
            "live": live == "true",
        }
        yield Case("vircaps2xml", f"{name}-{arch}", tree.path("vircaps2xmltest.c"), written, extra=extra)


def made_up_memory(node: Path) -> CellMemory:
    """What libvirt's test says of a cell's memory, whatever is in the tree."""
    number = int(node.name.removeprefix("node")) + 1
    pages = tuple((size, (number + index) * 2048) for index, size in enumerate((4, 2048, 1048576)))
    return CellMemory(number * 1048576, pages)


def host(case: Case) -> str:
    """The capabilities of the host whose tree it is."""
    extra = case.extra
    system, resctrl = extra["folder"] / "system", extra["folder"] / "resctrl"
    cache = host_cache(system, resctrl)
    found = Host(
        cpu=HostCpu(arch=extra["arch"]),
        power_management=PowerManagement(),
        iommu=False,
        migration=MigrationFeatures(live=extra["live"]) if extra["offline"] else None,
        topology=host_topology(system, made_up_memory, lambda node: []),
        cache=cache,
        bandwidth=host_bandwidth(cache, resctrl),
    )
    return Capabilities(host=found).format()


def documents(tree: Tree) -> Iterator[Case]:
    """What emulators can do; only that the document is written again as it was is tried."""
    for path in sorted(tree.path("domaincapsdata").glob("*.xml")):
        yield Case("domaincaps-document", path.stem, path, path)


def document(case: Case) -> str:
    """What an emulator can do, as it is written."""
    return DomainCapabilities.parse(case.text()).format()


SUITES = (
    Suite("vircaps2xml", hosts, host),
    Suite("domaincaps-document", documents, document),
)
