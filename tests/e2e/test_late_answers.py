"""QEMU does what it was told, and its answer comes too late: what it did counts, not what was believed meanwhile.

A disk that stalls is enough: QEMU waits for what is under way before it puts a disk on an overlay.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hostel.drivers.base.block import BlockCommitFlag, BlockCopyFlag, BlockJobAbortFlag
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.migration import MigrateFlag
from hostel.drivers.base.snapshot import SnapshotCreateFlag
from hostel.drivers.migrating import migrate
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.qemu.monitor import Monitor
from hostel.errors import ErrorCode, QmpError, VirtError
from support import image
from support.chains import Chain
from support.moving import two
from support.process import machines_of
from support.session import disk

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-img")]
Late = Callable[[str, type[BaseException]], None]


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Late:
    """Do not wait for the answer to the next command of a name: it is late, or the caller is interrupted."""
    waited, execute = Monitor._answer, Monitor.execute
    coming: list[tuple[str, type[BaseException]]] = []

    def run(self: Monitor, command: str, *given: Any, **arguments: Any) -> Any:
        if coming and coming[0][0] == command:
            monkeypatch.setattr(Monitor, "_answer", not_waited_for)
        return execute(self, command, *given, **arguments)

    def not_waited_for(self: Monitor, own: str, limit: float) -> Any:
        monkeypatch.setattr(Monitor, "_answer", waited)
        waited(self, own, limit)  # of a client that is gone at once QEMU forgets what it has not begun
        kind = coming.pop()[1]
        raise QmpError("Timeout", "QEMU's monitor did not answer") if kind is QmpError else kind

    monkeypatch.setattr(Monitor, "execute", run)
    return lambda command, kind: coming.append((command, kind))


def files_in_use(home: Path) -> list[str]:
    """The images that QEMU has open; one that was removed under it says so."""
    (machine,) = machines_of(home)
    files = set()
    for path in Path(f"/proc/{machine}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # QEMU has closed it since
            files.add(os.readlink(path))
    return sorted(Path(name).name for name in files if re.search(r"\.(qcow2|one|raw)\b", name))


@pytest.mark.parametrize("kind", [QmpError, KeyboardInterrupt])
def test_disks_are_where_qemu_has_them(
    tmp_path: Path, driver: QemuDriver, late: Late, kind: type[BaseException]
) -> None:
    chain = Chain(tmp_path, driver)
    ref = chain.ref

    def do(command: str, act: Callable[[], object]) -> None:
        late(command, kind)
        with pytest.raises((VirtError, KeyboardInterrupt)) as caught:
            act()
        if isinstance(caught.value, VirtError):
            assert caught.value.code == ErrorCode.OPERATION_TIMEOUT

    def holds(*names: str) -> None:
        chain.wait()
        assert chain.chain() == list(names)
        assert chain.defined() == names[0]
        assert files_in_use(tmp_path) == sorted(names)

    snapshot = "<domainsnapshot><name>one</name></domainsnapshot>"
    do("transaction", lambda: driver.domain_snapshot_create_xml(ref, snapshot, SnapshotCreateFlag.DISK_ONLY))
    holds("over2.one", "over2.qcow2", "over1.qcow2", "base.qcow2")
    assert [item.name for item in driver.domain_list_all_snapshots(ref)] == ["one"]
    do("block-commit", lambda: driver.domain_block_commit(ref, "vda", top=str(tmp_path / "over1.qcow2")))
    holds("over2.one", "over2.qcow2", "base.qcow2")
    do("block-stream", lambda: driver.domain_block_rebase(ref, "vda", str(tmp_path / "base.qcow2")))
    holds("over2.one", "base.qcow2")
    xml = f"<disk type='file'><driver type='qcow2'/><source file='{tmp_path}/copy.qcow2'/></disk>"
    do("blockdev-mirror", lambda: driver.domain_block_copy(ref, "vda", xml, flags=BlockCopyFlag.TRANSIENT_JOB))
    chain.wait(ready=True)
    assert files_in_use(tmp_path) == ["base.qcow2", "copy.qcow2", "over2.one"]
    do("job-complete", lambda: driver.domain_block_job_abort(ref, "vda", BlockJobAbortFlag.PIVOT))
    holds("copy.qcow2")
    chain.check("copy.qcow2", [])


def test_devices_are_what_qemu_has(tmp_path: Path, driver: QemuDriver, late: Late) -> None:
    chain = Chain(tmp_path, driver, 0)
    image.qemu_img("create", "-q", "-f", "raw", tmp_path / "more.raw", 1 << 20)
    xml = disk(tmp_path / "more.raw", dev="vdb")
    for command, act, there in (
        ("device_add", driver.domain_attach_device_flags, True),
        ("device_del", driver.domain_detach_device_flags, False),
    ):
        late(command, QmpError)
        with pytest.raises(VirtError) as caught:
            act(chain.ref, xml, Affect.LIVE)
        assert caught.value.code == ErrorCode.OPERATION_TIMEOUT
        if not there:  # the guest has none that would let go of it
            driver.domain_reset(chain.ref)
        document = driver.domain_get_xml_desc(chain.ref)
        assert ("more.raw" in document) == ("more.raw" in files_in_use(tmp_path)) == there


def test_a_commit_that_is_not_answered_is_no_commit_that_failed(tmp_path: Path, driver: QemuDriver, late: Late) -> None:
    chain = Chain(tmp_path, driver)
    late("block-commit", QmpError)
    with pytest.raises(VirtError):
        driver.domain_block_commit(chain.ref, "vda", flags=BlockCommitFlag.ACTIVE)
    chain.wait(ready=True)
    assert "<mirror type='file' job='active-commit'" in driver.domain_get_xml_desc(chain.ref)
    driver.domain_block_job_abort(chain.ref, "vda", BlockJobAbortFlag.PIVOT)
    chain.check("base.qcow2", [])


def test_a_guest_that_was_let_run_at_its_destination_is_there_though_nobody_heard(tmp_path: Path, late: Late) -> None:
    with two(tmp_path) as both:
        ref = both.start()
        late("cont", QmpError)
        with pytest.raises(VirtError) as caught:
            migrate(both.one, both.other, ref, {}, MigrateFlag.LIVE | MigrateFlag.UNSAFE)
        assert caught.value.code == ErrorCode.OPERATION_TIMEOUT
        both.goes_on(both.other)
