"""What libvirt's error struct says, member by member: by a real libvirtd, by our daemon, and in process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import hosteld, libvirtd
from support.additions import without_additions

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("virt-install"),
    pytest.mark.requires_tool("libvirtd"),
    pytest.mark.requires_tool("qemu-system-x86_64"),
]

PROGRAM = """
import importlib, sys
libvirt = importlib.import_module(sys.argv[1])
libvirt.registerErrorHandler(lambda context, error: None, None)
libvirt.virEventRegisterDefaultImpl()
c = libvirt.open(sys.argv[2])
xml = '''<domain type='qemu'><name>%s</name><memory unit='MiB'>32</memory><vcpu current='1'>2</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os><devices>
<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng></devices></domain>'''
off, on = c.defineXML(xml % "off"), c.createXML(xml % "on", libvirt.VIR_DOMAIN_START_PAUSED)
pool = c.storagePoolCreateXML("<pool type='dir'><name>p</name><target><path>%s</path></target></pool>" % sys.argv[3])
volume = pool.createXML("<volume><name>v</name><capacity>4096</capacity></volume>")
secret = c.secretDefineXML("<secret/>")
network = c.networkDefineXML("<network><name>n</name></network>")
unknown = 1 << 30
c.domainEventRegisterAny(None, 0, print, None)
try:
    for line in sys.argv[4].strip().splitlines():
        try:
            found = eval(line)
        except libvirt.libvirtError as error:
            found = error.err
        except Exception as error:
            found = type(error).__name__
        print(line, "|", str(found).replace(sys.argv[3], "FOLDER"))
finally:
    on.destroy()
    off.undefine()
    volume.delete()
    pool.destroy()
    secret.undefine()
    network.undefine()
