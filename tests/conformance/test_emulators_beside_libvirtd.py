"""Which emulators documents may name, and for what: the real virsh on libvirt's daemon and on ours."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support import hosteld, libvirtd, libvirtd_system
from support.additions import without_additions
from support.virsh import real_lines

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("libvirtd"),
    pytest.mark.requires_tool("virsh"),
    pytest.mark.requires_tool("qemu-system-x86_64"),
]
QEMU = "/usr/bin/qemu-system-x86_64"
XML = """<domain type='{kind}'><name>{name}</name><memory unit='MiB'>16</memory><os><type {guest}>hvm</type></os>
<devices><emulator>{emulator}</emulator></devices></domain>"""
PROGRAMS = {"broken": "#!/bin/sh\necho broken >&2\nexit 3\n", "plain": "", "wrapper": f'#!/bin/sh\nexec {QEMU} "$@"\n'}
# The domain's type, what <type> says, and the emulator; {} is the folder of the programs.
REFUSED = {
    "gone": ("qemu", "", "/nowhere/qemu"),
    "gone of an architecture": ("qemu", "arch='sparc'", "{}/qemu-system-sparc"),
    "relative": ("qemu", "", "qemu-kvm"),
    "directory": ("qemu", "", "{}"),
    "not executable": ("qemu", "", "{}/plain"),
    "broken": ("qemu", "", "{}/broken"),
    "another program": ("qemu", "", "/usr/bin/qemu-img"),
    "other architecture": ("qemu", "arch='aarch64' machine='virt'", QEMU),
    "no architecture": ("qemu", "arch='nosuch'", QEMU),
    "other machine": ("qemu", "machine='pc-i440fx-99.9'", QEMU),
    "other hypervisor": ("xen", "machine='pc'", QEMU),
}
TAKEN = {"none": "", "wrapper": "{}/wrapper"}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hostel-emulators-") as path:
        os.chmod(path, 0o755)  # libvirt's daemon is another user
        yield filled(Path(path))


def filled(made: Path) -> Path:
    for name, text in PROGRAMS.items():
        (made / name).write_text(text)
        (made / name).chmod(0o644 if name == "plain" else 0o755)
    for name, (kind, guest, emulator) in REFUSED.items():
        write(made / f"{name}.xml", kind, guest, emulator.format(made))
    for name, emulator in TAKEN.items():
        write(made / f"{name}.xml", "qemu", "", emulator.format(made))
    return made


def write(path: Path, kind: str, guest: str, emulator: str) -> None:
    path.write_text(XML.format(name=path.stem.replace(" ", "-"), kind=kind, guest=guest, emulator=emulator))


@pytest.fixture(scope="module")
def uris() -> Iterator[tuple[str, str]]:
    with hosteld.process() as ours, libvirtd.running() as theirs:
        theirs.skip_unless_recorded()
        yield ours.uri("qemu:///session"), theirs.uri


def test_document_is_refused_as_by_libvirt(uris: tuple[str, str], folder: Path) -> None:
    lines = [f"define '{folder}/{name}.xml'" for name in REFUSED]
    lines += [
        f"{command} '{folder}/{name}.xml'"
        for name in ("gone", "other machine", "kvm without kvm")
        for command in ("create", "domxml-to-native qemu-argv")
    ]
    with ThreadPoolExecutor(2) as pool:
        ours, theirs = pool.map(lambda uri: real_lines(uri, lines), uris)
    assert len(theirs) == len(lines)
    for line, mine, real in zip(lines, ours, theirs, strict=True):
        # libvirt keeps the line's end of what the program said.
        assert (mine[0], without_additions(mine[1]).rstrip()) == (real[0], real[1].rstrip()), line
    assert all(complaint for _, complaint in theirs)


def test_document_is_taken_as_by_libvirt(uris: tuple[str, str], folder: Path) -> None:
    for uri in uris:
        for name in TAKEN:
            answers = real_lines(uri, [f"define {folder}/{name}.xml", f"start {name}", f"destroy {name}"])
            assert [complaint for _, complaint in answers] == ["", "", ""]


@pytest.mark.requires_tool("unshare")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a daemon beside the system's")
def test_kvm_is_taken_where_it_may_be_opened_and_has_to_run_a_guest_at_the_start(folder: Path) -> None:
    write(folder / "with-kvm.xml", "kvm", "machine='pc'", QEMU)
    lines = [f"define {folder}/with-kvm.xml", f"domxml-to-native qemu-argv {folder}/with-kvm.xml"]
    with hosteld.process() as served, libvirtd_system.running(drivers=("qemu",)) as theirs:
        refused = [bool(complaint) for _, complaint in real_lines(theirs, lines)]
        assert [bool(complaint) for _, complaint in real_lines(served.uri("qemu:///session"), lines)] == refused
        if any(refused):
            return
        started = served.virsh("start", "with-kvm", uri="qemu:///session", check=False)
        runs = "type='kvm'" in served.virsh("capabilities", uri="qemu:///session").stdout
        assert (started.returncode == 0) is runs
        assert runs or f"Emulator '{QEMU}' does not support virt type 'kvm': KVM runs no guest" in started.stderr


def test_domain_stays_when_its_emulator_has_gone(folder: Path) -> None:
    program = folder / "vanishing"
    program.write_text(PROGRAMS["wrapper"])
    program.chmod(0o755)
    write(folder / "left.xml", "qemu", "", str(program))
    directory = folder / "daemon"
    directory.mkdir()
    with hosteld.process(directory=directory) as served:
        uri = served.uri("qemu:///session")
        assert real_lines(uri, [f"define {folder}/left.xml", "start left"])[1][1] == ""
        before = served.virsh("dumpxml", "--inactive", "left", uri="qemu:///session").stdout
        program.unlink()
        missing = f"error: Cannot check QEMU binary {program}: No such file or directory\n"
        # What runs is not bothered; what is to be started or defined anew is.
        answers = real_lines(uri, ["domstate left", "qemu-monitor-command left --hmp info status", "destroy left"])
        assert [complaint for _, complaint in answers] == ["", "", ""]
        started = served.virsh("start", "left", uri="qemu:///session", check=False)
        assert missing in started.stderr
    with hosteld.process(directory=directory) as served:
        assert "left" in served.virsh("list", "--all", "--name", uri="qemu:///session").stdout
        assert served.virsh("dumpxml", "--inactive", "left", uri="qemu:///session").stdout == before
        assert missing in served.virsh("start", "left", uri="qemu:///session", check=False).stderr
        program.write_text(PROGRAMS["wrapper"])
        program.chmod(0o755)
        assert real_lines(served.uri("qemu:///session"), ["start left", "destroy left", "undefine left"])[0][1] == ""
