"""What the README shows is what happens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.objects import DomainState

README = (Path(__file__).parents[2] / "README.md").read_text()
pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-system-x86_64")]
VARIES = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


def block(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert len(found) == 1, f"the README has {len(found)} blocks of {language}"
    return str(found[0])


def steps() -> Iterator[tuple[str, list[str]]]:
    """Each command of the tour, with the lines that it prints."""
    command = ""
    lines: list[str] = []
    for line in block("console").splitlines():
        if line.startswith("$ "):
            if command:
                yield command, lines
            command, lines = line[2:], []
        else:
            lines.append(line)
    yield command, lines


def matches(shown: list[str], printed: list[str]) -> bool:
    """Whether lines are as shown, where ``...`` stands for any lines."""
    pattern = "".join(r"(?:.*\n)*?" if line == "..." else re.escape(VARIES.sub("T", line)) + r"\s*\n" for line in shown)
    text = "".join(f"{VARIES.sub('T', line)}\n" for line in printed if line)
    return re.fullmatch(pattern, text) is not None


def wait_until_off(environment: dict[str, str], directory: Path) -> None:
    code = (
        "import hostel\nwith hostel.open('qemu:///session') as c:\n"
        "    d = c.domain('web1')\n    d.wait(timeout=60)\n    print(d.state.name)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=directory, timeout=90, capture_output=True)
    assert done.stdout.decode().strip() == DomainState.SHUTOFF.name, done.stderr.decode()


def test_the_tour_and_its_python_twin_do_what_they_show(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    binaries = Path(sys.executable).parent
    environment = os.environ | {"HOSTEL_HOME": str(tmp_path / "home"), "PATH": f"{binaries}:{os.environ['PATH']}"}
    for command, shown in steps():
        done = subprocess.run(
            command, shell=True, cwd=work, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert matches(shown, done.stdout.splitlines()), f"{command} printed:\n{done.stdout}"
        if "virt-install" in command or " start " in command:
            wait_until_off(environment, work)
    done = subprocess.run(
        [sys.executable, "-c", block("python")], cwd=work, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "SHUTOFF 65536 KiB 65536 bytes\n"
