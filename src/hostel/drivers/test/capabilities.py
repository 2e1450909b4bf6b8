"""The capabilities document of the invented host."""

from __future__ import annotations

from hostel.codec import xmltext
from hostel.model.capabilities import Capabilities

_CELLS = ((2097152, 4), (4194304, 8))  # each cell's memory in KiB and its page size in KiB
_CPUS_IN_CELL = 8
_PAGES = (4, 8, 2048, 1048576)  # KiB


class _Writer(xmltext.Writer):
    """A writer that takes attributes by their names."""

    def element(self, tag: str, **attributes: object) -> None:
        """Open an element that has children."""
        self.start(tag, [(name, str(value)) for name, value in attributes.items()])

    def add(self, tag: str, content: object | None = None, **attributes: object) -> None:
        """Add an element with text, or an empty one."""
        text = None if content is None else str(content)
        self.leaf(tag, [(name, str(value)) for name, value in attributes.items()], text)


def format_capabilities() -> str:
    """Two cells of eight CPUs, 32 bits, and guests of types ``hvm`` and ``xen``."""
    writer = _Writer()
    writer.element("capabilities")
    writer.element("host")
    writer.element("cpu")
    writer.add("arch", "i686")
    _features(writer)
    for size in _PAGES:
        writer.add("pages", unit="KiB", size=size)
    writer.end()
    writer.add("power_management")
    writer.add("iommu", support="no")
    _topology(writer)
    writer.element("secmodel")
    writer.add("model", "testSecurity")
    writer.add("doi", "")
    writer.end()
    writer.end()
    for kind in ("hvm", "xen"):
        writer.element("guest")
        writer.add("os_type", kind)
        writer.element("arch", name="i686")
        writer.add("wordsize", 32)
        writer.add("emulator", "/usr/bin/test-hv")
        writer.add("domain", type="test")
        writer.end()
        _features(writer)
        writer.end()
    writer.end()
    return Capabilities.parse(writer.text()).format()


def _features(writer: _Writer) -> None:
    writer.element("features")
    writer.add("pae")
    writer.add("nonpae")
    writer.end()


def _topology(writer: _Writer) -> None:
    writer.element("topology")
    writer.element("cells", num=len(_CELLS))
    for index, (memory, page) in enumerate(_CELLS):
        writer.element("cell", id=index)
        writer.add("memory", memory, unit="KiB")
        writer.add("pages", memory // page, unit="KiB", size=page)
        for size in _PAGES[2:]:
            writer.add("pages", 0, unit="KiB", size=size)
        writer.element("cpus", num=_CPUS_IN_CELL)
        for core in range(_CPUS_IN_CELL):
            number = index * _CPUS_IN_CELL + core
            writer.add("cpu", id=number, socket_id=index, die_id=0, core_id=core, siblings=number)
        writer.end()
        writer.end()
    writer.end()
    writer.end()
