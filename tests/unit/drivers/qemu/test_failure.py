"""What QEMU writes before it gives up, as one line that says why."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from hostel.cause.holder import describe
from hostel.drivers.qemu.failure import explained
from hostel.model.domain.devices.seclabel import SecurityLabel
from hostel.model.domain.domain import Domain

_STAMP = "2026-11-26T12:11:39.359259Z "
_NODE = '{"node-name": "libvirt-2-format", "driver": "qcow2", "file": "libvirt-2-storage", "read-only": false}'


def _machine(path: str, memory: str = "") -> Domain:
    return Domain.parse(
        f"<domain type='qemu'><name>web1</name><memory unit='GiB'>64</memory>{memory}"
        "<os><type>hvm</type><kernel>/boot/vmlinuz</kernel></os><devices>"
        f"<disk type='file' device='disk'><source file='{path}' index='2'/><target dev='vdb' bus='virtio'/></disk>"
        "</devices></domain>"
    )


def _explained(*lines: str, argv: tuple[str, ...] = (), path: str = "/srv/disk", memory: str = "") -> str | None:
    return explained(lines, ["/usr/bin/qemu-system-x86_64", *argv], _machine(path, memory))


def test_reason_comes_before_the_disk_and_without_the_option() -> None:
    line = f"{_STAMP}qemu-system-x86_64: -blockdev {_NODE}: Image is not in qcow2 format"
    assert _explained(line, argv=("-blockdev", _NODE)) == "Image is not in qcow2 format (disk 'vdb', '/srv/disk')"


def test_lock_is_told_with_who_may_hold_it(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.touch()
    lines = (
        f'{_STAMP}qemu-system-x86_64: -blockdev {_NODE}: Failed to get "write" lock',
        f"Is another process using the image [{path}]?",
    )
    with path.open("rb"), path.open("rb"):
        assert _explained(*lines, argv=("-blockdev", _NODE), path=str(path)) == (
            f"Failed to get \"write\" lock (disk 'vdb', '{path}'); "
            "it is open in this process, for something else that it does"
        )


def test_missing_directory_of_a_file_is_named() -> None:
    value = "file,id=charserial0,path=/nosuch/log"
    line = f"qemu-system-x86_64: -chardev {value}: Could not open '/nosuch/log': No such file or directory"
    assert _explained(line, argv=("-chardev", value)) == (
        "Could not open '/nosuch/log': No such file or directory (chardev 'charserial0'); "
        "there is no directory '/nosuch'"
    )


@pytest.mark.parametrize("option", ["-chardev", "-vnc"])
def test_who_has_the_port_is_named(option: str) -> None:
    with socket.socket() as server:
        for port in range(5901, 6000):
            try:
                server.bind(("127.0.0.1", port))
                break
            except OSError:
                continue
        server.listen()
        value = f"127.0.0.1:{port - 5900},id=x" if option == "-vnc" else f"socket,id=x,host=127.0.0.1,port={port}"
        line = f"qemu-system-x86_64: {option} {value}: Failed to find an available port: Address already in use"
        assert _explained(line, argv=(option, value)) == (
            f"Failed to find an available port: Address already in use ({option[1:]} 'x'); "
            f"port {port} is in use by {describe(os.getpid())}"
        )


def test_memory_is_compared_with_what_there_is() -> None:
    line = f"{_STAMP}qemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory"
    said = str(_explained(line))
    assert said.startswith("cannot set up guest memory 'pc.ram': Cannot allocate memory; the guest needs 64 GiB, and ")
    assert said.endswith(" available")
    pages = str(_explained(line, memory="<memoryBacking><hugepages/></memoryBacking>"))
    assert "the guest needs 64 GiB in huge pages, of which " in pages
    assert pages.endswith("/proc/sys/vm/nr_hugepages")


def test_warnings_are_no_reason_and_the_last_error_is() -> None:
    lines = (
        "qemu-system-x86_64: warning: TCG doesn't support requested feature",
        "qemu: linux kernel too old to load a ram disk",
        "qemu-system-x86_64: invalid kernel header",
        "sh: 3: something of the shell's",
    )
    assert _explained(*lines) == "invalid kernel header (kernel '/boot/vmlinuz')"
    assert _explained(lines[0], lines[3]) is None


@pytest.mark.parametrize(
    ("model", "label", "log"),
    [
        ("selinux", "system_u:system_r:svirt_t:s0:c1,c2", "ausearch -m avc -ts recent"),
        ("apparmor", "libvirt-6695eb01-f6a4-8304-79aa-97f2502e193f", "journalctl -k -g apparmor"),
    ],
)
def test_what_qemu_is_kept_to_is_told_where_owner_and_mode_allow(
    tmp_path: Path, model: str, label: str, log: str
) -> None:
    path = tmp_path / "disk"
    path.touch(mode=0o600)
    domain = _machine(str(path))
    domain.seclabels = [SecurityLabel(type="dynamic", model=model, label=label)]
    line = f"qemu-system-x86_64: -blockdev {_NODE}: Could not open '{path}': Permission denied"
    said = str(explained([line], ["qemu-system-x86_64", "-blockdev", _NODE], domain))
    assert (
        f"'{path}' (" in said and f" is not for QEMU, which the kernel keeps to {label}: {log} shows the rule" in said
    )
