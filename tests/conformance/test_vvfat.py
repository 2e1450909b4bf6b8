"""A directory as a disk, judged by mtools, fsck.fat and the real qemu-img on the same directory."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.node import BlockNode
from support.formats import good, ours, theirs

pytestmark = pytest.mark.requires_tool("qemu-img")
RANDOM = random.Random("vvfat")
KINDS = ["", "12:", "16:", "32:", "floppy:", "floppy:12:", "floppy:16:"]
FILES = {
    "README.TXT": b"hello\n",
    "A longer name.with.dots": RANDOM.randbytes(70_000),
    "sub/deep/ünïcode.dat": RANDOM.randbytes(20_000),
    "sub/empty": b"",
    **{f"many/{number:04} of them": RANDOM.randbytes(number) for number in range(120)},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "top"
    for name, data in FILES.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(data)
    return top


def start_of(kind: str) -> int:
    return 0 if "floppy" in kind else 63 * 512


def run(*words: object) -> str:
    ended = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended
    return ended.stdout


@pytest.mark.requires_tool("mcopy")
@pytest.mark.parametrize("kind", KINDS)
def test_mtools_copies_every_file_out(folder: Path, tmp_path: Path, kind: str) -> None:
    good(ours("convert", "-O", "raw", f"fat:{kind}{folder}", tmp_path / "disk"))
    (tmp_path / "out").mkdir()
    run("mcopy", "-s", "-i", f"{tmp_path / 'disk'}@@{start_of(kind)}", "::*", tmp_path / "out")
    out = tmp_path / "out"
    found = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert found == FILES


@pytest.mark.requires_tool("fsck.fat")
@pytest.mark.parametrize("kind", KINDS)
def test_fsck_finds_nothing_wrong(folder: Path, tmp_path: Path, kind: str) -> None:
    good(ours("convert", "-O", "raw", f"fat:{kind}{folder}", tmp_path / "disk"))
    with (tmp_path / "disk").open("rb") as disk, (tmp_path / "part").open("wb") as part:
        disk.seek(start_of(kind))
        part.write(disk.read(40 << 20))
        part.truncate((tmp_path / "disk").stat().st_size - start_of(kind))
    said = run("fsck.fat", "-n", "-v", tmp_path / "part")
    wanted = next((bits for bits in ("12", "16", "32") if bits in kind), "12" if "floppy" in kind else "16")
    # The three directories count, and the first one.
    assert f": {len(FILES) + 4} files, " in said.splitlines()[-1]
    assert f"{wanted} bit entries" in said


def grow(rng: random.Random, folder: Path, depth: int) -> None:
    """Files and directories of any names that FAT has."""
    letters = "aA zZ09.,;=[]+-_!#$%&'()@^`{}~éßЖ漢☃😀"
    taken: set[str] = set()
    for _ in range(rng.randrange(1, 12)):
        name = "".join(rng.choices(letters, k=rng.choice((1, 3, 8, 12, 13, 26, 40)))).rstrip(". ").lstrip(" ")
        if not name or name.upper() in taken or len(name.encode()) > 255:
            continue
        taken.add(name.upper())
        if depth and rng.random() < 0.3:
            (folder / name).mkdir()
            grow(rng, folder / name, depth - 1)
        else:
            (folder / name).write_bytes(rng.randbytes(rng.choice((0, 1, 511, 512, 8192, 8193, 30_000))))


@pytest.mark.requires_tool("fsck.fat")
@pytest.mark.requires_tool("mdir")
@pytest.mark.parametrize("seed", range(8))
def test_directories_of_any_shape_are_sound_and_hold_their_files(tmp_path: Path, seed: int) -> None:
    rng = random.Random(f"vvfat {seed}")
    (tmp_path / "top").mkdir()
    grow(rng, tmp_path / "top", 3)
    kind = rng.choice(["12:", "floppy:"])
    good(ours("convert", "-O", "raw", f"fat:{kind}{tmp_path / 'top'}", tmp_path / "disk"))
    content = (tmp_path / "disk").read_bytes()
    (tmp_path / "part").write_bytes(content[start_of(kind) :])
    run("fsck.fat", "-n", tmp_path / "part")
    paths = [path for path in (tmp_path / "top").rglob("*") if path.is_file()]
    listing = run("mdir", "-/", "-b", "-a", "-i", tmp_path / "part", "::")
    assert len([line for line in listing.splitlines() if not line.endswith("/")]) == len(paths)
    assert all(path.read_bytes() in content for path in paths)


@pytest.mark.parametrize("kind", ["", "12:", "16:", "floppy:", "floppy:12:"])
def test_the_first_sectors_are_the_real_tools(folder: Path, tmp_path: Path, kind: str) -> None:
    for tool, name in ((ours, "ours"), (theirs, "theirs")):
        good(tool("convert", "-O", "raw", f"fat:{kind}{folder}", tmp_path / name))
    assert (tmp_path / "ours").stat().st_size == (tmp_path / "theirs").stat().st_size
    with (tmp_path / "ours").open("rb") as first, (tmp_path / "theirs").open("rb") as second:
        assert first.read(start_of(kind) + 512) == second.read(start_of(kind) + 512)


@pytest.mark.requires_tool("mcopy")
def test_the_real_tools_disk_holds_the_same_files(folder: Path, tmp_path: Path) -> None:
    listed = []
    for tool, name in ((ours, "ours"), (theirs, "theirs")):
        good(tool("convert", "-O", "raw", f"fat:{folder}", tmp_path / name))
        listing = run("mdir", "-/", "-b", "-i", f"{tmp_path / name}@@{start_of('')}", "::")
        listed.append(sorted(listing.splitlines()))
    assert listed[0] == listed[1]


@pytest.mark.parametrize(
    "words",
    [
        ("info", "fat:{folder}"),
        ("info", "--output=json", "fat:floppy:{folder}"),
        ("info", "--output=json", "fat:12:{folder}"),
        ("info", "--image-opts", "driver=vvfat,dir={folder},label=ABC,fat-type=12,floppy=on"),
        ("info", "--image-opts", "driver=vvfat,dir={folder},fat-type=13"),
        ("info", "--image-opts", "driver=vvfat"),
        ("info", "fat:rw:{folder}"),
        ("create", "-f", "raw", "fat:{folder}", "1M"),
        ("resize", "-f", "raw", "fat:{folder}", "1M"),
        ("check", "fat:{folder}"),
        ("info", 'json:{{"driver": "vvfat", "dir": "{folder}", "floppy": true}}'),
    ],
    ids=lambda words: " ".join(words[:2]).format(folder="dir"),
)
def test_commands_print_what_the_real_tool_prints(folder: Path, words: tuple[str, ...]) -> None:
    command = [word.format(folder=folder) for word in words]
    assert ours(*command) == theirs(*command)


def test_an_overlay_on_a_directory_is_read_by_both(folder: Path, tmp_path: Path) -> None:
    good(ours("create", "-q", "-f", "qcow2", "-F", "raw", "-b", f"fat:floppy:{folder}", tmp_path / "a"))
    good(ours("convert", "-O", "raw", tmp_path / "a", tmp_path / "ours"))
    good(theirs("convert", "-O", "raw", tmp_path / "a", tmp_path / "theirs"))
    assert (tmp_path / "ours").stat().st_size == (tmp_path / "theirs").stat().st_size


class Mtools:
    """A guest: mtools on a copy of the disk, whose sectors are then written in any order, with flushes at any time."""

    def __init__(self, node: BlockNode, copy: Path, start: int, rng: random.Random) -> None:
        self.node = node
        self.copy = copy
        self.start = start
        self.rng = rng
        self.before = bytes(node.read(0, node.length))
        copy.write_bytes(self.before)

    def run(self, tool: str, *words: object) -> None:
        """Run one of the tools on the disk, and write what it has changed."""
        run(tool, "-i", f"{self.copy}@@{self.start}", *words)
        after = self.copy.read_bytes()
        changed = [at for at in range(0, len(after), 512) if after[at : at + 512] != self.before[at : at + 512]]
        self.rng.shuffle(changed)
        for at in changed:
            self.node.pwrite(at, after[at : at + 512])
            if self.rng.random() < 0.1:
                self.node.flush()
        self.node.flush()
        self.before = after


@pytest.mark.requires_tool("mcopy")
@pytest.mark.requires_tool("fsck.fat")
@pytest.mark.parametrize("kind", KINDS)
def test_what_mtools_does_lands_in_the_directory(folder: Path, tmp_path: Path, kind: str) -> None:
    expected = dict(FILES)
    news = {"new file.bin": RANDOM.randbytes(50_000), "README.TXT": RANDOM.randbytes(20_000)}
    for name, data in news.items():
        (tmp_path / name).write_bytes(data)
    node = graph.open(f"fat:{kind}rw:{folder}", "raw", read_only=False)
    with node:
        guest = Mtools(node, tmp_path / "disk", start_of(kind), random.Random(f"mtools {kind}"))
        guest.run("mcopy", tmp_path / "new file.bin", "::/sub")
        guest.run("mcopy", "-o", tmp_path / "README.TXT", "::/")
        guest.run("mmd", "::/a new directory")
        guest.run("mmove", "::/sub/deep", "::/a new directory")
        guest.run("mren", "::/A longer name.with.dots", "::/another name with dots")
        guest.run("mdel", "::/sub/empty")
        guest.run("mdeltree", "::/many")
        (tmp_path / "part").write_bytes(guest.before[start_of(kind) :])
        run("fsck.fat", "-n", tmp_path / "part")
        expected |= {"sub/new file.bin": news["new file.bin"], "README.TXT": news["README.TXT"]}
        # mmove writes short names in capitals.
        expected["a new directory/DEEP/ünïcode.dat"] = expected.pop("sub/deep/ünïcode.dat")
        expected["another name with dots"] = expected.pop("A longer name.with.dots")
        expected = {name: data for name, data in expected.items() if name != "sub/empty" and "many" not in name}
        assert holds(folder) == expected
    assert holds(folder) == expected
    good(ours("convert", "-O", "raw", f"fat:{kind}{folder}", tmp_path / "again"))
    (tmp_path / "out").mkdir()
    run("mcopy", "-s", "-i", f"{tmp_path / 'again'}@@{start_of(kind)}", "::*", tmp_path / "out")
    assert holds(tmp_path / "out") == expected


def holds(folder: Path) -> dict[str, bytes]:
    """The files of a directory."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.requires_tool("fsck.fat")
