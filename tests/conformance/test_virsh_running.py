"""virsh's commands for running domains beside the real one: what they refuse, and the documents that they write."""

from __future__ import annotations

import contextlib
import subprocess

import pytest

from hostel.cli.virsh.main import open_uri
from support.virsh import run_lines

pytestmark = pytest.mark.requires_tool("virsh")
URI = "test:///default"
LINES = [
    "attach-disk test /a vdb --print-xml",
    "attach-disk test '/a&b' vdb --driver qemu --subdriver qcow2 --cache none --io native --iothread 2 --print-xml",
    "attach-disk test /a sdb --targetbus scsi --type cdrom --mode readonly --serial S --wwn 5000c50015ea71ad "
    "--alias ua-1 --rawio --print-xml",
    "attach-disk test vol sdb --sourcetype network --source-protocol nbd --source-host-name h:10 --print-xml",
    "attach-disk test vol sdb --source-protocol nbd --source-host-transport unix --source-host-socket /s --print-xml",
    "attach-disk test vol sdb --source-protocol nbd --print-xml",
    "attach-disk test vol sdb --sourcetype network --print-xml",
    "attach-disk test vol sdb --sourcetype dir --print-xml",
    "attach-disk test vol sdb --mode foo --print-xml",
    "attach-disk test vol sdb --source-host-name h --print-xml",
    "attach-disk test vol sdb --persistent --current",
    "attach-disk test vol sdb --live --current",
    "attach-interface test network default --print-xml",
    "attach-interface test bridge br0 --mac 52:54:00:00:00:01 --model virtio --target vnet9 --script /s --alias ua-n "
    "--print-xml",
    "attach-interface test direct eth0 --inbound 100,200,300 --outbound 50 --print-xml",
    "attach-interface test network n --inbound 0,1 --print-xml",
    "attach-interface test network n --outbound 1,1,1,1 --print-xml",
    "attach-interface test vhostuser /s --print-xml",
    "attach-interface test vhostuser /s --source-mode server --print-xml",
    "attach-interface test foo n --print-xml",
    "attach-interface test user n --print-xml",
    "attach-device test /nosuch",
    "attach-device nosuch /nosuch",
    "detach-disk test vdz",
    "detach-disk test vda --print-xml",
    "detach-interface test network --mac 00:00:00:00:00:00",
    "detach-interface test bridge",
    "change-media test vda --eject",
    "change-media test hdc --eject --insert",
    "change-media test hdc --eject --block",
    "detach-device-alias test",
    "update-device test /nosuch --persistent --current",
    "domiflist test",
    "domif-getlink test aa:bb:cc:dd:ee:ff",
    "domif-getlink test nosuch",
    "blockpull test vda --verbose",
    "blockpull test vda --wait --timeout x",
    "blockcommit test vda --verbose",
    "blockcommit test vda --async",
    "blockcommit test vda --pivot --keep-overlay",
    "blockcopy test vda",
    "blockcopy test vda --dest /x --xml /y",
    "blockcopy test vda --dest /x --verbose",
    "blockcopy test vda --dest '/x&y' --format qcow2 --print-xml",
    "blockcopy test vda --dest /dev/x --blockdev --print-xml",
    "blockcopy test vda --dest /x --pivot --finish",
    "blockcopy test vda --xml /nosuch",
    "blockjob test vda --raw --pivot",
    "blockjob test vda --info --abort",
    "blockjob test vda --bytes --abort",
    "blockresize test vda 1x",
    "blockresize test vda",
    "domblkinfo test",
    "domblkinfo test --all --device vda",
    "blkdeviotune test vda --live --current",
    "blkdeviotune test vda --total-iops-sec x",
    "domblkthreshold test vda x",
    "snapshot-create-as test --print-xml",
    "snapshot-create-as test n 'a description' --print-xml",
    "snapshot-create-as test n --print-xml --memspec /m,snapshot=external --diskspec vda,snapshot=external,file=/x "
    "--diskspec vdb,driver=qcow2,stype=block,file=/dev/y",
    "snapshot-create-as test n --print-xml --memspec foo",
    "snapshot-create-as test n --print-xml --diskspec vda,foo",
    "snapshot-create-as test n --print-xml --diskspec vda,stype=foo",
    "snapshot-create-as test n --print-xml vda,snapshot=no",
    "snapshot-list test --tree --name",
    "snapshot-list test --tree --leaves",
    "snapshot-list test --descendants",
    "snapshot-list nosuch",
    "snapshot-revert test",
    "snapshot-delete test --current --snapshotname x",
    "snapshot-info test",
    "snapshot-current test --name --snapshotname x",
    "checkpoint-create-as test --print-xml",
    "checkpoint-create-as test n 'a description' --print-xml",
    "checkpoint-create-as test --name 'n<' --description d --print-xml vda,checkpoint=bitmap,bitmap=b vdb",
    "checkpoint-create-as test --print-xml vda,foo",
    "checkpoint-create test /nosuch",
    "checkpoint-list test --tree --name",
    "checkpoint-list test --tree --leaves",
    "checkpoint-list test --parent --roots",
    "checkpoint-list test --descendants",
    "checkpoint-list nosuch",
    "checkpoint-delete test",
    "checkpoint-info test",
    "checkpoint-parent nosuch x",
    "checkpoint-dumpxml test",
    "backup-begin nosuch",
    "backup-begin test /nosuch",
    "backup-begin test --checkpointxml /nosuch",
    "domjobabort nosuch",
    "domjobinfo nosuch",
    "domjobinfo test",
    "domjobinfo test --keep-completed",
    "migrate nosuch x",
    "migrate test",
    "migrate test x --live --offline",
    "migrate test x --live --timeout-suspend --timeout-postcopy",
    "migrate test x --live --timeout-postcopy",
    "migrate test x --live --timeout-suspend",
    "migrate test x --timeout 5",
    "migrate test x --live --timeout 5x",
    "migrate test x --postcopy-after-precopy",
    "migrate test x --persistent-xml /x",
    "migrate test x --tls-destination a",
    "migrate test x --nosuch",
    "migrate test x --direct",
    "migrate test x --p2p --copy-storage-synchronous-writes",
    "migrate test test:///default",
    "migrate-setmaxdowntime test 0",
    "migrate-setmaxdowntime test",
    "migrate-setmaxdowntime test x",
    "migrate-getmaxdowntime nosuch",
    "migrate-setspeed test -2",
    "migrate-setspeed test",
    "migrate-compcache nosuch --size 5",
    "migrate-compcache test 5",
    "migrate-postcopy nosuch",
    "domifstat nosuch x",
    "domrename nosuch x",
    "setmem test",
    "setmem test 1x",
    "setmem test 1 --live --current",
    "setvcpus test 0",
    "setvcpus test 2 --maximum",
    "send-key test",
    "send-key test KEY_FOO",
    "send-key test --codeset foo KEY_A",
    "dommemstat test --live --current",
    "qemu-monitor-command test",
    "qemu-monitor-command test --hmp --pretty x",
    "domstats nosuch",
    "save nosuch /x",
    "restore",
    "event",
    "event --list",
    "event --all --event lifecycle",
    "event --list --all",
    "event --event nosuch",
    "event --event lifecycle --timeout x",
    "event --event lifecycle --timeout 0",
    "event nosuch --all",
]


def ours(line: str) -> tuple[int, str, str]:
    """Run our virsh in process."""
    return run_lines(URI, open_uri, [[line]])[0]


def theirs(line: str) -> tuple[int, str, str]:
    """Run the real one, again where it does not end: what fails at once may have done so before it is waited for."""
    argv = ["virsh", "-c", URI, line]
    for _ in range(12):
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=5, check=False, stdin=subprocess.DEVNULL
            )
            return done.returncode, done.stdout, done.stderr
    raise AssertionError(f"virsh does not end: {line}")


@pytest.mark.parametrize("line", LINES)
def test_a_line_gives_what_virsh_gives(line: str) -> None:
    assert ours(line) == theirs(line)
