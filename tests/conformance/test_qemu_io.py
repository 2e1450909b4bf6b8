"""Our ``qemu-io`` and the real one: the same commands on the same image, the same output and exit code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.qemu_io import OURS, both, commands, run

pytestmark = [pytest.mark.requires_tool("qemu-io"), pytest.mark.requires_tool("qemu-img")]


def test_reading_and_writing(tmp_path: Path) -> None:
    lines = commands(
        "write -P 5 1M 64k", "read -P 5 1M 64k", "read -v 1M 40", "r 0 512", "w 512 512", "write -z 2M 64k",
        "write -z -u 2M 32k", "write -c 3M 64k", "write -f 0 1", "writev 0 1k 2k", "readv -P 0xcd 0 1k 2k",
        "read -C 0 1k", "read -q 0 1k", "write -C 0 1k", "discard 1M 64k", "d -q 1M 64k", "flush",
        "aio_write -P 7 64k 64k", "aio_flush", "aio_read -P 7 64k 64k", "aio_flush", "aio_write -z 0 64k",
    )  # fmt: skip
    code, _, errors = both(tmp_path, "-f", "qcow2", *lines, "disk")
    assert (code, errors) == (0, "")


def test_machine_state(tmp_path: Path) -> None:
    lines = commands(
        "write -b -P 1 0 128k", "read -b -P 1 0 128k", "write -b -P 2 64k 512", "read -b -P 2 64k 512",
        "read -b -P 1 65k 63k", "read -P 0 0 4M", "write -P 3 0 64k", "read -b -P 1 0 64k", "read -b -P 0 1M 4k",
        "write -b 1 512", "write -b 0 1", "read -b 0 1", "map",
    )  # fmt: skip
    both(tmp_path, "-f", "qcow2", *lines, "disk")


def test_machine_state_is_not_compressed(tmp_path: Path) -> None:
    lines = commands("write -b -c -P 1 0 64k", "write -c -b -P 2 512 512", "read -b -P 2 512 512", "read -P 0 0 4M")
    assert both(tmp_path, "-f", "qcow2", *lines, "disk")[0] == 0


def test_a_vmdk_disk_without_compressed_grains_takes_any_compressed_write(tmp_path: Path) -> None:
    lines = commands("write -c -P 1 64k 4k", "write -c -P 2 512 64k", "write -c -P 3 3M 64k", "read -P 2 512 64k")
    assert both(tmp_path, "-f", "vmdk", *lines, "disk", format="vmdk")[0] == 0


def test_a_flat_vmdk_disk_takes_any_compressed_write(tmp_path: Path) -> None:
    found = []
    for tool in (("qemu-io",), OURS):
        words = ["qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", "disk.vmdk", "4M"]
        subprocess.run(words, check=True, timeout=60, cwd=tmp_path)
        lines = commands("write -c -P 1 64k 4k", "write -c -P 2 512 64k", "read -P 2 512 64k")
        found.append(
            (run(tool, tmp_path, "-f", "vmdk", *lines, "disk.vmdk"), (tmp_path / "disk-flat.vmdk").read_bytes())
        )
    assert found[1] == found[0]
    assert found[0][0][0] == 0


def test_preallocation_when_shrinking(tmp_path: Path) -> None:
    for format in ("raw", "qcow2"):
        lines = commands("truncate -m full 1M", "truncate -m falloc 1M")
        assert both(tmp_path, "-f", format, *lines, "disk", format=format)[0] == 1


@pytest.mark.parametrize("above", ["copy-on-read", "raw", "throttle"])
def test_machine_state_is_that_of_the_image_below_a_filter(tmp_path: Path, above: str) -> None:
    lines = commands("write -b -P 1 0 64k", "read -b -P 1 512 4k", "write -P 2 0 64k", "read -b -P 1 0 4k")
    image = f"driver={above},file.driver=qcow2,file.file.driver=file,file.file.filename=disk"
    if above == "throttle":
        image, lines = f"{image},throttle-group=g", ["--object", "throttle-group,id=g,x-iops-total=100000", *lines]
    assert both(tmp_path, "--image-opts", *lines, image)[0] == 0


def test_machine_state_below_blkverify_is_that_of_the_copy(tmp_path: Path) -> None:
    for name in ("copy", "disk"):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", name, "1M"], cwd=tmp_path, check=True, timeout=60)
    image = "driver=blkverify,raw.driver=qcow2,raw.file.filename=copy,test.driver=qcow2,test.file.filename=disk"
    line = "write -b -P 7 0 512"
    assert run(OURS, tmp_path, "--image-opts", "-c", line, image) == (
        0,
        "wrote 512/512 bytes at offset 0\n512 bytes, 1 ops; T\n",
        "",
    )
    for command in (("qemu-io",), OURS):
        assert run(command, tmp_path, "--image-opts", "-c", "read -b -P 7 0 512", image)[0] == 0
    assert run(("qemu-io",), tmp_path, "-f", "qcow2", "-c", "read -b -P 7 0 512", "copy")[0] == 0


def test_machine_state_stays_where_a_disk_grows_that_needs_no_other_table_for_it(tmp_path: Path) -> None:
    lines = commands(
        "write -b -P 1 0 128k", "write -P 2 3M 1M", "truncate 6M", "read -b -P 1 0 128k", "read -P 2 3M 1M",
        "read -P 0 4M 2M", "write -P 3 5M 1M", "read -b -P 1 0 128k",
    )  # fmt: skip
    assert both(tmp_path, "-f", "qcow2", *lines, "disk")[0] == 0


def test_a_disk_that_grows_over_machine_state_does_not_show_it(tmp_path: Path) -> None:
    """QEMU 7.2 shows it to the guest."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "disk", "4M"], check=True, timeout=60, cwd=tmp_path)
    lines = commands("write -q -b -P 1 0 128k", "truncate 600M", "read -q -P 0 0 600M", "read -q -b -P 0 0 128k")
    assert run(OURS, tmp_path, "-f", "qcow2", *lines, "disk") == (0, "", "")
    subprocess.run(["qemu-img", "check", "-q", "disk"], check=True, timeout=60, cwd=tmp_path)


