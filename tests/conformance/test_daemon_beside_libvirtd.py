"""The same commands of real virsh on libvirt's daemon and on ours, one after the other: what differs is named here."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import hosteld, libvirtd

pytestmark = [pytest.mark.requires_tool("libvirtd"), pytest.mark.requires_tool("virsh")]

DATA = Path(__file__).parents[1] / "data" / "daemon"
COMMANDS = [line.format(data=DATA) for line in (DATA / "virsh.txt").read_text().splitlines()]
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# What we do and libvirt's test driver does not, and what follows from it.
MORE = {
    "start test --paused",
    "domstate test --reason",
    "resume test",
    "secret-list",
    "nodedev-list --tree",
    "nwfilter-list",
}
FOLLOWS = {
    "list", "list --all", "list --transient", "list --persistent", "domid web", "vcpucount test",
    "vcpuinfo test", "domcontrol test", "dommemstat test", "managedsave test", "managedsave-remove test",
}  # fmt: skip
# What it answers otherwise of a domain that is off.
LESS = {
    "vncdisplay test", "domdisplay test",
}  # fmt: skip
# Errors that say more here, or do not repeat the line that is wrong.
TEXTS = {f"define {DATA}/bad.xml", f"pool-define {DATA}/badpool.xml", f"nodedev-create {DATA}/bad.xml"}


class Virsh:
    """Runs virsh on one daemon, whose test driver lives as long as somebody is connected."""

    def __init__(self, socket: str) -> None:
        self.socket = socket
        self.uri = f"test+unix:///default?socket={socket}"
        self._holder = subprocess.Popen(
            ["virsh", "-q", "-c", self.uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdin is not None and self._holder.stdout is not None
        self._holder.stdin.write("hostname\n")
        self._holder.stdin.flush()
        assert self._holder.stdout.readline()

    def close(self) -> None:
        self._holder.communicate("quit\n", timeout=20)

    def run(self, command: str) -> tuple[int, list[str]]:
        """The exit code and the words that are printed; a UUID that was made up is any."""
        done = subprocess.run(
            ["virsh", "-c", self.uri, *command.split()],
            capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
        text = (done.stdout + done.stderr).replace(self.socket, "SOCKET")
        return done.returncode, UUID.sub(lambda found: found[0] if found[0] in KNOWN else "UUID", text).split()


KNOWN = {
    *(found[0] for path in DATA.iterdir() for found in UUID.finditer(path.read_text())),
    "6695eb01-f6a4-8304-79aa-97f2502e193f",
    "dd8fe884-6c02-601e-7551-cca97df1c5df",
    "dfe224cb-28fb-8dd0-c4b2-64eb3f0f4566",
}  # fmt: skip


@pytest.fixture(scope="module")
def answers() -> Iterator[list[tuple[str, object, object]]]:
    with hosteld.process() as ours, libvirtd.running() as theirs:
        theirs.skip_unless_recorded()
        pair = [Virsh(str(ours.socket)), Virsh(theirs.uri.partition("socket=")[2])]
        # Both begin at the same moment: what runs has taken its time since then.
        time.sleep(0.1)
        try:
            yield [(command, pair[0].run(command), pair[1].run(command)) for command in COMMANDS]
        finally:
            for virsh in pair:
                virsh.close()


def test_answers_are_libvirts_but_for_what_is_named(answers: list[tuple[str, object, object]]) -> None:
    assert len(answers) > 200
    different = Counter(command for command, ours, theirs in answers if ours != theirs)
    unexplained = set(different) - MORE - FOLLOWS - LESS - TEXTS
    assert not unexplained, [answer for answer in answers if answer[0] in unexplained]
    assert sum(different.values()) <= 26
