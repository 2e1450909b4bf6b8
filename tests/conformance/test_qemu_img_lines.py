"""qemu-img with command lines at random, right and wrong ones: output, errors, exit codes and images are QEMU's."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.command_lines import IMAGES, line
from support.twins import Result, Twins

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]
LINES = 15

# What docs/compatibility says is different: our second lines, a line without its end, and names made up for nodes.
ADDED = re.compile(
    r"(?<=\n)(?:Give the passphrase with|For a file of that name|The cluster size limits|It is among the files|"
    r"It is open in this process|Use qemu-img check -r all)[^\n]*\n"
)
NODES = re.compile(r"(?<= persistent bitmaps to )\S+(?=:)|(?<= persistent in )'[^']*'")
DATES = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|(?<=-sec\": )\d+|(?<=-nsec\": )\d+")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images."""
    folder = tmp_path_factory.mktemp("images")
    for command in IMAGES:
        subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True, timeout=60)
    return folder


@pytest.mark.parametrize("seed", range(10))
def test_any_line_does_what_qemus_does(twins: Twins, made: Path, seed: int) -> None:
    rng = random.Random(f"lines {seed}")
    for folder in (twins.real, twins.ours):
        shutil.copytree(made, folder, dirs_exist_ok=True)
    for _ in range(LINES):
        words = line(rng)
        real, ours = shown(twins.run_real(words)), shown(twins.run_ours(words))
        assert ours == real, words
        assert changed(twins, made, is_done=real.code == 0) == [], words


def shown(result: Result) -> Result:
    return Result(result.code, DATES.sub("DATE", result.out), NODES.sub("NODE", ADDED.sub("", result.err)).rstrip())


def changed(twins: Twins, made: Path, *, is_done: bool) -> list[str]:
    """The images that are not the same to the real tool any more; then all are again as they were made."""
    differ = []
    for name in sorted({path.name for folder in (twins.real, twins.ours) for path in folder.iterdir()}):
        paths = [folder / name for folder in (made, twins.real, twins.ours)]
        contents = [path.read_bytes() if path.exists() else None for path in paths]
        if contents[1] == contents[2] == contents[0]:
            continue
        if is_done and contents[1] != contents[2] and not same_to_qemu(*paths[1:]):
            differ.append(name)
        for path in paths[1:]:
            path.unlink(missing_ok=True)
            if contents[0] is not None:
                shutil.copy(paths[0], path)
    return differ


def same_to_qemu(real: Path, ours: Path) -> bool:
    """Whether two images hold the same, and both are whole."""
    compared = subprocess.run(["qemu-img", "compare", real, ours], capture_output=True, timeout=60)
    codes = {
        subprocess.run(["qemu-img", "check", path], cwd=path.parent, capture_output=True, timeout=60).returncode
        for path in (real, ours)
    }
    return compared.returncode == 0 and codes <= {0, 63}
