"""A scene: what is said to a storage daemon's monitor, and what clients do meanwhile; ours and QEMU's hear the same."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from support.daemon import OURS, THEIRS, Daemon, daemon

# Each tool numbers unnamed nodes in a way of its own, and a file system decides how much room a file takes.
_NUMBERED = re.compile(r"#block\d+")
_PLACE = re.compile(r"/[^ ]*/(real|ours)/")
_ROOM = re.compile(r'"actual-size": \d+')
# QEMU's answers come out of hash tables.
_UNORDERED = ("query-chardev", "qom-list", "qom-list-types", "qom-list-properties")


class Event(NamedTuple):
    """An event that must come before the next step; where a state is given, the one of a job that tells it."""

    name: str
    status: str = ""


class Client(NamedTuple):
    """What a program does with an export, in the scene's folder."""

    words: tuple[str, ...]


Command = tuple[str, dict[str, Any]]
Step = Command | Event | Client


def run(name: str, /, **arguments: Any) -> Command:
    """A command; underscores in arguments' names are dashes."""
    return name, {key.replace("_", "-"): value for key, value in arguments.items()}


def qemu_io(export: str, *commands: str) -> Client:
    """Real qemu-io on an export of the NBD server at ``nbd.sock``."""
    words = [word for command in commands for word in ("-c", command)]
    return Client(("qemu-io", "-f", "raw", *words, f"nbd+unix:///{export}?socket=nbd.sock"))


def play(folder: Path, words: Sequence[str], steps: Sequence[Step], tool: Sequence[str]) -> list[Any]:
    """Run a daemon with these words in a folder; what came of each step, and then all events but those waited for."""
    found: list[Any] = []
    with daemon(folder, *words, tool=tool) as running:
        found += [(step, _settled(_do(running, folder, step))) for step in steps]
        running.monitor.send('{"execute": "query-version"}')
        found += [("", _settled([event["event"], event.get("data")])) for event in running.monitor.events]
        running.monitor.events.clear()
    return found


def _do(running: Daemon, folder: Path, step: Step) -> Any:
    if isinstance(step, Event):
        while True:
            data = running.monitor.wait_for(step.name)["data"]
            if data.get("status", "") == step.status:
                return data
    if isinstance(step, Client):
        done = subprocess.run(step.words, cwd=folder, capture_output=True, text=True, timeout=60)
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "ops" not in line]
        return done.returncode, lines
    answer = running.monitor.send(json.dumps({"execute": step[0], "arguments": step[1]}))
    if step[0] in _UNORDERED and "return" in answer:
        answer["return"].sort(key=json.dumps)
    return answer


def _settled(found: Any) -> Any:
    names: dict[str, str] = {}
    text = _PLACE.sub("", _ROOM.sub('"actual-size": 0', json.dumps(found)))
    return json.loads(_NUMBERED.sub(lambda name: names.setdefault(name[0], f"#{len(names)}"), text))


def compare(
    folder: Path, prepare: Sequence[str], words: Sequence[str], steps: Sequence[Step], *, events: bool = True
) -> None:
    """Play a scene twice, on images that ``prepare`` makes with real tools, and demand the same of both.

    Args:
        folder: has a directory for each of them.
        prepare: command lines; QEMU's tools.
        words: the daemons' arguments.
        steps: the scene.
        events: compare those that are not waited for too; QEMU pauses jobs for a moment where the graph changes.
    """
    played = []
    for name, tool in (("real", THEIRS), ("ours", OURS)):
        place = folder / name
        place.mkdir()
        for line in prepare:
            subprocess.run(shlex.split(line), cwd=place, check=True, capture_output=True, timeout=60)
        found = play(place, words, steps, tool)
        played.append(found if events else found[: len(steps)])
    real, ours = played
    differ = [
        f"{step}\n  real {json.dumps(theirs)}\n  ours {json.dumps(mine)}"
        for (step, theirs), (_, mine) in zip(real, ours, strict=True)
        if theirs != mine
    ]
    assert not differ, "\n".join(differ)
