"""qemu-img rebase beside the real one: messages, and overlays that read the same as before."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from support.twins import Twins

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]


def real(folder: Path, *words: object) -> str:
    done = subprocess.run(["qemu-img", *map(str, words)], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def chain(twins: Twins, options: str = "") -> None:
    """``old`` (4M) and ``new`` (3M), which differ here and there; ``top`` on ``middle`` on ``old``; ``flat`` is top."""
    twins.prepare("qemu-img create -q -f raw old 4M")
    twins.prepare("qemu-io -f raw -c 'write -q -P 1 0 4M' -c 'write -q -P 0 1M 256k' old")
    twins.prepare("qemu-img create -q -f qcow2 new 3M")
    twins.prepare("qemu-io -f qcow2 -c 'write -q -P 1 0 2M' -c 'write -q -P 7 512k 5k' -c 'write -q -z 1536k 64k' new")
    twins.prepare("qemu-img create -q -f qcow2 -b old -F raw middle 5M")
    twins.prepare("qemu-io -f qcow2 -c 'write -q -P 2 300k 100k' -c 'write -q -P 3 4608k 64k' middle")
    twins.prepare(f"qemu-img create -q -f qcow2 {options} -b middle -F qcow2 top 6M")
    twins.prepare("qemu-io -f qcow2 -c 'write -q -P 4 2500k 90k' -c 'write -q -z 64k 64k' top")
    twins.prepare("qemu-img convert -O raw top flat")


def judge(twins: Twins) -> None:
    real(twins.ours, "compare", "-f", "qcow2", "-F", "raw", "top", "flat")
    assert "No errors were found" in real(twins.ours, "check", "-f", "qcow2", "top")
    described = []
    for folder in (twins.real, twins.ours):
        found = json.loads(real(folder, "info", "--output=json", "-f", "qcow2", "top"))
        described.append({key: value for key, value in found.items() if key != "actual-size"})
    assert described[0] == described[1]


@pytest.mark.parametrize("options", ["", "-o cluster_size=4k", "-o compat=0.10", "-o extended_l2=on"])
@pytest.mark.parametrize("arguments", ["-b new -F qcow2", "-b old -F raw", "-b middle -F qcow2", "-b ''"])
def test_overlay_reads_the_same_on_its_new_backing_file(twins: Twins, arguments: str, options: str) -> None:
    chain(twins, options)
    twins.same(f"rebase {arguments} top")
    judge(twins)


@pytest.mark.parametrize("top", ["2M", "4M", "9M"])
def test_overlay_of_any_size_reads_the_same(twins: Twins, top: str) -> None:
    chain(twins)
    twins.prepare(f"qemu-img create -q -f qcow2 -b middle -F qcow2 top {top}")
    twins.prepare("qemu-img convert -O raw top flat")
    twins.same("rebase -f qcow2 -b new -F qcow2 top")
    judge(twins)


@pytest.mark.parametrize("flags", ["-p", "-q", "-t none -T none", "-t unsafe", "-U"])
def test_flags_change_nothing_of_the_result(twins: Twins, flags: str) -> None:
    chain(twins)
    words = ["rebase", *flags.split(), "-b", "new", "-F", "qcow2", "top"]
    expected, found = twins.run_real(words), twins.run_ours(words)
    assert (found.code, found.err) == (expected.code, expected.err)
    if flags == "-p":
        assert found.out.startswith("    (0.00/100%)\r")
        assert found.out.endswith("    (100.00/100%)\r\n")
    else:
        assert found.out == expected.out == ""
    judge(twins)


@pytest.mark.parametrize(
    "arguments", ["-u -b other -F raw", "-u -b new -F qcow2", "-u -b ''", "-u", "-u -F qcow2", "-u -b missing/x -F raw"]
)
def test_unsafe_rebase_changes_the_name_alone(twins: Twins, arguments: str) -> None:
    chain(twins)
    before = (twins.ours / "top").read_bytes()
    twins.same(f"rebase {arguments} top")
    # The header's cluster alone.
    assert (twins.ours / "top").read_bytes()[65536:] == before[65536:]
    names = [json.loads(real(folder, "info", "-U", "--output=json", "top")) for folder in (twins.real, twins.ours)]
    keys = ("backing-filename", "backing-filename-format", "full-backing-filename")
    assert [names[0].get(key) for key in keys] == [
        None if names[1].get(key) is None else names[1][key].replace(str(twins.ours), str(twins.real)) for key in keys
    ]


def test_lost_backing_file_is_replaced_by_name(twins: Twins) -> None:
    chain(twins)
    for folder in (twins.real, twins.ours):
        (folder / "middle").rename(folder / "moved")
    twins.refused("rebase -b moved -F qcow2 top")
    twins.same("rebase -u -b moved -F qcow2 top")
    judge(twins)


@pytest.mark.parametrize(
    "command",
    [
        "rebase",
        "rebase top",
        "rebase -b new -F qcow2",
        "rebase -b new -F qcow2 top top",
        "rebase -b new -F qcow2 nothing",
        "rebase -b nothing -F qcow2 top",
        "rebase -b new -F nothing top",
        "rebase -b new -F raw -f raw old",
        "rebase -b new top",
        "rebase -u -b new top",
        "rebase -t nothing -b new -F qcow2 top",
        "rebase -T nothing -b new -F qcow2 top",
        "rebase -z top",
    ],
)
def test_mistakes_are_told_as_the_real_tool_does(twins: Twins, command: str) -> None:
    chain(twins)
    before = (twins.ours / "top").read_bytes()
    words = command.split()
    expected, found = twins.run_real(words), twins.run_ours(words)
    assert (found.code, found.out) == (expected.code, expected.out)
    assert found.code == 1
    assert found.err.splitlines()[:2] == expected.err.splitlines()[:2]
    assert (twins.ours / "top").read_bytes() == before


@pytest.mark.parametrize("name", ["vmdk", "host_device", "file", "nbd", "blkdebug", "https"])
def test_a_backing_format_is_recorded_though_it_is_not_one_of_ours(twins: Twins, name: str) -> None:
    twins.prepare("qemu-img create -q -f qcow2 top 1M")
    twins.same(f"rebase -u -b missing -F {name} top")
    described = real(twins.ours, "info", "-f", "qcow2", "top")
    assert f"backing file format: {name}\n" in described


def test_a_backing_format_that_nobody_knows_is_refused(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 top 1M")
    twins.refused("rebase -u -b missing -F nonsense top")


@pytest.mark.parametrize("command", ["rebase -f qcow2 -b old -F raw top", "commit -f qcow2 top"])
def test_what_snapshots_inside_show_is_not_changed_in_silence(twins: Twins, command: str) -> None:
    chain(twins)
    twins.prepare("qemu-img snapshot -c one top")
    twins.prepare("qemu-img snapshot -c two top")
    twins.share("top")
    expected, found = twins.run_real(command.split()), twins.run_ours(command.split())
    assert (expected.code, expected.out, expected.err) == (found.code, found.out, "")
    assert found.err == (
        "qemu-img: warning: 'top' has snapshots inside (one, two): what they show of its backing file changes\n"
    )
    judge(twins)