def test_looking(tmp_path: Path) -> None:
    lines = commands(
        "write 1M 64k", "map", "alloc 0", "alloc 1M", "a 1M 128k", "alloc 4095k 64k", "alloc 5M 64k",
        "length", "l", "info",
        "truncate 5M", "length", "t 4M", "map", "sleep 1",
    )  # fmt: skip
    assert both(tmp_path, "-f", "qcow2", *lines, "disk")[0] == 0


@pytest.mark.parametrize(
    "line",
    [
        "read -P 6 0 4k", "read 4M 1", "write 4095k 2k", "read x 1", "read 0 1x", "read 0 16E", "read 0 2G", "write 1",
        "read -s 5 0 512", "read -P 1 -s 400 -l 200 0 512", "read -P 300 0 1", "read -Y 0 1", "write -b 1 512",
        "write -z -P 1 0 512", "write -u 0 512", "write -n 0 512", "write -f -c 0 64k", "write -c 1 512",
        "write -c 512 512", "write -s /nonexistent 0 512", "foo", "truncate", "truncate x", "truncate -m odd 1M",
        "discard 0", "discard 5M 1", "alloc x", "open disk", "sleep x", "sigraise 1k", "reopen -r -w", "aio_write 0",
        "aio_write -u 0 512", "writev 0 x", "help foo", "length 1", "help read write",
    ],
)  # fmt: skip
def test_mistakes_are_answered_alike(tmp_path: Path, line: str) -> None:
    both(tmp_path, "-f", "qcow2", *commands(line), "disk")


