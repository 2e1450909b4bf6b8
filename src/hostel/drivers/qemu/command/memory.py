"""The guest's memory: how much, from where, in which cells, and what is plugged in (``qemuBuildMemCommandLine``)."""

from __future__ import annotations

import resource
from typing import Any, Final, NamedTuple

from hostel.drivers.qemu.command.context import Context, alias_of, option
from hostel.drivers.qemu.command.place import place
from hostel.drivers.qemu.document import unsupported
from hostel.model.domain.cpu import Cell, CellBandwidth, Interconnects, Latency
from hostel.model.domain.devices.address import DimmAddress
from hostel.model.domain.devices.platform import MemoryDevice, MemoryDeviceSource
from hostel.model.domain.domain import Domain
from hostel.model.domain.memory import MemoryBacking
from hostel.model.domain.platform import PPC64, X86, Board, arch_of, board_of
from hostel.model.domain.rules.memory import cells_of
from hostel.model.numberset import parse_numbers
from hostel.units import KiB

# What boards call their memory, which a saved machine knows it by; those of x86 have one name for it.
_RAM: Final = {
    Board.ARM_VIRT: "mach-virt.ram", Board.RISCV_VIRT: "riscv_virt_board.ram", Board.PSERIES: "ppc_spapr.ram",
    Board.S390_CCW: "s390.ram", Board.MALTA: "mips_malta.ram",
}  # fmt: skip
_SYSTEM_PAGE: Final = resource.getpagesize() // KiB
_BLOCK: Final = 1024  # KiB
_POWER_BLOCK: Final = 256 * _BLOCK
MODULE: Final = 2048  # KiB
_DEVICES: Final = {
    "dimm": "pc-dimm", "nvdimm": "nvdimm", "virtio-pmem": "virtio-pmem-pci", "virtio-mem": "virtio-mem-pci",
}  # fmt: skip
_ENCLAVE: Final = "sgx-epc"  # memory that the host cannot read
_POLICIES: Final = {"strict": "bind", "preferred": "preferred", "interleave": "interleave"}
_ASSOCIATIVITY: Final = {"none": "none", "direct": "direct", "full": "complex"}
_CACHE_POLICY: Final = {"none": "none", "writeback": "write-back", "writethrough": "write-through"}


class _Piece(NamedTuple):
    """A piece of the guest's memory.

    Attributes:
        name: the object's.
        size: in KiB.
        node: the guest's cell; None where there are none, or it is in none.
        access: as the piece itself asks for it.
        discard: likewise.
        device: what it is plugged in by.
        is_system: whether it is all that the machine starts with.
    """

    name: str
    size: int
    node: int | None = None
    access: str | None = None
    discard: bool | None = None
    device: MemoryDevice | None = None
    is_system: bool = False

    @property
    def source(self) -> MemoryDeviceSource:
        """What of the host is behind it."""
        return (self.device.source if self.device is not None else None) or MemoryDeviceSource()


def arguments(domain: Domain, context: Context) -> list[str]:
    """How much memory there is, the objects behind it, and the cells that it is in.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: it is to be in pages that the host does not give.
    """
    backing, cells = domain.memory_backing or MemoryBacking(), cells_of(domain)
    size = initial_size(domain)
    words = f"size={size}k"
    if domain.max_memory is not None:
        words += f",slots={domain.max_memory.slots},maxmem={domain.max_memory.to_kib()}k"
    argv = ["-m", words]
    if not cells:
        argv += _object(domain, context, _Piece(_ram(domain), size, is_system=True))
    argv += ["-overcommit", f"mem-lock={'on' if backing.locked else 'off'}"]
    for number, cell in enumerate(cells):
        piece = _Piece(f"ram-node{number}", cell.memory, number, cell.mem_access, cell.discard)
        argv += _object(domain, context, piece)
    return argv


def machine_properties(domain: Domain) -> list[str]:
    """What of memory is the board's."""
    backing = domain.memory_backing or MemoryBacking()
    words = ["mem-merge=off"] if backing.nosharepages else []
    words += ["nvdimm=on"] if any(item.model == "nvdimm" for item in domain.devices.memories) else []
    enclaves = [item for item in domain.devices.memories if item.model == _ENCLAVE]
    for number, item in enumerate(enclaves):
        words += [f"sgx-epc.{number}.memdev=mem{alias_of(item)},sgx-epc.{number}.node={item.target.node or 0}"]
    words += [] if cells_of(domain) else [f"memory-backend={_ram(domain)}"]
    return [*words, *(["hmat=on"] if _has_attributes(domain) else [])]


def _ram(domain: Domain) -> str:
    return _RAM.get(board_of(domain), "pc.ram" if arch_of(domain) in X86 else "ram")


