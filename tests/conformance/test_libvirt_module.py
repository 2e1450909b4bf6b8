"""hostel.libvirt beside libvirt-python: the same names, numbers and signatures, and what they answer."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hostel.libvirt as ours
from support import libvirtd

# virtinst depends on python3-libvirt.
pytestmark = pytest.mark.requires_tool("virt-install")

SYSTEM_PYTHON = "/usr/bin/python3"
DESCRIBE = """
import inspect, json, libvirt
def parameters(function):
    try:
        known = inspect.signature(function).parameters.values()
        return [[each.name, repr(each.default) if each.default is not each.empty else None] for each in known]
    except (TypeError, ValueError):
        return None
found = {"constants": {}, "functions": {}, "classes": {}}
for name, value in vars(libvirt).items():
    if name.startswith("VIR_"):
        found["constants"][name] = value
    elif inspect.isfunction(value) and name != "overload":
        found["functions"][name] = parameters(value)
    elif inspect.isclass(value) and value.__module__ == "libvirt":
        methods = {key: each for key, each in vars(value).items() if inspect.isfunction(each)}
        found["classes"][name] = {key: parameters(each) for key, each in methods.items()}
print(json.dumps(found))
"""
# What a class has for itself: how its C object is held, and how C's events reach Python.
OWN = ("_dispatch", "__")


@pytest.fixture(scope="module")
def theirs() -> Any:
    answer = subprocess.run([SYSTEM_PYTHON, "-c", DESCRIBE], capture_output=True, text=True, check=True, timeout=60)
    return json.loads(answer.stdout)


def test_every_constant_has_its_value(theirs: Any) -> None:
    constants = theirs["constants"]
    assert len(constants) > 1000
    assert {name: getattr(ours, name, None) for name in constants} == constants


def parameters(function: Any) -> list[list[str | None]]:
    return [
        [each.name, repr(each.default) if each.default is not each.empty else None]
        for each in inspect.signature(function).parameters.values()
    ]


def test_every_function_takes_the_same(theirs: Any) -> None:
    wanted = theirs["functions"]
    assert {name: parameters(getattr(ours, name)) for name in wanted} == wanted


def test_every_method_takes_the_same(theirs: Any) -> None:
    different = []
    for name, methods in theirs["classes"].items():
        for method, wanted in methods.items():
            if method.startswith(OWN) or method == "c_pointer":
                continue
            found = getattr(getattr(ours, name), method, None)
            if found is None or parameters(found) != wanted:
                different.append((name, method, wanted, found and parameters(found)))
    assert not different


def test_an_error_has_the_same_methods(theirs: Any) -> None:
    wanted = {name for name in theirs["classes"]["libvirtError"] if not name.startswith("__")}
    assert wanted <= set(dir(ours.libvirtError))


DESCRIBE_MORE = """
import inspect, json, importlib, sys
found = {}
for name in ("libvirt_qemu", "libvirt_lxc"):
    values = vars(importlib.import_module(name))
    known = {key: inspect.signature(each) for key, each in values.items() if inspect.isfunction(each) and key[0] != "_"}
    found[name] = {key: value for key, value in values.items() if key.startswith("VIR_")} | {
        key: [[each.name, repr(each.default)] for each in signature.parameters.values()]
        for key, signature in known.items()
    }
print(json.dumps(found))
"""


def test_modules_of_one_hypervisor_have_the_same_names() -> None:
    wanted = subprocess.run([SYSTEM_PYTHON, "-c", DESCRIBE_MORE], capture_output=True, check=True, timeout=60).stdout
    replaced = f"from hostel.libvirt.replace import replace_libvirt\nreplace_libvirt()\n{DESCRIBE_MORE}"
    found = json.loads(subprocess.run([sys.executable, "-c", replaced], capture_output=True, check=True).stdout)
    for name, values in json.loads(wanted).items():
        assert {key: found[name][key] for key in values} == values


PROGRAM = Path(__file__).with_name("libvirt_program.py")


def run(interpreter: str, module: str, uri: str = "test:///default") -> list[str]:
    command = [interpreter, str(PROGRAM), module, uri]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.splitlines()


def test_a_program_gets_the_same_answers() -> None:
    assert run(sys.executable, "hostel.libvirt") == run(SYSTEM_PYTHON, "libvirt")


WRONG = """
import importlib, sys
libvirt = importlib.import_module(sys.argv[1])
libvirt.registerErrorHandler(lambda context, error: None, None)
c = libvirt.open("test:///default")
d = c.lookupByName("test")
for line in sys.argv[2].strip().splitlines():
    try:
        try:
            found = eval(line)
        except SyntaxError:
            found = exec(line)
    except libvirt.libvirtError as error:
        found = (str(error), *error.err[:2], *error.err[3:])
    except Exception as error:
        found = type(error).__name__, str(error)
    print(line, found)
