"""What ``test_groups_in_kernel`` does in a kernel of its own: machines of the host's connection in control groups."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from hostel.drivers.base import DomainRef, StartFlag
from hostel.drivers.base.domain import Affect
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.qemu.status import Status
from hostel.drivers.store import Directories
from hostel.errors import VirtError

ROOT = Path("/sys/fs/cgroup")
_XML = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><vcpu current='1'>2</vcpu>
<iothreads>1</iothreads>{tune}<os><type arch='x86_64' machine='q35'>hvm</type></os><devices/></domain>"""
_TUNE = """<memtune><hard_limit unit='MiB'>400</hard_limit><soft_limit unit='MiB'>300</soft_limit></memtune>
<blkiotune><device><path>/dev/ubda</path><read_iops_sec>200</read_iops_sec></device></blkiotune>
<cputune><shares>2048</shares><period>100000</period><quota>60000</quota><global_quota>90000</global_quota>
<emulator_quota>50000</emulator_quota><iothread_quota>40000</iothread_quota></cputune>{more}"""


def _read(*words: str) -> str:
    return ROOT.joinpath(*words).read_text().strip()


@contextlib.contextmanager
def _started(tune: str, name: str = "a.b_c") -> Iterator[tuple[QemuDriver, DomainRef, int]]:
    driver = QemuDriver(Directories.system())
    ref = driver.domain_create_xml(_XML.format(name=name, tune=tune), StartFlag.PAUSED)
    try:
        status = Status.parse(Path(f"/run/hostel/qemu/{name}.xml").read_text())
        yield driver, ref, status.pid
    finally:
        driver.domain_destroy(ref)


def unified() -> None:
    """One hierarchy for all controllers."""
    subprocess.run(["mount", "-t", "cgroup2", "none", ROOT], check=True)
    with _started(_TUNE.format(more=""), "web") as (driver, ref, pid):
        place = f"machine/qemu-{ref.id}-web.libvirt-qemu"
        assert f"0::/{place}/emulator\n" == Path(f"/proc/{pid}/cgroup").read_text()
        assert _read(place, "memory.max") == str(400 << 20) and _read(place, "memory.high") == str(300 << 20)
        assert _read(place, "cpu.weight") == "2048" and _read(place, "cpu.max") == "90000 100000"
        assert _read(place, "vcpu0/cpu.max") == "60000 100000" and _read(place, "emulator/cpu.max") == "50000 100000"
        assert _read(place, "iothread1/cpu.max") == "40000 100000"
        assert "riops=200" in _read(place, "io.max")
        _change(driver, ref)
        assert _read(place, "cpu.weight") == "512" and _read(place, "vcpu0/cpu.max") == "30000 50000"
        assert _read(place, "memory.max") == str(200 << 20)
        assert "wbps=1048576" in _read(place, "io.max") and "riops=max" in _read(place, "io.max")
        driver.domain_set_vcpus_flags(ref, 2, Affect.LIVE)
        assert _read(place, "vcpu1/cpu.max") == "30000 50000" and len(_read(place, "vcpu1/cgroup.threads").split()) == 1
        driver.domain_add_iothread(ref, 7, Affect.LIVE)
        assert len(_read(place, "iothread7/cgroup.threads").split()) == 1
    assert not (ROOT / place).exists()
    _partitions()


def legacy() -> None:
    """A hierarchy for each controller."""
    subprocess.run(["mount", "-t", "tmpfs", "none", ROOT], check=True)
    for name in ("cpu", "cpuacct", "memory", "blkio"):
        (ROOT / name).mkdir()
        subprocess.run(["mount", "-t", "cgroup", "-o", name, "none", ROOT / name], check=True)
    with _started(_TUNE.format(more="")) as (driver, ref, pid):
        place = f"machine/qemu-{ref.id}-a.bc.libvirt-qemu"
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        found = {line.split(":")[1]: line.split(":")[2] for line in lines}
        assert found["memory"] == f"/{place}" and found["cpu"] == f"/{place}/emulator", found
        assert _read("memory", place, "memory.limit_in_bytes") == str(400 << 20)
        assert _read("memory", place, "memory.soft_limit_in_bytes") == str(300 << 20)
        assert _read("cpu", place, "cpu.shares") == "2048" and _read("cpu", place, "cpu.cfs_quota_us") == "90000"
        assert _read("cpu", place, "vcpu0/cpu.cfs_quota_us") == "60000"
        assert _read("cpu", place, "iothread1/cpu.cfs_quota_us") == "40000"
        assert _read("blkio", place, "blkio.throttle.read_iops_device").endswith(" 200")
        _change(driver, ref)
        assert _read("cpu", place, "vcpu0/cpu.cfs_period_us") == "50000"
        assert _read("memory", place, "memory.limit_in_bytes") == str(200 << 20)
        assert _read("blkio", place, "blkio.throttle.write_bps_device").endswith(" 1048576")
    assert not any((ROOT / name / place).exists() for name in ("cpu", "memory", "blkio"))


