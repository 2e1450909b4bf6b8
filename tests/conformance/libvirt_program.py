"""A program that uses libvirt: what it prints is compared. ``libvirt_program.py MODULE URI``."""

import importlib
import sys

libvirt = importlib.import_module(sys.argv[1])
libvirt.registerErrorHandler(lambda context, error: None, None)


def tried(call, *arguments):
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
