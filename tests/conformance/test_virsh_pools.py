"""Pools on devices and servers through our virsh against real virsh and a real libvirtd of root's.

The two work on twin devices, whose names are taken out of what they print.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import pytest

from support import libvirtd_system, loop
from support.fast_keys import fast_keys
from support.key_timing import until_timed
from support.virsh import Ours, Real

__all__ = ["fast_keys"]
SECRET = "aaaaaaaa-2222-3333-4444-555555555555"
PASSPHRASE = "passphrase"
SIZE = 320 * 1024 * 1024  # bytes of a device: what XFS needs at least
pytestmark = [
    pytest.mark.requires_tool("virsh"),
    pytest.mark.requires_tool("libvirtd"),
    pytest.mark.requires_tool("parted"),
    pytest.mark.requires_tool("mkfs.xfs"),
    pytest.mark.skipif(not loop.may_attach(), reason="needs root and loop devices"),
]

# {D} is the device, {P} the names of its partitions without their number, {W} a folder.
SCENARIOS = {
    "a file system": [
        "pool-define-as f fs --source-dev {D} --source-format ext4 --target {W}/mnt",
        "pool-dumpxml f",
        "pool-start f",
        "pool-build f",
        "pool-build f --no-overwrite",
        "pool-build f --no-overwrite",
        "pool-build f --overwrite --no-overwrite",
        "pool-start f",
        "pool-start f",
        "pool-build f --overwrite",
        "pool-list --details",
        "pool-dumpxml f",
        "vol-create-as f a 4M",
        "vol-create-as f b 4M --format qcow2",
        "vol-create-as f c 4M --format qcow2 --backing-vol b --backing-vol-format qcow2",
        "vol-list f",
        "vol-clone a d f",
        "vol-resize a 8M f",
        "vol-info a f",
        "vol-delete a f",
        "pool-define-as other fs --source-dev {D} --target {W}/elsewhere",
        "pool-destroy f",
        "pool-delete f",
        "pool-build f --overwrite",
        "pool-start f",
        "vol-list f",
        "pool-refresh f",
        "pool-destroy f",
        "pool-undefine f",
    ],
    "encrypted volumes": [
        "pool-create-as e dir --target {W}/enc --build",
        "vol-create e {W}/raw.xml",
        "secret-define {W}/secret.xml",
        "vol-create e {W}/raw.xml",
        f"secret-set-value {SECRET} cGFzc3BocmFzZQ==",
        "vol-create e {W}/raw.xml",
        "vol-create e {W}/vmdk.xml",
        "vol-create e {W}/no-secret.xml",
        "pool-refresh e",
        "vol-dumpxml raw e",
        "vol-info raw e --bytes",
        "pool-destroy e",
        f"secret-undefine {SECRET}",
    ],
    "what only btrfs can": [
        "pool-define {W}/cow.xml",
        "pool-dumpxml c",
        "pool-build c",
        "pool-start c",
        "vol-create c {W}/nocow.xml",
        "pool-destroy c",
    ],
    "a file system of the wrong kind": [
        "pool-create-as f fs --source-dev {D} --source-format xfs --target {W}/mnt --build --overwrite",
        "pool-info f",
        "pool-destroy f",
        "pool-define-as g fs --source-dev {D} --source-format ext4 --target {W}/mnt",
        "pool-build g --no-overwrite",
        "pool-define-as h disk --source-dev {D} --source-format gpt --target /dev",
        "pool-undefine g",
        "pool-define-as h disk --source-dev {D} --source-format gpt --target /dev",
        "pool-start h",
        "pool-build h",
        "pool-define-as nothing fs --source-dev /dev/nosuch --source-format ext4 --target {W}/mnt",
        "pool-build nothing --overwrite",
        "pool-define-as none fs --target {W}/mnt",
        "pool-define-as odd fs --source-dev {D} --source-format btrfs --target {W}/mnt",
    ],
    "a disk with GPT": [
        "pool-define-as d disk --source-dev {D} --source-format gpt --target /dev",
        "pool-start d",
        "pool-build d",
        "pool-build d",
        "pool-build d --no-overwrite",
        "pool-start d",
        "pool-dumpxml d",
        "vol-create-as d {P}1 10M",
        "vol-create-as d {P}2 20M",
        "vol-create-as d {P}2 20M",
        "vol-create-as d {P}3 3G",
        "vol-list d --details",
        "vol-dumpxml {P}2 d",
        "vol-path {P}2 --pool d",
        "vol-key {P}2 --pool d",
        "vol-pool /dev/{P}2",
        "pool-dumpxml d",
        "pool-info d",
        "vol-resize {P}2 30M d",
        "vol-upload {P}2 {W}/bytes d",
        "pool-refresh d",
        "vol-create-as d {P}3 5M",
        "pool-dumpxml d",
        "pool-destroy d",
        "pool-start d",
        "vol-list d",
        "pool-destroy d",
        "pool-delete d",
        "pool-start d",
        "pool-undefine d",
    ],
    "a disk with a DOS label": [
        "pool-create-as d disk --source-dev {D} --source-format dos --target /dev --build --overwrite",
        "pool-dumpxml d",
        "vol-create-as d {P}1 10M",
        "vol-create-as d {P}2 10M --format linux",
        "vol-create-as d {P}3 100M --format extended",
        "vol-create-as d {P}4 100M --format extended",
        "vol-create-as d {P}4 10M --format fat32",
        "vol-create-as d {P}5 10M",
        "vol-create-as d {P}6 10M --format linux-swap",
        "vol-create-as d {P}7 10M --format qcow2",
        "vol-list d",
        "vol-info {P}3 d",
        "vol-info {P}5 d",
        "vol-wipe {P}3 d",
        "pool-dumpxml d",
        "pool-info d",
        "pool-destroy d",
    ],
    "what a type of pools does not have": [
        "pool-define-as m mpath --target /dev/mapper",
        "pool-define-as m2 mpath --target /dev/mapper",
        "pool-build m",
        "pool-delete m",
        "find-storage-pool-sources-as mpath",
        "find-storage-pool-sources-as nosuch",
        "find-storage-pool-sources-as netfs",
        "find-storage-pool-sources-as iscsi-direct 127.0.0.1",
        "pool-define-as s sheepdog --source-host h --source-name n",
        "pool-define-as i iscsi-direct --source-host h --source-dev iqn.x",
        "pool-define-as v scsi --target /dev",
        "pool-undefine m",
    ],
}  # fmt: skip

_BLURRED = (
    # More lines of a tool, before which ours says again that they are an error's.
    (re.compile(r"\n(error: )? {2,}"), "\n "),
    (re.compile(r"<([amc]time)>[0-9.]+<"), r"<\1>T<"),
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "UUID"),
    (re.compile(r"-{20,}"), "-"),
    (re.compile(r" +"), " "),
    (re.compile(r"(Child process \()/\S*/"), r"\1"),
    # What ours adds: what to do about it.
    (re.compile(r"; write one of .*|: supported are .*|: [0-9]+ bytes are wanted, and .*"), ""),
)


class Twin(NamedTuple):
    """A device and a folder for one of the two."""

    device: str
    folder: Path

    def line(self, line: str) -> str:
        return line.format(D=self.device, P=f"{Path(self.device).name}p", W=self.folder)

    def blurred(self, result: tuple[int, str, str]) -> tuple[int, str, str]:
        def blur(text: str) -> str:
            text = text.replace(str(self.folder), "W").replace(self.device, "/dev/D")
            text = text.replace(Path(self.device).name, "D")
            for pattern, replacement in _BLURRED:
                text = pattern.sub(replacement, text)
            # What a tool said is in ours as it is; libvirt ends it with an empty line.
            return text.rstrip()

        return result[0], blur(result[1]), blur(result[2])


@pytest.fixture(scope="module")
def real() -> Iterator[Real]:
    with libvirtd_system.running() as uri:
        yield Real(uri)


@pytest.fixture
def twins(tmp_path: Path) -> Iterator[tuple[Twin, Twin]]:
    with (
        loop.device(tmp_path / "theirs.img", SIZE) as theirs,
        loop.device(tmp_path / "ours.img", SIZE) as ours,
    ):
        found = Twin(theirs, tmp_path / "theirs"), Twin(ours, tmp_path / "ours")
        for twin in found:
            twin.folder.mkdir()
            (twin.folder / "bytes").write_bytes(b"hello" * 1000)
            (twin.folder / "cow.xml").write_text(
                "<pool type='dir'><name>c</name><features><cow state='no'/></features>"
                f"<target><path>{twin.folder}/cow</path></target></pool>"
            )
            (twin.folder / "secret.xml").write_text(
                f"<secret private='yes'><uuid>{SECRET}</uuid><usage type='volume'><volume>v</volume></usage></secret>"
            )
            key = f"<secret type='passphrase' uuid='{SECRET}'/>"
            cipher = "<cipher name='aes' size='256' mode='cbc' hash='sha256'/><ivgen name='plain64' hash='sha256'/>"
            for name, format, more in (
                ("raw", "raw", key),
                ("qcow2", "qcow2", f"{key}{cipher}"),
                ("vmdk", "vmdk", key),
                ("no-secret", "raw", ""),
            ):
                (twin.folder / f"{name}.xml").write_text(
                    f"<volume><name>{name}</name><capacity unit='M'>2</capacity><target><format type='{format}'/>"
                    f"<encryption format='luks'>{more}</encryption></target></volume>"
                )
            (twin.folder / "nocow.xml").write_text(
                "<volume><name>v</name><capacity>65536</capacity><target><nocow/></target></volume>"
            )
        yield found


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_lines_of_a_scenario_give_what_virsh_gives(
    scenario: str, real: Real, twins: tuple[Twin, Twin], tmp_path: Path
) -> None:
    theirs, mine = twins
    ours = Ours(tmp_path / "home")
    try:
        for line in SCENARIOS[scenario]:
            asked = real.beside("secret") if line.startswith("secret") else real
            # A daemon that others started has no faster keys.
            expected = until_timed(partial(asked.run, theirs.line(line)), itemgetter(2))
            assert mine.blurred(ours.run(mine.line(line))) == theirs.blurred(expected), line
    finally:
        real.forget()
        for name in ours.run("pool-list --name")[1].split():
            ours.run(f"pool-destroy {name}")


def test_the_partition_is_gone_that_did_not_get_the_name_asked_for(twins: tuple[Twin, Twin], tmp_path: Path) -> None:
    twin, ours = twins[0], Ours(tmp_path / "home")
    must(ours, twin, "pool-create-as d disk --source-dev {D} --source-format gpt --target /dev --build")
    try:
        code, _, said = ours.run(twin.line("vol-create-as d other 10M"))
        name = twin.line("{P}1")
        assert (code, said) == (
            1,
            f"error: Failed to create vol other\nerror: invalid argument: invalid partition name 'other', "
            f"expected '{name}'\n",
        )
        assert name not in must(ours, twin, "vol-list d")
        must(ours, twin, "vol-create-as d {P}1 10M")
    finally:
        ours.run("pool-destroy d")


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_partitions_are_removed_whatever_the_disk_is_called(
    label: str, twins: tuple[Twin, Twin], tmp_path: Path
) -> None:
    twin, ours = twins[0], Ours(tmp_path / "home")
    must(ours, twin, f"pool-create-as d disk --source-dev {{D}} --source-format {label} --target /dev --build")
    try:
        must(ours, twin, "vol-create-as d {P}1 10M")
        must(ours, twin, "vol-create-as d {P}2 10M")
        must(ours, twin, "vol-delete {P}1 d")
        assert Path(twin.line("/dev/{P}2")).exists() and not Path(twin.line("/dev/{P}1")).exists()
        assert twin.line("{P}1") not in must(ours, twin, "vol-list d")
    finally:
        ours.run("pool-destroy d")


@pytest.mark.requires_tool("qemu-img")
def test_a_partition_is_filled_with_what_a_machine_would_read_of_an_image(
    twins: tuple[Twin, Twin], tmp_path: Path
) -> None:
    twin, ours = twins[0], Ours(tmp_path / "home")
    image = twin.folder / "files" / "image.qcow2"
    must(ours, twin, "pool-create-as files dir --target {W}/files --build")
    must(ours, twin, "pool-create-as d disk --source-dev {D} --source-format gpt --target /dev --build")
    try:
        must(ours, twin, "vol-create-as files image.qcow2 6M --format qcow2")
        subprocess.run(["qemu-io", "-c", "write -P 7 1M 64k", str(image)], check=True, capture_output=True, timeout=60)
        (twin.folder / "part.xml").write_text(twin.line("<volume><name>{P}1</name><capacity>1</capacity></volume>"))
        # What the disk had there before must not show through.
        with Path(twin.device).open("r+b") as disk:
            disk.seek(1024 * 1024)
            disk.write(b"\xaa" * 8 * 1024 * 1024)
        must(ours, twin, "vol-create-from d {W}/part.xml image.qcow2 --inputpool files")
        part = Path(twin.line("/dev/{P}1")).read_bytes()
        expected = bytearray(len(part))
        expected[1024 * 1024 : 1024 * 1024 + 65536] = b"\x07" * 65536
        assert part == expected
    finally:
        ours.run("pool-destroy d")
        ours.run("pool-destroy files")


def test_a_device_in_use_is_never_formatted(twins: tuple[Twin, Twin], tmp_path: Path) -> None:
    twin, ours = twins[0], Ours(tmp_path / "home")
    must(ours, twin, "pool-create-as f fs --source-dev {D} --source-format ext4 --target {W}/mnt --build --overwrite")
    must(ours, twin, "vol-create-as f precious 1M")
    # Of another session: this one would refuse the second pool itself.
    others = Ours(tmp_path / "other-home")
    try:
        for line in (
            "pool-create-as d disk --source-dev {D} --source-format gpt --target /dev --build --overwrite",
            "pool-create-as g fs --source-dev {D} --source-format ext4 --target {W}/x --build --overwrite",
            "pool-create-as v logical --source-dev {D} --build --overwrite --target /dev/v",
        ):
            code, _, said = others.run(twin.line(line))
            assert code == 1 and f"is still in use by the mount on {twin.folder}/mnt" in said, line
        assert "precious" in must(ours, twin, "vol-list f")
    finally:
        ours.run("pool-destroy f")
    subprocess.run(["fsck.ext4", "-fn", twin.device], check=True, capture_output=True, timeout=60)


def test_a_mounted_pool_runs_for_the_next_process_and_not_once_somebody_unmounts_it(
    twins: tuple[Twin, Twin], tmp_path: Path
) -> None:
    twin = twins[0]
    must(
        Ours(tmp_path / "home"),
        twin,
        "pool-create-as f fs --source-dev {D} --source-format xfs --target {W}/mnt --build --overwrite",
    )
    try:
        assert " f " in must(Ours(tmp_path / "home"), twin, "pool-list")
    finally:
        subprocess.run(["umount", str(twin.folder / "mnt")], check=True, timeout=60)
    assert " f " not in must(Ours(tmp_path / "home"), twin, "pool-list")


@pytest.mark.requires_tool("qemu-io")
def test_encrypted_volumes_open_with_their_passphrase_and_copies_of_them_too(
    twins: tuple[Twin, Twin], tmp_path: Path
) -> None:
    twin, ours = twins[0], Ours(tmp_path / "home")
    for line in (
        "pool-create-as e dir --target {W}/enc --build",
        "secret-define {W}/secret.xml",
        f"secret-set-value {SECRET} cGFzc3BocmFzZQ==",
        "vol-create e {W}/raw.xml",
        "vol-create e {W}/qcow2.xml",
    ):
        must(ours, twin, line)
    secret = f"secret,id=s,data={PASSPHRASE}"
    raw, image = (f"driver=luks,key-secret=s,file.filename={twin.folder}/enc/{{}}",
                  f"driver=qcow2,encrypt.key-secret=s,file.filename={twin.folder}/enc/qcow2")  # fmt: skip
    qemu_io(secret, raw.format("raw"), "write -P 7 1M 64k")
    qemu_io(secret, image, "write -P 7 1M 64k")
    must(ours, twin, "vol-clone raw copy e")
    assert "<encryption format='luks'>" in must(ours, twin, "vol-dumpxml copy e")
    assert (twin.folder / "enc" / "copy").read_bytes() == (twin.folder / "enc" / "raw").read_bytes()
    (twin.folder / "plain.xml").write_text("<volume><name>plain</name><capacity unit='M'>9</capacity></volume>")
    for line in (
        "vol-resize raw 3M e", "vol-clone qcow2 other e", "vol-create-from e {W}/plain.xml raw --inputpool e",
    ):  # fmt: skip
        code, _, said = ours.run(twin.line(line))
        assert code == 1 and f"define a secret with <usage type='volume'><volume>{twin.folder}/enc/" in said, (
            line,
            said,
        )
    own = {name: f"{SECRET[:-2]}{number:02}" for number, name in enumerate(("raw", "qcow2"))}
    for name, uuid in own.items():
        usage = f"<usage type='volume'><volume>{twin.folder}/enc/{name}</volume></usage>"
        (twin.folder / "own.xml").write_text(f"<secret><uuid>{uuid}</uuid>{usage}</secret>")
        must(ours, twin, "secret-define {W}/own.xml")
        must(ours, twin, f"secret-set-value {uuid} cGFzc3BocmFzZQ==")
    for name, node in (("raw", raw.format("raw")), ("qcow2", image)):
        must(ours, twin, f"vol-resize {name} 3M e")
        qemu_io(secret, node, "read -P 7 1M 64k")
        qemu_io(secret, node, "write -P 8 2944k 128k")
    must(ours, twin, "vol-resize raw 2M e --shrink")
    must(ours, twin, "vol-clone qcow2 other e")
    qemu_io(secret, image.replace("enc/qcow2", "enc/other"), "read -P 7 1M 64k")
    assert "Can't shrink capacity" in must_fail(ours, twin, "vol-resize raw 1M e")
    assert "unencrypted raw volume" in must_fail(ours, twin, "vol-resize raw 4M e --allocate")
    for name in own:
        (twin.folder / "plain.xml").write_text(
            f"<volume><name>plain-{name}</name><capacity unit='M'>9</capacity></volume>"
        )
        must(ours, twin, f"vol-create-from e {{W}}/plain.xml {name} --inputpool e")
        assert (twin.folder / f"enc/plain-{name}").stat().st_size == 9 << 20
        qemu_io(secret, f"driver=raw,file.filename={twin.folder}/enc/plain-{name}", "read -P 7 1M 64k")
        create_encrypted_from(ours, twin, name, own["raw"])


def create_encrypted_from(ours: Ours, twin: Twin, name: str, uuid: str) -> None:
    """Copy a volume into ones that are encrypted anew, with a secret of another."""
    key = f"<secret type='passphrase' uuid='{uuid}'/>"
    for format in ("raw", "qcow2"):
        (twin.folder / "anew.xml").write_text(
            f"<volume><name>{name}-{format}</name><capacity unit='M'>4</capacity><target><format type='{format}'/>"
            f"<encryption format='luks'>{key}</encryption></target></volume>"
        )
        must(ours, twin, f"vol-create-from e {{W}}/anew.xml {'plain-raw' if format == 'raw' else name} --inputpool e")
        assert "<encryption format='luks'>" in must(ours, twin, f"vol-dumpxml {name}-{format} e")
        prefix, file = ("", "luks") if format == "raw" else ("encrypt.", "qcow2")
        node = f"driver={file},{prefix}key-secret=s,file.filename={twin.folder}/enc/{name}-{format}"
        qemu_io(f"secret,id=s,data={PASSPHRASE}", node, "read -P 7 1M 64k")


def must_fail(ours: Ours, twin: Twin, line: str) -> str:
    code, _, said = ours.run(twin.line(line))
    assert code == 1, line
    return said


def qemu_io(secret: str, options: str, command: str) -> None:
    words = ["qemu-io", "--object", secret, "--image-opts", options, "-c", command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert not done.returncode and "Pattern verification failed" not in done.stdout, done


@pytest.mark.requires_tool("mkfs.btrfs")
def test_copy_on_write_of_btrfs_is_what_documents_ask_for(twins: tuple[Twin, Twin], tmp_path: Path) -> None:
    twin, ours = twins[0], Ours(tmp_path / "home")
    place = twin.folder / "btrfs"
    place.mkdir()
    subprocess.run(["mkfs.btrfs", "-q", twin.device], check=True, timeout=60)
    subprocess.run(["mount", twin.device, str(place)], check=True, timeout=60)
    try:
        for name, features, expected in (
            ("unsaid", "", False),
            ("off", "<features><cow state='no'/></features>", False),
            ("on", "<features><cow state='yes'/></features>", True),
        ):
            document = (
                f"<pool type='dir'><name>{name}</name>{features}<target><path>{place}/{name}</path></target></pool>"
            )
            (twin.folder / "pool.xml").write_text(document)
            must(ours, twin, "pool-create {W}/pool.xml --build")
            assert is_copied_on_write(place / name) is expected, name
        for name, format in (("raw", "raw"), ("image", "qcow2")):
            target = f"<target><format type='{format}'/><nocow/></target>"
            (twin.folder / "vol.xml").write_text(
                f"<volume><name>{name}</name><capacity>65536</capacity>{target}</volume>"
            )
            must(ours, twin, "vol-create on {W}/vol.xml")
            assert not is_copied_on_write(place / "on" / name), name
        must(ours, twin, "vol-create-as on other 64K")
        assert is_copied_on_write(place / "on" / "other")
    finally:
        subprocess.run(["umount", str(place)], check=True, timeout=60)


def is_copied_on_write(path: Path) -> bool:
    flags = subprocess.run(["lsattr", "-d", str(path)], capture_output=True, text=True, check=True, timeout=60).stdout
    return "C" not in flags.split()[0]


def test_what_a_killed_start_has_mounted_is_taken_over_by_the_next(twins: tuple[Twin, Twin], tmp_path: Path) -> None:
    twin, ours = twins[0], Ours(tmp_path / "home")
    must(ours, twin, "pool-define-as f fs --source-dev {D} --source-format ext4 --target {W}/mnt")
    must(ours, twin, "pool-build f --overwrite")
    # As if it had been killed between the mount and writing down that the pool runs.
    subprocess.run(["mount", twin.device, str(twin.folder / "mnt")], check=True, timeout=60)
    try:
        assert " f " not in must(ours, twin, "pool-list")
        must(ours, twin, "pool-start f")
        assert " f " in must(ours, twin, "pool-list")
    finally:
        must(ours, twin, "pool-destroy f")
    assert not (twin.folder / "mnt").is_mount()


def must(ours: Ours, twin: Twin, line: str) -> str:
    code, out, err = ours.run(twin.line(line))
    assert code == 0, f"{line}: {err}"
    return out