print(d.name(), d.maxMemory(), d.info()[:3])
"""
# What is no argument: types, numbers that fit nowhere, texts that C would cut off, and nothing where something must be.
CALLS = """
d.rename(None); d.rename(''); d.rename('a\\0b'); d.rename(1); d.rename('x', None)
c.lookupByName(None); c.lookupByName(1); c.lookupByName('te\\0st'); c.lookupByName(b'test')
c.lookupByID('1'); c.lookupByID(2**31); c.lookupByID(-2**31 - 1); c.lookupByID(2**63); c.lookupByID(-1)
c.defineXML(None); c.defineXML('<domain/>\\0'); c.createXML(5); c.domainXMLToNative(None, None)
d.setMaxMemory(-1); d.setMaxMemory(0); d.setMaxMemory(None); d.setMaxMemory(1.5); d.setMemory(-1); d.setMemory(2**64)
d.blockInfo(None); d.blockInfo(''); d.blockInfo('vda', None); d.blockStats(None); d.blockStatsFlags(None)
d.blockJobInfo(None); d.blockIoTune(None); d.blockIoTune('vda', 'x'); d.interfaceStats(None); d.interfaceStats(7)
d.blockCommit(1, None, None); d.blockPull(None); d.blockResize('vda', None); d.blockResize(None, 'x')
d.delIOThread(0); d.setVcpus(0); d.setVcpus(None); d.memoryParameters(None); d.memoryParameters('x')
d.schedulerParametersFlags(None); d.pinVcpu(0, None); d.pinVcpu(0, 5); d.pinVcpu(None, ()); d.pinEmulator(1)
d.createWithFiles(None); d.createWithFiles(3); d.createWithFiles([None]); d.authorizedSSHKeysGet(None)
d.snapshotCreateXML(None); d.snapshotLookupByName(3); d.sendProcessSignal(0, 9); d.setUserPassword(None, 'x')
d.attachDevice(None); d.undefineFlags('x'); d.XMLDesc(None); d.metadata(None, None); d.setAutostart(None)
c.storagePoolLookupByName(None); c.storageVolLookupByPath(None); c.networkLookupByName('a\\0'); c.getMaxVcpus(1)
"""
# Parameters whose values do not fit, one for each type.
PARAMETERS = """
d.setNumaParameters({'numa_mode': 2**31}); d.setNumaParameters({'numa_mode': 2**63}); d.setPerfEvents({'cmt': 7})
d.setNumaParameters({'numa_mode': 'x'}); d.setBlkioParameters({'device_weight': 1})
d.setInterfaceParameters('testnet0', {'inbound.peak': -1})
d.setInterfaceParameters('testnet0', {'inbound.peak': 2**63})
d.setMemoryParameters({'hard_limit': -1}); d.setMemoryParameters({'hard_limit': 2**64})
d.setMemoryParameters({'hard_limit': None})
d.setBlkioParameters({'device_weight': '/dev/sda,x'}); d.setBlkioParameters({'device_weight': '/dev/sda'})
d.addIOThread(5); d.setIOThreadParams(5, {'poll_max_ns': -1}); d.setIOThreadParams(5, {'thread_pool_max': 2**31})
d.setIOThreadParams(5, {}); d.setIOThreadParams(0, {'poll_grow': 1}); d.setIOThreadParams(4, {'poll_grow': 1})
d.pinIOThread(4, (True,)); d.setLifecycleAction(3, 0); d.setLifecycleAction(0, -1); d.undefineFlags(16)
d.setMetadata(0, 'a\\nb', None, 'x'); d.setMetadata(1, 'a', None, 'x'); d.setMetadata(1, 'a', 'k', None)
d.setMetadata(2, 'a', 'k', None); d.setMetadata(2, 'a', None, 'x'); d.setMetadata(1, 'a', None, None, 64)
d.setMetadata(7, 'a', None, None); d.metadata(1, 'x'); d.metadata(2, None); d.metadata(7, None)
d.metadata(1, None, 64); d.snapshotCreateXML('<x/>', -1); d.checkpointCreateXML('<x/>', 20)
c.createXMLWithFiles('<domain/>', [], 64)
d.managedSave(6); d.saveFlags('/nosuch/x', None, 6); c.restoreFlags('/nosuch/x', None, 7); d.coreDump('/nosuch/x', 3)
d.coreDumpWithFormat('/nosuch/x', 0, 9); d.memoryParameters(3); d.blkioParameters(3); d.blockIoTune('vda', 3)
d.emulatorPinInfo(7); d.vcpuPinInfo(7); d.ioThreadInfo(3); d.metadata(1, None, 3); d.vcpusFlags(3)
d.schedulerParametersFlags(3); d.setVcpusFlags(1, 5); d.setVcpusFlags(1, 10)
[values for domain, values in c.getAllDomainStats(1 << 20)]; c.restore(''); d.save('')
c.lookupByUUIDString('x'); c.networkLookupByUUIDString('x'); c.nodeDeviceLookupByName('x')
"""
# Which part says that names and identities are taken, that nothing runs, and what a snapshot is that is defined again.
AGAIN = """
p = c.storagePoolLookupByName('default-pool'); n = c.networkLookupByName('default')
c.storagePoolDefineXML("<pool type='dir'><name>default-pool</name><target><path>/p</path></target></pool>")
c.storagePoolDefineXML("<pool type='dir'><name>p</name><target><path>/default-pool</path></target></pool>")
c.storagePoolCreateXML(p.XMLDesc().replace('default-pool<', 'p<')); c.storagePoolCreateXML(p.XMLDesc())
n.update(5, 4, -1, '<host mac="52:54:00:00:00:09" ip="192.168.122.9"/>')
n.update(1, 99, -1, '<x/>'); n.update(1, 1, -1, '<x/>')
c.networkCreateXML(n.XMLDesc()); c.networkDefineXML('<network><name>a/b</name></network>')
c.createXML(d.XMLDesc()); c.defineXML(d.XMLDesc().replace('f</uuid>', 'e</uuid>'))
c.defineXML(d.XMLDesc().replace('>test<', '>tst<'))
m = '<domain type="test"><name>test</name><uuid>%s</uuid>' % d.UUIDString()
m += '<memory>4096</memory><os><type>hvm</type></os>'
m += '<devices><interface type="user"><mac address="52:54:00:00:00:01"/></interface><video/></devices></domain>'
c1 = d.checkpointCreateXML('<domaincheckpoint><name>a</name>%s</domaincheckpoint>' % m, 1); c1.getXMLDesc(); c1.delete()
s = '<domainsnapshot><name>a</name><state>running</state><creationTime>9</creationTime>%s</domainsnapshot>'
s = s % (m + m.replace('domain type', 'inactiveDomain type').replace('</domain>', '</inactiveDomain>'))
s = d.snapshotCreateXML(s, 3); s.getXMLDesc(); s.getXMLDesc(2); d.snapshotCreateXML('<x/>', 3)
d.checkpointCreateXML('<domaincheckpoint/>'); d.revertToSnapshot(s); d.XMLDesc(2)
c.createXML(m.replace('<os>', '<bootloader>/x</bootloader><os>').replace('test<', 'b<').replace('-4', '-5')).XMLDesc()
b = '<controller type="usb" model="none"/>'
o = '<hostdev type="usb"><source><vendor id="1"/><product id="2"/></source>'
[c.defineXML(m.replace('test<', 'b<').replace('-4', '-6').replace('<video/>', b + o + '</hostdev>'))]
[c.defineXML(m.replace('test<', 'b<').replace('-4', '-6').replace('<video/>', b + '<hub type="usb"/>'))]
[c.defineXML(m.replace('test<', 'b<').replace('-4', '-6').replace('<video/>', b + '<input type="mouse" bus="usb"/>'))]
a = "<adapter type='fc_host' parent='scsi_host1' wwnn='20000000c9831b4b' wwpn='10000000c9831b4b'/>"
a = '<pool type="scsi"><name>v</name><source>%s</source><target><path>/v</path></target></pool>' % a
p = c.storagePoolCreateXML(a)
h = c.nodeDeviceLookupByName('scsi_host12'); h.XMLDesc(); h.listCaps(); h.numOfCaps(); p.destroy(); h.XMLDesc()
c.nodeDeviceLookupByName('scsi_host1').listCaps()
d.destroy(); d.destroy(); d.setMemory(5); d.injectNMI(); d.memoryParameters(1); d.managedSave()
"""


@pytest.mark.parametrize("calls", [CALLS, PARAMETERS, AGAIN], ids=["arguments", "parameters", "again"])
def test_what_is_wrong_is_refused_alike(calls: str) -> None:
    lines = calls.replace("\n", ";").split(";")
    script = "\n".join(line.strip() for line in lines if line.strip())
    answers = [
        subprocess.run(
            [interpreter, "-c", WRONG, module, script], capture_output=True, text=True, timeout=60, check=True
        ).stdout.splitlines()
        for interpreter, module in ((sys.executable, "hostel.libvirt"), (SYSTEM_PYTHON, "libvirt"))
    ]
    assert len(answers[0]) == len(answers[1]) > 30
    assert [pair for pair in zip(*answers, strict=True) if pair[0] != pair[1]] == []


@pytest.fixture(scope="module")
def daemon() -> Iterator[str]:
    """The URI of the invented host of a real libvirtd."""
    with libvirtd.running() as found:
        found.skip_unless_recorded()
        yield found.uri.replace("qemu+unix:///session", "test+unix:///default")


@pytest.mark.requires_tool("libvirtd")
def test_a_program_gets_the_same_answers_from_a_real_daemon(daemon: str) -> None:
    found = run(sys.executable, "hostel.libvirt", daemon)
    assert found == run(SYSTEM_PYTHON, "libvirt", daemon)
    assert len(found) > 30


IDENTITY = """
import importlib, sys
libvirt = importlib.import_module(sys.argv[1])
libvirt.registerErrorHandler(lambda context, error: None, None)
c = libvirt.open(sys.argv[2])
for given in ({"user-name": "ann", "unix-user-id": 1, "process-id": 5}, {"bogus": "x"}, {}):
    try:
        print(c.setIdentity(given), c.getType())
    except libvirt.libvirtError as error:
        print(error.get_error_code(), error)
