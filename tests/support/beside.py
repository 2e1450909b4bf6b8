"""The same lines for the real virsh on libvirt's daemon and on ours, each with a directory of its own."""

from __future__ import annotations

import contextlib
import difflib
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support import hosteld, libvirtd
from support.virsh import real_lines


def differences(text: str, homes: tuple[Path, Path], passing: re.Pattern[str]) -> list[str]:
    """Each line that ends otherwise on ours, in what is printed or how a complaint begins, and where they differ.

    Args:
        text: lines of virsh, with semicolons or ends of line between; ``HOME`` is the directory of either.
        homes: ours, and the real one's.
        passing: what depends on the moment; its first group stays.
    """
    lines = [line.strip() for row in text.strip().splitlines() for line in row.split(";") if line.strip()]
    with libvirtd.running() as theirs, hosteld.process() as ours, ThreadPoolExecutor(2) as pool:
        theirs.skip_unless_recorded()
        uris = ours.uri("qemu:///session"), theirs.uri
        found, expected = pool.map(lambda uri, home: _answers(uri, home, lines, passing), uris, homes)
    assert len(found) == len(expected) == len(lines)
    differing = []
    for line, mine, real in zip(lines, found, expected, strict=True):
        if mine[0] != real[0] or not mine[1].startswith(real[1]) or bool(mine[1]) != bool(real[1]):
            told, wanted = (f"{words}\n{complaint}".splitlines() for words, complaint in (mine, real))
            diff = difflib.unified_diff(wanted, told, "libvirt", "ours", lineterm="", n=2)
            differing.append("\n    ".join([line, *diff]))
    return differing


@contextlib.contextmanager
def twin_homes(prefix: str, fill: Callable[[Path], None]) -> Iterator[tuple[Path, Path]]:
    """Two directories with the same files, for any user: ours, and the real one's; ``fill`` makes the files."""
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        above = Path(name)
        above.chmod(0o777)
        found = above / "ours", above / "real"
        for home in found:
            home.mkdir()
            fill(home)
            for path in (home, *home.rglob("*")):
                path.chmod(0o777)
        yield found


def _virsh(uri: str, *words: str) -> str:
    done = subprocess.run(
        ["virsh", "-q", "-c", uri, *words], capture_output=True, text=True, timeout=60, check=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.stdout


def _answers(uri: str, home: Path, lines: Sequence[str], passing: re.Pattern[str]) -> list[tuple[str, str]]:
    """What virsh prints and complains of."""

    def neutral(text: str) -> str:
        return passing.sub(r"\1", text.replace(str(home), "HOME")).strip()

    try:
        said = real_lines(uri, [line.replace("HOME", str(home)) for line in lines])
    finally:
        for name in _virsh(uri, "list", "--name").split():  # which would outlive its daemon
            _virsh(uri, "destroy", name)
    return [(neutral(words), neutral(complaint)) for words, complaint in said]
