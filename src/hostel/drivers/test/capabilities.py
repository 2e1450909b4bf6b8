"""The capabilities document of the invented host."""

from __future__ import annotations

from hostel.drivers.document import Writer

_CELLS = ((2097152, 4), (4194304, 8))  # each cell's memory in KiB and its page size in KiB
_CPUS_IN_CELL = 8
_PAGES = (4, 8, 2048, 1048576)  # KiB


def format_capabilities() -> str:
    """Two cells of eight CPUs, 32 bits, and guests of types ``hvm`` and ``xen``."""
    writer = Writer()
    writer.start("capabilities")
    writer.start("host")
    writer.start("cpu")
    writer.leaf("arch", "i686")
    _features(writer)
    for size in _PAGES:
        writer.leaf("pages", unit="KiB", size=size)
    writer.end()
    writer.leaf("power_management")
    writer.leaf("iommu", support="no")
    _topology(writer)
    writer.start("secmodel")
    writer.leaf("model", "testSecurity")
    writer.leaf("doi", "")
    writer.end()
    writer.end()
    for kind in ("hvm", "xen"):
        writer.start("guest")
        writer.leaf("os_type", kind)
        writer.start("arch", name="i686")
        writer.leaf("wordsize", 32)
        writer.leaf("emulator", "/usr/bin/test-hv")
        writer.leaf("domain", type="test")
        writer.end()
        _features(writer)
        writer.end()
    writer.end()
    return writer.text()


def _features(writer: Writer) -> None:
    writer.start("features")
    writer.leaf("pae")
    writer.leaf("nonpae")
    writer.end()


def _topology(writer: Writer) -> None:
    writer.start("topology")
    writer.start("cells", num=len(_CELLS))
    for index, (memory, page) in enumerate(_CELLS):
        writer.start("cell", id=index)
        writer.leaf("memory", memory, unit="KiB")
        writer.leaf("pages", memory // page, unit="KiB", size=page)
        for size in _PAGES[2:]:
            writer.leaf("pages", 0, unit="KiB", size=size)
        writer.start("cpus", num=_CPUS_IN_CELL)
        for core in range(_CPUS_IN_CELL):
            number = index * _CPUS_IN_CELL + core
            writer.leaf("cpu", id=number, socket_id=index, die_id=0, core_id=core, siblings=number)
        writer.end()
        writer.end()
    writer.end()
    writer.end()