"""


@pytest.mark.requires_tool("libvirtd")
def test_calls_are_made_on_somebodys_behalf(daemon: str) -> None:
    uri = daemon.replace("test+unix:///default", "qemu+unix:///session")
    answers = [
        subprocess.run([interpreter, "-c", IDENTITY, module, uri], capture_output=True, text=True, timeout=60).stdout
        for interpreter, module in ((sys.executable, "hostel.libvirt"), (SYSTEM_PYTHON, "libvirt"))
    ]
    assert answers[0] == answers[1]
    assert answers[0].startswith("0 QEMU\n74 argument unsupported")


AUTH = """
import importlib, sys
libvirt = importlib.import_module(sys.argv[1])
libvirt.registerErrorHandler(lambda context, error: None, None)
def tried(answers, kinds, *more):
    def ask(asked, opaque):
        for each in asked:
            print(each[0], each[1], each[2], each[3], opaque)
            each[4] = answers.get(each[0])
        return answers.get("answer", 0)
    try:
        return libvirt.openAuth(sys.argv[2], [kinds, ask, "opaque"], 0).getURI() == sys.argv[2]
    except libvirt.libvirtError as error:
        return error.get_error_code(), error.get_error_domain(), str(error)
user, password, hidden = libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_PASSPHRASE, libvirt.VIR_CRED_NOECHOPROMPT
print(tried({user: "ann", password: "x"}, [user, password]))
print(tried({user: "ann", hidden: "x"}, [libvirt.VIR_CRED_REALM, user, hidden]))
print(tried({user: "ann", password: "y"}, [user, password]))
print(tried({user: "bob"}, [user]))
print(tried({user: "eve", password: "x"}, [user, password]))
print(tried({user: "ann"}, [user]))
print(tried({password: "x"}, [password]))
print(tried({"answer": -1}, [user, password]))
try:
    libvirt.open(sys.argv[2])