def test_help_names_the_same_commands(tmp_path: Path) -> None:
    theirs = run(("qemu-io",), tmp_path, "-c", "help")[1].splitlines()
    assert set(run(OURS, tmp_path, "-c", "help")[1].splitlines()) == set(theirs)


def test_help_explains_the_commands_that_the_real_one_explains(tmp_path: Path) -> None:
    """In our own words, but the first line; each option that the real one explains is there."""
    for name in set(run(("qemu-io",), tmp_path, "-c", "help")[1].split("\n\n")[0].splitlines()):
        line = f"help {name.split()[0]}"
        theirs, ours = (run(command, tmp_path, "-c", line)[1] for command in (("qemu-io",), OURS))
        assert ours.splitlines()[0] == theirs.splitlines()[0]
        assert ("\n\n" in ours) == ("\n\n" in theirs)
        option = re.compile(r"^ (-\w),", re.MULTILINE)
        assert set(option.findall(ours)) >= set(option.findall(theirs))


def test_commands_come_from_standard_input_with_a_prompt(tmp_path: Path) -> None:
    code, out, _ = both(tmp_path, "-f", "qcow2", "disk", stdin="length\n\nfoo\nquit\nlength\n")
    assert code == 1
    assert out.startswith("qemu-io> 4 MiB\nqemu-io> ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("-r", "-f", "qcow2", "-c", "read 0 512", "disk"),
        ("-f", "qcow2", "-c", "read 0 512", "nonexistent"),
        ("-c", "read 0 512"),
        ("-c", "open nonexistent"),
        ("-c", "open -o driver=qcow2 disk", "-c", "length", "-c", "close", "-c", "length"),
        ("-f", "qcow2", "-c", "reopen -r", "-c", "read 0 512", "-c", "reopen -w", "-c", "write 0 512", "disk"),
        ("--image-opts", "-c", "length", "driver=qcow2,file.filename=disk"),
        ("-f", "qcow2", "--image-opts", "disk"),
        ("-t", "odd", "disk"),
        ("-U", "-r", "-f", "qcow2", "-c", "length", "disk"),
    ],
)
def test_opening(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    both(tmp_path, *arguments)


def test_a_write_to_a_read_only_image_fails_and_changes_nothing(tmp_path: Path) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "raw", str(tmp_path / "disk"), "1M"], check=True, timeout=60)
    for command in (("qemu-io",), OURS):
        code, out, errors = run(command, tmp_path, "-r", "-f", "raw", "-c", "write 0 512", "disk")
        assert (code, out) == (1, "")
        assert errors == "qemu-io: Block node is read-only\n"


def test_the_signal_really_ends_the_process(tmp_path: Path) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "raw", str(tmp_path / "disk"), "1M"], check=True, timeout=60)
    code, out, _ = run(OURS, tmp_path, "-f", "raw", "-c", "write -q 0 512", "-c", "sigraise 9", "disk")
    assert code == -9
    assert out == ""


def test_requests_are_suspended_and_resumed(tmp_path: Path) -> None:
    lines = """
        break write_aio A
        aio_write -P 10 0x18000 0x2000
        wait_break A
        aio_write -P 11 0x12000 0x2000
        resume A
        aio_flush
        read -P 10 0x18000 0x2000
        read -P 11 0x12000 0x2000
        break read_aio B
        break write_aio B
        remove_break B
        aio_read -P 10 0x18000 0x2000
        aio_flush
        break never A
        resume A
        remove_break A
        break write_aio
        aio_read -P 11 0x18000 0x2000
        aio_flush
        aio_write 3M 2M
        aio_flush
        """.replace("        ", "").lstrip()
    code, out, errors = both(tmp_path, "-f", "qcow2", "blkdebug::disk", stdin=lines, prompts=False)
    assert "blkdebug: Suspended request 'A'\n" in out
    assert "Could not set breakpoint: No such file or directory" in out
    assert (code, errors) == (1, "bad argument count 1 to break, expected 2 arguments\n")


