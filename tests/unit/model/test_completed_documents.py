"""What is left out of a document is said, and what has no place in it is left out."""

from __future__ import annotations

import pytest

from hostel.errors import ErrorCode, ModelError
from hostel.model.checkpoint import read_checkpoint
from hostel.model.network import ForwardInterface
from hostel.model.network_defaults import complete_inactive, read_network
from hostel.model.node_device import read_node_device
from hostel.model.pool import read_pool
from hostel.model.secret import read_secret
from hostel.model.snapshot import read_snapshot
from hostel.model.storage import PoolType
from hostel.model.volume import read_volume


def device(capability: str, *, name: str = "<name>n</name>", more: str = "") -> str:
    """A device as it is written, without its name and its blanks."""
    text = read_node_device(f"<device>{name}{more}{capability}</device>").format()
    return "".join(line.strip() for line in text.splitlines()).partition("</name>")[2].removesuffix("</device>")


PLACE = "<domain>0</domain><bus>0</bus><slot>1</slot><function>0</function>"
NAMES = "<product id='0x1'>P</product><vendor id='0x2'>V</vendor>"


def test_what_a_pci_device_can_do_is_in_order() -> None:
    capability = "<capability type='pci-bridge'/><capability type='virt_functions' maxCount='2'/>"
    text = device(f"<capability type='pci'>{PLACE}{NAMES}{capability}<iommuGroup number='1'/></capability>")
    assert text.index("virt_functions") < text.index("pci-bridge")
    assert "iommuGroup" not in text  # it has no device


def test_what_a_network_card_can_do_is_in_order() -> None:
    features = "<feature name='txudptnl'/><feature name='rx'/><feature name='tx'/>"
    text = device(f"<capability type='net'><interface>e</interface>{features}</capability>")
    assert text.index("'rx'") < text.index("'tx'") < text.index("'txudptnl'")


def test_a_mediated_device_is_in_a_group() -> None:
    assert "<iommuGroup number='0'/>" in device("<capability type='mdev'><type id='t'/></capability>")


def test_what_can_be_taken_out_has_the_size_of_what_is_in_it() -> None:
    removable = (
        "<capability type='removable'><media_available>1</media_available><media_size>5</media_size></capability>"
    )
    text = device(f"<capability type='storage'><block>/b</block><size>9</size>{removable}</capability>")
    assert "<size>9</size>" not in text and "<media_size>5</media_size>" in text


def test_ports_of_a_fibre_channel_card_are_the_hosts_to_count() -> None:
    ports = "<capability type='vport_ops'><max_vports>9</max_vports><vports>8</vports></capability>"
    channel = "<capability type='fc_host'><wwnn>1</wwnn><wwpn>2</wwpn><fabric_wwn>3</fabric_wwn></capability>"
    text = device(f"<capability type='scsi_host'><host>1</host>{ports}{channel}</capability>")
    assert text.index("fc_host") < text.index("vport_ops")
    assert "<max_vports>0</max_vports><vports>0</vports>" in text


@pytest.mark.parametrize(
    ("xml", "path", "code"),
    [("<device/>", "/device/name", ErrorCode.NO_NAME),
     ("<device><name>n</name></device>", "/device/capability", ErrorCode.INTERNAL_ERROR),
     ("<device><name>n</name><parent wwnn='1'/></device>", "/device/parent/@wwpn", ErrorCode.XML_ERROR),
     ("<device><name>n</name><parent wwpn='1'/></device>", "/device/parent/@wwnn", ErrorCode.XML_ERROR),
     ("<device><name>n</name><capability type='storage'><block>/b</block></capability></device>",
      "/device/capability[1]/size", ErrorCode.INTERNAL_ERROR),
     ("<device><name>n</name><capability type='scsi_host'/></device>",
      "/device/capability[1]/host", ErrorCode.INTERNAL_ERROR)],
)  # fmt: skip
def test_a_wrong_device_is_refused_where_it_is_wrong(xml: str, path: str, code: ErrorCode) -> None:
    with pytest.raises(ModelError) as raised:
        read_node_device(xml)
    assert (raised.value.path, raised.value.code) == (path, code)


def test_a_new_device_needs_no_name_and_no_number() -> None:
    assert read_node_device("<device><capability type='scsi_host'/></device>", is_new=True).name == "new device"


FORWARD = "<network connections='1'><name>n</name><forward mode='{}'>{}</forward>{}</network>"
FUNCTIONS = "<address type='pci' domain='0' bus='0' slot='1' function='0' connections='3'/>"


def test_what_is_in_use_is_not_kept() -> None:
    network = read_network(FORWARD.format("hostdev", FUNCTIONS, ""))
    complete_inactive(network)
    assert "connections" not in network.format()
    plain = read_network(FORWARD.format("passthrough", "<interface dev='a' connections='2'/>", ""))
    complete_inactive(plain)
    assert "connections" not in plain.format()
    alone = read_network("<network connections='2'><name>n</name></network>")
    complete_inactive(alone)
    assert "connections" not in alone.format()


def test_functions_of_a_device_are_found_when_it_is_started() -> None:
    network = read_network(FORWARD.format("passthrough", "<pf dev='p'/>", ""))
    assert network.forward is not None
    network.forward.interfaces.append(ForwardInterface(dev="a"))
    complete_inactive(network)
    assert "<interface" not in network.format()


