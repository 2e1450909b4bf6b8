"""Key slots after random changes, by ours and by real ``qemu-img``, as ``cryptsetup`` finds them.

``HOSTEL_SOAK=20`` makes twenty times as many volumes.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from hostel.cli.main import run_tool
from hostel.units import SECTOR
from support import key_timing
from support.fast_keys import fast_keys
from support.luks import Qcow2Container
from support.memory import MemoryDriver
from support.tally import tried

__all__ = ["fast_keys", "tried"]
pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("cryptsetup")]

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
SLOTS: Final = 8
PASSPHRASES: Final = ("alpha", "beta", "gamma", "delta")
SECRETS: Final = [word for name in PASSPHRASES for word in ("--object", f"secret,id={name},data={name}")]
SCHEME: Final = "cipher-alg=aes-128,iter-time=10"


# Options, what the slots are to have then, nothing where that is refused, and whether it is forced.
Attempt = tuple[str, dict[int, str], bool]


class Model:
    """A volume in a file, and the passphrase that each of its slots must have."""

    def __init__(self, path: Path, format: str, rng: random.Random) -> None:
        self.path, self.format, self.rng = path, format, rng
        self.prefix = "encrypt." if format == "qcow2" else ""
        self.slots: dict[int, str] = {0: "alpha"}
        options = self.options(f"{SCHEME},key-secret=alpha")
        options += ",encrypt.format=luks" if self.prefix else ""
        assert run_tool("qemu-img", ["create", "-q", *SECRETS, "-f", format, "-o", options, str(path), "1M"]) == 0

    def options(self, text: str) -> str:
        """Options with their prefix."""
        return ",".join(self.prefix + part for part in text.split(","))

    def step(self) -> str:
        """Change something, or try to; returns what. Without a passphrase that is left, it is refused."""
        change, then, force = self.rng.choice((self.add, self.add, self.add, self.replace, self.remove, self.drop))()
        assert self.amend(self.options(change), force=force) == bool(then), f"{change} where there are {self.slots}"
        self.slots = then or self.slots
        return change

    def add(self) -> Attempt:
        """Add a passphrase to a slot that is free, or to one that may not be."""
        name = self.rng.choice(PASSPHRASES)
        free = [each for each in range(SLOTS) if each not in self.slots]
        if self.rng.random() < 0.5:
            return f"state=active,new-secret={name},iter-time=10", {**self.slots, free[0]: name} if free else {}, False
        slot = self.rng.randrange(SLOTS)
        then = {**self.slots, slot: name} if slot in free else {}
        return f"state=active,new-secret={name},iter-time=10,keyslot={slot}", then, False

    def replace(self) -> Attempt:
        """Put a passphrase into a slot whatever it has."""
        name, slot = self.rng.choice(PASSPHRASES), self.rng.randrange(SLOTS)
        return f"state=active,new-secret={name},iter-time=10,keyslot={slot}", {**self.slots, slot: name}, True

    def remove(self) -> Attempt:
        """Empty a slot."""
        slot = self.rng.randrange(SLOTS)
        then = {each: name for each, name in self.slots.items() if each != slot}
        return f"state=inactive,keyslot={slot}", then if slot in self.slots else {}, False

    def drop(self) -> Attempt:
        """Take a passphrase away, wherever it is."""
        dropped = self.rng.choice(PASSPHRASES)
        then = {each: name for each, name in self.slots.items() if name != dropped}
        return f"state=inactive,old-secret={dropped}", then if then != self.slots else {}, False

    def amend(self, change: str, *, force: bool) -> bool:
        """Change key slots, by ours or by the real tool, opened with a passphrase that opens it."""
        secret = self.rng.choice(list(self.slots.values()))
        image = f"driver={self.format},{self.prefix}key-secret={secret},file.filename={self.path}"
        words = ["amend", *SECRETS, "--image-opts", image, *(["--force"] if force else []), "-o", change]
        if self.rng.random() < 0.5:
            return run_tool("qemu-img", words) == 0
        return not key_timing.run(["qemu-img", *words]).returncode

    def judge(self, header: Path) -> None:
        """``cryptsetup`` finds the slots, and each passphrase in those that have it and in no others."""
        header.write_bytes(self.header())
        told = cryptsetup("luksDump", header)
        states = re.findall(r"^Key Slot (\d): (ENABLED|DISABLED)$", told[1], re.MULTILINE)
        assert {int(number) for number, state in states if state == "ENABLED"} == self.slots.keys()
        assert len(states) == SLOTS
        for name in PASSPHRASES:
            opened = cryptsetup("open", "--test-passphrase", "--key-file=-", header, passphrase=name)[0] == 0
            assert opened == (name in self.slots.values()), (name, self.slots)
        for slot, name in self.slots.items():
            words = ("open", "--test-passphrase", "--key-file=-", f"--key-slot={slot}", header)
            assert cryptsetup(*words, passphrase=name)[0] == 0, (slot, name)

    def header(self) -> bytes:
        """The volume as far as its keys reach, and some of the payload."""
        data = self.path.read_bytes()
        if not self.prefix:
            return data
        area = Qcow2Container().area(MemoryDriver(data))
        assert area.length is not None
        return area.read(0, area.length) + bytes(SECTOR)


def cryptsetup(*words: str | Path, passphrase: str = "") -> tuple[int, str]:
    """Run ``cryptsetup``: its exit code, and what it printed."""
    ended = subprocess.run(
        ["cryptsetup", *map(str, words)], input=passphrase, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode in (0, 2), ended.stderr  # 2: the passphrase opens nothing
    return ended.returncode, ended.stdout


@pytest.mark.parametrize("seed", range(SOAK))
@pytest.mark.parametrize("format", ["luks", "qcow2"])
def test_slots_are_what_the_model_has(tmp_path: Path, format: str, seed: int, tried: Counter[str]) -> None:
    model = Model(tmp_path / "disk", format, random.Random(f"{format} {seed}"))
    history = []
    for step in range(12):
        history.append(model.step())
        tried["changes of key slots"] += 1
        if step % 6 == 5:
            try:
                model.judge(tmp_path / "header")
            except AssertionError as error:
                error.add_note(f"{history}, to have {model.slots}")
                raise