def absent() -> None:
    """No control groups at all: what needs them is refused, and machines run without."""
    with _started("", "plain") as (driver, ref, _):
        for ask, message in (
            (driver.domain_get_scheduler_parameters_flags, "cgroup CPU controller is not mounted"),
            (driver.domain_get_memory_parameters, "cgroup memory controller is not mounted"),
            (driver.domain_get_blkio_parameters, "blkio cgroup isn't mounted"),
        ):
            assert _refusal(lambda ask=ask: ask(ref, Affect.LIVE)) == f"Requested operation is not valid: {message}"
    for tune, message in (
        ("<memtune><hard_limit unit='MiB'>400</hard_limit></memtune>", "Memory cgroup is not available on this host"),
        ("<blkiotune><weight>500</weight></blkiotune>", "Block I/O tuning is not available on this host"),
        ("<cputune><shares>7</shares></cputune>", "CPU tuning is not available on this host"),
        ("<cputune><quota>7000</quota></cputune>", "cgroup cpu is required for scheduler tuning"),
    ):
        said = _refusal(lambda tune=tune: _started(tune).__enter__())
        assert said == f"unsupported configuration: {message}", said


def _refusal(call) -> str:  # type: ignore[no-untyped-def]
    try:
        call()
    except VirtError as error:
        return str(error)
    return "nothing"


def _change(driver: QemuDriver, ref: DomainRef) -> None:
    """Change what runs, and look at it as another process would that comes later."""
    driver.domain_set_scheduler_parameters_flags(
        ref, {"cpu_shares": 512, "vcpu_quota": 30000, "vcpu_period": 50000}, Affect.LIVE
    )
    driver.domain_set_memory_parameters(ref, {"hard_limit": 200 << 10}, Affect.LIVE)
    changed = {"device_read_iops_sec": "/dev/ubda,0", "device_write_bytes_sec": "/dev/ubda,1048576"}
    driver.domain_set_blkio_parameters(ref, changed, Affect.LIVE)
    driver = QemuDriver(Directories.system())
    found = driver.domain_get_scheduler_parameters_flags(ref, Affect.LIVE)
    assert (found["cpu_shares"], found["vcpu_period"], found["vcpu_quota"]) == (512, 50000, 30000), found
    assert (found["global_quota"], found["emulator_quota"], found["iothread_quota"]) == (90000, 50000, 40000), found
    assert driver.domain_get_memory_parameters(ref, Affect.LIVE)["hard_limit"] == 200 << 10
    xml = driver.domain_get_xml_desc(ref)
    assert "<partition>/machine</partition>" in xml and "<hard_limit unit='KiB'>204800</hard_limit>" in xml, xml
    said = _refusal(lambda: driver.domain_set_scheduler_parameters_flags(ref, {"cpu_shares": 1}, Affect.LIVE))
    assert said == "invalid argument: shares '1' must be in range [2, 262144]"


def _partitions() -> None:
    """A partition of one's own has to be there."""
    resource = "<resource><partition>/production</partition></resource>"
    said = _refusal(lambda: _started(resource).__enter__())
    assert said.startswith("Failed to create v2 cgroup '/sys/fs/cgroup/production.partition/'"), said
    (ROOT / "production.partition").mkdir()
    with _started(resource) as (_, ref, pid):
        place = f"/production.partition/qemu-{ref.id}-a.bc.libvirt-qemu"
        assert Path(f"/proc/{pid}/cgroup").read_text().startswith(f"0::{place}")
    assert [path.name for path in (ROOT / "production.partition").iterdir() if path.is_dir()] == []


if __name__ == "__main__":
    {"unified": unified, "legacy": legacy, "absent": absent}[sys.argv[1]]()
