"""The daemon for clients of other hosts: TCP with passwords, TLS with certificates, and commands over ssh."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import hostel
from hostel.errors import ErrorCode, VirtError
from hostel.wire.rpc.scram import Verifier
from support import hosteld, without_posix
from support.hosteld import Hosteld
from support.pki import Authority
from support.ssh import ssh_server

pytestmark = pytest.mark.requires_tool("virsh")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Reachable(NamedTuple):
    """A daemon with ports, and the certificates of clients."""

    daemon: Hosteld
    tcp: int
    tls: int
    pki: Path


@pytest.fixture(scope="module")
def reachable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reachable]:
    folder = tmp_path_factory.mktemp("ports")
    authority = Authority()
    server = authority.server(folder / "server")
    authority.client(folder / "ann", "ann")
    authority.client(folder / "eve", "eve")
    Authority("another").client(folder / "stranger", "ann")
    (folder / "passwords").write_text(f"# users\nann:{Verifier.of('pencil', iterations=1000)}\n")
    tcp, tls = free_port(), free_port()
    (folder / "config").write_text(
        f'[tcp]\nlisten = "127.0.0.1:{tcp}"\n[auth]\npasswords = "{folder}/passwords"\n'
        f'[tls]\nlisten = "127.0.0.1:{tls}"\ncertificates = "{server}"\nallowed_names = ["O=hostel,CN=a*"]\n'
    )
    with hosteld.process("--config", str(folder / "config")) as daemon:
        yield Reachable(daemon, tcp, tls, folder)


def auth_file(folder: Path, password: str) -> Path:
    path = folder / "auth.conf"
    path.write_text(
        f"[credentials-one]\nauthname=ann\npassword={password}\n[auth-libvirt-127.0.0.1]\ncredentials=one\n"
    )
    return path


def test_tls_lets_a_client_in_with_its_certificate(reachable: Reachable) -> None:
    with hostel.open(f"test+tls://127.0.0.1:{reachable.tls}/default?pkipath={reachable.pki}/ann") as connection:
        assert connection.type == "TEST"
        assert [domain.name for domain in connection.domains()] == ["test"]


@pytest.mark.parametrize("who", ["eve", "stranger"])
def test_tls_lets_nobody_else_in(reachable: Reachable, who: str) -> None:
    with pytest.raises((VirtError, OSError)):
        hostel.open(f"test+tls://127.0.0.1:{reachable.tls}/default?pkipath={reachable.pki}/{who}")


def test_real_virsh_comes_in_over_tls(reachable: Reachable) -> None:
    uri = f"test+tls://127.0.0.1:{reachable.tls}/default?pkipath={reachable.pki}/ann"
    told = subprocess.run(
        ["virsh", "-c", uri, "list", "--name"], capture_output=True, text=True, timeout=60, check=True
    )
    assert told.stdout.split() == ["test"]
    uri = f"test+tls://127.0.0.1:{reachable.tls}/default?pkipath={reachable.pki}/eve"
    told = subprocess.run(["virsh", "-c", uri, "list"], capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 1


def test_much_data_comes_through_tls(reachable: Reachable, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    with hostel.open(f"qemu+tls://127.0.0.1:{reachable.tls}/session?pkipath={reachable.pki}/ann") as connection:
        pool = connection.create_pool(
            f"<pool type='dir'><name>t</name><target><path>{tmp_path}/pool</path></target></pool>", build=True
        )
        pool.create_volume("<volume><name>v</name><capacity>3000000</capacity></volume>")
        ref = connection.storage.storage_vol_lookup_by_path(f"{tmp_path}/pool/v")
        connection.storage.storage_vol_upload(ref, [data])
        pieces = connection.storage.storage_vol_download(ref)
        assert b"".join(bytes(piece) for piece in pieces) == data
        pool.stop()


def test_tcp_lets_who_knows_the_password_in(reachable: Reachable, tmp_path: Path) -> None:
    path = auth_file(tmp_path, "pencil")
    with hostel.open(f"test+tcp://127.0.0.1:{reachable.tcp}/default?authfile={path}") as connection:
        assert connection.type == "TEST"


def test_tcp_lets_nobody_else_in(reachable: Reachable, tmp_path: Path) -> None:
    for password, reason in (("pen", "authentication failed"), ("", "authentication failed")):
        path = auth_file(tmp_path, password)
        with pytest.raises(VirtError, match=reason) as caught:
            hostel.open(f"test+tcp://127.0.0.1:{reachable.tcp}/default?authfile={path}")
        assert caught.value.code is ErrorCode.AUTH_FAILED
    empty = tmp_path / "empty"
    empty.write_text("")
    with pytest.raises(VirtError, match="the daemon asks for a password"):
        hostel.open(f"test+tcp://127.0.0.1:{reachable.tcp}/default?authfile={empty}")


def test_tcp_asks_the_program_that_connects(reachable: Reachable, tmp_path: Path) -> None:
    from hostel import libvirt

    asked: list[tuple[int, str]] = []

    def answering(password: str, end: int = 0) -> libvirt.virConnect:
        def answer(credentials: list[list[Any]], opaque: Any) -> int:
            assert opaque == "opaque"
            for each in credentials:
                asked.append((each[0], each[1]))
                each[4] = "ann" if each[0] == libvirt.VIR_CRED_AUTHNAME else password
            return end

        empty = tmp_path / "empty"
        empty.write_text("")
        uri = f"test+tcp://127.0.0.1:{reachable.tcp}/default?authfile={empty}"
        return libvirt.openAuth(uri, [[libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_PASSPHRASE], answer, "opaque"], 0)

    with answering("pencil") as connection:
        assert connection.getType() == "TEST"
    assert asked == [(2, "Please enter your authentication name"), (5, "Please enter your password")]
    for password, end, reason in (("pen", 0, "authentication failed"), ("pencil", -1, "Failed to collect auth")):
        with pytest.raises(libvirt.libvirtError, match=reason) as caught:
            answering(password, end)
        assert caught.value.get_error_code() == libvirt.VIR_ERR_AUTH_FAILED


def test_call_without_the_password_is_refused(reachable: Reachable) -> None:
    from hostel.drivers.remote.client import RpcClient
    from hostel.net.address import TcpAddress, connect
    from hostel.net.transport import SocketTransport

    client = RpcClient(SocketTransport(connect(TcpAddress("127.0.0.1", str(reachable.tcp)))))
    try:
        for name, *arguments in (("connect_open", "test:///default", 0), ("connect_get_type",)):
            with pytest.raises(VirtError, match="authentication required"):
                client.call(name, *arguments)
        with pytest.raises(VirtError, match="invalid SASL step"):
            client.call("auth_sasl_step", 0, b"x")
    finally:
        client.close()


def test_noise_before_the_handshake_hurts_nobody(reachable: Reachable) -> None:
    for noise in (b"GET / HTTP/1.0\r\n\r\n", bytes(1000), b"\x16\x03\x01\xff\xff" + os.urandom(500)):
        with socket.create_connection(("127.0.0.1", reachable.tls), 20) as sock:
            sock.sendall(noise)
            sock.settimeout(20)
            try:
                while sock.recv(4096):
                    pass
            except ConnectionResetError:
                pass
    test_tls_lets_a_client_in_with_its_certificate(reachable)


def test_verifier_is_made_on_the_command_line() -> None:
    command = [sys.executable, "-m", "hostel", "daemon", "--verifier", "bob"]
    done = subprocess.run(command, input="secret\n", capture_output=True, text=True, timeout=60, check=True)
    user, _, verifier = done.stdout.strip().partition(":")
    assert user == "bob"
    found = Verifier.parse(verifier)
    assert found == Verifier.of("secret", salt=found.salt, iterations=found.iterations)


@pytest.mark.requires_tool("sshd")
@pytest.mark.requires_tool("nc")
def test_clients_come_in_over_ssh(tmp_path: Path) -> None:
    with hosteld.process() as daemon, ssh_server(tmp_path) as server:
        where = (
            f"test+ssh://{server.user}@127.0.0.1:{server.port}/default?socket={daemon.socket}"
            f"&keyfile={server.home}/.ssh/id_ed25519&no_verify=1&no_tty=1"
        )
        with hostel.open(where) as connection:
            assert [domain.name for domain in connection.domains()] == ["test"]
        told = subprocess.run(
            ["virsh", "-c", where, "list", "--name"], capture_output=True, text=True, timeout=60, check=True
        )
        assert told.stdout.split() == ["test"]
        with pytest.raises(VirtError, match=r"nosuch|No such file"):
            hostel.open(where.replace(str(daemon.socket), "/nosuch"))


@pytest.mark.requires_tool("sshd")
@pytest.mark.requires_tool("nc")
def test_clients_need_nothing_that_only_posix_has(tmp_path: Path) -> None:
    program = Path(without_posix.__file__)
    data = tmp_path / "data"
    data.write_bytes(bytes(range(256)) * 1024)
    lines = {
        "list --all --name": "test\n\n",
        "dominfo test": "Max memory:     8388608 KiB",
        f"vol-create-as default-pool v 1M; vol-upload v {data} default-pool; vol-info v default-pool": "1.00 MiB",
        "suspend test; domstate test --reason": "paused (user)",
        "event --all --timeout 1": "event loop timed out",
        "help": "migrate",
    }
    with hosteld.process() as daemon, ssh_server(tmp_path) as server:
        where = (
            f"test+ssh://{server.user}@127.0.0.1:{server.port}/default?socket={daemon.socket}"
            f"&keyfile={server.home}/.ssh/id_ed25519&no_verify=1&no_tty=1"
        )
        for line, expected in lines.items():
            done = subprocess.run(
                [sys.executable, program, "virsh", "-c", where, line],
                capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            assert expected in done.stdout, (line, done.stdout, done.stderr)
        done = subprocess.run(
            [sys.executable, program, "virsh", "-c", daemon.uri(), "list"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert "this system has no Unix sockets" in done.stderr


def test_ssh_helper_connects_with_the_daemon_of_the_session(tmp_path: Path) -> None:
    """Its user is not root, whose session is the system's."""
    (tmp_path / "libvirt").mkdir()
    code = (
        "import os, sys; os.geteuid = lambda: 1000\n"
        "from hostel.cli.main import main; sys.exit(main(['virt-ssh-helper', 'qemu:///session']))"
    )
    with hosteld.process("--socket-ro", f"{tmp_path}/libvirt/libvirt-sock"):
        from hostel.wire.rpc.keepalive import ping, pong

        helper = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        )  # fmt: skip
        assert helper.stdin is not None and helper.stdout is not None
        helper.stdin.write(ping)
        helper.stdin.flush()
        assert helper.stdout.read(len(pong)) == pong
        helper.stdin.close()
        assert helper.wait(20) == 0
        helper.stdout.close()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "expected a URI"),
        (["a", "b"], "expected a URI"),
        (["qemu+ssh://host/system"], "the daemon is on this host"),
        (["-x"], ""),
    ],
)
def test_ssh_helper_says_what_it_expects(words: list[str], error: str) -> None:
    command = [sys.executable, "-m", "hostel", "virt-ssh-helper", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert error in done.stderr
