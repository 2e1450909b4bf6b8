"""Shares of caches and bandwidth: groups in a directory in the place of the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers.cgroup.resctrl import Resctrl, Schemata
from hostel.drivers.qemu.tuning import shares
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.domain import Domain
from hostel.model.domain.inactive import forget_run
from support.sysfs import put

MIB = 1024 * 1024


@pytest.fixture
def host(tmp_path: Path) -> Resctrl:
    """Two last caches of 10 MiB in 20 parts, of which all have the lower 12 of the first one and 4 of the other."""
    for cpu in range(2):
        put(tmp_path / f"system/cpu/cpu{cpu}/cache/index3", {
            "level": 3, "id": cpu, "type": "Unified", "size": "10240K", "shared_cpu_list": cpu,
        })  # fmt: skip
    put(tmp_path, {
        "system/cpu/online": "0-1",
        "resctrl/info/L3/cbm_mask": "fffff", "resctrl/info/L3/min_cbm_bits": 2, "resctrl/info/L3/num_closids": 16,
        "resctrl/info/MB/bandwidth_gran": 10, "resctrl/info/MB/min_bandwidth": 20, "resctrl/info/MB/num_closids": 8,
        "resctrl/info/L3_MON/num_rmids": 176, "resctrl/schemata": "    MB:0=100;1=100\n    L3:0=00fff;1=0000f",
        "resctrl/info/L3_MON/mon_features": "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes",
        "resctrl/other/schemata": "L3:0=00000;1=00ff0",
    })  # fmt: skip
    return Resctrl(tmp_path / "resctrl", tmp_path / "system")


def machine(tune: str) -> Domain:
    return Domain.parse(
        f"<domain type='kvm' id='7'><name>we b</name><memory>1</memory><vcpu>4</vcpu><os><type>hvm</type></os>"
        f"<cputune>{tune}</cputune></domain>"
    )


def cache(size: int = 1, number: int = 0, *, unit: str = "MiB", level: int = 3, kind: str = "both") -> str:
    return f"<cache id='{number}' level='{level}' type='{kind}' size='{size}' unit='{unit}'/>"


def tuned(*caches: str, more: str = "", vcpus: str = "0-1") -> str:
    return f"<cachetune vcpus='{vcpus}'>{''.join(caches)}{more}</cachetune>"


def test_processors_get_the_smallest_free_part_and_the_rest_as_all_have_it(host: Resctrl) -> None:
    memory = "<memorytune vcpus='0-1'><node id='1' bandwidth='30'/></memorytune>"
    domain = machine(tuned(cache(2)) + memory)
    shares.begin(domain, host)
    group = host.root / "qemu-7-web-vcpus_0-1"
    assert (group / "schemata").read_text() == "L3:0=f000;1=f\nMB:0=100;1=30\n"
    assert domain.cputune is not None
    assert [item.id for item in domain.cputune.cachetunes] == ["vcpus_0-1"]
    assert [item.id for item in domain.cputune.memorytunes] == ["vcpus_0-1"]
    second = machine(tuned(cache(2, 1), vcpus="2"))
    shares.begin(second, host)
    # Of the four and the eight parts that are free of the other cache none fits exactly but the eight.
    assert (host.root / "qemu-7-web-vcpus_2/schemata").read_text() == "L3:0=fff;1=f000\nMB:0=100;1=100\n"
    third = machine(tuned(cache(3), vcpus="3"))
    with pytest.raises(VirtError, match=r"Not enough room for allocation of 3145728 bytes for level 3 cache 0 scope"):
        shares.begin(third, host)
    forget_run(domain)
    assert domain.cputune.cachetunes[0].id is None


@pytest.mark.parametrize(
    ("tune", "words"),
    [(tuned(cache(10)), "the whole cache is not possible, specify size smaller than 10485760"),
     (tuned(cache(3, unit="KiB")), "size 3072 is not divisible by granularity 524288"),
     (tuned(cache(512, unit="KiB")), "size 524288 is smaller than the minimum allowed allocation 1048576"),
     (tuned(cache(1, 4)), "Cache with id 4 does not exists for level 3"),
     (tuned(cache(1, level=2)), "Cache level 2 does not support tuning"),
     (tuned(cache(1, kind="code")), "Cache level 3 does not support tuning for scope type 'code'"),
     ("<memorytune vcpus='0'><node id='0' bandwidth='25'/></memorytune>", "size 25 is not divisible by granularity 10"),
     ("<memorytune vcpus='0'><node id='0' bandwidth='10'/></memorytune>", "smaller than the minimum .* allocation 20"),
     ("<memorytune vcpus='0'><node id='2' bandwidth='30'/></memorytune>", "controller id 2 does not exist, max .* 1")],
)  # fmt: skip
def test_what_the_host_cannot_share_out_is_refused_and_nothing_is_left(host: Resctrl, tune: str, words: str) -> None:
    with pytest.raises(VirtError, match=words) as caught:
        shares.begin(machine(tune), host)
    assert (caught.value.code, caught.value.domain) == (ErrorCode.CONFIG_UNSUPPORTED, ErrorDomain.RESCTRL)
    assert not list(host.root.glob("qemu-*"))


def test_a_host_without_such_groups_says_so(tmp_path: Path) -> None:
    with pytest.raises(VirtError, match="unsupported configuration: Resource control is not supported on this host"):
        shares.begin(machine(tuned(cache())), Resctrl(tmp_path / "none", tmp_path))


def test_threads_enter_the_groups_of_their_processors(host: Resctrl) -> None:
    watched = "<monitor level='3' vcpus='0-1'/><monitor level='3' vcpus='1'/>"
    domain = machine(tuned(cache(2), more=watched) + tuned(more="<monitor level='3' vcpus='2'/>", vcpus="2-3"))
    shares.begin(domain, host)
    entered: list[tuple[str, str]] = []
    for number in range(4):
        shares.settle(domain, {number: 100 + number}, host.root)
        for tasks in sorted(host.root.rglob("tasks")):
            entered.append((str(tasks.parent.relative_to(host.root)), tasks.read_text()))
            tasks.unlink()
    group, watch = "qemu-7-web-vcpus_0-1", "mon_groups/qemu-7-web-vcpus_"
    assert entered == [(group, "100"), (f"{group}/{watch}1", "101"), (group, "101"), (f"{watch}2", "102")]
    (host.root / group / "schemata").unlink()  # the kernel's files go with their directory
    (host.root / group / "mon_groups" / "qemu-7-web-vcpus_1").rmdir()
    (host.root / group / "mon_groups").rmdir()
    shares.remove(domain, host.root)
    assert not list(host.root.rglob("qemu-*"))


def test_what_is_measured_is_told(host: Resctrl) -> None:
    monitors = "<monitor level='3' vcpus='0-1'/>"
    memory = "<memorytune vcpus='0-1'><monitor vcpus='0'/></memorytune>"
    domain = machine(tuned(cache(2), more=monitors) + memory)
    assert shares.caches(machine(""), host.root) == {"cpu.cache.monitor.count": 0}
    assert shares.bandwidths(machine(""), host.root) == {}
    shares.begin(domain, host)
    group = host.root / "qemu-7-web-vcpus_0-1"
    for node in (1, 0):
        put(group / f"mon_data/mon_L3_0{node}", {"llc_occupancy": 4096 + node, "mbm_total_bytes": 1})
        put(group / f"mon_groups/qemu-7-web-vcpus_0/mon_data/mon_L3_0{node}",
            {"mbm_total_bytes": 70 + node, "mbm_local_bytes": 30 + node})  # fmt: skip
    assert shares.caches(domain, host.root) == {
        "cpu.cache.monitor.count": 1, "cpu.cache.monitor.0.name": "vcpus_0-1", "cpu.cache.monitor.0.vcpus": "0-1",
        "cpu.cache.monitor.0.bank.count": 2, "cpu.cache.monitor.0.bank.0.id": 0,
        "cpu.cache.monitor.0.bank.0.bytes": 4096, "cpu.cache.monitor.0.bank.1.id": 1,
        "cpu.cache.monitor.0.bank.1.bytes": 4097,
    }  # fmt: skip
    told = "memory.bandwidth.monitor.0"
    assert shares.bandwidths(domain, host.root) == {
        "memory.bandwidth.monitor.count": 1, f"{told}.name": "vcpus_0", f"{told}.vcpus": "0", f"{told}.node.count": 2,
        f"{told}.node.0.id": 0, f"{told}.node.0.bytes.total": 70, f"{told}.node.0.bytes.local": 30,
        f"{told}.node.1.id": 1, f"{told}.node.1.bytes.total": 71, f"{told}.node.1.bytes.local": 31,
    }  # fmt: skip
    (group / "mon_data/mon_L3_00/llc_occupancy").unlink()
    with pytest.raises(VirtError, match="llc_occupancy' does not exist"):
        shares.caches(domain, host.root)


def test_schemata_are_read_as_the_kernel_writes_them() -> None:
    found = Schemata.parse("    MB:0=100; 1=90\nL3CODE:0=7ff;1=3\nL3DATA:0=1,00000000\nL2:0=f\nSMBA:0=1\n")
    assert found.format() == "L2:0=f\nL3CODE:0=7ff;1=3\nL3DATA:0=100000000\nMB:0=100;1=90\n"