except libvirt.libvirtError as error:
    print(error.get_error_code(), error.get_error_domain(), error)
"""


ASYNC = """
import asyncio, sys
from hostel.libvirt.replace import replace_libvirt
replace_libvirt()
sys.path.append("/usr/lib/python3/dist-packages")
import libvirt, libvirtaio
async def main():
    libvirtaio.virEventRegisterAsyncIOImpl()
    connection = libvirt.open(sys.argv[1])
    heard = asyncio.Queue()
    def told(connection, domain, event, detail, opaque):
        heard.put_nowait((domain.name(), event, detail, opaque))
    number = connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, told, "x")
    domain = connection.lookupByName("test")
    domain.destroy()
    domain.create()
    print([await asyncio.wait_for(heard.get(), 20) for _ in range(2)])
    connection.domainEventDeregisterAny(number)
    connection.close()
asyncio.run(main())
"""


@pytest.mark.requires_tool("libvirtd")
@pytest.mark.parametrize("here", [True, False], ids=["in process", "real daemon"])
def test_libvirts_own_asyncio_loop_runs_it(daemon: str, here: bool) -> None:
    command = [sys.executable, "-c", ASYNC, "test:///default" if here else daemon]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (answer.stdout, answer.stderr) == ("[('test', 5, 1, 'x'), ('test', 2, 0, 'x')]\n", "")


@pytest.mark.requires_tool("libvirtd")
def test_a_stream_of_a_real_daemon_brings_what_was_sent(daemon: str) -> None:
    content = bytes(range(256)) * 5000
    uri = daemon.replace("test+unix:///default", "qemu+unix:///session")
    with ours.open(uri) as connection, volume_of(connection, content) as volume:
        stream = connection.newStream()
        volume.download(stream, 0, 0)
        got: list[bytes] = []
        stream.recvAll(lambda stream, data, kept: kept.append(data), got)
        stream.finish()
    assert b"".join(got) == content


def test_a_volume_that_was_sent_whole_is_ready_before_its_stream_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTEL_HOME", str(tmp_path))
    with ours.open("qemu:///session") as connection, volume_of(connection, bytes(1 << 20)) as volume:
        stream = connection.newStream()
        volume.upload(stream, 0, 2 << 20)
        for _ in range(8):
            stream.send(b"x" * (256 << 10))
        assert Path(volume.path()).read_bytes() == b"x" * (2 << 20)
        volume.wipe()
        stream.finish()
        assert Path(volume.path()).read_bytes() == bytes(2 << 20)


@contextlib.contextmanager
def volume_of(connection: Any, content: bytes) -> Iterator[Any]:
    """A volume with this content, in a pool of its own."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        document = f"<pool type='dir'><name>p</name><target><path>{folder}</path></target></pool>"
        pool = connection.storagePoolCreateXML(document)
        try:
            volume = pool.createXML(f"<volume><name>a</name><capacity>{len(content)}</capacity></volume>")
            stream = connection.newStream()
            volume.upload(stream, 0, 0)
            stream.sendAll(lambda stream, length, source: source.read(length), io.BytesIO(content))
            stream.finish()
            yield volume
        finally:
            pool.destroy()