"""
# Flags that nobody knows: by which function they are refused.
FLAGS = """
off.state(unknown); off.reset(unknown); off.controlInfo(unknown); off.managedSave(unknown); off.managedSave(8)
off.metadata(1, None, unknown); off.coreDump('/x', unknown); off.getTime(unknown); off.guestInfo(0, unknown)
off.fsFreeze(None, unknown); off.vcpuPinInfo(unknown); off.jobStats(unknown); off.saveParams({'weight': 1}, unknown)
off.attachDeviceFlags('<x/>', unknown); off.detachDeviceFlags('<x/>', unknown); off.detachDeviceAlias('x', unknown)
off.snapshotCreateXML('<domainsnapshot/>', unknown); off.snapshotLookupByName('x', unknown)
off.backupBegin('<x/>', None, unknown)
off.checkpointCreateXML('<x/>', unknown); off.checkpointLookupByName('x', unknown); off.backupGetXMLDesc(unknown)
off.openConsole(None, c.newStream(), unknown); off.blockPull('vda', 0, unknown); off.getCPUStats(True, unknown)
c.getCPUMap(unknown); c.getCPUStats(0, unknown); c.getMemoryStats(0, unknown); c.getMemoryParameters(unknown)
c.getCPUModelNames('x86_64', unknown); c.saveImageGetXMLDesc('/nowhere', unknown); c.numOfDevices(None, unknown)
c.listAllNWFilters(unknown); c.listAllInterfaces(unknown); c.listAllSecrets(unknown); c.listAllDevices(unknown)
pool.XMLDesc(unknown); pool.refresh(unknown); pool.listAllVolumes(unknown); volume.wipe(unknown)
volume.delete(unknown)
volume.infoFlags(unknown); secret.XMLDesc(unknown); secret.value(unknown); network.listAllPorts(unknown)
"""
STATES = """
off.migrateSetMaxSpeed(10); off.migrateGetMaxSpeed(); off.shutdownFlags(0); off.shutdownFlags(2); off.shutdownFlags(4)
off.reboot(0); off.reboot(2); off.reboot(4); off.guestInfo(); off.pMSuspendForDuration(0, 0); off.setVcpusFlags(1, 8)
off.authorizedSSHKeysGet('a'); off.sendKey(0, 0, [999], 1); on.sendKey(0, 0, [999], 1); off.detachDeviceAlias('nosuch')
on.detachDeviceAlias('nosuch', 3); on.blockCopy('vda', '<x/>'); off.snapshotCreateXML('<x/>')
c.networkCreateXML('<x/>')
on.checkpointCreateXML('<x/>'); c.storagePoolDefineXML('<pool/>'); c.nodeDeviceCreateXML('<x/>'); c.defineXML('<x/>')
c.defineXML('<domain/>'); c.defineXML("<domain type='x'/>"); c.defineXML("<domain type='qemu'/>")
c.defineXML("<domain type='qemu'><name/></domain>"); c.defineXML("<domain type='qemu'><name>a</name></domain>")
c.defineXML('<domain><name>a</name></domain>'); c.defineXML("<domain type='x'><name>a</name></domain>")
c.defineXML("<domain type='qemu'><name>a</name><os/></domain>")
c.defineXML("<domain type='qemu'><name>a</name><memory>1</memory><os><type>x</type></os></domain>")
c.defineXML("<domain type='qemu'><name>a</name><memory>1</memory><os><type arch='x'>hvm</type></os></domain>")
c.numOfDefinedInterfaces(); c.listDefinedInterfaces(); c.numOfInterfaces()
off.memoryStats(); off.blockStats('vda'); off.injectNMI(0); off.abortJob(); off.maxVcpus(); on.maxVcpus()
on.shutdownFlags(1); off.backupGetXMLDesc(); c.createXML(on.XMLDesc(8)); c.lookupByID(77); off.fsThaw(None)
off.setNumaParameters({'x': 1}, 3); off.interfaceParameters('x', 3); off.setVcpu('0', -1)
off.pinVcpuFlags(5, (True,), 2)
on.pinVcpuFlags(5, (True,), 1)
on.detachDevice("<rng model='virtio'><backend model='random'>/dev/random</backend></rng>")
network.portLookupByUUIDString('11111111-1111-4111-8111-111111111111'); secret.setValue('', 0)
secret.setValue(None, 0); secret.setValue('text', 0); secret.value(); secret.setValue(5, 0); c.getCPUStats(77)
off.saveParams({'total_bytes_sec': 1}); c.restoreParams({'weight': 1}); c.networkDefineXML('<network/>')
off.snapshotCreateXML('<domainsnapshot/>', 64); off.snapshotCurrent(); c.interfaceLookupByName('lo').create(5)
c.changeBegin(5)
pool.createXML('<volume><name>v</name><capacity>1</capacity></volume>'); c.lookupByName('')
off.blockInfo(''); off.setTime({'seconds': 1}); c.getFreePages([5], 0, 1); c.getFreePages([4], 9, 1)
c.suspendForDuration(0, 60); c.suspendForDuration(9, 60)
off.detachDeviceFlags("<disk type='file'><target dev='nosuch'/></disk>", 2)
on.detachDeviceFlags("<disk type='file'><target dev='vdz'/></disk>", 1)
on.detachDeviceFlags("<disk type='file'><target dev=''/></disk>", 1)
c.createXML((xml % 'i').replace('<rng', "<sound model='ich7'/><rng", 1))
c.networkEventDeregisterAny(77); c.storagePoolEventDeregisterAny(77); c.nodeDeviceEventDeregisterAny(77)
"""


def run(interpreter: str, module: str, uri: str, folder: Path, home: Path) -> list[str]:
    lines = "\n".join(line.strip() for line in f"{FLAGS};{STATES}".replace("\n", ";").split(";") if line.strip())
    done = subprocess.run(
        [interpreter, "-c", PROGRAM, module, uri, str(folder), lines],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "HOSTEL_HOME": str(home)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [without_additions(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    with libvirtd.running() as daemon:
        daemon.skip_unless_recorded()
        folder = Path(daemon.uri.partition("socket=")[2]).parents[2]
        pool = folder / "pool"
        pool.mkdir()
        pool.chmod(0o777)
        found = run(hosteld.PYTHON, "libvirt", daemon.uri, pool, folder)
    assert len(found) > 70
    return found


def test_a_client_of_our_daemon_is_told_the_same(expected: list[str], tmp_path: Path) -> None:
    with hosteld.process() as daemon:
        found = run(hosteld.PYTHON, "libvirt", daemon.uri("qemu:///session"), tmp_path, tmp_path)
    assert [pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]] == []


def test_a_program_is_told_the_same_in_process(expected: list[str], tmp_path: Path) -> None:
    found = run(sys.executable, "hostel.libvirt", "qemu:///session", tmp_path, tmp_path)
    assert [pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]] == []
