"""Processors and memory, from files of our own making."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers.host.driver import LinuxHostDriver
from hostel.errors import ErrorCode, VirtError

MEMINFO = "MemTotal:   2000 kB\nMemFree:   500 kB\nBuffers:      30 kB\nCached:   200 kB\nSwapCached: 9 kB\n"
STAT = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 0 0 0 0 0 0 0 0 0\ncpu3 0 0 2 0 0 0 0 0 0 0\nintr 1\n"


def put(root: Path, path: str, text: str) -> None:
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


def machine(root: Path, cells: list[list[tuple[int, int, int, str]]], online: str) -> LinuxHostDriver:
    """A host of NUMA cells, each of CPUs with their socket, core and siblings; all of them are present."""
    cpus = sorted(cpu for cell in cells for cpu, *_ in cell)
    put(root, "sys/devices/system/cpu/present", f"{cpus[0]}-{cpus[-1]}\n")
    put(root, "sys/devices/system/cpu/online", f"{online}\n")
    for number, cell in enumerate(cells):
        put(
            root,
            f"sys/devices/system/node/node{number}/meminfo",
            f"Node {number} MemTotal: {number + 1} kB\nNode {number} MemFree: 1 kB\nNode 0 Cached: 4 kB\n",
        )
        for cpu, socket, core, siblings in cell:
            put(root, f"sys/devices/system/node/node{number}/cpu{cpu}/x", "")
            for name, value in (("physical_package_id", socket), ("core_id", core), ("thread_siblings", siblings)):
                put(root, f"sys/devices/system/cpu/cpu{cpu}/topology/{name}", f"{value}\n")
    put(root, "proc/meminfo", MEMINFO)
    put(root, "proc/stat", STAT)
    put(root, "proc/cpuinfo", "processor : 0\ncpu MHz : 2400.123\n")
    return LinuxHostDriver(root)


def two_sockets(root: Path, online: str = "0-7") -> LinuxHostDriver:
    """Two cells of one socket each, of two cores with two threads."""
    cell = [
        [(cpu, cpu // 4, cpu % 2, f"0,{0x5 << cpu // 4 * 4 + cpu % 2:x}") for cpu in range(at, at + 4)] for at in (0, 4)
    ]
    return machine(root, cell, online)


def test_cells_sockets_cores_and_threads_are_counted(tmp_path: Path) -> None:
    info = two_sockets(tmp_path).node_get_info()
    assert info[1:] == (1 + 2, 8, 2400, 2, 1, 2, 2)


def test_cpus_that_are_offline_count_for_the_shape_and_not_for_the_number(tmp_path: Path) -> None:
    driver = two_sockets(tmp_path, "0-6")
    assert driver.node_get_info()[2:] == (7, 2400, 2, 1, 2, 2)
    assert driver.node_get_cpu_map() == [True] * 7 + [False]


def test_a_shape_that_makes_no_sense_is_one_socket(tmp_path: Path) -> None:
    cell = [(0, 0, 0, "1"), (1, 0, 1, "2"), (2, 5, 0, "4")]
    assert machine(tmp_path, [cell], "0-2").node_get_info()[4:] == (1, 1, 3, 1)


def test_a_host_without_cells_is_one(tmp_path: Path) -> None:
    driver = two_sockets(tmp_path)
    import shutil

    shutil.rmtree(tmp_path / "sys/devices/system/node")
    assert driver.node_get_info()[4:] == (1, 2, 2, 2)
    assert (driver.node_get_info().memory, driver.node_get_free_memory()) == (2000, 500 * 1024)


def test_time_is_in_nanoseconds(tmp_path: Path) -> None:
    driver = two_sockets(tmp_path)
    assert driver.node_get_cpu_stats() == {
        "kernel": 160_000_000,
        "user": 30_000_000,
        "idle": 40_000_000,
        "iowait": 50_000_000,
    }
    assert driver.node_get_cpu_stats(3)["kernel"] == 20_000_000
    with pytest.raises(VirtError) as error:
        driver.node_get_cpu_stats(1)
    assert error.value.code is ErrorCode.INVALID_ARG


def test_memory_of_the_host_and_of_a_cell(tmp_path: Path) -> None:
    driver = two_sockets(tmp_path)
    assert driver.node_get_memory_stats() == {"total": 2000, "free": 500, "buffers": 30, "cached": 200}
    assert driver.node_get_memory_stats(1) == {"total": 2, "free": 1}
    assert driver.node_get_free_memory() == 2 * 1024  # that of the cells, as libvirt has it
    assert driver.node_get_cells_free_memory(0, 9) == [1024, 1024]
    assert driver.node_get_cells_free_memory(1, 1) == [1024]
    for call in (lambda: driver.node_get_memory_stats(2), lambda: driver.node_get_cells_free_memory(2, 1)):
        with pytest.raises(VirtError):
            call()


def test_types_have_their_most_cpus(tmp_path: Path) -> None:
    driver = LinuxHostDriver(tmp_path)
    assert driver.connect_get_max_vcpus() == driver.connect_get_max_vcpus("QEMU") == 16
    with pytest.raises(VirtError, match="unknown type 'xen'"):
        driver.connect_get_max_vcpus("xen")
