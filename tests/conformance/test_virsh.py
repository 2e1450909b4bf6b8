"""virsh's own part, its command line, messages and tables, against the real virsh on ``test:///default``.

Ours runs in process on a stand-in for that hypervisor, so what is compared is the shell and not a driver.
"""

from __future__ import annotations

import io
import subprocess

import pytest

from hostel.cli.output import Output
from hostel.cli.virsh.main import main, run_words
from hostel.cli.virsh.session import Session
from support.hypervisor import FakeConnection

pytestmark = pytest.mark.requires_tool("virsh")
URI = "test:///default"

COMMANDS = [
    # wrong
    "start",
    "start --foo",
    "start test test2 test3",
    "start --domain",
    "start --domain test --domain test",
    "list --all=1",
    "list --all x",
    "list --al",
    "list --all --all",
    "list --table --name",
    "nosuch",
    "vol-resize",
    "vol-resize a",
    "vol-resize a 1G",
    "vol-info a",
    "vol-info a --pool default-pool",
    "vol-info a --pool nosuch",
    "dominfo nosuch",
    "domid nosuch",
    "domid 1",
    "domname 99",
    "pool-info nosuch",
    "vol-list nosuch",
    "net-uuid nosuch",
    "define /nosuch",
    "pool-define /nosuch",
    "net-define /nosuch",
    "help nosuch",
    'echo "open',
    "echo trailing\\",
    "domstate -- --reason",
    "start test",
    "resume test",
    "vncdisplay test",
    "cd /",
    # right
    "list",
    "list --all",
    "list --inactive",
    "list --uuid",
    "list --name --all",
    "list --uuid --name",
    "list --id",
    "list --title",
    "list --transient",
    "domstate test",
    "domstate test --reason",
    "domstate --domain=test",
    "domstate --reason -- test",
    "domid test",
    "domname 1",
    "domname 6695eb01-f6a4-8304-79aa-97f2502e193f",
    "domuuid test",
    "domblklist test",
    "domblklist test --details",
    "autostart test",
    "autostart test --disable",
    "destroy test; list --all; domstate test --reason; domid test; start test; list",
    "suspend test; domstate test --reason; resume test; domstate test --reason",
    "pool-list",
    "pool-list --all",
    "pool-list --inactive",
    "pool-list --details",
    "pool-list --name --uuid",
    "pool-list --name",
    "pool-list --uuid",
    "shutdown test --mode",
    "pool-info default-pool",
    "pool-info default-pool --bytes",
    "pool-uuid default-pool",
    "pool-name dfe224cb-28fb-8dd0-c4b2-64eb3f0f4566",
    "pool-destroy default-pool; pool-list; pool-list --all --details; pool-info default-pool; pool-start default-pool",
    "vol-list default-pool",
    "vol-list default-pool --details",
    "net-uuid default",
    "net-destroy default; net-start default; net-destroy default; net-undefine default",
    "uri",
    "echo a 'b c' \"d e\" f\\ g",
    "echo a # comment",
    "echo a;;echo b; ",
    "list;nosuch",
    "dominfo nosuch; echo went on",
]


def ours(words: list[str], *, quiet: bool = False) -> tuple[int, str, str]:
    """Run our virsh in process."""
    out, err = io.StringIO(), io.StringIO()
    session = Session(Output(out, err, quiet=quiet), URI, FakeConnection)
    return run_words(session, words), out.getvalue(), err.getvalue()


def theirs(words: list[str], *, quiet: bool = False) -> tuple[int, str, str]:
    """Run the real one."""
    argv = ["virsh", "-c", URI, *(["-q"] if quiet else []), *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("line", COMMANDS)
def test_a_line_gives_what_virsh_gives(line: str) -> None:
    assert ours([line]) == theirs([line])


@pytest.mark.parametrize("line", ["list", "pool-list --details", "echo a", "destroy test", "pool-info default-pool"])
def test_quiet_drops_what_virsh_drops(line: str) -> None:
    assert ours([line], quiet=True) == theirs([line], quiet=True)


@pytest.mark.parametrize("argv", [["-c"], ["--nosuch"], ["-x"], ["-v"], ["--version"], ["--connect"]], ids=str)
def test_options_before_the_command_are_virshs(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = main(argv)
    seen = capsys.readouterr()
    done = subprocess.run(["virsh", *argv], capture_output=True, text=True, timeout=20, check=False)
    assert (code, seen.out, seen.err) == (done.returncode, done.stdout, done.stderr)


def test_every_command_is_one_of_virshs_and_every_other_is_refused_by_name() -> None:
    from hostel.cli.virsh.missing import NAMES
    from hostel.cli.virsh.registry import COMMANDS as have

    listed = subprocess.run(["virsh", "help"], capture_output=True, text=True, timeout=20, check=True).stdout
    names = {line.split()[0] for line in listed.splitlines() if line.startswith("    ")}
    assert set(have) | NAMES == names
    assert not set(have) & NAMES
