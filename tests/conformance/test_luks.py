"""Encrypted images beside real ``qemu-img``: each reads what the other made, and both say the same."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from support import key_timing
from support.fast_keys import fast_keys
from support.image import qemu_img
from support.twins import Twins

__all__ = ["fast_keys"]
pytestmark = pytest.mark.requires_tool("qemu-img")

SECRETS = "--object secret,id=s,data=passphrase --object secret,id=t,data=another"
SIZE = 3 << 20
SCHEMES = (
    "",
    "cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv",
    "cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=md5",
    "cipher-alg=aes-192,ivgen-alg=plain",
    "cipher-alg=aes-256,cipher-mode=ctr",
    "cipher-alg=aes-128,cipher-mode=ecb,hash-alg=sha1",
    "cipher-alg=cast5-128,cipher-mode=cbc,ivgen-hash-alg=sha256",
    "cipher-alg=cast5-128,cipher-mode=ctr,ivgen-alg=essiv,ivgen-hash-alg=md5",
    "hash-alg=md5",
    "hash-alg=sha512",
    "hash-alg=ripemd160",
)
IMAGES = {
    "luks": ("luks", "", ""),
    "qcow2, LUKS": ("qcow2", "encrypt.", "encrypt.format=luks,"),
    "qcow2, AES": ("qcow2", "encrypt.", "encrypt.format=aes,"),
}


def real(folder: Path, command: str, *, code: int = 0) -> str:
    """Run the real ``qemu-img``; returns what it printed."""
    ended = key_timing.run(["qemu-img", *command.split()], cwd=folder, timeout=120)
    assert ended.returncode == code, f"qemu-img {command}: {ended.stderr!r}"
    return (ended.stdout + ended.stderr).decode()


def ours(folder: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run our ``qemu-img`` in a folder."""
    monkeypatch.chdir(folder)
    qemu_img(*command.split())


def disk(folder: Path) -> bytes:
    """A raw disk with data, some of it zeroes."""
    rng = random.Random(3)
    content = rng.randbytes(1 << 20) + bytes(1 << 20) + rng.randbytes(SIZE - (2 << 20))
    (folder / "disk.raw").write_bytes(content)
    return content


def options_of(image: str, scheme: str = "") -> tuple[str, str, str]:
    """An image's format, creation options, and its description by options but for the file's name."""
    format, prefix, first = IMAGES[image]
    parts = [f"{prefix}{part}" for part in scheme.split(",") if part]
    if first != IMAGES["qcow2, AES"][2]:
        parts.append(f"{prefix}iter-time=10")
    return format, first + ",".join([f"{prefix}key-secret=s", *parts]), f"driver={format},{prefix}key-secret=s"


