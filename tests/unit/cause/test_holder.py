"""Who has files, locks and ports."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hostel.block.permission import Permission, lock
from hostel.cause import holder
from hostel.cause.holder import find_holders, find_unix_listeners, lock_hint, port_hint
from hostel.errors import ImageLocked, NetworkError
from hostel.net.address import TcpAddress, UnixAddress, connect, listen
from support.unprivileged import as_nobody

_OPEN = "import sys; f = open(sys.argv[1], 'r+b'); print('open', flush=True); sys.stdin.read()"
_LOCKED = """
import sys
from hostel.block.permission import Permission, lock
f = open(sys.argv[1], 'r+b')
lock(f.fileno(), sys.argv[1], Permission.WRITE, Permission.NONE)
print('locked', flush=True)
sys.stdin.read()
"""


@contextmanager
def _other(code: str, path: Path, *arguments: str) -> Iterator[int]:
    command = [sys.executable, "-c", code, str(path), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process.pid
        process.communicate(timeout=10)


def test_of_those_who_have_an_image_open_who_locks_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(512))
    with _other(_OPEN, path) as reader, _other(_LOCKED, path, "-name", "guest=web1") as writer:
        assert len(find_holders(str(path))) == 1
        with path.open("r+b") as stream, pytest.raises(ImageLocked) as caught:
            lock(stream.fileno(), str(path), Permission.WRITE, Permission.ALL)
        assert f"It is open in process {writer} (" in str(caught.value.hint)
        assert "machine web1)" in str(caught.value.hint)
        assert f"process {reader} " not in str(caught.value.hint)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("web1", "machine web1"),
        ("guest=web1,debug-threads=on", "machine web1"),
        ("debug-threads=on,guest=web1", "machine web1"),
        ("guest=a,,b,debug-threads=on", "machine a,b"),
        ("a,guest=b", "machine b"),
        ("a,,b=c", "machine a,b=c"),
        ("debug-threads=on", None),
    ],
)
def test_machine_is_named_as_qemu_calls_it(tmp_path: Path, words: str, shown: str | None) -> None:
    (tmp_path / "disk").write_bytes(bytes(512))
    with _other(_OPEN, tmp_path / "disk", "-name", words) as pid:
        said = holder.describe(pid)
    assert said.partition("(")[2].partition(", ")[2] == (f"{shown})" if shown else "")


def test_lock_of_our_own_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(512))
    with path.open("r+b") as one, path.open("r+b") as two:
        lock(one.fileno(), str(path), Permission.WRITE, Permission.NONE)
        with pytest.raises(ImageLocked) as caught:
            lock(two.fileno(), str(path), Permission.WRITE, Permission.NONE)
    assert str(caught.value.hint).endswith("It is open in this process, for something else that it does.")


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's process is needed")
def test_process_of_another_user_is_known_by_its_command(reachable: Path) -> None:
    path = reachable / "disk"
    path.write_bytes(bytes(512))
    with _other(_OPEN, path, "-name", "guest=db") as pid:
        said = as_nobody(lambda: lock_hint(str(path)))
    assert said.startswith(f"It is open in process {pid} (")
    assert said.endswith("machine db, of user 'root' (uid 0)).")
    hidden = as_nobody(lambda: lock_hint(str(path)))
    assert hidden == f"No process of yours has it open; as root, 'fuser -v {path}' shows those of other users."


def test_lock_on_a_servers_file_may_be_another_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hostel.cause.mount import Mount

    mount = Mount("/srv", "nfs4", "server:/export", frozenset({"rw"}))
    monkeypatch.setattr(holder, "mount_of", lambda _path: mount)
    (tmp_path / "disk").touch()
    assert lock_hint(str(tmp_path / "disk")) == (
        "No process of this host is seen to have it open: it is on nfs4 of server:/export on '/srv', "
        "and another host may hold the lock."
    )


def test_who_listens_on_a_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        port = server.getsockname()[1]
        assert port_hint(port) == f"Port {port} is in use by {holder.describe(os.getpid())}."
        with pytest.raises(NetworkError, match="Address already in use") as caught:
            listen(TcpAddress("127.0.0.1", str(port)), 1)
        assert caught.value.hint == port_hint(port)
        bound.bind(("127.0.0.1", 0))
        assert str(port_hint(bound.getsockname()[1], udp=True)).startswith("Port ")
    assert port_hint(port) is None
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        assert find_unix_listeners(str(tmp_path / "s")) == [holder.describe(os.getpid())]
    with pytest.raises(NetworkError, match="Connection refused") as caught:
        connect(UnixAddress(str(tmp_path / "s")))
    assert caught.value.hint == f"Nobody listens on '{tmp_path}/s' any more: the server that made it has ended."
