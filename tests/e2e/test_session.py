"""The whole house through ``hostel.open``: pool, volumes, overlay, machine, console, snapshot, clone, and back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hostel import guest
from hostel.drivers.base import ConsoleStream, DomainState, PausedReason, ShutoffReason
from hostel.objects import Connection, StoragePool
from support import image
from support.guest import Oracle
from support.session import domain_xml, reports, run, session, wait_for_report

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]
SIZE = 8 << 20
TARGETS = {"virtio": "vda", "ide": "hda", "scsi": "sda"}


@pytest.fixture
def pool(tmp_path: Path, connection: Connection) -> StoragePool:
    found = connection.define_pool(
        f"<pool type='dir'><name>images</name><target><path>{tmp_path}/images</path></target></pool>"
    )
    found.start(build=True)
    return found


def volume_disk(name: str, bus: str = "virtio", fmt: str = "qcow2") -> str:
    """A disk that is a volume of the pool."""
    return (
        f"<disk type='volume' device='disk'><driver name='qemu' type='{fmt}'/>"
        f"<source pool='images' volume='{name}'/><target dev='{TARGETS[bus]}' bus='{bus}'/></disk>"
    )


def read_until(console: ConsoleStream, text: bytes, seconds: float = 30) -> bytes:
    said, deadline = b"", time.monotonic() + seconds
    while text not in said:
        assert time.monotonic() < deadline, said
        said += console.read(4096, 0.5) or b""
    return said


@pytest.mark.parametrize("bus", TARGETS)
def test_machine_on_an_overlay_in_a_pool(tmp_path: Path, connection: Connection, pool: StoragePool, bus: str) -> None:
    oracle = Oracle(SIZE, seed=3)
    before = oracle.image(bus)
    base = pool.create_volume(name="base.qcow2", capacity=SIZE, format="qcow2")
    image.write(Path(base.path), "qcow2", (0, before))
    base_bytes = Path(base.path).read_bytes()
    top = pool.create_volume(name="top.qcow2", backing=base)
    domain = connection.define_domain(domain_xml(tmp_path, volume_disk("top.qcow2", bus)))
    assert run(domain, tmp_path).ok
    assert (domain.state_info().reason, domain.id) == (ShutoffReason.SHUTDOWN, None)
    assert image.content(Path(top.path), "qcow2") == oracle.after(before, 1)
    image.qemu_img("snapshot", "-c", "one", top.path)
    assert run(domain, tmp_path).boot == 2
    image.qemu_img("snapshot", "-a", "one", top.path)
    assert run(domain, tmp_path).boot == 2
    image.assert_clean(Path(top.path), "qcow2")
    assert Path(base.path).read_bytes() == base_bytes
    pool.refresh()
    assert sorted(volume.name for volume in pool.volumes()) == ["base.qcow2", "top.qcow2"]


def test_clone_and_upload_boot_as_the_original_does(tmp_path: Path, connection: Connection, pool: StoragePool) -> None:
    oracle = Oracle(SIZE, seed=4)
    before = oracle.image("original")
    original = pool.create_volume(name="original", capacity=SIZE, format="raw")
    original.upload(before)
    pool.clone_volume(original, name="clone", format="qcow2")
    copy = pool.create_volume(name="copy", capacity=SIZE, format="raw")
    copy.upload(original.download())
    for name, fmt in (("original", "raw"), ("clone", "qcow2"), ("copy", "raw")):
        domain = connection.define_domain(domain_xml(tmp_path, volume_disk(name, fmt=fmt), name=name))
        report = run(domain, tmp_path)
        assert (report.boot, report.ok) == (1, True)
        assert image.content(Path(pool.volume(name).path), fmt) == oracle.after(before, 1)
        domain.undefine()
    assert connection.domains() == []
    assert b"".join(bytes(piece) for piece in copy.download()) == oracle.after(before, 1)


def test_a_day_in_the_life_of_a_machine(tmp_path: Path, connection: Connection, pool: StoragePool) -> None:
    volume = pool.create_volume(name="disk", capacity=SIZE, format="qcow2")
    image.write(Path(volume.path), "qcow2", (0, guest.image(label="day", mode=guest.Mode.WAIT)))
    graphics = "<graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'/>"
    domain = connection.define_domain(domain_xml(tmp_path, volume_disk("disk"), graphics))
    domain.start(paused=True)
    assert domain.state_info()[:2] == (DomainState.PAUSED, PausedReason.USER)
    with_console = domain.console()
    try:
        domain.resume()
        assert b"boot=1" in read_until(with_console, b"done failures=0")
        with_console.write(b"hello\r")
        read_until(with_console, b"hello")
    finally:
        with_console.close()
    assert wait_for_report(tmp_path, 1).ok
    domain.suspend()
    assert domain.state is DomainState.PAUSED
    domain.resume()
    domain.reset()
    assert wait_for_report(tmp_path, 2).boot == 2
    with session(tmp_path) as other:  # another connection sees the same machine
        assert [(found.name, found.id) for found in other.domains(active=True)] == [("guest", domain.id)]
        other.domain("guest").shutdown()
        domain.wait(DomainState.SHUTOFF, 30)
    assert reports(tmp_path)[-1].power_button
    assert domain.state_info().reason == ShutoffReason.SHUTDOWN
    domain.start()
    first_id = domain.id
    domain.destroy()
    assert domain.state_info().reason == ShutoffReason.DESTROYED
    domain.start()
    assert domain.id != first_id
    domain.undefine()
    assert (domain.is_persistent, domain.is_active) == (False, True)
    domain.destroy()
    assert connection.domains() == []
    volume.delete()
    pool.stop()
    pool.delete()
    pool.undefine()
    assert connection.pools() == []
    assert not (tmp_path / "images").exists()
