"""qemu-img amend beside the real one: messages, exit codes, and images that QEMU finds clean and unchanged."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.formats import good, ours, theirs
from support.twins import Twins

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]
_AMENDED = ("compat", "lazy-refcounts", "refcount-bits", "compression-type", "data-file", "data-file-raw", "bitmaps")


@pytest.fixture
def images(twins: Twins) -> Twins:
    """``a`` with data and zeroes, an overlay ``o`` on it, ``old`` of version 2, and ``raw``."""
    twins.prepare("qemu-img create -q -f qcow2 a 8M")
    twins.prepare("qemu-io -c 'write -P 1 0 3M' -c 'write -z 1M 100k' -c 'write -zu 2M 1M' a")
    twins.prepare("qemu-img create -q -f qcow2 -b a -F qcow2 o")
    twins.prepare("qemu-io -c 'write -z 0 200k' -c 'write -zu 200k 1M' -c 'write -P 2 7M 64k' o")
    twins.prepare("qemu-img create -q -f qcow2 -o compat=0.10 old 8M")
    twins.prepare("qemu-io -c 'write -P 1 0 3M' old")
    twins.truncate("raw", 1 << 20)
    return twins


@pytest.mark.parametrize(
    "command",
    [
        "-o compat=0.10 a",
        "-o compat=v2 o",
        "-o compat=1.1 old",
        "-o compat=v3,refcount_bits=8,lazy_refcounts=on old",
        "-o refcount_bits=1 a",
        "-o refcount_bits=2 a",
        "-o refcount_bits=64 o",
        "-o lazy_refcounts=on -o refcount_bits=32 a",
        "-o lazy_refcounts=off a",
        "-o size=4M a",
        "-o size=16M --force -f qcow2 -t none o",
        "-o size=0 a",
        "-o backing_file=a,backing_fmt=qcow2,lazy_refcounts=on o",
        "-o compat=0.10 --image-opts driver=qcow2,file.filename=a",
        "-q -p -o compat=0.10 a",
    ],
)
def test_images_become_what_they_become_with_qemu(images: Twins, command: str) -> None:
    name = command.rpartition(" ")[2].rpartition("=")[2]
    before = images.real / "before"
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(images.ours / name), str(before)], check=True, timeout=60)
    assert images.same(f"amend {command}").code == 0
    assert _described(images, "real", name) == _described(images, "ours", name)
    ours = str(images.ours / name)
    subprocess.run(["qemu-img", "check", "-q", ours], check=True, timeout=60)
    if "size=4M" not in command:
        subprocess.run(["qemu-img", "compare", "-q", ours, str(before)], check=True, timeout=60)
    subprocess.run(["qemu-img", "compare", "-q", ours, str(images.real / name)], check=True, timeout=60)


def _described(images: Twins, which: str, name: str) -> dict[str, object]:
    path = getattr(images, which) / name
    told = subprocess.run(["qemu-img", "info", "--output=json", str(path)], capture_output=True, check=True, timeout=60)
    info = json.loads(told.stdout)
    data = info["format-specific"]["data"]
    return {"size": info["virtual-size"], **{key: data[key] for key in _AMENDED if key in data}}


@pytest.mark.parametrize(
    "command",
    [
        "a",
        "-o compat=0.10",
        "-o compat=0.10 a old",
        "-o compat=9 a",
        "-o compat= a",
        "-o nonsense=1 a",
        "-o cluster_size=4k a",
        "-o cluster_size=4k,nonsense=1 a",
        "-o cluster_size=x a",
        "-o preallocation=full a",
        "-o refcount_bits=3 a",
        "-o refcount_bits=0 a",
        "-o refcount_bits=x a",
        "-o lazy_refcounts=maybe a",
        "-o compat=v2,refcount_bits=8 a",
        "-o compat=v2,lazy_refcounts=on a",
        "-o refcount_bits=8 old",
        "-o lazy_refcounts=on old",
        "-o backing_file=x a",
        "-o backing_file= a",
        "-o backing_file=a o",
        "-o backing_fmt=qcow2 o",
        "-o data_file=x a",
        "-o data_file= a",
        "-o data_file_raw=on a",
        "-o encrypt.keyslot=1 a",
        "-o size=1000 a",
        "-o size=x a",
        "-o ,size=1M a",
        "-o size=1M -t bogus a",
        "-o size=1M -f raw raw",
        "-o size=1M missing",
        "-o size=1M -f nonsense a",
        "-f nonsense -o help",
        "-f raw -o help",
        "-f qcow2 -o size=1M --image-opts driver=qcow2,file.filename=a",
        "--nonsense",
    ],
)
def test_mistakes_are_refused_as_by_qemu(images: Twins, command: str) -> None:
    images.refused(f"amend {command}")


@pytest.mark.parametrize("command", ["-f qcow2 -o help", "-o help a", "-f qcow2 -o size=1,? missing", "-o help raw"])
def test_options_are_listed(images: Twins, command: str) -> None:
    images.same(f"amend {command}")


def test_refcounts_that_do_not_fit_are_named(images: Twins) -> None:
    images.prepare("qemu-img snapshot -c one a")
    images.refused("amend -o refcount_bits=1 a")


def test_snapshots_of_another_size_prevent_version_2(images: Twins) -> None:
    images.prepare("qemu-img snapshot -c one a")
    images.prepare("qemu-img resize -q a 16M")
    images.refused("amend -o compat=0.10 a")


def test_snapshots_follow_into_version_2_and_back(images: Twins) -> None:
    """Beside QEMU only in what is printed: 7.2 writes zeroes over clusters here that the snapshot has data in."""
    images.prepare("qemu-img snapshot -c one a")
    images.prepare("qemu-io -c 'write -P 5 64k 3M' -c 'write -z 0 512k' a")
    ours = images.ours / "a"

    def contents() -> list[bytes]:
        found = []
        for options in ([], ["-l", "one"]):
            target = images.ours / "content"
            words = ["qemu-img", "convert", *options, "-O", "raw", str(ours), str(target)]
            subprocess.run(words, check=True, timeout=60)
            found.append(target.read_bytes())
        return found

    before = contents()
    for level in ("0.10", "1.1"):
        images.same(f"amend -o compat={level} a")
        subprocess.run(["qemu-img", "check", "-q", str(ours)], check=True, timeout=60)
        assert contents() == before


def test_external_data_files_are_renamed_and_no_more_raw(images: Twins) -> None:
    images.prepare("qemu-img create -q -f qcow2 -o data_file=data,data_file_raw=on d 1M")
    images.refused("amend -o compat=0.10 d")
    for options in ("data_file_raw=off", "data_file=other", "data_file_raw=off,data_file=data"):
        images.prepare("cp data other")
        images.same(f"amend -o {options} d")
        assert _described(images, "real", "d") == _described(images, "ours", "d")
    images.refused("amend -o data_file_raw=on d")


@pytest.mark.parametrize(("given", "recorded"), [("file:other", "other"), ("file:a:b", "./a:b"), ("./a:b", "./a:b")])
def test_a_data_file_is_recorded_as_by_creation_so_that_it_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, recorded: str
) -> None:
    monkeypatch.chdir(tmp_path)
    good(theirs("create", "-q", "-f", "qcow2", "-o", "data_file=data", "d", "1M"))
    good(theirs("-c", "write -P 7 0 64k", "d", tool="qemu-io"))
    shutil.copy("data", recorded)
    good(ours("amend", "-f", "qcow2", "-o", f"data_file={given}", "d"))
    Path("data").unlink()
    for tool in (ours, theirs):
        good(tool("-c", "read -P 7 0 64k", "d", tool="qemu-io"))
        described = json.loads(good(tool("info", "--output=json", "d")).out)
        assert described["format-specific"]["data"]["data-file"] == recorded


@pytest.mark.parametrize("name", ["nbd://localhost", "json:{}", "host_device:other", "bogus:other", "file:"])
def test_a_data_file_that_could_not_be_opened_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    good(theirs("create", "-q", "-f", "qcow2", "-o", "data_file=data", "d", "1M"))
    before = Path("d").read_bytes()
    refused = ours("amend", "-f", "qcow2", "-o", f"data_file={name}", "d")
    assert refused.code == 1 and "data-file must be a plain path" in refused.err
    assert Path("d").read_bytes() == before


def test_features_that_version_2_lacks_are_named(images: Twins) -> None:
    images.prepare("qemu-img create -q -f qcow2 -o extended_l2=on e 1M")
    images.prepare("qemu-img create -q -f qcow2 -o compression_type=zstd z 1M")
    images.prepare("qemu-img convert -c -O qcow2 -o compression_type=zstd a full")
    images.refused("amend -o compat=0.10 e")
    images.same("amend -o compat=0.10 z")
    assert _described(images, "real", "z") == _described(images, "ours", "z")
    assert images.same("amend -o compat=0.10 full").code == 1


def test_progress_begins_and_ends_as_with_qemu(images: Twins) -> None:
    shown = [tool(["amend", "-p", "-o", "refcount_bits=8", "a"]) for tool in (images.run_real, images.run_ours)]
    for told in shown:
        lines = re.split("[\r\n]+", told.out.strip())
        assert (told.code, lines[0].strip(), lines[-1].strip()) == (0, "(0.00/100%)", "(100.00/100%)")