def test_a_breakpoint_needs_blkdebug(tmp_path: Path) -> None:
    lines = commands("break write_aio A", "resume A", "remove_break A")
    code, out, _ = both(tmp_path, "-f", "qcow2", *lines, "disk")
    assert (code, out.count("Operation not supported")) == (1, 3)


def test_unaligned_writes_to_a_node_with_large_blocks(tmp_path: Path) -> None:
    lines = """
        open -o driver=raw,file.align=4k blkdebug::disk
        aio_write -P 10 0x200 0x200
        aio_flush
        break pwritev_rmw_after_head A
        aio_write -P 10 0x1200 0x200
        wait_break A
        aio_write -P 11 0x1400 0x200
        sleep 50
        resume A
        aio_flush
        write -z 0x1300 0x4000
        read -v 0x1180 0x200
        """.replace("        ", "").lstrip()
    assert both(tmp_path, stdin=lines, format="raw", prompts=False)[0] == 0


@pytest.mark.parametrize(
    ("event", "line"),
    [
        ("write_aio", "read 0 64k"),
        ("cluster_alloc", "read 0 64k"),
        ("l2_update", "write 0 64k"),
        ("l1_update", "write 0 64k"),
        ("flush_to_os", "read 0 64k"),
        ("none", "read 0 64k"),
    ],
)
def test_an_injected_error_fails_the_request(tmp_path: Path, event: str, line: str) -> None:
    options = f"driver=qcow2,file.driver=blkdebug,file.image.filename=disk,file.inject-error.0.event={event}"
    code, _, _ = both_at_image(tmp_path, "--image-opts", *commands("write 0 64k", line), options)
    assert code == 1


