"""The daemon with the clients that people have: virsh and libvirt's Python binding."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import hosteld
from support.hosteld import PYTHON, Hosteld

pytestmark = [pytest.mark.requires_tool("virsh"), pytest.mark.requires_tool("virt-install")]

DOMAIN = "<domain type='test'><name>{}</name><memory>1024</memory><os><type>hvm</type></os></domain>"
NETWORK = "<network><name>n1</name><bridge name='virbr7'/><ip address='192.168.7.1' netmask='255.255.255.0'/></network>"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Hosteld]:
    with hosteld.process() as served:
        yield served


def document(daemon: Hosteld, name: str, text: str) -> str:
    path = daemon.directory / name
    path.write_text(text)
    return str(path)


def session(daemon: Hosteld, *commands: str) -> str:
    """Give commands to one virsh, whose connection keeps what the test driver makes; what it prints."""
    return daemon.virsh(";".join(commands)).stdout


def test_virsh_says_who_answers(daemon: Hosteld) -> None:
    assert daemon.virsh("uri").stdout.strip() == daemon.uri()
    assert "Running hypervisor: TEST 0.0.2" in daemon.virsh("version").stdout
    assert "Running against daemon: 9.0.0" in daemon.virsh("version", "--daemon").stdout


def test_virsh_lists_and_tells_of_a_domain(daemon: Hosteld) -> None:
    assert daemon.virsh("list", "--all").stdout.split("\n")[2].split() == ["1", "test", "running"]
    assert daemon.virsh("domstate", "test", "--reason").stdout.strip() == "running (unknown)"
    assert daemon.virsh("domuuid", "test").stdout.strip() == "6695eb01-f6a4-8304-79aa-97f2502e193f"
    assert daemon.virsh("domid", "test").stdout.strip() == "1"
    told = dict(line.split(":", 1) for line in daemon.virsh("dominfo", "test").stdout.splitlines() if ":" in line)
    assert {name: told[name].strip() for name in ("Name", "State", "CPU(s)", "Max memory", "Persistent")} == {
        "Name": "test", "State": "running", "CPU(s)": "2", "Max memory": "8388608 KiB", "Persistent": "yes",
    }  # fmt: skip


def test_domain_lives_from_its_definition_to_its_end(daemon: Hosteld) -> None:
    xml = document(daemon, "d.xml", DOMAIN.format("web"))
    told = session(
        daemon, f"define {xml}", "list --all --name", "start web", "domstate web", "suspend web", "domstate web",
        "list --state-paused --name", "resume web", "autostart web", "list --autostart --name", "destroy web",
        "domstate web", "list --inactive --name", "undefine web", "list --all --name",
    )  # fmt: skip
    lines = [line for line in told.splitlines() if line]
    assert lines == [
        f"Domain 'web' defined from {xml}", "test", "web", "Domain 'web' started", "running", "Domain 'web' suspended",
        "paused", "web", "Domain 'web' resumed", "Domain 'web' marked as autostarted", "web",
        "Domain 'web' destroyed", "shut off", "web", "Domain 'web' has been undefined", "test",
    ]  # fmt: skip


def test_document_goes_both_ways(daemon: Hosteld) -> None:
    xml = document(daemon, "d2.xml", DOMAIN.format("w2"))
    told = session(daemon, f"create {xml}", "dumpxml w2", "destroy w2")
    assert "<domain type='test' id='2'>" in told
    assert "<memory unit='KiB'>1024</memory>" in told


def test_filters_of_packets_are_kept_with_the_test_drivers_host(daemon: Hosteld) -> None:
    xml = document(daemon, "f.xml", "<filter name='f1'><uuid>5c6d49af-b071-6127-b4ec-6f8ed4b55335</uuid></filter>")
    told = session(
        daemon, f"nwfilter-define {xml}", "nwfilter-list", "nwfilter-dumpxml 5c6d49af-b071-6127-b4ec-6f8ed4b55335",
        "nwfilter-undefine f1", "nwfilter-list",
    )  # fmt: skip
    assert f"Network filter f1 defined from {xml}" in told
    assert "5c6d49af-b071-6127-b4ec-6f8ed4b55335   f1" in told
    assert "<filter name='f1' chain='root'>" in told
    assert "Network filter f1 undefined" in told


def test_networks_and_pools_answer(daemon: Hosteld) -> None:
    xml = document(daemon, "n.xml", NETWORK)
    told = session(
        daemon, f"net-define {xml}", "net-start n1", "net-info n1", "net-list --name",
        "net-destroy n1", "net-undefine n1",
        "pool-info default-pool", "vol-create-as default-pool v1 10M", "vol-path v1 default-pool",
        "vol-info v1 default-pool", "vol-resize v1 20M --pool default-pool", "vol-delete v1 default-pool",
    )  # fmt: skip
    lines = [" ".join(line.split()) for line in told.splitlines()]
    for line in (
        "Network n1 started", "Bridge: virbr7", "Active: yes", "Network n1 has been undefined",
        "Capacity: 100.00 GiB", "Vol v1 created", "/default-pool/v1", "Capacity: 10.00 MiB", "Vol v1 deleted",
    ):  # fmt: skip
        assert line in lines, line


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("domstate nosuch", "failed to get domain 'nosuch'"),
        ("vol-info nosuch default-pool", "failed to get vol 'nosuch'"),
        ("start test", "Domain is already active"),
        (
            "dompmsuspend test mem",
            "this function is not supported by the connection driver: virDomainPMSuspendForDuration",
        ),
        ("guestinfo test", "this function is not supported by the connection driver: virDomainGetGuestInfo"),
    ],
)
def test_virsh_prints_the_errors_that_it_prints_of_libvirt(daemon: Hosteld, command: str, error: str) -> None:
    answer = daemon.virsh(*command.split(), check=False)
    assert answer.returncode == 1
    assert f"error: {error}" in answer.stderr


def test_read_only_connection_looks_and_changes_nothing(daemon: Hosteld) -> None:
    assert "running" in daemon.virsh("-r", "list").stdout
    answer = daemon.virsh("-r", "destroy", "test", check=False)
    assert "operation forbidden: read only access prevents virDomainDestroy" in answer.stderr
    answer = daemon.virsh("-r", "dumpxml", "--security-info", "test", check=False)
    assert "operation forbidden: virDomainGetXMLDesc with secure flag" in answer.stderr


def test_binding_sees_codes_and_domains_of_errors(daemon: Hosteld) -> None:
    told = daemon.python(
        "def code(call, *a):\n"
        "    try: call(*a)\n"
        "    except libvirt.libvirtError as e: return e.get_error_code()\n"
        "print(code(c.lookupByName, 'x'), code(c.storagePoolLookupByName, 'x'), code(c.networkLookupByName, 'x'),\n"
        "      code(c.storageVolLookupByPath, '/x'), code(c.lookupByName('test').create),\n"
        "      code(c.lookupByName('test').migrateGetMaxSpeed), code(c.defineXML, '<domain'))\n"
    )
    assert told.split() == ["42", "49", "43", "50", "1", "3", "35"]


def test_binding_lists_by_every_way_there_is(daemon: Hosteld) -> None:
    told = daemon.python(
        f"d = c.defineXML({DOMAIN.format('off')!r})\n"
        "L = libvirt\n"
        "print(sorted(x.name() for x in c.listAllDomains()), [x.name() for x in c.listAllDomains(\n"
        "    L.VIR_CONNECT_LIST_DOMAINS_INACTIVE)], c.listDomainsID(), c.numOfDomains(), c.numOfDefinedDomains(),\n"
        "    c.listDefinedDomains(), c.listNetworks(), c.numOfStoragePools(), c.listStoragePools(),\n"
        "    [x.name() for x in c.listAllStoragePools(L.VIR_CONNECT_LIST_STORAGE_POOLS_DIR)],\n"
        "    [x.name() for x in c.listAllStoragePools(L.VIR_CONNECT_LIST_STORAGE_POOLS_RBD)],\n"
        "    c.storagePoolLookupByName('default-pool').listVolumes())\n"
    )
    assert told.strip() == (
        "['off', 'test'] ['off'] [1] 1 1 ['off'] ['default'] 1 ['default-pool'] ['default-pool'] [] []"
    )


def test_binding_finds_by_every_key(daemon: Hosteld) -> None:
    told = daemon.python(
        "d = c.lookupByName('test')\n"
        "print(c.lookupByID(1).name(), c.lookupByUUIDString(d.UUIDString()).name(), c.lookupByUUID(d.UUID()).ID())\n"
        "print(d.info()[:4], d.state(), d.isActive(), d.isPersistent(), d.isUpdated(), d.maxMemory(), d.OSType())\n"
        "print(c.getURI().startswith('test+unix'), c.isSecure(), c.isAlive(), c.getSecurityModel())\n"
    )
    assert told.splitlines() == [
        "test test 1",
        "[1, 8388608, 2097152, 2] [1, 0] 1 1 0 8388608 linux",
        "True 1 1 ['testSecurity', '']",
    ]


def test_streams_carry_every_byte_both_ways(daemon: Hosteld) -> None:
    told = daemon.python(
        "import os\n"
        f"p = c.storagePoolCreateXML(\"<pool type='dir'><name>p</name><target><path>{daemon.directory}/pool\"\n"
        "    '</path></target></pool>', 1)\n"
        "v = p.createXML('<volume><name>v</name><capacity>5000001</capacity></volume>')\n"
        "data = os.urandom(5000001); at = [0]\n"
        "def give(stream, size, _):\n"
        "    piece = data[at[0]:at[0] + size]; at[0] += len(piece); return piece\n"
        "s = c.newStream(); v.upload(s, 0, 0); s.sendAll(give, None); s.finish()\n"
        "got = []\n"
        "s = c.newStream(); v.download(s, 0, 0)\n"
        "s.recvAll(lambda stream, piece, _: got.append(piece), None); s.finish()\n"
        "print(b''.join(got) == data, open(v.path(), 'rb').read() == data)\n"
        "s = c.newStream(); v.download(s, 1000, 10); print(s.recv(100) == data[1000:1010]); s.finish()\n"
        "s = c.newStream(); v.download(s, 0, 0); s.recv(10); s.abort()\n"
        "s = c.newStream(); v.upload(s, 0, 0); s.send(b'x'); s.abort()\n"
        "s = c.newStream(); v.upload(s, 0, 4); s.send(b'12345678')\n"
        "try: s.finish()\n"
        "except libvirt.libvirtError as e: print(e)\n"
        "v.delete(); p.destroy()\n",
        uri="qemu:///session",
    )
    lines = told.splitlines()
    assert lines[:2] == ["True True", "True"]
    assert "longer than the 4 bytes announced" in lines[2]


def test_a_volume_that_was_sent_whole_is_ready_for_the_next_call(daemon: Hosteld) -> None:
    """As some clients have it, which never end the stream: vagrant-libvirt starts a machine on the volume."""
    pool = daemon.directory / "whole"
    pool.mkdir()
    document = f"<pool type='dir'><name>w</name><target><path>{pool}</path></target></pool>"
    told = daemon.python(
        f"p = c.storagePoolCreateXML({document!r}, 0)\n"
        "v = p.createXML('<volume><name>v</name><capacity>33554432</capacity></volume>', 0)\n"
        "for turn in range(3):\n"
        "    s = c.newStream(); v.upload(s, 0, 32 << 20)\n"
        "    for part in range(128): s.send(b'x' * (256 << 10))\n"
        "    print(v.wipe(0), open(v.path(), 'rb').read().count(0))\n"
        "try: s.finish()\n"
        "except libvirt.libvirtError as e: print(e)\n"
        "v.delete(); p.destroy()\n",
        uri="qemu:///session",
    )
    assert told.splitlines() == [f"0 {32 << 20}"] * 3


def test_sparse_streams_keep_holes(daemon: Hosteld) -> None:
    pool = daemon.directory / "sparse"
    source, back = daemon.directory / "source", daemon.directory / "back"
    with source.open("wb") as file:
        file.write(b"a" * 65536)
        file.seek(50 << 20)
        file.write(b"b" * 65536)
        file.truncate(100 << 20)
    commands = [
        f"pool-create-as s dir --target {pool} --build", "vol-create-as s v 100M --allocation 0",
        f"vol-upload v {source} --pool s --sparse", f"vol-download v {back} --pool s --sparse",
    ]  # fmt: skip
    daemon.virsh("; ".join(commands), uri="qemu:///session")
    assert back.read_bytes() == source.read_bytes() == (pool / "v").read_bytes()
    assert back.stat().st_blocks * 512 < 1 << 20
    assert (pool / "v").stat().st_blocks * 512 < 1 << 20
    daemon.virsh("vol-delete v s; pool-destroy s", uri="qemu:///session")


def test_events_come_to_who_registered(daemon: Hosteld) -> None:
    told = daemon.python(
        "import threading, time\n"
        "libvirt.virEventRegisterDefaultImpl()\n"
        "def loop():\n"
        "    while True: libvirt.virEventRunDefaultImpl()\n"
        "threading.Thread(target=loop, daemon=True).start()\n"
        f"c = libvirt.open({daemon.uri('qemu:///session')!r})\n"
        "seen = []\n"
        "def pool(c, p, event, detail, _): seen.append((p.name(), event))\n"
        "number = c.storagePoolEventRegisterAny(None, 0, pool, None)\n"
        "c.setKeepAlive(1, 2)\n"
        f"xml = \"<pool type='dir'><name>e</name><target><path>{daemon.directory}/e</path></target></pool>\"\n"
        "p = c.storagePoolDefineXML(xml); p.build(); p.create(); p.destroy(); p.delete(); p.undefine()\n"
        "end = time.time() + 20\n"
        "while len(seen) < 6 and time.time() < end: time.sleep(0.01)\n"
        "print(seen)\n"
        "c.storagePoolEventDeregisterAny(number)\n"
        "time.sleep(2.5); print(c.isAlive())\n",
        uri="qemu:///session",
    )
    assert told.splitlines() == ["[('e', 0), ('e', 4), ('e', 2), ('e', 3), ('e', 5), ('e', 1)]", "1"]


def test_read_only_socket_gives_read_only_connections(tmp_path: Path) -> None:
    with hosteld.process("--socket-ro", f"{tmp_path}/ro") as served:
        uri = f"test+unix:///default?socket={tmp_path}/ro"
        told = served.python(
            f"r = libvirt.open({uri!r})\nprint(r.numOfDomains())\n"
            "try: r.lookupByName('test').destroy()\nexcept libvirt.libvirtError as e: print(e.get_error_code())\n"
        )
        assert told.split() == ["1", "29"]


def test_stop_is_clean_and_leaves_no_socket(tmp_path: Path) -> None:
    with hosteld.process(directory=tmp_path) as served:
        served.virsh("list")
        assert served.stop() == 0
        assert not served.socket.exists()
        assert "stopped clean=True" in served.log.read_text()


def test_idle_daemon_ends_where_it_was_asked_to(tmp_path: Path) -> None:
    with hosteld.process("--timeout=1", directory=tmp_path) as served:
        served.virsh("list")
        assert served.process.wait(30) == 0
        assert "stopping reason=idle" in served.log.read_text()


def test_definitions_survive_a_kill(tmp_path: Path) -> None:
    xml = DOMAIN.format("kept").replace("'test'", "'qemu'").replace("<type>", "<type arch='x86_64'>")
    path = tmp_path / "d.xml"
    path.write_text(xml)
    with hosteld.process(directory=tmp_path) as served:
        served.virsh("define", str(path), uri="qemu:///session")
        served.process.send_signal(signal.SIGKILL)
        served.process.wait(30)
    with hosteld.process(directory=tmp_path) as served:
        assert served.virsh("list", "--all", "--name", uri="qemu:///session").stdout.split() == ["kept"]


def test_second_daemon_on_a_socket_is_refused(daemon: Hosteld) -> None:
    with pytest.raises(AssertionError, match="another daemon listens on"), hosteld.process(directory=daemon.directory):
        pass


@pytest.mark.requires_tool("perl")
def test_perl_binding_works(daemon: Hosteld) -> None:
    code = (
        "use Sys::Virt; my $c = Sys::Virt->new(uri => $ARGV[0]);"
        "print join(' ', $c->get_type, map { $_->get_name } $c->list_all_domains()), qq{\\n};"
        f"my $d = $c->define_domain(q{{{DOMAIN.format('perl')}}}); $d->create;"
        "print $d->get_info->{state}, qq{\\n};"
        "$d->destroy; $d->undefine; print $c->get_storage_pool_by_name('default-pool')->get_info->{capacity}, qq{\\n};"
        "eval { $c->get_domain_by_name('no') }; print $@->code, qq{\\n};"
    )
    done = subprocess.run(["perl", "-e", code, daemon.uri()], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["TEST test", "1", "107374182400", "42"]


def test_client_of_a_user_who_has_no_daemon_starts_it() -> None:
    """Libvirt's library runs ``libvirtd --timeout=120`` of a folder that the environment names."""
    folder = Path(tempfile.mkdtemp(prefix="hd-"))
    folder.chmod(0o755)
    (folder / "run").mkdir()
    user: list[str] = []
    if os.geteuid() == 0:
        user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        for path in (folder, folder / "run"):
            os.chown(path, 65534, 65534)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": f"{folder}/run",
        "PYTHONPATH": ":".join(path for path in sys.path if path),
    }
    try:
        probe = "import lxml.etree, hostel.daemon.server"
        pythons = [
            python
            for python in (PYTHON, sys.executable)
            if not subprocess.run(
                [*user, python, "-c", probe], capture_output=True, env=environment, check=False
            ).returncode
        ]
        if not pythons:
            pytest.skip("another user than root may run no Python that has what the daemon needs")
        started = folder / "libvirtd"
        modules = environment.pop("PYTHONPATH")
        started.write_text(
            f"#!/bin/sh\necho $$ > {folder}/pid\nexport PYTHONPATH={modules}\n"
            f'exec {pythons[0]} -m hostel daemon "$@" 2> {folder}/log\n'
        )
        started.chmod(0o755)
        answer = subprocess.run(
            [*user, "virsh", "-c", "qemu:///session", "uri"],
            capture_output=True, text=True, timeout=60, check=False, env={**environment, "VIRTD_PATH": str(folder)},
        )  # fmt: skip
        assert answer.stdout.strip() == "qemu:///session", answer.stderr + (folder / "log").read_text()
    finally:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
        shutil.rmtree(folder, ignore_errors=True)


def test_files_reach_drivers_that_take_them_and_are_refused_by_qemu(daemon: Hosteld) -> None:
    path = document(daemon, "files.xml", DOMAIN.format("files"))
    refusal = "this function is not supported by the connection driver: virDomainCreateXMLWithFiles"
    with open("/dev/null") as one, open("/dev/zero") as other:
        descriptors = one.fileno(), other.fileno()
        numbers = ",".join(map(str, descriptors))
        for uri, line, words in (
            ("test:///default", f"destroy test; start test --pass-fds {numbers}", "Domain 'test' started"),
            ("test:///default", f"create {path} --pass-fds {numbers}", "Domain 'files' created"),
            ("qemu:///session", f"create {path} --pass-fds {numbers}", refusal),
        ):
            command = ["virsh", "-c", daemon.uri(uri), line]
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=60, check=False, pass_fds=descriptors
            )
            assert words in done.stdout + done.stderr
            assert (done.returncode == 0) is (words is not refusal)
