"""Files that somebody has named, and that are pipes, whose other end nobody may ever open."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
from pathlib import Path

import pytest

from hostel.drivers.qemu import savefile
from hostel.drivers.qemu.firmware import nvram
from hostel.drivers.qemu.opening import open_named
from hostel.drivers.qemu.source import chain_behind
from hostel.errors import VirtError
from hostel.model.domain.os import Os


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
@pytest.mark.parametrize("other", [False, True])
def test_a_pipe_is_refused_whether_or_not_its_other_end_is_open(pipe: Path, flags: int, *, other: bool) -> None:
    held = [os.open(pipe, os.O_RDWR)] if other else []
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="It is a pipe, and no file") as refused:
        open_named(pipe, flags)
    assert (refused.value.errno, refused.value.filename) == (errno.ESPIPE, str(pipe))
    assert len(os.listdir("/proc/self/fd")) == before
    for descriptor in held:
        os.close(descriptor)


def test_whoever_is_given_a_device_waits_for_it() -> None:
    descriptor = open_named("/dev/zero", os.O_RDWR)
    assert os.get_blocking(descriptor)
    os.close(descriptor)


def test_who_has_a_lease_is_waited_for(tmp_path: Path) -> None:
    """So has a file server, for its clients."""
    path = tmp_path / "file"
    path.touch()
    with path.open("rb") as leased:
        fcntl.fcntl(leased, fcntl.F_SETSIG, signal.SIGURG)  # which nobody minds, unlike SIGIO
        fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        let_go = threading.Timer(0.2, fcntl.fcntl, (leased, fcntl.F_SETLEASE, fcntl.F_UNLCK))
        let_go.start()
        os.close(open_named(path, os.O_WRONLY))
        assert fcntl.fcntl(leased, fcntl.F_GETLEASE) != fcntl.F_RDLCK
        let_go.join()


def test_saved_memory_is_not_waited_for_at_a_pipe(pipe: Path) -> None:
    with pytest.raises(VirtError, match=r"Failed to open file '.*pipe': It is a pipe"):
        savefile.read(pipe)
    with pytest.raises(VirtError, match=r"Failed to create file '.*pipe': It is a pipe"):
        savefile.opened(pipe, is_there=True).__enter__()
    assert not savefile.is_whole(pipe)


def test_an_image_is_not_waited_for_at_a_pipe(pipe: Path) -> None:
    with pytest.raises(VirtError, match=r"'.*pipe' of disk 'vda': It is no file or block device"):
        chain_behind(pipe, "qcow2", "vda")


def test_a_template_of_variables_is_not_waited_for_at_a_pipe(pipe: Path) -> None:
    system = f"<loader type='pflash'>/code.fd</loader><nvram template='{pipe}'>{pipe.with_name('variables')}</nvram>"
    with pytest.raises(VirtError, match="It is a pipe"):
        nvram.prepare(Os.parse(f"<os><type>hvm</type>{system}</os>"), reset=False)