def align(domain: Domain) -> None:
    """Round sizes up to whole blocks (``qemuDomainAlignMemorySizes``): of each cell and module, and so of all."""
    if domain.memory is None:
        return
    initial, cells = initial_size(domain), cells_of(domain)
    block = _POWER_BLOCK if arch_of(domain) in PPC64 else _BLOCK
    modules = [item.target.size for item in domain.devices.memories]
    for size in modules:
        size.value, size.unit = up(size.to_kib(), max(MODULE, block)), "KiB"
    for cell in cells:
        cell.memory = up(cell.memory, block)
    total = sum(cell.memory for cell in cells) if cells else up(initial, block)
    domain.memory.value, domain.memory.unit = total + sum(size.to_kib() for size in modules), "KiB"
    if domain.max_memory is not None:
        domain.max_memory.value, domain.max_memory.unit = up(domain.max_memory.to_kib(), block), "KiB"


def up(size: int, block: int = _BLOCK) -> int:
    """Round up to whole blocks, in KiB."""
    return -(-size // block) * block


def initial_size(domain: Domain) -> int:
    """What the machine starts with, in KiB: all but what is plugged in."""
    total = domain.memory.to_kib() if domain.memory is not None else 0
    return total - sum(item.target.size.to_kib() for item in domain.devices.memories)


def _object(domain: Domain, context: Context, piece: _Piece) -> list[str]:
    spec = backend(domain, context, piece)
    if "host-nodes" not in spec or not spec.get("prealloc") or not context.has("thread-context"):
        return option("-object", spec)
    # Memory is filled by threads that are on its nodes themselves.
    threads = f"tc-{piece.name}"
    filling = {"qom-type": "thread-context", "id": threads, "node-affinity": spec["host-nodes"]}
    return [*option("-object", filling), *option("-object", {**spec, "prealloc-context": threads})]


def backend(domain: Domain, context: Context, piece: _Piece) -> dict[str, Any]:
    """The object behind a piece of memory (``qemuBuildMemoryBackendProps``)."""
    backing, cells = domain.memory_backing or MemoryBacking(), cells_of(domain)
    cell = cells[piece.node] if piece.node is not None and piece.node < len(cells) else Cell(memory=0)
    access = piece.access or cell.mem_access or backing.access
    discard = next((item for item in (piece.discard, cell.discard, backing.discard or None) if item is not None), None)
    page, path = _page(domain, context, piece), piece.source.path
    fills = _fills(domain, context, piece)
    share = None if access is None else access == "shared"
    spec: dict[str, Any] = {"qom-type": "memory-backend-ram", "id": piece.name}
    if piece.device is not None and piece.device.model == _ENCLAVE:
        spec["qom-type"], fills = "memory-backend-epc", True
    elif path is None and backing.source == "memfd":
        spec["qom-type"] = "memory-backend-memfd"
        spec |= {"hugetlb": True, "hugetlbsize": page * KiB} if page is not None else {}
        spec |= {"share": share, "x-use-canonical-path-for-ramblock-id": False if piece.is_system else None}
    elif page is not None or path is not None or access is not None or backing.source == "file":
        spec["qom-type"] = "memory-backend-file"
        spec["mem-path"] = path or (context.pages.path(page) if page is not None else context.memory_files)
        spec |= {"discard-data": discard if path is None else None, "share": share}
        spec |= {"x-use-canonical-path-for-ramblock-id": False if piece.is_system else None}
    if piece.device is not None and piece.device.model == "virtio-mem":
        spec["reserve"] = False
    else:
        threads = backing.allocation.threads if backing.allocation is not None else None
        spec |= {"prealloc": True if fills else None, "prealloc-threads": threads}
    align = piece.source.align_size
    spec |= {"size": piece.size * KiB, "align": align.to_bytes() if align is not None else None}
    spec |= {"pmem": True if piece.source.pmem else None}
    return {**spec, **_placement(domain, piece)}


def _fills(domain: Domain, context: Context, piece: _Piece) -> bool:
    """Whether the host takes all of a piece at once."""
    backing = domain.memory_backing or MemoryBacking()
    if backing.allocation is not None and backing.allocation.mode == "immediate":
        return True
    if piece.source.path is None:
        return _page(domain, context, piece) is not None
    # What is on a device is there; writing all of it would only wear that off.
    return not piece.source.pmem and (piece.device is None or piece.device.model != "virtio-pmem")


def _page(domain: Domain, context: Context, piece: _Piece) -> int | None:
    """The size of the large pages that a piece is made of, in KiB; None where it is made of usual ones."""
    if piece.source.page_size is not None:
        found: int | None = piece.source.page_size.to_kib()
        return None if found == _SYSTEM_PAGE else found
    backing = domain.memory_backing
    if backing is None or backing.hugepages is None:
        return None
    chosen = None if backing.hugepages.pages else context.pages.default
    for page in backing.hugepages.pages:
        if page.nodeset is None:
            chosen = page.size or context.pages.default
        elif piece.node is not None and piece.node in parse_numbers(page.nodeset):
            chosen = page.size
            break
    return None if chosen == _SYSTEM_PAGE else chosen


def _placement(domain: Domain, piece: _Piece) -> dict[str, Any]:
    """The nodes of the host that a piece comes from."""
    tune = domain.numatune
    own = next((item for item in tune.nodes if item.cellid == piece.node), None) if tune is not None else None
    whole = tune.memory if tune is not None else None
    mode = (own.mode if own is not None else None) or (whole.mode if whole is not None else None) or "strict"
    nodes = piece.source.node_mask or (own.nodeset if own is not None else None)
    nodes = nodes or (whole.nodeset if whole is not None else None)
    if nodes is None or mode not in _POLICIES:
        return {}
    return {"host-nodes": sorted(parse_numbers(nodes)), "policy": _POLICIES[mode]}


def cells(domain: Domain) -> list[str]:
    """The guest's cells, how far they are from each other, and how fast their memory is.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: no cell has processors.
    """
    argv: list[str] = []
    found, has_attributes = cells_of(domain), _has_attributes(domain)
    first = next((number for number, cell in enumerate(found) if cell.cpus), None)
    if found and first is None:
        raise unsupported("At least one NUMA node has to have CPUs")
    for number, cell in enumerate(found):
        words = [f"node,nodeid={number}"]
        words += [f"cpus={part}" for part in (cell.cpus or "").split(",") if part]
        words += [f"initiator={number if cell.cpus else first}"] if has_attributes else []
        argv += ["-numa", ",".join([*words, f"memdev=ram-node{number}"])]
    distances = {
        (number, item.id): item.value
        for number, cell in enumerate(found)
        for item in (cell.distances.siblings if cell.distances is not None else [])
    }
    if distances:
        for one in range(len(found)):
            for other in range(len(found)):
                value = distances.get((one, other), 10 if one == other else 20)
                argv += ["-numa", f"dist,src={one},dst={other},val={value}"]
    return argv + _attributes(domain)


def _has_attributes(domain: Domain) -> bool:
    """Whether the guest is told how fast memory is (ACPI, HMAT)."""
    return _interconnects(domain) is not None or any(cell.caches for cell in cells_of(domain))


def _interconnects(domain: Domain) -> Interconnects | None:
    return domain.cpu.numa.interconnects if domain.cpu is not None and domain.cpu.numa is not None else None


def _attributes(domain: Domain) -> list[str]:
    argv: list[str] = []
    links = _interconnects(domain) or Interconnects()
    argv += [word for latency in links.latencies for word in ("-numa", _link(latency))]
    argv += [word for bandwidth in links.bandwidths for word in ("-numa", _link(bandwidth))]
    for number, cell in enumerate(cells_of(domain)):
        for cache in cell.caches:
            size = cache.size.value if cache.size is not None else 0
            words = f"hmat-cache,node-id={number},size={size}K,level={cache.level}"
            words += f",associativity={_ASSOCIATIVITY[cache.associativity]},policy={_CACHE_POLICY[cache.policy]}"
            words += f",line={cache.line.value}" if cache.line is not None and cache.line.value else ""
            argv += ["-numa", words]
    return argv


def _link(link: Latency | CellBandwidth) -> str:
    level = ["first-level", "second-level", "third-level"][link.cache - 1] if link.cache else "memory"
    start = f"hmat-lb,initiator={link.initiator},target={link.target},hierarchy={level},data-type={link.type}-"
    if isinstance(link, Latency):
        return f"{start}latency,latency={link.value}"
    return f"{start}bandwidth,bandwidth={link.value}K"


def devices(domain: Domain, context: Context) -> list[str]:
    """Memory that is plugged in."""
    argv: list[str] = []
    for device in domain.devices.memories:
        argv += device_arguments(domain, device, context)
    return argv


def device_arguments(domain: Domain, device: MemoryDevice, context: Context) -> list[str]:
    """One piece of plugged memory: the object, and the module that it is on; an enclave's is the board's."""
    name, target = alias_of(device), device.target
    piece = _Piece(f"mem{name}", target.size.to_kib(), target.node, device.access, device.discard, device)
    if device.model == _ENCLAVE:
        return _object(domain, context, piece)
    spec: dict[str, Any] = {"driver": _DEVICES[device.model], "node": target.node}
    spec["label-size"] = target.label.size.to_bytes() if target.label is not None else None
    spec["block-size"] = target.block.to_bytes() if target.block is not None else None
    spec["requested-size"] = target.requested.to_bytes() if target.requested is not None else None
    spec |= {"uuid": device.uuid, "unarmed": True if target.readonly else None, "memdev": piece.name}
    spec |= {"prealloc": True if device.model == "virtio-mem" and _fills(domain, context, piece) else None, "id": name}
    if isinstance(device.address, DimmAddress):
        spec |= {"slot": device.address.slot, "addr": device.address.base}
    return [*_object(domain, context, piece), *option("-device", {**spec, **place(domain, device)})]
