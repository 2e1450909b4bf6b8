"""Images on a host that is reached by SSH, beside real qemu-img."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.ssh import SshServer, ssh_server

pytest.importorskip("paramiko")
pytestmark = [
    pytest.mark.requires_tool("qemu-img"),
    pytest.mark.requires_tool("block-ssh.so"),
    pytest.mark.requires_tool("sshd"),
    pytest.mark.requires_tool("ssh-agent"),
]

OURS = [sys.executable, "-m", "hostel"]
MIB = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    content = bytearray(3 * MIB + 700)
    content[MIB : 2 * MIB] = random.Random(1).randbytes(MIB)
    content[-700:] = random.Random(2).randbytes(700)
    path = tmp_path_factory.mktemp("served") / "disk.raw"
    path.write_bytes(content)
    return path


def run(server: SshServer, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=server.environment(**environment),
    )


@pytest.mark.parametrize(
    "line",
    [
        "info URL",
        "info --output=json URL",
        "map --output=json -f raw URL",
        "info URL-nothing",
        "info HASH",
        "info WRONG",
        "info ssh://127.0.0.1:1/x",
        "info ssh://127.0.0.1",
        "info ssh:///x",
        "info --image-opts driver=ssh,path=/x",
        "info --image-opts driver=ssh,port=3,path=/x",
        "info --image-opts driver=ssh,host=127.0.0.1,path=/x,host_key_check=maybe",
        "info --image-opts driver=ssh,host=127.0.0.1,port=PORT,path=DISK,user=USER,host_key_check=no",
        "info --image-opts driver=raw,file.driver=ssh,file.server.host=127.0.0.1,file.server.port=PORT,"
        "file.path=DISK,file.user=USER,file.host-key-check.mode=none",
    ],
)
def test_tools_agree(server: SshServer, disk: Path, line: str) -> None:
    places = {
        "URL-nothing": server.url(Path("/nothing-here")),
        "URL": server.url(disk),
        "HASH": server.url(disk, f"sha256:{server.sha256}"),
        "WRONG": server.url(disk, f"sha256:{'0' * 64}"),
        "PORT": str(server.port),
        "DISK": str(disk),
        "USER": server.user,
    }
    for word, place in places.items():
        line = line.replace(word, place)
    ours, theirs = (run(server, *tool, "qemu-img", *line.split()) for tool in (OURS, []))
    # libssh's own codes and words are not told.
    said = theirs.stderr.split(": Failed opening")[0].split(": SFTP server:")[0].split(" (libssh")[0].strip()
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    assert ours.stderr.startswith(said)
    assert bool(ours.stderr) == bool(theirs.stderr)


def test_each_reads_what_the_other_wrote(server: SshServer, disk: Path, tmp_path: Path) -> None:
    for index, (writer, reader) in enumerate([(OURS, []), ([], OURS)]):
        name = server.url(tmp_path / f"copy{index}.qcow2")
        done = run(server, *writer, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", server.url(disk), name)
        assert done.returncode == 0, done.stderr
        for words in (["check", name], ["compare", "-f", "raw", "-F", "qcow2", disk, name]):
            done = run(server, *reader, "qemu-img", *words)
            assert done.returncode == 0, done.stdout + done.stderr


def test_a_disk_is_used_in_place(server: SshServer, tmp_path: Path) -> None:
    path = tmp_path / "used.qcow2"
    name = server.url(path)
    for words in (
        ["qemu-img", "create", "-q", "-f", "qcow2", name, "64M"],
        ["qemu-io", "-c", "write -P 7 1M 3M", "-c", "write -z 2M 64k", "-c", "flush", name],
        ["qemu-img", "snapshot", "-c", "first", name],
        ["qemu-io", "-c", "write -P 9 1M 1M", name],
        ["qemu-img", "snapshot", "-a", "first", name],
        ["qemu-img", "resize", "-q", name, "96M"],
        [
            "qemu-img",
            "create",
            "-q",
            "-f",
            "qcow2",
            "-b",
            "used.qcow2",
            "-F",
            "qcow2",
            server.url(tmp_path / "top.qcow2"),
        ],
        ["qemu-io", "-r", "-c", "read -P 7 1M 1M", server.url(tmp_path / "top.qcow2")],
    ):
        done = run(server, *OURS, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "failed" not in done.stdout
    theirs: tuple[list[object], ...] = (
        ["qemu-img", "check", path],
        ["qemu-io", "-r", "-c", "read -P 7 1M 1M", "-c", "read -P 0 2M 64k", path],
    )
    for command in theirs:
        done = run(server, *command)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "failed" not in done.stdout


def test_a_host_that_is_not_known_is_not_believed(server: SshServer, disk: Path, tmp_path: Path) -> None:
    known = run(server, *OURS, "qemu-img", "info", server.url(disk, ""))
    assert known.returncode == 0, known.stderr
    other = tmp_path / ".ssh"
    other.mkdir()
    unknown = run(server, *OURS, "qemu-img", "info", server.url(disk, ""), HOME=str(tmp_path))
    assert unknown.returncode == 1
    kind, key = (server.home / ".ssh" / "id_ed25519.pub").read_text().split()[:2]
    (other / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {kind} {key}\n")
    changed = run(server, *OURS, "qemu-img", "info", server.url(disk, ""), HOME=str(tmp_path))
    assert changed.returncode == 1
    assert "this may be a possible attack" in changed.stderr
    (other / "known_hosts").write_text("other.example ssh-ed25519 " + key + "\n")
    absent = run(server, *OURS, "qemu-img", "info", server.url(disk, ""), HOME=str(tmp_path))
    assert "no host key was found in known_hosts" in absent.stderr


def test_a_key_from_the_home_folder_is_enough_and_none_is_not(server: SshServer, disk: Path, tmp_path: Path) -> None:
    done = run(server, *OURS, "qemu-img", "info", server.url(disk), SSH_AUTH_SOCK="")
    assert done.returncode == 0, done.stderr
    done = run(server, *OURS, "qemu-img", "info", server.url(disk), SSH_AUTH_SOCK="", HOME=str(tmp_path))
    assert done.returncode == 1
    assert "failed to authenticate using publickey authentication" in done.stderr


@pytest.mark.requires_tool("qemu-io")
def test_a_write_that_fails_there_fails_here(server: SshServer, small_disk: Path) -> None:
    image = small_disk / "disk.raw"
    with image.open("wb") as file:
        file.truncate(8 * MIB)
    words = ["qemu-io", "-f", "raw", "-c", "write -P 7 0 3M", "-c", "flush", server.url(image)]
    ours, theirs = run(server, *OURS, *words), run(server, *words)
    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)
    assert ours.returncode == 1


@pytest.mark.requires_tool("qemu-io")
def test_many_small_writes_are_each_answered(server: SshServer, tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes(bytes(MIB))
    writes = [word for index in range(250) for word in ("-c", f"write -q -P {index} {index * 4096} 4096")]
    done = run(server, *OURS, "qemu-io", "-f", "raw", *writes, server.url(image))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert image.read_bytes() == b"".join(bytes([index]) * 4096 for index in range(250)) + bytes(6 * 4096)