def both_at_image(tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    """Run both tools; of standard error only whether it says that the image cannot be opened."""
    answers = []
    for name, command in (("theirs", ("qemu-io",)), ("ours", OURS)):
        directory = tmp_path / name
        directory.mkdir()
        create = ["qemu-img", "create", "-q", "-f", "qcow2", str(directory / "disk"), "4M"]
        subprocess.run(create, check=True, timeout=60)
        code, out, errors = run(command, directory, *arguments)
        answers.append((code, out, "can't open" in errors))
        check = subprocess.run(["qemu-img", "check", "-q", str(directory / "disk")], timeout=60)
        assert check.returncode in (0, 3)
    assert answers[1] == answers[0]
    return answers[0][0], answers[0][1], ""


OPENINGS = [
    "open -o cache-size=1.25M,l2-cache-size=1M,refcount-cache-size=0.25M disk",
    "open -o cache-size=1M,l2-cache-size=2M disk",
    "open -o cache-size=1M,refcount-cache-size=2M disk",
    "open -o l2-cache-entry-size=4242 disk",
    "open -o refcount-cache-size=256T disk",
    "open -o driver=qcow2,lazy-refcounts=on disk",
    "open -o overlap-check=blubb disk",
    "open -o nosuch=1 disk",
    "open -o file.nosuch=1 disk",
    "open -o read-only=maybe disk",
    "open -o file.aio=native disk",
    "open -o file.driver=host_device disk",
    "open -o discard=perhaps disk",
    "open -r -o node-name=a disk",
    "open -o driver=raw,offset=1024,size=512 disk",
    "open -s disk",
    "open -d maybe disk",
    "open -t maybe disk",
    "open -U disk",
]


@pytest.mark.parametrize("line", OPENINGS)
def test_options_of_opening(tmp_path: Path, line: str) -> None:
    both(tmp_path, *commands(line, "length"))


# What was started has its say before the next request to the image, or when it is waited for.
OUTSTANDING = [
    ("write -q 0 128k", "aio_read -P 5 0 64k", "length", "read", "aio_flush", "length"),
    ("write -q 0 128k", "aio_write -P 5 5M 512", "nosuch", "write -P x 0 1", "read -q 64k 64k", "length"),
    ("aio_write -q -P 5 0 64k", "aio_read -P 6 0 512", "info", "aio_flush", "aio_read -P x 0 1", "aio_read 0"),
    ("aio_read 5M 1", "alloc x", "aio_flush", "aio_write -C 5M 1"),
    ("aio_write -i 0 512", "aio_read -q -i -P x", "aio_write -z -P 5 0 64k", "aio_flush", "aio_write -P x -y 0 1"),
    ("aio_write 5M 4k", "length"),
]


@pytest.mark.parametrize("lines", OUTSTANDING, ids=lambda lines: lines[0])
def test_when_requests_that_were_started_have_their_say(tmp_path: Path, lines: tuple[str, ...]) -> None:
    both(tmp_path, *commands(*lines), "-f", "raw", "disk", format="raw")
    both(tmp_path, *commands(*lines), "-f", "raw", "blkdebug::disk", format="raw")


def test_the_first_mistake_counts(tmp_path: Path) -> None:
    lines = (
        "write -P x -y 0 1",
        "write -y -P x 0 1",
        "alloc -512",
        "alloc 0 -1",
        "read -l x -P y 0 1",
        "read -y -l x 0 1",
        *("writev -P 256 -512 64k", "length -x", "sleep -1", "discard -C -x 0 1", "truncate -m x", "truncate -y 0"),
    )
    both(tmp_path, *commands(*lines), "disk")
    both(tmp_path, "-r", *commands("write -P x 0 1", "writev", "discard -y", "truncate x", "aio_write x y"), "disk")


def test_info_of_a_filter_is_not_that_of_what_it_stands_on(tmp_path: Path) -> None:
    lines = commands("info", "write -c 512 4k", "write -c 64k 64k", "read -P 0xcd 64k 64k")
    both(tmp_path, "-C", *lines, "disk")
    both(tmp_path, *lines, "--image-opts", "driver=copy-on-read,file.driver=qcow2,file.file.filename=disk")


REOPENINGS = [
    ("reopen -o node-name=foo",),
    ("reopen -o file.node-name=foo",),
    ("reopen -o driver=raw",),
    ("reopen -o driver=qcow2", "reopen -o file.driver=file"),
    ("reopen -o file.driver=qcow2",),
    ("reopen -r -o read-only=on",),
    ("reopen -c none -o cache.direct=on",),
    ("reopen -o read-only=foo",),
    ("reopen -o nosuch=1",),
    ("reopen -o backing.driver=qcow2",),
    ("reopen -r", "write 0 512", "reopen -w", "write 0 512"),
    ("reopen -o lazy-refcounts=on,overlap-check=none", "write 0 64k", "reopen -o lazy-refcounts=off", "read 0 64k"),
    ("reopen -o overlap-check=constant", "reopen -o overlap-check.template=all", "write 0 64k"),
    ("reopen -o overlap-check=constant,overlap-check.template=all", "write 0 64k"),
    ("reopen -o cache-size=1M", "reopen -o l2-cache-size=512k", "reopen -o refcount-cache-size=128k", "write 0 64k"),
    ("reopen -o cache-clean-interval=-1",),
    ("reopen -o discard=ignore", "write 0 64k", "discard 0 64k", "read -P 0xcd 0 64k"),
    ("reopen -o detect-zeroes=on", "write -P 0 0 64k", "map"),
    ("reopen -c writeback", "write 0 512", "reopen"),
    ("reopen -c maybe",),
]


@pytest.mark.parametrize("lines", REOPENINGS, ids=lambda lines: lines[0])
def test_options_of_opening_again(tmp_path: Path, lines: tuple[str, ...]) -> None:
    both(tmp_path, *commands(*lines), "disk")


@pytest.mark.parametrize("format", ["qcow2", "raw"])
def test_what_is_written_to_a_temporary_overlay_is_forgotten(tmp_path: Path, format: str) -> None:
    lines = commands("write -P 5 1M 64k", "read -P 5 1M 64k", "read -P 0 0 64k", "length")
    both(tmp_path, "-s", "-f", format, *lines, "disk", format=format)


@pytest.mark.parametrize("lines", [("reopen -o size=1024", "length"), ("reopen -o offset=512,size=512", "read 0 513")])
def test_a_window_of_a_raw_image_is_moved(tmp_path: Path, lines: tuple[str, ...]) -> None:
    both(tmp_path, "-f", "raw", *commands(*lines), "disk", format="raw")


@pytest.mark.parametrize("mode", ["none", "directsync", "writethrough", "unsafe"])
@pytest.mark.parametrize("format", ["qcow2", "raw"])
def test_cache_modes(tmp_path: Path, format: str, mode: str) -> None:
    lines = commands("write -P 5 1 600", "write -z 4096 5000", "read -P 5 1 600", "read -P 0 4096 5000", "flush")
    both(tmp_path, "-t", mode, "-f", format, *lines, "disk", format=format)


def test_corruption_is_told_of_while_writing(tmp_path: Path) -> None:
    answers = []
    for name, command in (("theirs", ("qemu-io",)), ("ours", OURS)):
        path = tmp_path / name
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "4M"], check=True, timeout=60)
        with path.open("r+b") as stream:
            stream.seek(0x20000)  # the refcounts of the header and of what follows it
            stream.write(bytes(8))
        answers.append(run(command, tmp_path, *commands("write 64k 64k"), str(path)))
    assert "qcow2: Marking image as corrupt: Preventing invalid allocation of L2 table at offset 0" in answers[0][2]
    assert answers[1] == answers[0]


