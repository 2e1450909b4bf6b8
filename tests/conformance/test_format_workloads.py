"""What we write is read and found sound by real ``qemu-img``, and what ``qemu-io`` writes is read by us."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.options import Value
from support.format_hostile import mutations
from support.format_subjects import SUBJECTS
from support.format_workload import FormatWorkload, Subject
from support.formats import good, ours, theirs

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]
UNCHECKED = 63  # qemu-img check: the format has no checks


def tool(*command: str | Path, codes: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)
    assert done.returncode in codes, done.stderr
    return done.stdout


def options_for_qemu(subject: Subject, rng: random.Random) -> dict[str, Value]:
    """Options of images that QEMU can open: of tables of one cluster it creates them, and opens none."""
    options = subject.options(rng)
    return options | {"table_size": 2} if options.get("table_size") == 1 else options


def raw(path: Path, format: str) -> bytes:
    """An image's content, as QEMU reads it."""
    target = path.with_suffix(".raw")
    tool("qemu-img", "convert", "-f", format, "-O", "raw", path, target)
    return target.read_bytes()


def options_text(options: Mapping[str, Value]) -> str:
    words = {True: "on", False: "off"}
    return ",".join(
        f"{name}={words.get(value, value) if isinstance(value, bool) else value}" for name, value in options.items()
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("format", SUBJECTS)
def test_qemu_reads_what_we_wrote(tmp_path: Path, format: str, seed: int) -> None:
    rng = random.Random(f"ours {format} {seed}")
    subject = SUBJECTS[format]
    workload = FormatWorkload(subject, rng, options=options_for_qemu(subject, rng))
    for _ in range(20):
        workload.step()
    workload.node.close()
    path = tmp_path / "disk"
    path.write_bytes(workload.driver.data)
    for name in ("base.raw", "b", "a/longer/path/to/base.raw") if workload.backing is not None else ():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(workload.backing or b"")
    assert raw(path, subject.name) == workload.content
    tool("qemu-img", "check", "-f", subject.name, path, codes=(0, UNCHECKED))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("format", SUBJECTS)
def test_we_read_what_qemu_wrote(tmp_path: Path, format: str, seed: int) -> None:
    rng = random.Random(f"theirs {format} {seed}")
    subject = SUBJECTS[format]
    options = options_for_qemu(subject, rng)
    size = 100 * subject.cluster_size(options)
    path = tmp_path / "disk"
    path.write_bytes(subject.create(size, options))
    commands = []
    for _ in range(12):
        offset = rng.randrange(size // 512) * 512
        length = min(size - offset, rng.randrange(1, 60) * 512)
        kind = rng.choice((f"write -P {rng.randrange(1, 256)}", "write -z"))
        commands += ["-c", f"{kind} {offset} {length}"]
    tool("qemu-io", "-f", subject.name, *commands, path)
    expected = raw(path, subject.name)
    with graph.open(str(path), subject.name) as node:
        assert node.read(0, node.length) == expected
    result, lines, _ = subject.check(path.read_bytes())
    assert (result.corruptions, result.leaks, result.check_errors) == (0, 0, 0), lines


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("format", sorted({subject.name for subject in SUBJECTS.values()}))
def test_a_new_image_is_qemus_byte_for_byte(tmp_path: Path, format: str, seed: int) -> None:
    rng = random.Random(f"new {format} {seed}")
    subject = SUBJECTS[format]
    options = subject.options(rng) if seed else {}
    size = rng.choice((0 if format == "qed" else 512, 1000, 1 << 20, 5 << 30, (1 << 30) + 512))
    size = min(size, 1 << 28) if seed else size
    path = tmp_path / "disk"
    words = ["-o", options_text(options)] if options else []
    tool("qemu-img", "create", "-q", "-f", format, *words, path, str(size))
    assert subject.compared(path.read_bytes()) == subject.compared(subject.create(size, options))


def refusal_of_qemu(path: Path, format: str) -> str | None:
    """Why QEMU does not open an image for reading; None where it does."""
    subject = SUBJECTS[format]
    described: dict[str, object] = {"driver": subject.name, "file": {"driver": "file", "filename": str(path)}}
    if subject.backing:
        described["backing"] = None
    done = subprocess.run(
        ["qemu-io", "-r", "-c", "quit", "json:" + json.dumps(described)], capture_output=True, text=True, timeout=60
    )
    return done.stderr if done.returncode else None


@pytest.mark.parametrize("format", SUBJECTS)
def test_what_qemu_refuses_to_open_we_refuse(tmp_path: Path, format: str) -> None:
    path = tmp_path / "disk"
    both = 0
    for history, data in mutations(format, random.Random(f"beside QEMU {format}"), 90):
        path.write_bytes(data)
        theirs = refusal_of_qemu(path, format)
        if theirs is None or any(words in theirs for words in SUBJECTS[format].stricter_qemu):
            continue
        try:
            graph.open(str(path), SUBJECTS[format].name, no_backing=True).close()
        except OSError:
            both += 1
        else:
            pytest.fail(f"{history}: {theirs}")
    assert both > 5


def test_encrypted_qcow_images_are_the_same_to_both(tmp_path: Path) -> None:
    path, copy = tmp_path / "disk.qcow", tmp_path / "disk.raw"
    secret = ("--object", "secret,id=key,data=passphrase")
    options = f"driver=qcow,encrypt.key-secret=key,file.filename={path}"
    content = random.Random("encrypted").randbytes(700_000) + bytes(300_000) + b"end".ljust(512)
    copy.write_bytes(content)
    for write, read in ((theirs, ours), (ours, theirs)):
        path.unlink(missing_ok=True)
        good(
            write("convert", *secret, "-f", "raw", "-O", "qcow", "-o", "encrypt.format=aes,encrypt.key-secret=key",
                  copy, path)
        )  # fmt: skip
        good(read("convert", *secret, "--image-opts", "-O", "raw", options, tmp_path / "back"))
        assert (tmp_path / "back").read_bytes() == content.ljust(-(-len(content) // 512) * 512, b"\0")


def test_compressed_qcow_images_are_read_by_qemu_and_the_command_succeeds(tmp_path: Path) -> None:
    source, path = tmp_path / "source.raw", tmp_path / "disk.qcow"
    rng = random.Random("compressed")
    source.write_bytes(b"".join(rng.choice((b"text " * 900, rng.randbytes(5000), bytes(9000))) for _ in range(200)))
    good(ours("convert", "-c", "-f", "raw", "-O", "qcow", source, path))
    assert raw(path, "qcow").rstrip(b"\0") == source.read_bytes().rstrip(b"\0")
    theirs("convert", "-c", "-f", "raw", "-O", "qcow", source, path)  # it ends with 1 all the same
    good(ours("compare", "-f", "qcow", "-F", "raw", path, source))


def test_damage_to_qed_images_is_counted_as_qemu_counts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readable = SUBJECTS["qed"]._replace(options=lambda rng: {"cluster_size": 4096, "table_size": 2})
    monkeypatch.setitem(SUBJECTS, "qed", readable)
    path, compared = tmp_path / "disk", 0
    for history, data in mutations("qed", random.Random("counted"), 60):
        path.write_bytes(data)
        told = theirs("check", "-f", "qed", "--output=json", path)
        found = ours("check", "-f", "qed", "--output=json", path)
        if told.out:
            assert (found.code, json.loads(found.out)) == (told.code, json.loads(told.out)), history
            compared += 1
    assert compared > 10
