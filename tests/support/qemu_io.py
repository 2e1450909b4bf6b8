"""Running our ``qemu-io`` beside the real one."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

OURS = (sys.executable, "-m", "hostel", "qemu-io")
# How long a request took, and what follows from it.
TIMES = re.compile(r"(?<=ops; ).*\)$|(?<=,1,).*$", re.MULTILINE)


def run(command: tuple[str, ...], directory: Path, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    done = subprocess.run(
        [*command, *arguments], cwd=directory, capture_output=True, text=True, timeout=60, input=stdin
    )
    return done.returncode, TIMES.sub("T", done.stdout), done.stderr


def both(
    tmp_path: Path, *arguments: str, stdin: str = "", format: str = "qcow2", prompts: bool = True
) -> tuple[int, str, str]:
    """Run both tools on equal images; returns what the real one answered, which ours did as well.

    Without ``prompts`` it does not matter how many commands were read before a request had something to say.
    """
    answers = []
    for name, command in (("theirs", ("qemu-io",)), ("ours", OURS)):
        directory = tmp_path / name
        directory.mkdir()
        create = ["qemu-img", "create", "-q", "-f", format, str(directory / "disk"), "4M"]
        subprocess.run(create, check=True, timeout=60)
        code, out, errors = run(command, directory, *arguments, stdin=stdin)
        answers.append((code, out if prompts else out.replace("qemu-io> ", ""), errors))
        images = [tmp_path / each / "disk" for each in ("theirs", "ours")]
    assert answers[1] == answers[0]
    compare = ["qemu-img", "compare", "-f", format, "-F", format, *map(str, images)]
    subprocess.run(compare, check=True, timeout=60, capture_output=True)
    shutil.rmtree(tmp_path / "theirs")
    shutil.rmtree(tmp_path / "ours")
    return answers[0]


def commands(*lines: str) -> list[str]:
    return [word for line in lines for word in ("-c", line)]