@pytest.mark.parametrize(
    "words", [("-i", "threads"), ("-i", "native"), ("-k",), ("-i", "maybe"), ("-i", "native", "-n")]
)
@pytest.mark.parametrize("name", ["disk", "blkdebug::disk"])
def test_aio_modes(tmp_path: Path, words: tuple[str, ...], name: str) -> None:
    both(tmp_path, *words, *commands("write 0 64k", "length"), name)


def test_a_protocol_alone_has_no_more_than_its_name(tmp_path: Path) -> None:
    both(tmp_path, "-f", "null-co", *commands("info", "length", "reopen", "info"), "null-co://")


def test_a_large_read_is_looked_at_piece_by_piece(tmp_path: Path) -> None:
    lines = commands(
        "write -P 5 300M 1M", "read -P 0 0 300M", "read -P 5 -s 300M -l 1M 0 310M", "read -P 5 -s 300M -l 2M 0 310M",
        "read -P 0 1k 310M", "read -P 0 -s 20M -l 2M 310M 64M", "read -P 0 -s 1 -l 64M 310M 64M", "read -l 1 0 64M",
        "read 0 64M", "read -q 0 64M", "read 1G 64M",
    )  # fmt: skip
    answers = []
    for command in (("qemu-io",), OURS):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "disk", "1G"], cwd=tmp_path, check=True, timeout=60)
        answers.append(run(command, tmp_path, "-f", "qcow2", *lines, "disk"))
    assert answers[1] == answers[0]


def test_a_large_read_takes_no_memory(tmp_path: Path) -> None:
    for line in ("create -q -f raw base 2G", "create -q -f qcow2 -b base -F raw disk"):
        subprocess.run(["qemu-img", *line.split()], cwd=tmp_path, check=True, timeout=60)
    lines = commands("open -o driver=copy-on-read,file.driver=qcow2 disk", "read -P 0 1k 1047552k")
    # A process counts what it was forked from: this one may be large.
    program = "import resource as r, subprocess as s, sys; s.run(sys.argv[1:], check=True); "
    words = [sys.executable, "-c", f"{program}print(r.getrusage(r.RUSAGE_CHILDREN).ru_maxrss)", *OURS, *lines]
    answer = subprocess.run(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True, timeout=120).stdout
    assert "read 1072693248/1072693248 bytes" in answer
    assert int(answer.splitlines()[-1]) < 100 << 10  # KiB; the read is ten times as large


