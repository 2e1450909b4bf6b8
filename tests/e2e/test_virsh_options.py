"""Options of virsh's that only QEMU's machines have a use for, in process and by a daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import hosteld

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("qemu-system-x86_64")]
URI = "qemu:///session"
XML = """<domain type='qemu'><name>o</name><memory unit='MiB'>32</memory><vcpu current='1'>2</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os><cpu mode='host-model'/></domain>"""


@pytest.fixture
def virsh(tmp_path: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    (tmp_path / "o.xml").write_text(XML)
    argv = [sys.executable, "-m", "hostel", "virsh", "-c", URI]

    def run(*words: str, files: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*argv, *words], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path, pass_fds=files,
            env={**os.environ, "HOSTEL_HOME": str(tmp_path / "home")},
        )  # fmt: skip

    yield run
    run("destroy", "o")  # where a test has failed


def test_options_of_machines_do_what_they_say(
    virsh: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    # It ends with the virsh that has started it; one that was started again meanwhile does not.
    done = virsh("define o.xml; start o --autodestroy; domstate o")
    assert "running" in done.stdout, done.stderr
    assert virsh("domstate", "o").stdout.strip() == "shut off"
    assert virsh("start o --autodestroy; destroy o; start o").returncode == 0
    assert virsh("domstate", "o").stdout.strip() == "running"
    # Files go along with a command.
    with (tmp_path / "file").open("w+") as file:
        command = ["qemu-monitor-command", "o", "--pass-fds", str(file.fileno())]
        done = virsh(*command, "add-fd", '{"fdset-id": 7}', files=(file.fileno(),))
        assert json.loads(done.stdout)["return"]["fdset-id"] == 7, done
    # Not done, and said so.
    assert virsh("domjobabort", "o", "--postcopy").stderr == (
        "error: Requested operation is not valid: current job is not outgoing migration in post-copy mode\n"
    )
    assert virsh("setvcpus", "o", "2", "--hotpluggable", "--config").returncode == 0
    assert "<vcpu id='1' enabled='yes' hotpluggable='yes'/>" in virsh("dumpxml", "o", "--inactive").stdout
    # The definition has the mode, and what it is here.
    assert "mode='host-model'" in virsh("dumpxml", "o", "--inactive").stdout
    assert "<model fallback='forbid'>" in virsh("dumpxml", "o", "--inactive", "--update-cpu").stdout
    # Memory that is not left in the host's cache is all there.
    memory = tmp_path / "memory"
    assert virsh(f"save o {memory} --bypass-cache; restore {memory} --bypass-cache; domstate o").returncode == 0
    assert virsh("managedsave o --bypass-cache; start o --bypass-cache").returncode == 0
    assert virsh("domstate", "o", "--reason").stdout.strip() == "running (restored)"
    logs = tmp_path / "home" / "cache" / "qemu" / "log"
    assert (logs / "o.log").exists()
    assert virsh("destroy", "o", "--remove-logs").returncode == 0
    assert not list(logs.glob("o.log*"))


@pytest.mark.requires_tool("virsh")
def test_daemon_ends_machines_with_the_client_that_started_them(tmp_path: Path) -> None:
    (tmp_path / "o.xml").write_text(XML)
    with hosteld.process() as daemon:
        done = daemon.virsh(f"create {tmp_path}/o.xml --autodestroy; domstate o; version --daemon", uri=URI)
        assert "running" in done.stdout
        assert "Running against daemon: 9.0.0" in done.stdout
        deadline = time.monotonic() + 30
        while daemon.virsh("list", "--name", uri=URI).stdout.strip():
            assert time.monotonic() < deadline, "the machine still runs"
            time.sleep(0.1)