def test_no_ports_are_all_ports() -> None:
    ip = "<ip address='192.0.2.1' prefix='24'/>"
    assert "<port" not in read_network(FORWARD.format("nat", "<nat><port start='0' end='0'/></nat>", ip)).format()


def test_a_new_snapshot_is_named_by_its_time() -> None:
    body = "<parent><name>p</name></parent><state>running</state><disks><disk name='vda'/></disks>"
    snapshot = read_snapshot(f"<domainsnapshot>{body}</domainsnapshot>", now=7)
    assert (snapshot.name, snapshot.creation_time, snapshot.parent, snapshot.state) == ("7", 7, None, None)
    named = read_snapshot("<domainsnapshot><name>a</name></domainsnapshot>", now=7)
    assert named.name == "a"


def test_memory_is_saved_where_its_file_is() -> None:
    text = read_snapshot("<domainsnapshot><memory file='/m'/></domainsnapshot>", now=7).format()
    assert "<memory snapshot='external' file='/m'/>" in text


def test_a_redefined_snapshot_says_whether_it_has_memory() -> None:
    xml = "<domainsnapshot><name>a</name><creationTime>1</creationTime><state>{}</state></domainsnapshot>"
    for state, memory in (("running", "internal"), ("shutoff", "no")):
        assert f"<memory snapshot='{memory}'/>" in read_snapshot(xml.format(state), now=None, redefine=True).format()


def test_a_new_checkpoint_is_named_by_its_time_and_has_bitmaps() -> None:
    body = "<parent><name>p</name></parent><disks><disk name='vda' size='9'/><disk name='vdb' checkpoint='no'/></disks>"
    checkpoint = read_checkpoint(f"<domaincheckpoint>{body}</domaincheckpoint>", now=7)
    assert (checkpoint.name, checkpoint.creation_time, checkpoint.parent) == ("7", 7, None)
    assert [(disk.checkpoint, disk.size) for disk in checkpoint.disks.disks] == [("bitmap", None), ("no", None)]


@pytest.mark.parametrize("name", ["a/b", "../a", ".a", "a b", "a\nb", "é"])
def test_a_checkpoints_name_is_that_of_a_file(name: str) -> None:
    with pytest.raises(ModelError, match="cannot be that of a file") as raised:
        read_checkpoint(f"<domaincheckpoint><name>{name}</name></domaincheckpoint>", now=7)
    assert raised.value.path == "/domaincheckpoint/name"


def test_a_secret_has_the_name_of_its_use_alone() -> None:
    uses = "<volume>/v</volume><name>n</name><target>t</target>"
    text = read_secret(f"<secret><usage type='ceph'>{uses}</usage></secret>").format()
    assert "<name>n</name>" in text and "<volume>" not in text and "<target>" not in text


def test_a_secret_without_use_does_not_get_another() -> None:
    text = read_secret("<secret><usage type='none'/><usage type='ceph'><name>n</name></usage></secret>").format()
    assert "usage" not in text


@pytest.mark.parametrize(
    ("pool", "format", "written"),
    [(PoolType.DIR, "", "raw"), (PoolType.DIR, "<format type='qcow2'/>", "qcow2"), (PoolType.DISK, "", "none"),
     (PoolType.LOGICAL, "<format type='qcow2'/>", None), (PoolType.RBD, "", "raw")],
)  # fmt: skip
def test_a_volume_has_a_format_of_its_pool(pool: PoolType, format: str, written: str | None) -> None:
    volume = read_volume(f"<volume><name>v</name><capacity>1</capacity><target>{format}</target></volume>", pool)
    assert volume.target is not None and volume.target.format_type == written


def test_a_backing_store_is_somewhere() -> None:
    xml = "<volume><name>v</name><capacity>1</capacity><backingStore>{}</backingStore></volume>"
    assert read_volume(xml.format("<format type='raw'/>"), PoolType.DIR).backing_store is None
    assert read_volume(xml.format("<path>/b</path>"), PoolType.DIR).backing_store is not None


def test_a_size_with_a_unit_is_in_bytes() -> None:
    cluster = "<target><clusterSize unit='KiB'>{}</clusterSize></target>"
    xml = f"<volume><name>v</name><capacity unit='KiB'>1</capacity>{cluster}</volume>"
    text = read_volume(xml.format(64), PoolType.DIR).format()
    assert "<capacity unit='bytes'>1024</capacity>" in text and "<clusterSize unit='B'>65536</clusterSize>" in text
    assert "clusterSize" not in read_volume(xml.format(0), PoolType.DIR).format()


def test_a_pool_has_what_its_type_has() -> None:
    source = "<host name='h' port='0'/><dir path='/d//'/><device path='/dev/d'/><name>s</name><adapter name='a'/>"
    xml = f"<pool type='{{}}'><name>p</name><source>{source}</source><target><path>/t/</path></target></pool>"
    assert read_pool(xml.format("dir")).format().count("<path>/t</path>") == 1
    netfs = read_pool(xml.format("netfs")).format()
    assert "<host name='h'/>" in netfs and "<dir path='/d'/>" in netfs and "<device" not in netfs
    assert "<target" not in read_pool(xml.format("rbd")).format()
    assert "<path>/dev/s</path>" in read_pool(xml.format("logical")).format()
    assert "<adapter type='scsi_host' name='a'/>" in read_pool(xml.format("scsi")).format()
    unnamed = "<pool type='logical'><source><name>g</name></source></pool>"
    assert read_pool(unnamed).name == "g"