def test_a_file_without_a_format_ends_with_its_last_sector(tmp_path: Path) -> None:
    lines = commands(
        "read 1000 24", "read 900 200", "read 1024 1", "read 1M 512", "read 0 30M", "read 1025 0", "readv 0 1k 1",
        "write 1024 512", "write -z 1000 30", "write -z -n 0 2k", "writev 1000 10 20", "write -c 0 2k", "discard 1k 1",
        "aio_read 1000 100", "aio_flush", "aio_write 1000 100", "aio_flush", "aio_write -z 900 200", "aio_flush",
        "write -P 7 1000 10", "read -v 960 64",
    )  # fmt: skip
    answers = []
    for command in (("qemu-io",), OURS):
        (tmp_path / "disk").write_bytes(b"1" * 1000)
        answers.append(run(command, tmp_path, "--image-opts", *lines, "driver=file,filename=disk"))
        assert (tmp_path / "disk").read_bytes() == b"1" * 1000 + b"\x07" * 10
    assert answers[1] == answers[0]


def test_buffers_that_are_registered_as_of_8_0(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(65536))
    lines = commands(
        "write -r -P 7 0 4k", "writev -r -P 8 4k 1k 1k", "aio_write -r -P 9 8k 4k", "aio_flush",
        "read -r -P 7 0 4k", "readv -r -P 8 4k 1k 1k", "aio_read -r -P 9 8k 4k", "aio_flush",
    )  # fmt: skip
    code, out, err = run(OURS, tmp_path, "-f", "raw", *lines, "disk")
    assert (code, err) == (0, "")
    assert out.count("wrote") == out.count("read") == 3
    assert "failed" not in out
    for line in ("write -r -z 0 4k", "aio_write -r -z 0 4k"):
        found = run(OURS, tmp_path, "-f", "raw", *commands(line), "disk")
        assert found[0] == 1
        assert "cannot combine zero write with registered I/O buffer\n" in found[1]


def test_a_disk_that_keeps_nothing_has_nothing_allocated(tmp_path: Path) -> None:
    for options in ("driver=null-co,size=1M", "driver=null-co,size=1M,read-zeroes=on"):
        words = ("--image-opts", *commands("map", "alloc 0 1M"), options)
        assert run(OURS, tmp_path, *words) == run(("qemu-io",), tmp_path, *words)


@pytest.mark.parametrize(
    "words",
    [
        "--foo disk", "-Z disk", "-c", "--cmd", "--read-only=x disk", "--n disk", "-t foo -Z disk", "-Z -t foo disk",
        "-i foo --foo disk",
        "-d foo -t bar disk", "-t foo --cache=none disk", "--object foo -t bar disk", "--object secret,help --foo",
        "-f qcow2 disk disk", "-c length -- -c", "-f raw --image-opts driver=qcow2,file.filename=disk",
    ],
)  # fmt: skip
def test_the_first_mistake_of_a_command_line_is_told(tmp_path: Path, words: str) -> None:
    answers = []
    for command in (("qemu-io",), OURS):
        code, out, errors = run(command, tmp_path, *words.split())
        answers.append((code, out if not out.startswith("Usage") else "", errors))
    assert answers[1] == answers[0]


def test_a_file_without_a_format_has_whole_sectors(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"y" * 70_000)
    words = [*commands("length", "map", "alloc 0 1M", "alloc 69632"), "-r", "--image-opts", "driver=file,filename=disk"]
    expected = run(("qemu-io",), tmp_path, *words)
    assert "68.500 KiB\n" in expected[1]
    assert run(OURS, tmp_path, *words) == expected
