"""``qemu-nbd`` beside the real one: messages and exit codes, and what it does from its start to its end."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hostel.cli.main import main
from support.additions import without_additions
from support.nbd import MIB, Peer

pytestmark = [pytest.mark.requires_tool("qemu-nbd"), pytest.mark.requires_tool("qemu-img")]

OURS = (sys.executable, "-m", "hostel", "qemu-nbd")
CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where both tools run: a raw image, and a qcow2 image with a snapshot and a bitmap."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.raw").write_bytes(CONTENT)
    return tmp_path


@pytest.fixture
def qcow2(folder: Path) -> Path:
    run("qemu-img create -q -f qcow2 a.qcow2 4M")
    run("qemu-io -f qcow2 -c 'write -q -P 1 0 1M' a.qcow2")
    run("qemu-img snapshot -c first a.qcow2")
    run("qemu-img bitmap --add -g 64k a.qcow2 b0")
    run("qemu-io -f qcow2 -c 'write -q -P 2 512k 1M' a.qcow2")
    run("qemu-img bitmap --disable a.qcow2 b0")
    return folder / "a.qcow2"


def run(command: str | Sequence[object], *, code: int = 0) -> str:
    words = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
    result = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == code, f"{words}: {result.stderr}{result.stdout}"
    return result.stdout


def both(command: str) -> tuple[tuple[int, str, str], tuple[int, str, str]]:
    """How a command that does not get to serving ends, with the real tool and with ours."""
    words = shlex.split(command)
    real = subprocess.run(
        ["qemu-nbd", *words], capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["qemu-nbd", *words])
    return (real.returncode, real.stdout, real.stderr), (code, out.getvalue(), without_additions(err.getvalue()))


@contextlib.contextmanager
def server(*words: object, sock: str = "nbd.sock", tool: Sequence[str] = OURS) -> Iterator[subprocess.Popen[str]]:
    """A server in the foreground, from when it listens until it has ended."""
    path = Path(sock).absolute()
    arguments = [*tool, *(() if "-p" in words else ("-k", str(path))), *map(str, words)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 60
            while "-p" not in words and not can_connect(path):
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()


def can_connect(path: Path) -> bool:
    """Whether a server answers; it does not take this for a client."""
    try:
        with Peer(path) as peer:
            peer.receive(18)
            return True
    except (OSError, AssertionError):
        return False


def uri(sock: str = "nbd.sock", export: str = "") -> str:
    return f"nbd+unix:///{export}?socket={Path(sock).absolute()}"


# ---- what does not get to serving


@pytest.mark.parametrize(
    "command",
    [
        "",
        "a.raw b.raw",
        "--foo",
        "-q a.raw",
        "-p",
        "--shared",
        "--fork=3 a.raw",
        "-k relative a.raw",
        "-c /dev/none",
        "-c /dev/none --tls-creds=x a.raw",
        "-c /dev/none -L",
        "-d -L",
        "-e x a.raw",
        "-e -1 a.raw",
        "--cache=foo a.raw",
        "--cache=none -n a.raw",
        "--aio=foo a.raw",
        "--aio=threads --aio=threads a.raw",
        "--aio=native -f raw a.raw",
        "-s --aio=native a.raw",
        "--discard=foo a.raw",
        "--discard=unmap --discard=unmap a.raw",
        "--detect-zeroes=foo a.raw",
        "--detect-zeroes=unmap a.raw",
        "-o 5k a.raw",
        "-o -1x a.raw",
        "-l snapshot.foo=1 a.raw",
        "-D " + "x" * 5000 + " a.raw",
        "-x " + "x" * 5000 + " a.raw",
        "--tls-creds=x a.raw",
        "--tls-authz=x a.raw",
        "--tls-hostname=x a.raw",
        "--object secret,id=s,data=x --tls-creds=s a.raw",
        "--object tls-creds-x509,id=t,dir=/nonexistent,endpoint=server --tls-creds=t a.raw",
        "--object foo,id=s a.raw",
        "--object secret,help --foo",
        "--object foo,id=s -e x a.raw",
        "-c /dev/nbd0 --object tls-creds-x509,id=t,dir=/nonexistent --tls-creds=t a.raw",
        "-d",
        "-d a b",
        "-d missing",
        "-d --tls-authz=x missing",
        "-L -d",
        "--selinux-label=x -d missing",
        "-L a.raw",
        "-L -x foo",
        "-L --cache=none",
        "-L -o 0 -f raw",
        "-L --fork",
        "-L -k {folder}/missing",
        "-L -b 127.0.0.1 -p 1",
        "-p nosuchservice a.raw",
        "-b no.such.host.invalid a.raw",
        "-k {folder}/missing/sock a.raw",
        "-k {folder}/" + "x" * 108 + " a.raw",
        "-b 192.0.2.1 a.raw",
        "-k {folder}/s missing",
        "-k {folder}/s -f foo a.raw",
        "-k {folder}/s --image-opts driver=raw",
        "-k {folder}/s --image-opts -f raw driver=raw",
        "-k {folder}/s --image-opts driver=raw,file.filename=a.raw,detect-zeroes=unmap",
        "-k {folder}/s --discard=unmap --image-opts driver=raw,file.filename=a.raw,discard=off,detect-zeroes=unmap",
        "-k {folder}/s -f raw -o 3145728 a.raw",
        "-k {folder}/s -f raw -l foo a.raw",
        "-k {folder}/s -f qcow2 -l nosuch a.qcow2",
        "-k {folder}/s -f qcow2 -l snapshot.name=nosuch a.qcow2",
        "-k {folder}/s -f raw -B foo a.raw",
        "-k {folder}/s -f qcow2 -B foo a.qcow2",
        "-k {folder}/s -f raw --pid-file {folder}/missing/pid a.raw",
    ],
)
def test_misuse_is_reported_as_the_real_tool_does(qcow2: Path, command: str) -> None:
    real, ours = both(command.format(folder=qcow2.parent))
    assert ours == real
    assert not (qcow2.parent / "missing").exists()


def test_failure_leaves_no_socket(folder: Path) -> None:
    both(f"-k {folder}/s missing")
    _, ours = both(f"-k {folder}/s -f raw -B foo a.raw")
    assert ours[0] == 1
    assert not (folder / "s").exists()


@pytest.mark.parametrize("name", ["a.raw", "/dev/null"])
def test_what_is_no_nbd_device_is_not_disconnected(folder: Path, name: str) -> None:
    real, ours = both(f"-d {name}")
    assert real == (0, f"{name} disconnected\n", "")
    assert ours == (1, "", f"qemu-nbd: Cannot disconnect {name}: Inappropriate ioctl for device\n")


def test_help_and_version_end_well() -> None:
    for option in ("-h", "--help", "-V", "--version"):
        (real, _, _), (code, out, err) = both(f"{option} --foo")
        assert (code, err) == (real, "") == (0, "")
        assert out.startswith(("Usage: qemu-nbd [OPTIONS] FILE\n", "qemu-nbd 7.2"))


# ---- the server's life


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_it_and_what_was_written_stays(qcow2: Path, number: int) -> None:
    with server("-f", "qcow2", "-t", qcow2) as process:
        run(["qemu-io", "-f", "raw", "-c", "write -q -P 9 3M 64k", uri()])
        process.send_signal(number)
        assert process.wait(20) == 0
    assert not Path("nbd.sock").exists()
    run("qemu-img check -q a.qcow2")
    run("qemu-io -f qcow2 -c 'read -q -P 9 3M 64k' a.qcow2")


def test_a_signal_while_the_image_is_opened_leaves_no_socket(tmp_path: Path) -> None:
    path = tmp_path / "nbd.sock"
    with socket.socket(socket.AF_UNIX) as slow:
        slow.bind(str(tmp_path / "slow"))
        slow.listen()
        slow.settimeout(30)
        process = subprocess.Popen([*OURS, "-k", path, f"nbd:unix:{tmp_path}/slow"], stderr=subprocess.DEVNULL)
        try:
            client, _ = slow.accept()
            assert path.is_socket()
            process.send_signal(signal.SIGTERM)
            with client, pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.3)
            assert process.wait(20) == 1
        finally:
            process.kill()
            process.wait()
    assert not path.exists()


def test_an_image_whose_server_hangs_is_given_up_by_one_signal(tmp_path: Path) -> None:
    path = tmp_path / "nbd.sock"
    with socket.socket(socket.AF_UNIX) as slow:
        slow.bind(str(tmp_path / "slow"))
        slow.listen()
        slow.settimeout(30)
        process = subprocess.Popen([*OURS, "-k", path, f"nbd:unix:{tmp_path}/slow"], stderr=subprocess.PIPE)
        try:
            client, _ = slow.accept()
            with client:
                process.send_signal(signal.SIGTERM)
                began = time.monotonic()
                assert process.wait(25) == 0
                assert time.monotonic() - began < 15
            assert process.stderr is not None
            assert process.stderr.read() == b""
        finally:
            process.kill()
            process.communicate(timeout=20)
    assert not path.exists()


def test_it_ends_with_its_last_client_and_not_with_one_that_only_looks(folder: Path) -> None:
    with server("-f", "raw", "a.raw") as process:
        run(["qemu-nbd", "-L", "-k", folder / "nbd.sock"])
        assert process.poll() is None
        run(["qemu-img", "info", "-f", "raw", uri()])
        assert process.wait(20) == 0


def test_persistent_goes_on_and_shared_counts_clients(folder: Path) -> None:
    with server("-f", "raw", "-t", "-e", 2, "a.raw") as process:
        with Peer("nbd.sock") as one, Peer("nbd.sock") as two, Peer("nbd.sock") as three:
            one.use()
            two.use()
            three.socket.settimeout(0.2)
            with pytest.raises(TimeoutError):
                three.receive(18)
            one.socket.close()
            three.socket.settimeout(20)
            three.use()
        assert process.poll() is None


def test_fork_returns_when_the_server_listens(folder: Path) -> None:
    command = [*OURS, "--fork", "-f", "raw", "-t", "-k", str(folder / "nbd.sock"), "--pid-file", "pid", "a.raw"]
    assert run(command) == ""
    pid = int((folder / "pid").read_text())
    try:
        assert os.getsid(pid) == pid
        assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        with Peer("nbd.sock") as peer:
            peer.use()
    finally:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 60
    while Path("nbd.sock").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_fork_fails_with_the_servers_words(folder: Path) -> None:
    for tool in (["qemu-nbd"], OURS):
        words = [*tool, "--fork", "-k", str(folder / "nbd.sock"), "missing"]
        result = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == (
            "qemu-nbd: Failed to blk_new_open 'missing': Could not open 'missing': No such file or directory\n"
        )


def test_a_pid_file_in_use_is_not_overwritten(folder: Path) -> None:
    with server("-f", "raw", "--pid-file", "pid", "a.raw") as process:
        assert int((folder / "pid").read_text()) == process.pid
        (folder / "b.raw").write_bytes(CONTENT)
        command = [*OURS, "-f", "raw", "-k", str(folder / "other"), "--pid-file", "pid", "b.raw"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 1
        assert "Cannot lock pid file 'pid'" in result.stderr
        assert int((folder / "pid").read_text()) == process.pid


def test_an_image_in_use_is_not_served(folder: Path) -> None:
    with server("-f", "raw", "-t", "a.raw"):
        command = f"-k {folder}/other -f raw a.raw"
        real, ours = both(command)
        assert ours[0] == real[0] == 1
        assert ours[2].startswith(real[2])
        assert "It is open in process" in ours[2]


def test_a_socket_may_be_handed_over(folder: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("handed.sock")
    listener.listen()
    script = f"LISTEN_PID=$$ LISTEN_FDS=1 exec {shlex.join(OURS)} -f raw a.raw 3<&{listener.fileno()}"
    with listener, subprocess.Popen(["bash", "-c", script], pass_fds=[listener.fileno()]) as process:
        try:
            with Peer("handed.sock") as peer:
                peer.use()
            assert process.wait(20) == 0
        finally:
            process.kill()
    script = f"LISTEN_PID=$$ LISTEN_FDS=1 exec {shlex.join(OURS)} -p 1 -f raw a.raw 3</dev/null"
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert result.stderr == "qemu-nbd: TCP port number can't be set when using socket activation\n"


def test_tcp_is_served_where_it_is_bound(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with server("-f", "raw", "-p", port, "-b", "localhost", "a.raw"):
        deadline = time.monotonic() + 60
        while subprocess.run(["qemu-nbd", "-L", "-p", str(port)], capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        run(f"qemu-img compare -q -f raw -F raw nbd://localhost:{port} a.raw")


# ---- what is served


@pytest.mark.parametrize(
    "words",
    [
        "-f raw a.raw",
        "-r -f raw -e 0 a.raw",
        "-f raw -x disk -D 'my disk' a.raw",
        "a.raw",
        "-f qcow2 -A -B b0 a.qcow2",
        "-f raw -o 512 a.raw",
        "-l first -f qcow2 a.qcow2",
    ],
)
def test_exports_look_like_the_real_ones(qcow2: Path, words: str) -> None:
    seen = []
    for tool in (["qemu-nbd"], OURS):
        with server(*shlex.split(words), "-t", tool=tool):
            seen.append(run(["qemu-nbd", "-L", "-k", qcow2.parent / "nbd.sock"]))
            ours = io.StringIO()
            with contextlib.redirect_stdout(ours):
                assert main(["qemu-nbd", "-L", "-k", str(qcow2.parent / "nbd.sock")]) == 0
            assert ours.getvalue() == seen[-1]
    assert seen[0] == seen[1]


def test_an_overlay_takes_what_is_written_and_is_forgotten(qcow2: Path) -> None:
    before = qcow2.read_bytes()
    with server("-f", "qcow2", "-s", "-t", qcow2):
        run(["qemu-io", "-f", "raw", "-c", "write -q -P 9 0 4M", "-c", "read -q -P 9 0 4M", uri()])
    assert qcow2.read_bytes() == before


def test_an_overlay_over_options(qcow2: Path) -> None:
    with server("--image-opts", "-s", "-t", "driver=qcow2,file.filename=a.qcow2"):
        run(["qemu-io", "-f", "raw", "-c", "write -q -P 9 0 64k", "-c", "read -q -P 2 512k 1M", uri()])


@pytest.mark.parametrize("snapshot", ["first", "1", "snapshot.name=first", "snapshot.id=1,snapshot.name=first"])
def test_a_snapshot_is_served_as_it_was(qcow2: Path, snapshot: str) -> None:
    with server("-f", "qcow2", "-l", snapshot, qcow2):
        run(["qemu-io", "-r", "-f", "raw", "-c", "read -q -P 1 0 1M", "-c", "read -q -P 0 1M 3M", uri()])


def test_a_part_is_served_from_its_offset(folder: Path) -> None:
    with server("-f", "raw", "-o", 4096, "-t", "a.raw"):
        run(["qemu-img", "convert", "-f", "raw", "-O", "raw", uri(), "part.raw"])
        assert (folder / "part.raw").read_bytes() == CONTENT[4096:]
        run(["qemu-io", "-f", "raw", "-c", "write -q -P 9 512 512", uri()])
    assert (folder / "a.raw").read_bytes() == CONTENT[:4608] + bytes([9]) * 512 + CONTENT[5120:]


def test_bitmaps_and_depth_are_seen_as_with_the_real_tool(qcow2: Path) -> None:
    run("qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 top.qcow2")
    run("qemu-io -f qcow2 -c 'write -q 1M 1M' top.qcow2")
    seen = []
    for tool in (["qemu-nbd"], OURS):
        with server("-f", "qcow2", "-r", "-t", "-A", "-B", "b0", "top.qcow2", tool=tool):
            maps = []
            for context in ("base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:b0"):
                options = f"driver=nbd,server.type=unix,server.path={qcow2.parent}/nbd.sock,x-dirty-bitmap={context}"
                maps.append(json.loads(run(["qemu-img", "map", "--output=json", "--image-opts", options])))
                out = io.StringIO()
                with contextlib.redirect_stdout(out):
                    assert main(["qemu-img", "map", "--output=json", "--image-opts", options]) == 0
                assert json.loads(out.getvalue()) == maps[-1]
            seen.append(maps)
    assert seen[0] == seen[1]


def test_discard_and_detected_zeroes_give_space_back(folder: Path) -> None:
    full = os.stat("a.raw").st_blocks
    with server("-f", "raw", "--discard=unmap", "--detect-zeroes=unmap", "-t", "a.raw"):
        run(["qemu-io", "-f", "raw", "-d", "unmap", "-c", "discard -q 0 512k", uri()])
        trimmed = os.stat("a.raw").st_blocks
        run(["qemu-io", "-f", "raw", "-c", "write -q -P 0 512k 512k", uri()])
        assert os.stat("a.raw").st_blocks < trimmed < full
    assert Path("a.raw").read_bytes() == bytes(MIB)


@pytest.mark.parametrize(
    ("words", "shrinks"),
    [
        (["--detect-zeroes=on", "--image-opts", "driver=raw,file.filename=a.raw"], False),
        (
            ["--discard=unmap", "--image-opts", "driver=raw,file.filename=a.raw,discard=unmap,detect-zeroes=unmap"],
            False,
        ),
        (["--discard=unmap", "--detect-zeroes=unmap", "--image-opts", "driver=raw,file.filename=a.raw"], True),
    ],
)
def test_only_the_option_says_that_zeroes_are_detected(folder: Path, words: list[str], shrinks: bool) -> None:
    for tool in (["qemu-nbd"], OURS):
        Path("a.raw").write_bytes(bytes(range(256)) * 4096)
        full = os.stat("a.raw").st_blocks
        with server(*words[:-1], "-t", words[-1], tool=tool):
            run(["qemu-io", "-f", "raw", "-c", "write -q -P 0 0 512k", uri()])
        assert (os.stat("a.raw").st_blocks < full) is shrinks
        assert Path("a.raw").read_bytes()[: MIB // 2] == bytes(MIB // 2)


def test_a_guessed_raw_image_is_warned_of(folder: Path) -> None:
    seen = []
    for tool in (["qemu-nbd"], OURS):
        with server("a.raw", tool=tool) as process:
            run(["qemu-img", "info", "-f", "raw", uri()])
            process.wait(20)
            assert process.stderr
            seen.append(process.stderr.read())
    assert "WARNING: Image format was not specified" in seen[0]
    assert "WARNING: Image format was not specified" in seen[1]
    assert seen[1].startswith(seen[0].split("qemu-nbd:")[0])


@pytest.mark.parametrize(
    "words",
    [
        "-f qcow2 -o 65536 a.qcow2",
        "--image-opts driver=raw,offset=64k,file.driver=raw,file.offset=1k,file.file.filename=b.raw",
        "--image-opts driver=raw,file.driver=preallocate,file.file.driver=raw,file.file.file.filename=b.raw",
        "-f raw --cache=none b.raw",
    ],
)
def test_a_part_of_a_part_is_described_as_by_the_real_tool(folder: Path, words: str) -> None:
    (folder / "b.raw").write_bytes(CONTENT + b"end")
    run("qemu-img convert -f raw -O qcow2 b.raw a.qcow2")
    seen = []
    for tool in (["qemu-nbd"], OURS):
        with server("-r", "-t", *words.split(), tool=tool):
            run(["qemu-img", "convert", "-f", "raw", "-O", "raw", uri(), "copy"])
            seen.append((run(["nbdinfo", "--map", uri()]), Path("copy").read_bytes()))
    assert seen[0] == seen[1]


def test_a_part_of_an_overlay_is_described_with_what_it_stands_on(folder: Path) -> None:
    """What the overlay leaves to its backing file passed for zeroes, which clients do not read."""
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "a.raw", "-F", "raw", "over"])
    with server("-f", "qcow2", "-r", "-o", "65536", "over", tool=OURS):
        run(["qemu-img", "convert", "-f", "raw", "-O", "raw", uri(), "copy"])
    assert Path("copy").read_bytes() == Path("a.raw").read_bytes()[64 * 1024 :]


def test_below_a_filter_the_nearest_bitmap_of_a_name_is_found(folder: Path) -> None:
    for name, backing in (("below", []), ("over", ["-b", "below", "-F", "qcow2"])):
        run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, name, "64M"])
        run(["qemu-img", "bitmap", "--add", name, "b"])
    run(["qemu-io", "-f", "qcow2", "-c", "write -q 1M 64k", "over"])
    maps = []
    for tool in (["qemu-nbd"], OURS):
        with server(
            "-t",
            "-r",
            "-B",
            "b",
            "--image-opts",
            "driver=throttle,throttle-group=g,file.driver=qcow2,file.file.filename=over",
            "--object",
            "throttle-group,id=g",
            tool=tool,
        ):
            found = subprocess.run(
                ["nbdinfo", "--map=qemu:dirty-bitmap:b", uri()], capture_output=True, text=True, check=True, timeout=60
            )
            maps.append(found.stdout)
    assert maps[1] == maps[0]
    assert "dirty" in maps[0]


def test_nothing_is_said_of_a_client_that_ends_the_handshake_and_goes(folder: Path) -> None:
    with server("-t", "-f", "raw", "a.raw", tool=OURS) as process:
        for _ in range(20):
            with Peer("nbd.sock") as peer:
                peer.receive(18)
                peer.send((3).to_bytes(4, "big") + b"IHAVEOPT" + (2).to_bytes(4, "big") + bytes(4))
        process.terminate()
        process.wait(20)
        assert process.stderr is not None
        said = process.stderr.read()
    # Who looked whether it listens left without a word, and of that one is told.
    assert [line for line in said.splitlines() if "Failed to read flags" not in line] == []
