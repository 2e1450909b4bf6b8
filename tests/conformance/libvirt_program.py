"""A program that uses libvirt: what it prints is compared. ``libvirt_program.py MODULE URI``."""

import importlib
import sys
from collections.abc import Callable
from typing import Any

libvirt = importlib.import_module(sys.argv[1])
libvirt.registerErrorHandler(lambda context, error: None, None)


def tried(call: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, or libvirt's number for why there is none: ours has more to say than its text."""
    try:
        return call(*arguments)
    except libvirt.libvirtError as error:
        assert str(error) == error.get_error_message()
        return f"error {error.get_error_code()}"


uri = sys.argv[2]
connection = libvirt.open(uri)
print(connection.getType(), connection.getVersion(), connection.getLibVersion())
print(connection.isAlive(), connection.isEncrypted(), connection.isSecure())
print(connection.numOfDomains(), connection.listDomainsID(), connection.listDefinedDomains())
domain = connection.lookupByName("test")
print(domain.name(), domain.ID(), domain.UUIDString(), domain.UUID(), domain.OSType())
print(
    domain.info()[:4], domain.state(), domain.maxMemory(), domain.maxVcpus(), domain.isActive(), domain.isPersistent()
)
print([each.name() for each in connection.listAllDomains()])
print(tried(connection.lookupByName, "nobody"))
print(tried(connection.lookupByID, 77))
print(tried(connection.lookupByUUIDString, "no uuid"))
print(tried(connection.lookupByUUIDString, "6695eb01-f6a4-8304-79aa-97f2502e1930"))
print(tried(domain.create))
print(domain.suspend(), domain.state(), domain.resume(), domain.state())
print(domain.destroy(), domain.ID(), domain.state(), tried(domain.destroy))
print(domain.create(), domain.ID(), domain.state())
print(domain.autostart(), domain.setAutostart(1), domain.autostart())
print(domain.shutdown(), domain.state())
document = "<domain type='test'><name>second</name><memory>65536</memory><os><type>hvm</type></os></domain>"
second = connection.defineXML(document)
print(second.name(), second.ID(), second.info()[:4], len(second.UUIDString()), connection.numOfDefinedDomains())
print(sorted(each.name() for each in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_INACTIVE)))
print(second.undefine(), tried(second.info))
print(tried(connection.defineXML, "<domain"))
print(tried(connection.defineXML, "<domain type='test'><name>x</name></domain>"))

network = connection.networkLookupByName("default")
print(network.name(), network.bridgeName(), network.isActive(), network.isPersistent(), network.autostart())
print(network.destroy(), network.isActive(), network.create(), network.isActive())
print(tried(connection.networkLookupByName, "nowhere"))
print([each.name() for each in connection.listAllNetworks()], connection.listNetworks())

pool = connection.storagePoolLookupByName("default-pool")
print(pool.name(), pool.info(), pool.isActive(), pool.isPersistent(), pool.numOfVolumes(), pool.listVolumes())
volume = pool.createXML("<volume><name>a.img</name><capacity unit='MiB'>10</capacity></volume>", 0)
print(volume.name(), volume.key(), volume.path(), volume.info())
print([each.name() for each in pool.listAllVolumes()], pool.storageVolLookupByName("a.img").name())
print(volume.storagePoolLookupByVolume().name(), connection.storageVolLookupByPath(volume.path()).name())
print(volume.delete(), tried(pool.storageVolLookupByName, "a.img"))
print(tried(connection.storagePoolLookupByName, "none"))

reader = libvirt.openReadOnly(uri)
print(tried(reader.lookupByName("test").destroy))

