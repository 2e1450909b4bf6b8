"""What the test driver does to domains, beside libvirt's: our virsh on our driver, the real virsh on its own."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from pathlib import Path

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
    "snapshot-create-as test s1; snapshot-revert test s1 --running --paused; "
    "snapshot-delete test s1 --children --children-only; snapshot-create test moment.xml --current",
    "checkpoint-create test --redefine-validate; checkpoint-create-as test c1; "
    "checkpoint-delete test c1 --children --children-only",
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
# What "virsh dumpxml" printed of a running machine.
LIVE = """<domain type='test' id='7'><name>live</name><uuid>08721f99-3d1d-4aec-96eb-97803297bb40</uuid>
<memory>65536</memory><os><type>hvm</type></os><devices>
<disk type='file'><source file='/a' index='3'/><target dev='vda'/><alias name='virtio-disk0'/></disk>
<interface type='bridge'><mac address='52:54:00:00:00:02'/><source bridge='br0'/><target dev='vnet3'/></interface>
<interface type='bridge'><mac address='52:54:00:00:00:03'/><source bridge='br0'/><target dev='mytap'/></interface>
<serial type='pty'><source path='/dev/pts/3'/><target port='0'/><alias name='serial0'/></serial>
<channel type='unix'><source mode='bind' path='/x'/><target type='virtio' name='a' state='connected'/></channel>
<graphics type='vnc' port='5905' autoport='yes'/></devices></domain>"""
MACHINES = [
    "define live.xml; dumpxml live; start live; dumpxml live; domiflist live",
    "domhostname test",
    "domhostname test; destroy test; domhostname test",
    "domtime test; domtime test --pretty; domtime test --now; domtime test 12345; domtime test; "
    "domtime test --sync; destroy test; domtime test",
    "domtime test 5000; domcontrol test; domtime test 15000; domcontrol test; domtime test 30001; "
    "domcontrol test; domtime test 30002; domcontrol test; domtime test 70000; domcontrol test",
    "domfsfreeze test; domfsfreeze test; domfsthaw test; domfsthaw test; domfsfreeze test --mountpoint /; "
    "domfsfreeze test; domfsthaw test /boot; domfsfreeze test /nosuch; domfsthaw test /nosuch; "
    "domfstrim test; domfstrim test --mountpoint /; domfstrim test --mountpoint /x",
    "domfsinfo test; destroy test; domfsinfo test",
    "domblkerror test; destroy test; domblkerror test",
    "domblkinfo test vda; domblkinfo test vda --human; domblkinfo test --all; domblkinfo test nosuch; "
    "destroy test; domblkinfo test vda",
    "domifstat test nosuch; destroy test; domifstat test testnet0",
    "dommemstat test; dommemstat test --period 3; dommemstat test --period 3 --live; "
    "dommemstat test --period 4 --config; dumpxml test; destroy test; dommemstat test",
    "destroy test; domstats",
    "domstats --list-inactive test; domstats --list-active test; destroy test; domstats --list-shutoff test; "
    "domstats test --list-transient; setvcpus test 1 --maximum; setvcpus test 1 --maximum --config",
    "domstats --enforce; domstats --state --enforce test; domstats --vcpu --enforce test; "
    "domstats --vm --balloon --state --enforce; shutdown test --mode agent; vcpucount test --guest; "
    "setvcpus test 2 --guest",
    "setmem test 1024M; dominfo test; setmem test 100G; setmem test 1G --config; setmem test 512M --current; "
    "dominfo test; setmem test 5000 --live --config; setmaxmem test 16G; setmaxmem test 16G --config; "
    "setmaxmem test 16G --live; destroy test; setmem test 1G; setmaxmem test 16G; setmaxmem test 1G; "
    "dominfo test; dumpxml test",
    "setvcpus test 1; vcpucount test; setvcpus test 3; setvcpus test 33; setvcpus test 1 --config; "
    "setvcpus test 4 --config --maximum; vcpucount test; setvcpus test 4 --config; setvcpus test 0; "
    "destroy test; setvcpus test 1; vcpucount test; dumpxml test --inactive",
    "save test saved; domstate test --reason; list --all; restore saved; domstate test --reason; list; "
    "save-image-dumpxml saved; restore saved; restore /nosuch; save test /nosuch/x",
    "save nosuch saved",
    "save 1 saved; restore saved; dump 6695eb01-f6a4-8304-79aa-97f2502e193f dumped; save 2 /nosuch/x; "
    "dump 2 /nosuch/x; managedsave test --running --paused; save test saved --running --paused; list --all",
    "destroy test; save test saved",
    "undefine test; save test saved; list --all; restore saved; list --all; dominfo test",
    "restore /etc/passwd",
    "dump test dumped --bypass-cache",
    "save test saved --bypass-cache",
    "managedsave test --bypass-cache; start test --force-boot; domstate test --reason",
    "save-image-dumpxml /etc/passwd",
    "destroy test; blkdeviotune test vda --total-bytes-sec 100 --total-bytes-sec-max 200 --config; "
    "blkdeviotune test vda --live; blkdeviotune test vda",
    "blkdeviotune test vda --total-bytes-sec 100T",
    "domrename test foo; destroy test; domrename test foo; list --all; domrename foo a/b; domrename foo foo; "
    "dumpxml foo",
    "inject-nmi test; destroy test; inject-nmi test",
    "send-key test KEY_A; send-key test 30 31 --codeset linux; send-key test 300000; "
    "send-key test --codeset xt 30; destroy test; send-key test 30",
    "send-key test KEY_F13 KEY_SLEEP KEY_ZENKAKUHANKAKU; send-key test KEY_VOLUMEUP KEY_UWB 183; send-key test 170",
    "set-user-password test root foo; set-user-password test root foo --encrypted; destroy test; "
    "set-user-password test root foo",
    "screenshot test picture",
    "shutdown test; start test; reboot test; domstate test --reason",
    "suspend test; save test saved; restore saved; domstate test --reason",
    "undefine test --nvram",
    "managedsave test; undefine test; undefine test --keep-nvram; undefine test --keep-tpm --managed-save; list --all",
    "snapshot-create-as test s1; managedsave test; undefine test --tpm; "
    "undefine test --keep-nvram --managed-save --snapshots-metadata; undefine test --snapshots-metadata; "
    "undefine test --managed-save --snapshots-metadata; list --all",
    "undefine test --checkpoints-metadata",
    "undefine test --tpm",
    "managedsave test; domstate test --reason; list --all --managed-save; managedsave-remove test; "
    "managedsave-remove test; undefine test; list --all",
    "managedsave test; start test; dominfo test; domstate test --reason; list --managed-save",
    "domifaddr test; domifaddr test --source agent; domifaddr test --full testnet0; domifaddr test --full nosuch; "
    "destroy test; domifaddr test; start test; domifaddr test --source arp; sysinfo",
    "managedsave test; undefine test; list --all; undefine test --managed-save; list --all",
    "domblkstat test nosuch; destroy test; domblkstat test vda",
    "blkdeviotune test vda; blkdeviotune test vda --total-bytes-sec 100 --total-bytes-sec-max 200; "
    "blkdeviotune test vda; dumpxml test; blkdeviotune test vda 1000; "
    "blkdeviotune test vda --read-bytes-sec 10 --read-bytes-sec-max 20; blkdeviotune test nosuch; "
    "blkdeviotune test vda --config; "
    "blkdeviotune test vda --group-name foo --total-iops-sec 5 --total-iops-sec-max 50",
    "cpu-models x86_64; cpu-models ppc64; cpu-models s390x; cpu-models alpha; cpu-models nosuch",
    "cpu-compare /etc/hostname; domcapabilities; hypervisor-cpu-compare /nosuch",
    "freepages --all; freepages; freepages 0; freepages --cellno 9 --pagesize 4; freepages --all --pagesize 2M",
    "allocpages 4 1; node-memory-tune; node-memory-tune 1; nodesuspend mem 60",
    "domlaunchsecinfo test; schedinfo test --live; schedinfo test --config; schedinfo test --weight -1; "
    "schedinfo test --weight 4294967296; perf test --enable cmt --disable cmt; perf test --enable cmt,cmt",
    "setmem test 0; setmem test ''; setmem test 1.5G; setmem test 18446744073709551615; setmem test 17E; "
    "setmaxmem test 0 --config; setvcpus test 4294967296; vcpupin test 4294967296; dommemstat test --period -1",
    "event --event lifecycle --timeout 99999999999; event --event lifecycle --timeout 0; domtime test -- -3",
    "domjobinfo test; domjobinfo test --completed; domjobinfo test --rawstats; domjobinfo test --keep-completed",
    "create drawn.xml; dumpxml drawn; domiflist drawn; domifaddr drawn",
    "domstats; domstats --state; domstats test; domstats --iothread; domstats --vcpu; domstats --raw; "
    "destroy test; domstats",
]


DRAWN = """<domain type='test'><name>drawn</name><uuid>11111111-2222-3333-4444-555555555555</uuid>
<memory>65536</memory><os><type>hvm</type></os><devices>
<interface type='network'><mac address='52:54:00:11:22:33'/><source network='default'/></interface>
<interface type='network'><mac address='52:54:00:11:22:34'/><source network='default'/>
<target dev='testnet0'/></interface>
<graphics type='vnc' port='5901'/></devices></domain>"""


def normal(answer: tuple[int, str, str]) -> tuple[int, str, str]:
    """An answer without what the clock says."""
    code, out, err = answer
    return code, _CLOCK.sub("TIME", out), _CLOCK.sub("TIME", err)


def theirs(line: str) -> tuple[int, str, str]:
    for patience in (3,) * 15:
        # While it saves, virsh now and then waits for its own thread for ever.
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                ["virsh", "-c", URI, line], capture_output=True, text=True, timeout=patience, check=False,
                stdin=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C.UTF-8"},
            )  # fmt: skip
            return done.returncode, done.stdout, done.stderr
    pytest.fail(f"virsh does not end: {line}")


@pytest.mark.parametrize("line", MOMENTS + MACHINES)
def test_a_line_gives_what_virsh_gives(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "drawn.xml").write_text(DRAWN)
    (tmp_path / "live.xml").write_text(LIVE)
    (tmp_path / "moment.xml").write_text("<domainsnapshot><name>m</name></domainsnapshot>")
    assert normal(run_lines(URI, open_uri, [[line]])[0]) == normal(theirs(line))
