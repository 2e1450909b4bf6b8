"""A directory as a disk, judged by mtools, fsck.fat and the real qemu-img on the same directory."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

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
