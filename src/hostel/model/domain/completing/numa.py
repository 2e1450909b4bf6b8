"""NUMA cells: their numbers, their processors, how far they are from each other; where their memory comes from."""

from __future__ import annotations

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.cpu import Cell, Distances, Sibling
from hostel.model.domain.domain import Domain
from hostel.model.domain.memory import Numatune, NumatuneMemory
from hostel.model.numberset import format_numbers, parse_numbers
from hostel.model.scaled import Scaled

_HERE = 10  # the distance of a cell from itself


def complete_numa(domain: Domain) -> None:
    """Number the cells, fill in distances the other way round, and say who places memory and processors.

    Raises:
        ModelError: a cell is there twice, or a distance leads nowhere.
    """
    cells = domain.cpu.numa.cells if domain.cpu is not None and domain.cpu.numa is not None else []
    if cells:
        _number_cells(cells)
        _mirror_distances(cells)
    _complete_numatune(domain)


def _number_cells(cells: list[Cell]) -> None:
    path = "/domain/cpu/numa/cell"
    for index, cell in enumerate(cells):
        cell.id = index if cell.id is None else cell.id
        if cell.id >= len(cells):
            reason = (
                "Exactly one 'cell' element per guest NUMA cell allowed, non-contiguous ranges or ranges not starting "
                "from 0 are not allowed"
            )
            raise ModelError(f"{path}[{index + 1}]/@id", reason)
        if any(other.id == cell.id for other in cells[:index]):
            raise ModelError(f"{path}[{index + 1}]/@id", f"Duplicate NUMA cell info for cell id '{cell.id}'")
        cell.memory, cell.unit = Scaled(unit=cell.unit, value=cell.memory).to_kib(), "KiB"
        for cache in cell.caches:
            size, line = cache.size, cache.line
            if size is not None:
                size.value, size.unit = Scaled(unit=size.unit, value=size.value).to_kib(), "KiB"
            if line is not None:
                line.value, line.unit = Scaled(unit=line.unit or "bytes", value=line.value).to_bytes(), "B"
    cells.sort(key=lambda cell: cell.id or 0)
    for number, cell in enumerate(cells):
        for other in range(number):
            if _processors(cell) & _processors(cells[other]):
                reason = f"NUMA cells {number} and {other} have overlapping vCPU ids"
                raise ModelError(f"{path}[{number + 1}]/@cpus", reason, code=ErrorCode.CONFIG_UNSUPPORTED)


def _processors(cell: Cell) -> frozenset[int]:
    return parse_numbers(cell.cpus) if cell.cpus else frozenset()


def _mirror_distances(cells: list[Cell]) -> None:
    """It is as far back, unless the document says otherwise."""
    written = {cell.id or 0: cell.distances for cell in cells if cell.distances is not None}
    known: dict[int, dict[int, int]] = {}
    for number, distances in written.items():
        path = f"/domain/cpu/numa/cell[{number + 1}]/distances"
        if not distances.siblings:
            raise ModelError(path, "NUMA distances defined without siblings")
        for sibling in distances.siblings:
            if sibling.id >= len(cells):
                reason = f"'sibling_id {sibling.id}' does not refer to a valid cell within NUMA 'cell id {number}'"
                raise ModelError(f"{path}/sibling/@id", reason)
            if (sibling.id == number) != (sibling.value == _HERE):
                reason = (
                    f"'value {sibling.value}' is invalid for 'sibling id {sibling.id}' under NUMA 'cell id {number}'"
                )
                raise ModelError(f"{path}/sibling/@value", reason)
            known.setdefault(number, {number: _HERE})[sibling.id] = sibling.value
            known.setdefault(sibling.id, {sibling.id: _HERE}).setdefault(number, sibling.value)
    for cell in cells:
        found = known.get(cell.id or 0)
        if found is not None:
            siblings = [Sibling(id=other, value=value) for other, value in sorted(found.items())]
            cell.distances = Distances(siblings=siblings)


def _complete_numatune(domain: Domain) -> None:
    """Memory is placed as processors are, and the other way round (``virDomainNumatuneSet``)."""
    vcpu = domain.vcpu
    is_static = vcpu is None or vcpu.placement != "auto"
    memory = domain.numatune.memory if domain.numatune is not None else None
    if memory is None and not is_static:
        tune = domain.numatune = domain.numatune or Numatune()
        memory = tune.memory = NumatuneMemory(placement="auto")
    if memory is not None and (memory.mode or memory.placement or memory.nodeset):
        memory.mode = memory.mode or "strict"
        placement = memory.placement or ("static" if memory.nodeset or is_static else "auto")
        if placement == "static" and memory.nodeset is None:
            reason = "nodeset for NUMA memory tuning must be set if 'placement' is 'static'"
            raise ModelError("/domain/numatune/memory/@nodeset", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
        memory.placement = "auto" if placement == "auto" else None
        memory.nodeset = None if placement == "auto" else memory.nodeset
    if vcpu is None:
        return
    if memory is not None and memory.placement == "auto" and vcpu.cpuset is None and not _is_pinned(domain):
        vcpu.placement = "auto"
    if vcpu.placement == "auto":
        vcpu.cpuset = None


def _is_pinned(domain: Domain) -> bool:
    tune = domain.cputune
    return tune is not None and bool(tune.vcpupins or tune.emulatorpin or tune.iothreadpins)


def fill_cells(domain: Domain) -> None:
    """Give processors that are in no cell to the first (``qemuDomainDefNumaCPUsRectify``)."""
    cells = domain.cpu.numa.cells if domain.cpu is not None and domain.cpu.numa is not None else []
    most = domain.vcpu.value if domain.vcpu is not None else 1
    taken = [_processors(cell) for cell in cells]
    if cells and sum(map(len, taken)) < most:
        cells[0].cpus = format_numbers(frozenset(range(most)).difference(*taken[1:]))
