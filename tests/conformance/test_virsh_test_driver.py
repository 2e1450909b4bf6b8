"""What the test driver does to domains, beside libvirt's: our virsh on our driver, the real virsh on its own."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from hostel.cli.virsh.main import open_uri
from support.virsh import run_lines

pytestmark = pytest.mark.requires_tool("virsh")
URI = "test:///default"
_CLOCK = re.compile(r"\b1[7-9]\d{8}\b|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000|[\d.]+s$", re.MULTILINE)

MOMENTS = [
    "snapshot-list test",
    "snapshot-create-as test s1 --description one; snapshot-dumpxml test s1; snapshot-list test; "
    "snapshot-info test s1; snapshot-current test --name; snapshot-parent test s1",
    "snapshot-create-as test s1; snapshot-create-as test s2; snapshot-create-as test s3; "
    "snapshot-list test --tree; snapshot-list test --parent; snapshot-list test --roots --name; "
    "snapshot-list test --leaves --name; snapshot-list test --no-leaves --name; "
    "snapshot-list test --topological --name; snapshot-parent test s2; snapshot-list test s1 --name; "
    "snapshot-list test s1 --descendants --name; snapshot-list test --current --name; "
    "snapshot-info test --current; snapshot-delete test s2; snapshot-list test --tree; "
    "snapshot-delete test s3; snapshot-current test --name; snapshot-delete test s1 --children; "
    "snapshot-list test",
    "snapshot-create-as test s1; snapshot-create-as test s2; snapshot-delete test s1 --children-only; "
    "snapshot-list test --name; snapshot-current test --name",
    "snapshot-create-as test s1; snapshot-create-as test s1; snapshot-info test nosuch; "
    "snapshot-revert test nosuch; snapshot-delete test nosuch; snapshot-dumpxml test nosuch; "
    "snapshot-current test nosuch",
    "snapshot-create-as test s1; suspend test; snapshot-create-as test s2; destroy test; "
    "snapshot-create-as test s3; snapshot-list test; snapshot-revert test s1; domstate test --reason; "
    "snapshot-revert test s2; domstate test --reason; snapshot-revert test s3; domstate test --reason; "
    "snapshot-current test --name; snapshot-revert test s3 --running; domstate test --reason; "
    "snapshot-revert test s1 --paused; domstate test --reason; domid test",
    "snapshot-create-as test s1 --halt; domstate test --reason; snapshot-list test; list --all",
    "snapshot-create-as test s1 --disk-only",
    "snapshot-create-as test s1 --no-metadata",
    "snapshot-create-as test s1 --reuse-external --disk-only",
    "snapshot-create-as test s1 --quiesce",
    "snapshot-create-as test s1 --atomic --live",
    "snapshot-create-as test s1 --memspec /tmp/x; snapshot-dumpxml test s1",
    "snapshot-create-as test s1 --diskspec vda,snapshot=external,file=/tmp/foo; snapshot-dumpxml test s1",
    "snapshot-create-as test s1 --diskspec vda,snapshot=no; snapshot-dumpxml test s1",
    "snapshot-create-as test s1 --diskspec vdx",
    "snapshot-create-as test s1 --diskspec vda,snapshot=manual",
    "snapshot-create test",
    "snapshot-create test; undefine test; destroy test; undefine test; undefine test --snapshots-metadata; list --all",
    "snapshot-create-as test s1; undefine test --snapshots-metadata; list --all; dominfo test",
    "snapshot-create-as test s1; list --with-snapshot; list --without-snapshot",
    "snapshot-delete test s1 --metadata",
    "snapshot-create-as test s1; snapshot-delete test --current; snapshot-current test",
    "snapshot-create-as test s1; destroy test; snapshot-create-as test s2; "
    "snapshot-list test --active --name; snapshot-list test --inactive --name; "
    "snapshot-list test --internal --name; snapshot-list test --external --name; "
    "snapshot-list test --metadata --name; snapshot-list test --no-metadata --name; "
    "snapshot-list test --disk-only --name",
    "snapshot-create-as test s1; snapshot-delete test s1 --metadata; snapshot-list test --name",
    "checkpoint-list test",
    "checkpoint-create-as test c1; checkpoint-list test; checkpoint-dumpxml test c1; checkpoint-info test c1; "
    "checkpoint-parent test c1",
    "checkpoint-create-as test c1; checkpoint-create-as test c2; checkpoint-list test --tree; "
    "checkpoint-parent test c2; checkpoint-delete test c1; checkpoint-list test --parent; "
    "checkpoint-delete test nosuch; snapshot-create-as test s1",
    "checkpoint-create-as test c1; checkpoint-create-as test c2; checkpoint-delete test c1 --children; "
    "checkpoint-list test --name",
    "checkpoint-create-as test c1; checkpoint-create-as test c2; checkpoint-delete test c1 --children-only; "
    "checkpoint-list test --name",
    "snapshot-create-as test s1; checkpoint-create-as test c1",
    "destroy test; checkpoint-create-as test c1",
    "checkpoint-create-as test c1 --diskspec vdx",
    "checkpoint-create-as test c1 --diskspec vda,checkpoint=no",
    "checkpoint-create-as test c1 --quiesce",
    "checkpoint-create-as test c1; checkpoint-create-as test c1",
    "checkpoint-create-as test c1; checkpoint-dumpxml test c1 --no-domain; checkpoint-dumpxml test c1 --size; "
    "checkpoint-delete test c1 --metadata; checkpoint-list test",
    "checkpoint-create-as test c1; undefine test; destroy test; undefine test; undefine test --checkpoints-metadata",
    "list --with-checkpoint",
]


def normal(answer: tuple[int, str, str]) -> tuple[int, str, str]:
    """An answer without what the clock says."""
    code, out, err = answer
    return code, _CLOCK.sub("TIME", out), _CLOCK.sub("TIME", err)


def theirs(line: str) -> tuple[int, str, str]:
    done = subprocess.run(
        ["virsh", "-c", URI, line], capture_output=True, text=True, timeout=60, check=False,
        stdin=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("line", MOMENTS)
def test_a_line_gives_what_virsh_gives(line: str) -> None:
    assert normal(run_lines(URI, open_uri, [[line]])[0]) == normal(theirs(line))