@pytest.mark.requires_tool("libvirtd")
@pytest.mark.parametrize("here", [True, False], ids=["in process", "real daemon"])
def test_a_stream_calls_back_while_there_is_something_to_read(
    daemon: str, here: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTEL_HOME", str(tmp_path))
    content = bytes(range(256)) * 3000
    ours.virEventRegisterDefaultImpl()
    uri = "qemu:///session" if here else daemon.replace("test+unix:///default", "qemu+unix:///session")
    with ours.open(uri) as connection, volume_of(connection, content) as volume:
        stream = connection.newStream(ours.VIR_STREAM_NONBLOCK)
        volume.download(stream, 0, 0)
        got: list[bytes] = []

        def told(stream: Any, events: int, opaque: Any) -> None:
            assert (events, opaque) == (ours.VIR_STREAM_EVENT_READABLE, "x")
            data = stream.recv(50_000)
            if data != -2:
                got.append(data)

        stream.eventAddCallback(ours.VIR_STREAM_EVENT_READABLE, told, "x")
        with pytest.raises(ours.libvirtError, match="multiple stream callbacks not supported"):
            stream.eventAddCallback(ours.VIR_STREAM_EVENT_READABLE, told, "x")
        deadline = time.monotonic() + 60
        while (not got or got[-1]) and time.monotonic() < deadline:
            ours.virEventRunDefaultImpl()
        assert stream.eventRemoveCallback() == 0
        stream.finish()
    assert b"".join(got) == content


def test_a_host_with_users_opens_for_those_who_know_the_password(tmp_path: Path) -> None:
    host = tmp_path / "host.xml"
    host.write_text("<node><auth><user password='x'>ann</user><user>bob</user></auth></node>")
    assert run_auth(sys.executable, "hostel.libvirt", host) == run_auth(SYSTEM_PYTHON, "libvirt", host)


def run_auth(interpreter: str, module: str, host: Path) -> list[str]:
    command = [interpreter, "-c", AUTH, module, f"test://{host}"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.splitlines()