@pytest.mark.parametrize("bits", [12, 16, 32])
def test_other_programs_file_systems_are_refused_and_the_directory_stays(
    folder: Path, tmp_path: Path, bits: int
) -> None:
    """mkfs.fat's own file system is not the one that shows the directory: to lay it out would empty that."""
    with (tmp_path / "new").open("wb") as disk:
        disk.truncate(64 << 20)
    run("mkfs.fat", "-F", bits, tmp_path / "new")
    ended = ours("convert", "-n", "-f", "raw", "-O", "raw", tmp_path / "new", f"fat:rw:{folder}")
    assert ended.code == 1
    assert holds(folder) == FILES


@pytest.mark.requires_tool("mcopy")
def test_a_disk_that_was_copied_back_is_the_directory_again(folder: Path, tmp_path: Path) -> None:
    """A backup of the disk, restored: what happened since is undone."""
    good(ours("convert", "-O", "raw", f"fat:floppy:{folder}", tmp_path / "disk"))
    node = graph.open(f"fat:floppy:rw:{folder}", "raw", read_only=False)
    with node:
        guest = Mtools(node, tmp_path / "copy", 0, random.Random(9))
        guest.run("mdeltree", "::/many")
        guest.run("mren", "::/README.TXT", "::/OTHER.TXT")
        assert holds(folder) != FILES
        content = (tmp_path / "disk").read_bytes()
        for at in range(0, len(content), 65536):
            node.pwrite(at, content[at : at + 65536])
    assert holds(folder) == FILES