# Complete groups of four digits; one that is not complete; padding in the middle, alone, before other digits; lines.
@pytest.mark.parametrize("text", ["YWJjZA==", "YWJjZA", "YWJjZ", "abc", "YQ==YWJj", "YQ=", "YQ=j", "YWJj\nZ\nGVm\n"])
def test_a_passphrase_in_base64_is_the_one_that_qemu_decodes(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = disk(tmp_path)
    (tmp_path / "key").write_text(text)
    secret = "--object secret,id=s,format=base64,file=key"
    _format, options, described = options_of("qcow2, AES")
    real(tmp_path, f"convert {secret} -f raw -O qcow2 -o {options} disk.raw theirs.img")
    ours(tmp_path, f"convert {secret} --image-opts -O raw {described},file.filename=theirs.img ours.raw", monkeypatch)
    assert (tmp_path / "ours.raw").read_bytes() == content


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_reads_a_volume_of_the_other(tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = disk(tmp_path)
    format, options, described = options_of("luks", scheme)
    convert = f"convert {SECRETS} -f raw -O {format} -o {options} disk.raw"
    real(tmp_path, f"{convert} theirs.luks")
    ours(tmp_path, f"{convert} ours.luks", monkeypatch)
    back = f"convert {SECRETS} --image-opts -O raw {described},file.filename"
    ours(tmp_path, f"{back}=theirs.luks theirs.raw", monkeypatch)
    real(tmp_path, f"{back}=ours.luks ours.raw")
    assert (tmp_path / "theirs.raw").read_bytes() == content
    assert (tmp_path / "ours.raw").read_bytes() == content


@pytest.mark.parametrize("image", ["qcow2, LUKS", "qcow2, AES"])
@pytest.mark.parametrize("more", ["compat=0.10", "extended_l2=on", "preallocation=metadata"])
def test_each_reads_an_image_of_the_other(
    tmp_path: Path, image: str, more: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = disk(tmp_path)
    format, options, described = options_of(image)
    convert = f"convert {SECRETS} -f raw -O {format} -o {options}{',' if more else ''}{more} disk.raw"
    real(tmp_path, f"{convert} theirs.qcow2")
    ours(tmp_path, f"{convert} ours.qcow2", monkeypatch)
    for name in ("theirs", "ours"):
        described_file = f"{described},file.filename={name}.qcow2"
        assert "No errors were found" in real(tmp_path, f"check {SECRETS} --image-opts {described_file}")
        ours(tmp_path, f"check -q {SECRETS} --image-opts {described_file}", monkeypatch)
        ours(tmp_path, f"convert {SECRETS} --image-opts -O raw {described_file} a.raw", monkeypatch)
        real(tmp_path, f"convert {SECRETS} --image-opts -O raw {described_file} b.raw")
        assert (tmp_path / "a.raw").read_bytes() == content
        assert (tmp_path / "b.raw").read_bytes() == content


@pytest.mark.requires_tool("qemu-io")
@pytest.mark.parametrize("image", ["qcow2, LUKS", "qcow2, AES"])
def test_snapshots_and_overwrites_of_both_live_in_one_image(
    tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hostel.cli.main import run_tool

    content = disk(tmp_path)
    format, options, described = options_of(image)
    ours(tmp_path, f"convert {SECRETS} -f raw -O {format} -o {options} disk.raw a.qcow2", monkeypatch)
    opened = f"{SECRETS} --image-opts {described},file.filename=a.qcow2"
    real(tmp_path, f"snapshot {opened} -c first")
    monkeypatch.chdir(tmp_path)
    assert run_tool("qemu-io", [*opened.split(), "-c", "write -P 7 100 5000"]) == 0
    ours(tmp_path, f"snapshot {opened} -c second", monkeypatch)
    write = ["qemu-io", *opened.split(), "-c", "write -P 9 64k 70001"]
    subprocess.run(write, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    now = bytearray(content)
    now[100:5100] = b"\7" * 5000
    second = bytes(now)
    now[65536 : 65536 + 70001] = b"\t" * 70001
    for name, expected in (("", bytes(now)), (" -l first", content), (" -l second", second)):
        for run in (lambda command: ours(tmp_path, command, monkeypatch), lambda command: real(tmp_path, command)):
            run(f"convert{name} {opened} -O raw out.raw")
            assert (tmp_path / "out.raw").read_bytes() == expected
    assert "No errors were found" in real(tmp_path, f"check {opened}")


@pytest.mark.parametrize("image", IMAGES)
def test_info_is_the_same(twins: Twins, image: str) -> None:
    format, options, described = options_of(image, "cipher-alg=aes-128" if "AES" not in image else "")
    real(twins.real, f"create -q {SECRETS} -f {format} -o {options} a {SIZE}")
    twins.share("a")
    twins.same("info a")
    twins.same("info --output=json a")
    twins.same(f"info {SECRETS} --image-opts {described},file.filename=a")
    twins.same(f"info --output=json {SECRETS} --image-opts {described},file.filename=a")


@pytest.mark.parametrize(
    "command",
    [
        "amend -f luks -o help",
        "create -f luks -o key-secret=u a 1M",
        "create -f luks -o key-secret=s,cipher-alg=rot13 a 1M",
        "create -f luks -o key-secret=s,cipher-alg=3des a 1M",
        "create -f luks -o key-secret=s,cipher-mode=cfb a 1M",
        "create -f luks -o key-secret=s,cipher-alg=cast5-128 a 1M",
        "create -f luks -o key-secret=s,ivgen-alg=essiv,ivgen-hash-alg=sha1 a 1M",
        "create -f luks -o key-secret=s,hash-alg=crc a 1M",
        "create -f luks -o key-secret=s,no=1 a 1M",
        "create -f qcow2 -o encrypt.format=luks,encrypt.key-secret=u a 1M",
        "create -f qcow2 -o encrypt.format=rot13 a 1M",
        "create -f qcow2 -o encrypt.key-secret=s a 1M",
        "create -f qcow2 -o encryption=on,encrypt.format=aes,encrypt.key-secret=s a 1M",
        "create -f qcow2 -o encrypt.format=aes,encrypt.key-secret=s,encrypt.iter-time=3 a 1M",
        "create -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.cipher-mode=no a 1M",
        "create -f qcow2 -o encryption=on,encrypt.key-secret=s a 1M",
        "create -f qcow2 -o encrypt.format=aes,encrypt.key-secret=s a 1M",
        "convert -c -O qcow2 -o encrypt.format=aes,encrypt.key-secret=s a.raw b",
        "measure -O qcow2 -o encrypt.format=aes,encrypt.key-secret=s --size 1G",
        "measure -O luks -o key-secret=u --size 1G",
    ],
)
def test_options_are_taken_and_refused_alike(twins: Twins, command: str) -> None:
    twins.truncate("a.raw", 1 << 20)
    verb, _, rest = command.partition(" ")
    twins.same(f"{verb} --object secret,id=s,data=passphrase {rest}")


@pytest.mark.parametrize("image", IMAGES)
def test_passphrases_are_missed_and_refused_alike(twins: Twins, image: str) -> None:
    format, options, described = options_of(image)
    real(twins.real, f"create -q {SECRETS} -f {format} -o {options} a {SIZE}")
    twins.share("a")
    prefix = IMAGES[image][1]
    for name in ("u", "bytes"):
        twins.write("bytes", b"\xff\xfe")
        secrets = "--object secret,id=bytes,file=bytes --object secret,id=x,data=wrong"
        twins.refused(f"check {secrets} --image-opts driver={format},{prefix}key-secret={name},file.filename=a")
    if "AES" not in image:
        wrong = "--object secret,id=s,data=wrong"
        twins.refused(f"convert {wrong} --image-opts -O raw {described},file.filename=a b")


@pytest.mark.parametrize("image", ["luks", "qcow2, LUKS"])
def test_each_opens_with_the_passphrases_that_the_other_amended(
    tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(tmp_path)
    format, options, _ = options_of(image)
    prefix = IMAGES[image][1]
    ours(tmp_path, f"convert {SECRETS} -f raw -O {format} -o {options} disk.raw a", monkeypatch)

    def opened(secret: str) -> str:
        image_options = f"driver={format},{prefix}key-secret={secret},file.filename=a"
        return f"{SECRETS} --object secret,id=v,data=third --image-opts {image_options}"

    def change(text: str) -> str:
        return ",".join(prefix + part for part in text.split(","))

    add = change("state=active,iter-time=10,new-secret")
    remove = change("state=inactive,old-secret")
    ours(tmp_path, f"amend {opened('s')} -o {add}=t", monkeypatch)
    real(tmp_path, f"amend {opened('t')} -o {add}=v")
    real(tmp_path, f"amend {opened('v')} -o {remove}=s")
    ours(tmp_path, f"amend {opened('v')} -o {remove}=t", monkeypatch)
    assert "Invalid password" in real(tmp_path, f"check {opened('s')}", code=1)
    assert "Invalid password" in real(tmp_path, f"check {opened('t')}", code=1)
    ours(tmp_path, f"convert {opened('v')} -O raw b.raw", monkeypatch)
    real(tmp_path, f"convert {opened('v')} -O raw c.raw")
    content = (tmp_path / "disk.raw").read_bytes()
    assert (tmp_path / "b.raw").read_bytes() == (tmp_path / "c.raw").read_bytes() == content


@pytest.mark.parametrize("image", ["luks", "qcow2, LUKS"])
def test_amendments_are_refused_alike(twins: Twins, image: str) -> None:
    format, options, described = options_of(image)
    real(twins.real, f"create -q {SECRETS} -f {format} -o {options} a {SIZE}")
    twins.share("a")
    prefix = IMAGES[image][1]
    for change in (
        "state=inactive,keyslot=0",
        "state=inactive,old-secret=s",
        "state=inactive,old-secret=t",
        "state=inactive",
        "state=inactive,keyslot=1",
        "state=inactive,keyslot=8",
        "state=active",
        "state=active,new-secret=u",
        "state=active,new-secret=t,keyslot=0",
        "state=active,new-secret=t,old-secret=s",
        "state=lost",
        "new-secret=t",
        "state=inactive,keyslot=0,new-secret=t",
    ):
        wanted = ",".join(prefix + part for part in change.split(","))
        twins.refused(f"amend {SECRETS} --image-opts {described},file.filename=a -o {wanted}")


def test_what_is_measured_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    disk(tmp_path)
    for image in ("luks", "qcow2, LUKS"):
        format, options, _ = options_of(image)
        for what in ("--size 5G", "-f raw disk.raw"):
            command = f"measure {SECRETS} -O {format} -o {options} {what}"
            capfd.readouterr()
            ours(tmp_path, command, monkeypatch)
            assert capfd.readouterr().out == real(tmp_path, command)


def test_chains_of_encrypted_images_are_rebased_committed_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = disk(tmp_path)
    _, options, _ = options_of("qcow2, LUKS")
    other = options.replace("key-secret=s", "key-secret=t")
    ours(tmp_path, f"convert {SECRETS} -f raw -O qcow2 -o {options} disk.raw base", monkeypatch)
    # The overlay's own creation needs no look below.
    ours(tmp_path, f"create -q {SECRETS} -u -f qcow2 -o {other} -b base -F qcow2 top {SIZE}", monkeypatch)
    chain = f"{SECRETS} --image-opts driver=qcow2,encrypt.key-secret=t,file.filename=top,backing.encrypt.key-secret=s"
    plain = f"driver=raw,file.filename={tmp_path}/disk.raw"
    for run in (lambda command: ours(tmp_path, command, monkeypatch), lambda command: real(tmp_path, command)):
        run(f"compare -q {chain} {plain}")
    write = ["qemu-io", *chain.split(), "-c", "write -P 3 1M 100000"]
    subprocess.run(write, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    ours(tmp_path, f"commit -q {chain}", monkeypatch)
    real(tmp_path, f"convert {SECRETS} --image-opts driver=qcow2,encrypt.key-secret=s,file.filename=base -O raw b.raw")
    expected = content[: 1 << 20] + b"\3" * 100000 + content[(1 << 20) + 100000 :]
    assert (tmp_path / "b.raw").read_bytes() == expected
    name = 'json:{"driver":"qcow2","encrypt.key-secret":"s","file.filename":"base"}'
    monkeypatch.chdir(tmp_path)
    qemu_img("convert", *SECRETS.split(), "-O", "raw", name, "c.raw")
    assert (tmp_path / "c.raw").read_bytes() == expected


@pytest.mark.requires_tool("cryptsetup")
@pytest.mark.parametrize("scheme", ["", "cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,hash-alg=sha1"])
def test_cryptsetup_takes_a_detached_header_for_its_own(
    tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ",".join(filter(None, ["detached-header=on,key-secret=s,iter-time=10", scheme]))
    ours(tmp_path, f"create -q {SECRETS} -f luks -o {options} header", monkeypatch)
    told = cryptsetup(tmp_path, "luksDump header")
    assert "Payload offset:\t0\n" in told
    assert told.count("DISABLED") == 7
    cryptsetup(tmp_path, "open --test-passphrase --key-file=- header", "passphrase")
    (tmp_path / "payload").write_bytes(bytes(SIZE))
    opened = f"{SECRETS} --image-opts driver=luks,key-secret=s,file.filename=payload,header.filename=header"
    ours(tmp_path, f"amend {opened} -o state=active,new-secret=t,iter-time=10", monkeypatch)
    cryptsetup(tmp_path, "open --test-passphrase --key-file=- --key-slot=1 header", "another")
    ours(tmp_path, f"amend {opened} -o state=inactive,keyslot=1", monkeypatch)
    cryptsetup(tmp_path, "open --test-passphrase --key-file=- header", "another", code=2)


@pytest.mark.requires_tool("cryptsetup")
def test_a_header_and_a_payload_of_two_files_are_one_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in the two files is what one file would have: the real tool reads them joined."""
    content = disk(tmp_path)
    (tmp_path / "payload").write_bytes(bytes(SIZE))
    make = "luksFormat --batch-mode --type=luks1 --key-file=- --pbkdf-force-iterations=1000 --header=header payload"
    cryptsetup(tmp_path, make, "passphrase")
    opened = "driver=luks,key-secret=s,file.filename=payload,header.filename=header"
    ours(tmp_path, f"convert {SECRETS} -n -f raw --target-image-opts disk.raw {opened}", monkeypatch)
    ours(tmp_path, f"convert {SECRETS} --image-opts {opened} -O raw back.raw", monkeypatch)
    assert (tmp_path / "back.raw").read_bytes() == content
    header = bytearray((tmp_path / "header").read_bytes())
    header[104:108] = (len(header) // 512).to_bytes(4, "big")  # where the payload begins
    (tmp_path / "joined").write_bytes(bytes(header) + (tmp_path / "payload").read_bytes())
    real(tmp_path, f"convert {SECRETS} --image-opts driver=luks,key-secret=s,file.filename=joined -O raw theirs.raw")
    assert (tmp_path / "theirs.raw").read_bytes() == content


def cryptsetup(folder: Path, command: str, passphrase: str = "", *, code: int = 0) -> str:
    """Run ``cryptsetup``; returns what it printed."""
    ended = subprocess.run(
        ["cryptsetup", *command.split()],
        cwd=folder,
        input=passphrase,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == code, f"cryptsetup {command}: {ended.stderr}"
    return ended.stdout
