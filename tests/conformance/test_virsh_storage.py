"""Pools and volumes through our virsh against real virsh and a real libvirtd: same lines, same answers, same files.

The two work in twin directories, whose names are taken out of what they print; so are times, owners and how much of
the host's disk is used.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import libvirtd
from support.virsh import Ours, Real

pytestmark = [pytest.mark.requires_tool("virsh"), pytest.mark.requires_tool("libvirtd")]

UUID = "11111111-2222-3333-4444-555555555555"
FILES = {
    "pool.xml": f"<pool type='dir'><name>p</name><uuid>{UUID}</uuid><target><path>%s/pool</path></target></pool>",
    "same-place.xml": "<pool type='dir'><name>q</name><target><path>%s//pool/</path></target></pool>",
    "same-uuid.xml": f"<pool type='dir'><name>q</name><uuid>{UUID}</uuid><target><path>%s/q</path></target></pool>",
    "other.xml": "<pool type='dir'><name>q</name><target><path>%s/a/b</path><permissions><mode>0750</mode>"
    "</permissions></target></pool>",
    "no-path.xml": "<pool type='dir'><name>q</name></pool>",
    "bad-mode.xml": "<pool type='dir'><name>q</name><target><path>/x</path><permissions><mode>9</mode></permissions>"
    "</target></pool>",
    "raw.xml": "<volume><name>raw</name><capacity unit='M'>8</capacity><allocation>0</allocation></volume>",
    "v3.xml": "<volume><name>v3</name><capacity>1000</capacity><target><format type='qcow2'/><compat>1.1</compat>"
    "<features><lazy_refcounts/></features></target></volume>",
    "small.xml": "<volume><name>small</name><capacity unit='M'>8</capacity><target><format type='qcow2'/>"
    "<compat>1.1</compat><clusterSize unit='KiB'>4</clusterSize></target></volume>",
    "empty-features.xml": "<volume><name>ef</name><capacity unit='M'>8</capacity><target><format type='qcow2'/>"
    "<features/></target></volume>",
    "extended.xml": "<volume><name>ext</name><capacity unit='M'>8</capacity><target><format type='qcow2'/>"
    "<features><extended_l2/></features></target></volume>",
    "lazy2.xml": "<volume><name>x</name><capacity unit='M'>8</capacity><target><format type='qcow2'/>"
    "<compat>0.10</compat><features><lazy_refcounts/></features></target></volume>",
    "extended2.xml": "<volume><name>x</name><capacity unit='M'>8</capacity><target><format type='qcow2'/>"
    "<compat>0.10</compat><features><extended_l2/></features></target></volume>",
    "raw-compat.xml": "<volume><name>rawc</name><capacity>4096</capacity><target><compat>1.1</compat></target>"
    "</volume>",
    "no-capacity.xml": "<volume><name>x</name><target><format type='qcow2'/></target></volume>",
    "slash.xml": "<volume><name>a/b</name><capacity>1</capacity></volume>",
    "no-backing.xml": "<volume><name>x</name><target><format type='qcow2'/></target><backingStore>"
    "<path>%s/pool/nosuch</path></backingStore></volume>",
    "raw-backing.xml": "<volume><name>x</name><target><format type='raw'/></target><backingStore>"
    "<path>%s/pool/raw</path></backingStore></volume>",
    "overlay.xml": "<volume><name>overlay</name><target><format type='qcow2'/></target><backingStore>"
    "<path>raw</path><format type='raw'/></backingStore></volume>",
    "mode.xml": "<volume><name>mode</name><capacity unit='M'>1</capacity><target><permissions><mode>0640</mode>"
    "</permissions></target></volume>",
    "bad-size.xml": "<volume><name>x</name><capacity>bad</capacity></volume>",
    "bad-unit.xml": "<volume><name>x</name><capacity unit='Q'>1</capacity></volume>",
    "big-size.xml": "<volume><name>x</name><capacity unit='E'>999</capacity></volume>",
    "bad-compat.xml": "<volume><name>x</name><capacity>1</capacity><target><compat>x</compat></target></volume>",
    "bad-feature.xml": "<volume><name>x</name><capacity>1</capacity><target><features><foo/></features></target>"
    "</volume>",
    "bad-format.xml": "<volume><name>x</name><capacity>1</capacity><target><format type='foo'/></target></volume>",
    "to-qcow2.xml": "<volume><name>q2</name><capacity>1</capacity><target><format type='qcow2'/></target></volume>",
    "to-raw.xml": "<volume><name>r2</name><capacity>1</capacity></volume>",
    "larger.xml": "<volume><name>larger</name><allocation>0</allocation><capacity unit='M'>16</capacity></volume>",
    "hello": "hello",
}  # fmt: skip
START = ["pool-define {W}/pool.xml", "pool-build p", "pool-start p"]

SCENARIOS = {
    "life of a pool": [
        "pool-define {W}/pool.xml",
        "pool-define {W}/pool.xml",
        "pool-list --all",
        "pool-info p",
        "pool-dumpxml p",
        "pool-start p",
        "pool-build p",
        "pool-build p",
        "pool-start p",
        "pool-start p",
        "pool-list",
        "pool-dumpxml p",
        "pool-dumpxml p --inactive",
        "pool-autostart p",
        "pool-list --details --autostart",
        "pool-info p",
        "pool-refresh p",
        "pool-undefine p",
        "pool-delete p",
        "pool-destroy p",
        "pool-destroy p",
        "pool-refresh p",
        "vol-list p",
        "pool-autostart p --disable",
        "pool-delete p",
        "pool-delete p",
        "pool-undefine p",
        "pool-undefine p",
        "pool-list --all",
    ],
    "pools in each other's way": [
        "pool-define {W}/pool.xml",
        "pool-define {W}/same-place.xml",
        "pool-define {W}/same-uuid.xml",
        "pool-create {W}/other.xml",
        "pool-list --all",
        "pool-create {W}/other.xml --build",
        "pool-autostart q",
        "pool-list --transient",
        f"pool-name {UUID}",
        "pool-uuid p",
        "pool-build q",
        "pool-destroy q",
        "pool-list --all --details",
        "pool-create-as t dir --target {W}/t --build",
        "pool-info t",
        "pool-destroy t",
        "pool-build p --overwrite",
        "pool-build p --overwrite --no-overwrite",
        "pool-start p --no-overwrite",
        "pool-create-as t dir --target {W}/t --overwrite",
    ],
    "wrong documents": [
        "pool-define {W}/no-path.xml",
        "pool-define {W}/bad-mode.xml",
        *START,
        "vol-create p {W}/no-capacity.xml",
        "vol-create p {W}/slash.xml",
        "vol-create p {W}/no-backing.xml",
        "vol-create p {W}/bad-size.xml",
        "vol-create p {W}/bad-unit.xml",
        "vol-create p {W}/big-size.xml",
        "vol-create p {W}/bad-compat.xml",
        "vol-create p {W}/bad-feature.xml",
        "vol-create p {W}/bad-format.xml",
        "vol-create p {W}/lazy2.xml",
        "vol-create p {W}/extended2.xml",
        "vol-create p {W}/nosuch.xml",
        "vol-create-as p q 8M --prealloc-metadata",
        "vol-list p",
    ],
    "raw volumes": [
        *START,
        "vol-create p {W}/raw.xml",
        "vol-create p {W}/raw.xml",
        "vol-create p {W}/raw-backing.xml",
        "vol-create p {W}/mode.xml",
        "vol-create p {W}/raw-compat.xml",
        "vol-create-as p full 4M",
        "vol-create-as p part 4M --allocation 1M",
        "vol-create-as p odd 1000",
        "vol-list p",
        "vol-list p --details",
        "vol-info raw p",
        "vol-info part p --bytes",
        "vol-info part p --physical",
        "vol-dumpxml raw p",
        "vol-dumpxml mode p",
        "vol-path raw p",
        "vol-key raw p",
        "vol-name {W}/pool/raw",
        "vol-pool {W}//pool/raw",
        "vol-resize raw 16M p",
        "vol-resize raw 4M p",
        "vol-resize raw 4M p --shrink",
        "vol-resize full 2M p --shrink",
        "vol-resize raw 1M p --delta",
        "vol-resize raw -1M p",
        "vol-resize raw -1M p --shrink",
        "vol-resize raw 1M p --shrink --delta",
        "vol-resize raw 8M p --allocate",
        "vol-info raw p",
        "vol-create-as p none 0",
        "vol-resize none 0 p",
        "vol-create-as p cd 1M --format iso",
        "vol-delete raw p",
        "vol-delete raw p",
        "vol-delete {W}/pool/full",
        "vol-delete nosuch",
        "vol-list p",
    ],
    "qcow2 volumes": [
        *START,
        "vol-create p {W}/raw.xml",
        "vol-create p {W}/v3.xml",
        "vol-create p {W}/small.xml",
        "vol-create p {W}/empty-features.xml",
        "vol-create p {W}/extended.xml",
        "vol-create p {W}/overlay.xml",
        "vol-create-as p plain 8M --format qcow2",
        "vol-create-as p metadata 8M --format qcow2 --prealloc-metadata --allocation 0",
        "vol-create-as p on-raw 16M --format qcow2 --backing-vol raw --backing-vol-format raw",
        "vol-create-as p on-qcow2 16M --format qcow2 --backing-vol {W}/pool/plain --backing-vol-format qcow2",
        "vol-create-as p x 16M --format qcow2 --backing-vol raw --prealloc-metadata",
        "pool-refresh p",
        "vol-list p --details",
        *[f"vol-dumpxml {name} p" for name in ("v3", "small", "ef", "ext", "overlay", "plain", "metadata", "on-raw")],
        "vol-dumpxml on-qcow2 p",
        "vol-resize plain 16M p",
        "vol-info plain p",
        "vol-resize plain 4M p",
        "vol-resize plain 4M p --shrink",
        "vol-resize plain 8M p --allocate",
        "vol-resize on-raw 32M p",
        "vol-dumpxml on-raw p",
    ],
    "transfer": [
        *START,
        "vol-create-as p raw 4M",
        "vol-create-as p thin 4M --allocation 0",
        "vol-upload raw {W}/random p",
        "vol-upload thin {W}/random --pool p --offset 1000",
        "vol-upload thin {W}/hello --pool p --offset 10 --length 5",
        "vol-upload thin {W}/hello --pool p --offset 20 --length 50",
        "vol-upload nosuch {W}/hello p",
        "vol-download raw {W}/out-1 p",
        "vol-download raw {W}/out-2 p --offset 100 --length 10",
        "vol-download raw {W}/out-3 p --offset 100000000",
        "vol-download thin {W}/out-4 p --sparse",
        "vol-download raw {W}/out-2 p --length 7",
        "vol-info thin p",
        "vol-clone raw raw-clone p",
        "vol-clone raw raw-clone p",
        "vol-clone raw other-clone p --prealloc-metadata",
        "vol-create-from p {W}/to-qcow2.xml raw p",
        "vol-create-from p {W}/to-raw.xml q2 p",
        "vol-create-from p {W}/larger.xml thin p",
        "vol-create-from p {W}/larger.xml thin nosuch",
        "vol-create-as p over 4M --format qcow2 --backing-vol raw --backing-vol-format raw",
        "pool-refresh p",
        "vol-clone over over-clone p",
        "pool-refresh p",
        "vol-info larger p",
        "vol-dumpxml over-clone p",
        "vol-wipe raw p",
        "vol-wipe thin p",
        "vol-wipe raw p --algorithm trim",
        "pool-refresh p",
        "vol-info thin p",
    ],
    "what else lies in the directory": [
        *START,
        "pool-refresh p",
        "vol-list p --details",
        "vol-dumpxml names<&> p",
        "vol-delete directory p",
        "vol-delete full-directory p",
        "vol-delete fifo p",
        "vol-delete link p",
        "vol-delete dangling p",
        "vol-delete .hidden p",
        "vol-delete names<&> p",
        "vol-list p",
        "pool-destroy p",
        "pool-delete p",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def real() -> Iterator[Real]:
    with libvirtd.running() as daemon:
        yield Real(daemon.uri.replace("qemu+unix", "storage+unix"))


@pytest.fixture
def twins() -> Iterator[tuple[Path, Path]]:
    """Two directories with the same files, in which nobody is kept from working."""
    # Not below pytest's own: the daemon of root's tests is another user's.
    with tempfile.TemporaryDirectory(prefix="twins-") as name:
        found = Path(name, "real"), Path(name, "ours")
        Path(name).chmod(0o755)
        _write_files(found)
        yield found


def _write_files(directories: tuple[Path, Path]) -> None:
    random = os.urandom(3_000_000)
    for directory in directories:
        directory.mkdir()
        directory.chmod(0o777)
        for name, text in FILES.items():
            (directory / name).write_text(text.replace("%s", str(directory)))
        (directory / "random").write_bytes(random)
        os.chmod(directory / "random", 0o644)


_BLURRED = (
    (re.compile(r"<([amc]time)>[0-9.]+<"), r"<\1>T<"),
    (re.compile(r"<(owner|group)>[0-9]+<"), r"<\1>N<"),
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), lambda found: found[0] if found[0] == UUID else "UUID"),
    # How full the host's disk is at the moment.
    (re.compile(r"(<(?:allocation|available) unit='bytes'>)[0-9]{9,}<"), r"\1N<"),
    (re.compile(r"^((?:Allocation|Available): +)[0-9.]+ [GT]iB$", re.MULTILINE), r"\1N"),
    (re.compile(r"( {2,}[0-9.]+ [GT]iB)+$", re.MULTILINE), "  N"),
    (re.compile(r"-{20,}"), "-"),
    (re.compile(r" +"), " "),
)


def blurred(result: tuple[int, str, str], directory: Path) -> tuple[int, str, str]:
    """Take out what differs between the two directories, and from moment to moment."""

    def blur(text: str) -> str:
        text = text.replace(str(directory), "W")
        for pattern, replacement in _BLURRED:
            text = pattern.sub(replacement, text)
        return text

    return result[0], blur(result[1]), blur(result[2])


def fill(directory: Path) -> None:
    """Put things into the pool's directory that were not made through it."""
    pool = directory / "pool"
    pool.mkdir(exist_ok=True)
    for name in ("directory", "full-directory"):
        (pool / name).mkdir()
    (pool / "full-directory" / "file").touch()
    os.mkfifo(pool / "fifo")
    (pool / ".hidden").touch()
    (pool / "names<&>").write_text("x")
    (pool / "with space").touch()
    (pool / "dangling").symlink_to("nosuch")
    (pool / "loop").symlink_to("loop")
    (pool / "link").symlink_to("with space")
    if os.getuid() == 0:
        for path in (pool, *pool.rglob("*")):
            os.chown(path, libvirtd.NOBODY, libvirtd.NOBODY, follow_symlinks=False)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_lines_of_a_scenario_give_what_virsh_gives(scenario: str, real: Real, twins: tuple[Path, Path]) -> None:
    their_directory, our_directory = twins
    ours = Ours(our_directory / "home")
    try:
        for line in SCENARIOS[scenario]:
            if scenario == "what else lies in the directory" and line == "pool-refresh p":
                fill(their_directory)
                fill(our_directory)
            expected = blurred(real.run(line.replace("{W}", str(their_directory))), their_directory)
            found = blurred(ours.run(line.replace("{W}", str(our_directory))), our_directory)
            assert found == expected, line
    finally:
        real.forget()
    for path in sorted(their_directory.glob("out-*")):
        assert (our_directory / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.requires_tool("qemu-img")
def test_volumes_of_both_hold_the_same(real: Real, twins: tuple[Path, Path]) -> None:
    their_directory, our_directory = twins
    ours = Ours(our_directory / "home")
    lines = [
        *START,
        "vol-create-as p raw 4M",
        "vol-upload raw {W}/random p --offset 77",
        "vol-clone raw copy p",
        "vol-create-from p {W}/to-qcow2.xml raw p",
        "vol-create-as p over 6M --format qcow2 --backing-vol raw --backing-vol-format raw",
        "pool-refresh p",
        "vol-clone over flat p",
        "vol-resize q2 9M p",
    ]
    try:
        for line in lines:
            assert real.run(line.replace("{W}", str(their_directory)))[0] == 0, line
            assert ours.run(line.replace("{W}", str(our_directory)))[0] == 0, line
    finally:
        real.forget()
    for name in ("raw", "copy", "q2", "over", "flat"):
        mine, theirs = our_directory / "pool" / name, their_directory / "pool" / name
        kind = "raw" if name in ("raw", "copy") else "qcow2"
        compared = ["qemu-img", "compare", "-f", kind, "-F", kind, str(mine), str(theirs)]
        done = subprocess.run(compared, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        if kind == "qcow2":
            subprocess.run(["qemu-img", "check", "-q", str(mine)], timeout=60, check=True)
    assert (
        b"backing"
        not in subprocess.run(
            ["qemu-img", "info", str(our_directory / "pool" / "flat")], capture_output=True, timeout=60, check=True
        ).stdout
    )
