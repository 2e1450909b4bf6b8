"""The host's cells and caches, from what Linux shows; what it does not show, or shows wrongly, is left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers.topology import host_bandwidth, host_cache, host_topology
from support.sysfs import put


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """Two cells of two threads each, and a cache for each cell."""
    folder = tmp_path / "system"
    put(folder, {"node/online": "0-1", "cpu/online": "0-3"})
    for cell in (0, 1):
        put(folder / f"node/node{cell}", {
            "cpulist": f"{2 * cell}-{2 * cell + 1}",
            "distance": "10 20" if cell == 0 else "20 10",
            "meminfo": f"Node {cell} MemTotal:     4194304 kB",
            "hugepages/hugepages-2048kB/nr_hugepages": 1024,
        })  # fmt: skip
    for cpu in range(4):
        put(folder / f"cpu/cpu{cpu}", {
            "topology/physical_package_id": cpu // 2, "topology/die_id": -1, "topology/core_id": cpu % 2,
            "topology/thread_siblings_list": cpu,
            "cache/index0/level": 1, "cache/index0/id": cpu, "cache/index0/type": "Data",
            "cache/index3/level": 3, "cache/index3/id": cpu // 2, "cache/index3/type": "Unified",
            "cache/index3/size": "15360K", "cache/index3/shared_cpu_list": f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}",
        })  # fmt: skip
    return folder


@pytest.fixture
def resctrl(tmp_path: Path) -> Path:
    folder = tmp_path / "resctrl"
    put(folder, {
        "info/L3/cbm_mask": "fffff", "info/L3/min_cbm_bits": 2, "info/L3/num_closids": 16,
        "info/MB/bandwidth_gran": 10, "info/MB/min_bandwidth": 10, "info/MB/num_closids": 8,
        "info/L3_MON/num_rmids": 176, "info/L3_MON/max_threshold_occupancy": 270336,
        "info/L3_MON/mon_features": "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes",
    })  # fmt: skip
    return folder


def test_cells_have_memory_processors_and_distances(system: Path) -> None:
    cells = host_topology(system).cells
    assert cells is not None
    assert [cell.id for cell in cells.cells] == [0, 1]
    cell = cells.cells[1]
    assert cell.memory is not None and cell.memory.size == 4194304
    pages = {page.size: page.count for page in cell.pages}
    assert pages[2048] == 1024
    assert sum(size * count for size, count in pages.items()) == 4194304  # none is counted twice
    assert cell.distances is not None
    assert [sibling.value for sibling in cell.distances.siblings] == [20, 10]
    assert cell.cpus is not None
    assert [(cpu.id, cpu.socket_id, cpu.die_id, cpu.core_id) for cpu in cell.cpus.cpus] == [(2, 1, 0, 0), (3, 1, 0, 1)]


def test_the_best_ways_to_memory_are_shown(system: Path) -> None:
    put(system / "node/node1/access1/initiators", {"read_latency": 100, "write_bandwidth": 2, "node0/x": ""})
    ways = host_topology(system).interconnects
    assert ways is not None
    assert [(way.initiator, way.target, way.type, way.value) for way in ways.latencies] == [(0, 1, "read", 100)]
    assert [(way.initiator, way.target, way.type, way.value) for way in ways.bandwidths] == [(0, 1, "write", 2048)]


def test_a_cache_of_memory_is_shown(system: Path) -> None:
    put(
        system / "node/node0/memory_side_cache/index1",
        {"indexing": 0, "write_policy": 9, "line_size": 64, "size": 4096},
    )
    cells = host_topology(system).cells
    assert cells is not None
    (cache,) = cells.cells[0].caches
    assert (cache.level, cache.associativity, cache.policy) == (1, "direct", "none")


def test_the_last_caches_are_shown_with_what_controls_them(system: Path, resctrl: Path) -> None:
    cache = host_cache(system, resctrl)
    assert [(bank.id, bank.level, bank.size, bank.unit, bank.cpus) for bank in cache.banks] == [
        (0, 3, 15, "MiB", "0-1"),
        (1, 3, 15, "MiB", "2-3"),
    ]
    (control,) = cache.banks[0].controls
    assert (control.granularity, control.min, control.unit, control.type) == (768, 1536, "KiB", "both")
    assert cache.monitor is not None
    assert (cache.monitor.reuse_threshold, [each.name for each in cache.monitor.features]) == (
        270336,
        ["llc_occupancy"],
    )
    bandwidth = host_bandwidth(cache, resctrl)
    assert [node.id for node in bandwidth.nodes] == [0, 1]
    assert bandwidth.monitor is not None and len(bandwidth.monitor.features) == 2


def test_nothing_is_shown_of_what_is_not_there(tmp_path: Path) -> None:
    cells = host_topology(tmp_path).cells
    cache = host_cache(tmp_path, tmp_path)
    assert cells is not None and cells.cells == []
    assert cache.banks == [] and cache.monitor is None
    assert host_bandwidth(cache, tmp_path).nodes == []


@pytest.mark.parametrize("content", ["", "nonsense", "-1", "9" * 5000, "0-99999999999", "\u00b2", "\0"])
def test_files_with_something_else_in_them_are_survived(system: Path, resctrl: Path, content: str) -> None:
    for folder in (system, resctrl):
        for path in folder.rglob("*"):
            if path.is_file():
                kept = path.read_text()
                path.write_text(content)
                host_topology(system)
                host_bandwidth(host_cache(system, resctrl), resctrl)
                path.write_text(kept)


def test_bytes_that_are_no_text_are_survived(system: Path, resctrl: Path) -> None:
    for path in [path for folder in (system, resctrl) for path in folder.rglob("*") if path.is_file()]:
        path.write_bytes(b"\xff\xfe")
    assert host_topology(system) is not None
    assert host_bandwidth(host_cache(system, resctrl), resctrl).nodes == []
