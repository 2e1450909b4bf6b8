"""What is refused of QEMU's machines, and in which words: the real virsh on libvirt's daemon and on ours.

One machine runs, one is defined, and one runs without a definition.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support import hosteld, libvirtd
from support.virsh import real_lines

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("libvirtd"),
    pytest.mark.requires_tool("virsh"),
    pytest.mark.requires_tool("qemu-system-x86_64"),
]
XML = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><vcpu current='1'>2</vcpu>
<iothreads>1</iothreads><os><type arch='x86_64' machine='pc'>hvm</type></os><devices>
<emulator>/usr/bin/qemu-system-x86_64</emulator>
<interface type='user'><mac address='52:54:00:00:00:0{number}'/><model type='virtio'/></interface></devices></domain>"""
# Each is refused, or changes a definition in a way that the next ones do not look at.
LINES = """
setvcpus run 9; setvcpus run 9 --config; setvcpus off 2; setvcpus off 2 --live; setvcpus off 9 --config
setvcpus off 3 --maximum; setvcpus run 4 --maximum; setvcpus run 4 --maximum --live; setvcpus tran 2 --config
setvcpus run 0; setvcpus run 2 --guest --maximum; setvcpus off 2 --guest
setmem run 0; setmem off 10M; setmem off 10M --live; setmem tran 10M --config; setmaxmem off 0 --config
setmaxmem off 1G --live; setmaxmem tran 1G --config
setvcpu run 0 --disable; setvcpu run 5 --enable; setvcpu run x --enable; setvcpu run '' --enable
setvcpu off 1 --enable; setvcpu off 0 --disable --config; setvcpu off 9 --enable --config
setvcpu tran 1 --enable --config; guestvcpus off
iothreadinfo off --live; iothreadinfo tran --config; iothreadadd run 1; iothreadadd run 0; iothreadadd run -1
iothreadadd off 5 --live; iothreadadd off 1 --config; iothreadadd tran 5 --config; iothreaddel run 9
iothreaddel run 0; iothreaddel off 9 --config; iothreaddel off 1 --live; iothreaddel tran 1 --config
iothreadpin run 9 0; iothreadpin run 1 99; iothreadpin run 1 ^1; iothreadpin run 0 0
iothreadpin off 1 0 --live; iothreadpin off 9 0 --config; iothreadset run 1; iothreadset run 9 --poll-max-ns 5
iothreadset off 1 --poll-max-ns 5; iothreadset run 1 --poll-grow -1
iothreadset run 1 --thread-pool-min 5 --thread-pool-max 2; iothreadset run 1 --thread-pool-max -2
emulatorpin run 99; emulatorpin run ^0; emulatorpin run x; emulatorpin off 0 --live; emulatorpin off --live
emulatorpin tran 0 --config
vcpupin run 9 0; vcpupin run 0 99; vcpupin run 0 x; vcpupin run 0 ''; vcpupin off 0 0; vcpupin off 0 0 --live
vcpupin off 9 0 --config; vcpupin tran 0 0 --config; vcpupin tran --config; vcpucount off --live
numatune run --nodeset x; numatune off --nodeset 99 --config; numatune off --mode interleave --nodeset 0 --live
numatune tran --mode strict --config; numatune off --nodeset '' --config
perf off --enable nosuch --config; perf off --enable cmt --live; perf off --enable cmt,cmt --config
domiftune run 52:54:00:00:00:01 --inbound 1,2,3,4,5; domiftune off 52:54:00:00:00:02 --inbound 100
domiftune off nosuch --inbound 100 --config; domiftune off 52:54:00:00:00:02 --outbound 1,2,3,4 --config
dommemstat off; dommemstat off --period 5 --live; cpu-stats off
iface-begin; iface-commit; iface-start nosuch
domjobabort run; domjobabort off; domjobabort run --postcopy; domjobinfo off; migrate-getspeed off
destroy off; suspend off; resume run; resume off; reset off; reboot off; shutdown off; inject-nmi off
send-key off 30; send-key run 999999; screenshot off shot; screenshot run shot --screen 5
save off sv; managedsave tran; managedsave off; managedsave-remove off
set-lifecycle-action off poweroff restart --live; set-lifecycle-action tran poweroff restart --config
domrename run x; domrename off run; snapshot-revert off nosuch; snapshot-delete off nosuch
snapshot-create-as off s --redefine; undefine tran; autostart tran; migrate-setmaxdowntime off 5
domblkstat off vda; domifstat run nosuch; domifaddr off; domif-setlink run nosuch up; start run
qemu-monitor-command off query-status; domdirtyrate-calc off; domtime off; domhostname off; domfsinfo off
qemu-agent-command off x
"""


@pytest.fixture(scope="module")
def uris(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    folder: Path = tmp_path_factory.mktemp("machines")
    with hosteld.process() as ours, libvirtd.running() as theirs:
        theirs.skip_unless_recorded()
        found = ours.uri("qemu:///session"), theirs.uri
        for number, name in enumerate(("run", "off", "tran"), 1):
            (folder / name).write_text(XML.format(name=name, number=number))
        for uri in found:
            steps = (f"define {folder}/run", "start run", f"define {folder}/off", f"create {folder}/tran")
            assert not [complaint for _, complaint in real_lines(uri, steps) if complaint]
        yield found
        for uri in found:
            real_lines(uri, ["destroy run", "destroy tran"])


def test_refusals_are_libvirts_in_words(uris: tuple[str, str]) -> None:
    lines = [line.strip() for line in LINES.replace("\n", ";").split(";") if line.strip()]
    # The daemons are asked side by side, each of them one line after the other.
    with ThreadPoolExecutor(2) as pool:
        ours, theirs = pool.map(lambda uri: real_lines(uri, lines), uris)
    assert len(ours) == len(theirs) == len(lines)
    different = [(line, mine, real) for line, mine, real in zip(lines, ours, theirs, strict=True) if mine != real]
    assert not different