# What arguments become, and what is refused before anybody is asked.


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call answers, or by what and how it is refused."""
    try:
        return call(*arguments)
    except libvirt.libvirtError as error:
        return type(error).__name__, error.get_error_code(), error.get_error_domain()
    except (TypeError, LookupError, OverflowError) as error:
        return type(error).__name__


domain = connection.lookupByName("test")
tried(domain.create)
print(outcome(domain.XMLDesc, -1), outcome(domain.XMLDesc, "x"), outcome(domain.setAutostart, 1 << 40))
print(outcome(domain.blockInfo, None), outcome(domain.blockInfo, 5), outcome(connection.lookupByName, None))
print(outcome(connection.lookupByUUIDString, None), outcome(connection.networkLookupByUUIDString, "no"))
print(outcome(network.portLookupByUUIDString, "no"), outcome(network.portLookupByUUIDString, None))
for call in (domain.setMemory, domain.setMemoryFlags, domain.setMaxMemory, domain.setVcpus, domain.setVcpusFlags):
    print(outcome(call, 0))
print(outcome(connection.domainListGetStats, []), outcome(connection.domainListGetStats, [domain])[0][1])
print(outcome(domain.setMemoryParameters, {}), outcome(domain.setMemoryParameters, {"nosuch": 1}))
print(outcome(domain.setBlockIoTune, "vda", {"read_bytes_sec": 5}), sorted(domain.blockIoTune("vda").items()))
print(
    outcome(domain.setInterfaceParameters, "testnet0", {"inbound.average": 7}), domain.interfaceParameters("testnet0")
)
print(outcome(domain.setTime), outcome(domain.setTime, {}), outcome(domain.setTime, {"seconds": 1, "nseconds": 2}))
print(outcome(domain.abortJob), outcome(network.DHCPLeases), outcome(domain.openConsole, None, None))
print(outcome(connection.defineXML, "<domain"), outcome(connection.networkDefineXML, "<network"))
print(outcome(connection.storagePoolDefineXML, "<pool"), outcome(domain.snapshotCreateXML, "<domainsnapshot"))

# The forms of answers that are not those of the wire.
print(connection.getInfo(), connection.getCPUMap(), domain.securityLabel())
print(domain.blockInfo("vda"), domain.fsInfo(), domain.messages())
clone = pool.createXML("<volume><name>b.img</name><capacity unit='MiB'>1</capacity><allocation/></volume>", 0)
print(clone.info())
second = pool.createXMLFrom("<volume><name>c.img</name><capacity unit='MiB'>1</capacity></volume>", clone, 0)
print(second.name(), second.info(), second.delete(), clone.delete())
picture = connection.newStream()
print(domain.screenshot(picture, 0), picture.recv(8), picture.abort())
unopened = connection.newStream()
print(outcome(unopened.recv, 1), outcome(unopened.finish), outcome(unopened.abort), outcome(connection.newStream, "x"))

for arch in ("x86_64", "i686", "ppc64le", "aarch64", "s390x", "riscv64", "armv7b", "nosuch"):
    print(outcome(connection.getCPUModelNames, arch))

# Objects, and how long a connection is there.
snapshot = domain.snapshotCreateXML("<domainsnapshot><name>one</name></domainsnapshot>")
print(snapshot.domain() is domain, snapshot.getConnect() is connection, domain.connect() is connection)
print([each.domain() is domain for each in domain.listAllSnapshots()], snapshot.delete())
print(outcome(connection.getHostname) != "", libvirt.libvirtError("plain").err, str(libvirt.libvirtError("plain")))
print(
    outcome(connection.domainEventRegisterAny, None, 0, print, None), outcome(libvirt.virEventAddHandle, 0, 1, print, 0)
)
libvirt.virEventRegisterDefaultImpl()
first, other = (
    connection.domainEventRegisterAny(None, 0, print, None),
    connection.networkEventRegisterAny(None, 0, print, 0),
)
print(
    other - first,
    outcome(connection.domainEventDeregisterAny, first),
    outcome(connection.domainEventDeregisterAny, first),
)
print(outcome(connection.networkEventDeregisterAny, other))
print(libvirt.virEventAddTimeout(-1, print, None) > 0, outcome(libvirt.virEventRemoveHandle, 77))
held = libvirt.open(uri)
kept = held.lookupByName("test")
print(held.close(), kept.name(), kept.state(), outcome(kept.connect().getURI), outcome(held.isAlive)[:2])
print(outcome(held.close)[:2], outcome(held.listAllDomains), outcome(kept.connect().lookupByName, "test"))
del kept
print(libvirt.open(uri).close())
