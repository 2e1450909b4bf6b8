"""Each malformed image that a CVE or a bug report tells of, on each way into the tools, with little memory and time."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.cli.main import main
from hostel.img.inspect import inspect
from hostel.img.inspection import Level
from support.bounded import bounded
from support.hostile_corpus import CORPUS, MIB, Case

# Ways to look, which change nothing, and ways to change.
LOOKS = (
    "qemu-img info -f FORMAT image",
    "qemu-img info --output=json image",
    "qemu-img check -f FORMAT image",
    "qemu-img convert -f FORMAT -O raw image copy",
    "qemu-img convert -O qcow2 image copy",
    "qemu-img dd -f FORMAT -O raw if=image of=copy bs=64k count=2",
    "qemu-img map -f FORMAT image",
    "qemu-img compare -f FORMAT image other",
    "qemu-img measure -f FORMAT -O qcow2 image",
    "qemu-img snapshot -l image",
    "qemu-io -r -f FORMAT -c 'read 0 512' image",
)
CHANGES = (
    "qemu-img check -r leaks -f FORMAT image",
    "qemu-img check -r all -f FORMAT image",
    "qemu-img amend -f FORMAT -o compat=1.1 image",
    "qemu-img rebase -u -f FORMAT -b '' image",
    "qemu-img rebase -f FORMAT -F raw -b other image",
    "qemu-img commit -f FORMAT image",
    "qemu-img resize -f FORMAT image +1M",
    "qemu-img resize -f FORMAT --shrink image 512",
    "qemu-img snapshot -c new image",
    "qemu-img snapshot -a one image",
    "qemu-img snapshot -d one image",
    "qemu-img bitmap --add -f FORMAT image new",
    "qemu-img bitmap --remove -f FORMAT image one",
    "qemu-io -f FORMAT -c 'write 0 512' -c 'flush' image",
)
# What serves an image does not end where that opens.
SERVES = (
    "qemu-nbd -f FORMAT -k HERE/socket image",
    "qemu-storage-daemon --blockdev FORMAT,node-name=a,file.driver=file,file.filename=image",
)


# What works with each image in which nothing is wrong.
OPENS = (*LOOKS[:3], "qemu-img convert -O qcow2 image copy", "qemu-img map -f FORMAT image")
# What is said of formats that have no such thing, before the image is looked at.
OTHERWISE = ("not support", "Image is read-only", "No such file")
PROBED = ("qcow2", "qcow", "qed", "parallels", "bochs", "vhdx", "vdi", "vpc", "vmdk")


def ended(line: str, case: Case) -> tuple[int, str]:
    """The code and what was said of a command line, in process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["hostel", *shlex.split(line.replace("FORMAT", case.format).replace("HERE", os.getcwd()))])
    said = out.getvalue() + err.getvalue()
    assert "Traceback" not in said, (line, said)
    return code, said


def _for(case: Case, lines: tuple[str, ...]) -> list[str]:
    """Those that name the format, or that know it by the image's first bytes."""
    return [each for each in lines if "FORMAT" in each or case.format in PROBED]


def tried(case: Case) -> Iterator[tuple[str, int, str]]:
    """How each command line ended, each on an image of its own."""
    data = case.make()
    Path("other").write_bytes(bytes(4096))
    Path("image").write_bytes(data)
    for line in _for(case, LOOKS):
        yield line, *ended(line, case)
        Path("copy").unlink(missing_ok=True)
    assert Path("image").read_bytes() == data, "one that only looks has changed the image"
    for line in _for(case, CHANGES):
        yield line, *ended(line, case)
        if not case.refusal or case.mends or case.checks:
            if case.format == "qcow2":
                assert Path("image").read_bytes()[:4] == data[:4], f"{line} has written over the header"
            Path("image").write_bytes(data)
    for line in _for(case, SERVES) if case.refusal else ():
        yield line, *ended(line, case)
    if case.refusal:
        assert Path("image").read_bytes() == data, "the image was refused, and changed"


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: f"{case.format} {case.name}")
def test_an_image_that_lies_is_refused_or_found_out_on_each_way(tmp_path: Path, case: Case) -> None:
    def all_ways() -> list[tuple[str, int, str]]:
        os.chdir(tmp_path)
        return list(tried(case))

    ends = bounded(all_ways, memory=256 * MIB, seconds=120)
    if not case.refusal:
        for line, code, said in ends:
            if any(word in line for word in case.fails):
                assert code, f"{line} finds nothing wrong"
            elif line in OPENS and not case.fails:
                assert not code, (line, said)
        return
    for line, code, said in ends:
        if (case.mends or case.checks) and " check " in line:
            assert not (code and case.mends and "-r all" in line), f"it is not repaired: {said}"
            continue
        assert code == (2 if " compare " in line else 1), (line, said)
        assert case.refusal in said or any(word in said for word in OTHERWISE), (line, said)
    found = bounded(lambda: inspect(str(tmp_path / "image")), memory=64 * MIB, seconds=20)
    assert found.verdict is Level.UNSAFE
