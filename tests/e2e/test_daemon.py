"""Real clients make, change, clone and run a machine through the daemon."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import hostel
from hostel import guest
from hostel.drivers.base.backup import JobType
from hostel.errors import VirtError
from support import hosteld
from support.hosteld import Hosteld

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("qemu-img"),
    pytest.mark.requires_tool("virt-install"),
    pytest.mark.requires_tool("virsh"),
]
SESSION = "qemu:///session"


def run(daemon: Hosteld, tool: str, *arguments: str) -> str:
    command = [tool, "--connect", daemon.uri(SESSION), *arguments]
    environment = {**os.environ, "LC_ALL": "C", "HOME": str(daemon.directory)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def virsh(daemon: Hosteld, *arguments: str) -> str:
    return daemon.virsh("-q", *arguments, uri=SESSION).stdout


def wait_for_report(path: Path) -> None:
    deadline = time.monotonic() + 90
    while "HOSTEL-GUEST" not in (text := path.read_text(errors="replace") if path.exists() else ""):
        assert time.monotonic() < deadline, text
        time.sleep(0.2)


def test_virt_install_virt_xml_and_virt_clone_do_their_work(tmp_path: Path) -> None:
    disk, log = tmp_path / "disk.raw", tmp_path / "serial.log"
    disk.write_bytes(guest.image(label="daemon", mode=guest.Mode.STAY, size=1 << 20))
    with hosteld.process(directory=tmp_path) as daemon:
        run(
            daemon, "virt-install", "--name", "vi", "--memory", "64", "--virt-type", "qemu", "--import",
            "--osinfo", "generic", "--disk", f"{disk},format=raw", "--graphics", "none", "--network", "none",
            "--noautoconsole", "--serial", f"file,path={log}",
        )  # fmt: skip
        try:
            assert virsh(daemon, "domstate", "vi").strip() == "running"
            wait_for_report(log)
            run(daemon, "virt-xml", "vi", "--edit", "--memory", "96")
            assert "<memory unit='KiB'>98304</memory>" in virsh(daemon, "dumpxml", "--inactive", "vi")
        finally:
            virsh(daemon, "destroy", "vi")
        run(daemon, "virt-clone", "--original", "vi", "--name", "clone", "--file", str(tmp_path / "clone.raw"))
        assert sorted(virsh(daemon, "list", "--all", "--name").split()) == ["clone", "vi"]
        assert (tmp_path / "clone.raw").read_bytes() == disk.read_bytes()


def test_guest_outlives_a_killed_daemon_and_the_next_one_has_it(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(1 << 20))
    document = tmp_path / "d.xml"
    document.write_text(
        "<domain type='qemu'><name>kept</name><memory>65536</memory><os><type arch='x86_64'>hvm</type></os><devices>"
        f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{disk}'/>"
        "<target dev='vda' bus='virtio'/></disk></devices></domain>"
    )
    with hosteld.process(directory=tmp_path) as daemon:
        virsh(daemon, "create", str(document))
        number = virsh(daemon, "domid", "kept")
        daemon.process.kill()
        daemon.process.wait(20)
    with hosteld.process(directory=tmp_path) as daemon:
        try:
            assert virsh(daemon, "domstate", "kept").strip() == "running"
            assert virsh(daemon, "domid", "kept") == number
        finally:
            virsh(daemon, "destroy", "kept")
        assert virsh(daemon, "list", "--all", "--name").split() == []


def test_console_goes_both_ways(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(guest.image(label="daemon", mode=guest.Mode.STAY, size=1 << 20))
    document = tmp_path / "d.xml"
    document.write_text(
        "<domain type='qemu'><name>talk</name><memory>65536</memory><os><type arch='x86_64'>hvm</type></os><devices>"
        f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{disk}'/>"
        "<target dev='vda' bus='virtio'/></disk><serial type='pty'/><console type='pty'/></devices></domain>"
    )
    with hosteld.process(directory=tmp_path) as daemon:
        virsh(daemon, "create", "--paused", str(document))
        try:
            told = daemon.python(
                "import time\n"
                "d = c.lookupByName('talk')\n"
                "s = c.newStream()\n"
                "d.openConsole(None, s, 0)\n"
                "try: d.openConsole(None, c.newStream(), 0)\n"
                "except libvirt.libvirtError as e: print(e)\n"
                "d.resume()\n"
                "s.send(b'x')\n"
                "got = b''\n"
                "while b'HOSTEL-GUEST' not in got: got += s.recv(1024)\n"
                "print(got)\n"
                "s.abort()\n",
                uri=SESSION,
            )
            assert "Active console session exists for this domain" in told
            assert "HOSTEL-GUEST" in told
        finally:
            virsh(daemon, "destroy", "talk")


def _checkpoint_and_back_up(daemon: Hosteld, folder: Path) -> None:
    """Do so with the machine ``m`` that runs."""
    virsh(daemon, "checkpoint-create-as", "m", "--name", "c1")
    virsh(daemon, "checkpoint-create-as", "m", "--name", "c2")
    assert virsh(daemon, "checkpoint-list", "m", "--name").split() == ["c1", "c2"]
    assert virsh(daemon, "checkpoint-list", "m", "--from", "c1", "--name").split() == ["c2"]
    assert virsh(daemon, "checkpoint-parent", "m", "--checkpointname", "c2").strip() == "c1"
    assert virsh(daemon, "list", "--with-checkpoint", "--name").split() == ["m"]
    (folder / "b").write_text(
        "<domainbackup mode='pull'><incremental>c1</incremental>"
        f"<server transport='unix' socket='{folder}/nbd'/></domainbackup>"
    )
    virsh(daemon, "backup-begin", "m", str(folder / "b"))
    assert "incremental" in virsh(daemon, "backup-dumpxml", "m")
    assert "Backup" in virsh(daemon, "domjobinfo", "m")
    virsh(daemon, "domjobabort", "m")
    assert virsh(daemon, "domjobinfo", "m").split() == ["Job", "type:", "None"]
    virsh(daemon, "checkpoint-delete", "m", "--checkpointname", "c1", "--children")


def test_machine_is_pictured_measured_snapshotted_and_saved(tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "16M"], check=True, timeout=60)
    document = tmp_path / "d.xml"
    document.write_text(
        "<domain type='qemu'><name>m</name><memory>65536</memory><os><type arch='x86_64'>hvm</type></os><devices>"
        f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>"
        "<target dev='vda' bus='virtio'/></disk><video><model type='vga'/></video></devices></domain>"
    )
    with hosteld.process(directory=tmp_path) as daemon:
        virsh(daemon, "define", str(document))
        virsh(daemon, "start", "m")
        try:
            virsh(daemon, "screenshot", "m", str(tmp_path / "shot"))
            assert (tmp_path / "shot").read_bytes().startswith(b"\x89PNG\r\n")
            assert "state.state=1" in virsh(daemon, "domstats", "m")
            assert "rss" in virsh(daemon, "dommemstat", "m")
            virsh(daemon, "send-key", "m", "KEY_A")
            assert virsh(daemon, "domcontrol", "m").strip() == "ok"
            assert virsh(daemon, "vcpucount", "m", "--live", "--maximum").strip() == "1"
            virsh(daemon, "desc", "m", "--live", "--config", "--title", "of both")
            virsh(daemon, "desc", "m", "of what runs")
            assert virsh(daemon, "desc", "m", "--title", "--config").strip() == "of both"
            assert "<description>" not in virsh(daemon, "dumpxml", "m", "--inactive")
            assert virsh(daemon, "desc", "m").strip() == "of what runs"
            virsh(daemon, "metadata", "m", "http://x.example", "--key", "x", "--set", "<a b='1'/>", "--config")
            assert '<x:a xmlns:x="http://x.example" b="1"/>' in virsh(daemon, "dumpxml", "m", "--inactive")
            assert '"major"' in virsh(daemon, "qemu-monitor-command", "m", '{"execute":"query-version"}')
            virsh(daemon, "snapshot-create-as", "m", "one")
            virsh(daemon, "snapshot-create-as", "m", "two")
            assert virsh(daemon, "snapshot-list", "m", "--name").split() == ["one", "two"]
            assert virsh(daemon, "snapshot-parent", "m", "two").strip() == "one"
            virsh(daemon, "snapshot-revert", "m", "one")
            assert virsh(daemon, "snapshot-current", "m", "--name").strip() == "one"
            for name in ("two", "one"):
                virsh(daemon, "snapshot-delete", "m", name)
            _checkpoint_and_back_up(daemon, tmp_path)
            virsh(daemon, "managedsave", "m")
            assert virsh(daemon, "list", "--all", "--with-managed-save", "--name").split() == ["m"]
            virsh(daemon, "start", "m")
            assert virsh(daemon, "domstate", "m", "--reason").strip() == "running (restored)"
            virsh(daemon, "save", "m", str(tmp_path / "saved"))
            virsh(daemon, "restore", str(tmp_path / "saved"))
        finally:
            virsh(daemon, "destroy", "m")
        virsh(daemon, "domrename", "m", "n")
        assert virsh(daemon, "list", "--all", "--name").split() == ["n"]


def test_remote_driver_does_to_a_machine_what_ours_does(tmp_path: Path) -> None:
    document = (
        "<domain type='qemu'><name>far</name><memory>65536</memory><os><type arch='x86_64'>hvm</type></os>"
        "<devices><video><model type='vga'/></video>"
        "<interface type='user'><mac address='52:54:00:00:00:07'/></interface></devices></domain>"
    )
    with hosteld.process(directory=tmp_path) as daemon, hostel.open(daemon.uri(SESSION)) as connection:
        domain = connection.create_domain(document)
        try:
            driver: Any = connection.hypervisor
            ref = driver.domain_lookup_by_name("far")
            assert driver.domain_memory_stats(ref)["actual"] == 65536
            ((found, stats),) = driver.connect_get_all_domain_stats([ref])
            assert (found, stats["state.state"]) == (ref, 1)
            picture = driver.domain_screenshot(ref)
            assert picture.content.startswith(b"\x89PNG\r\n")
            assert picture.mime == "image/png"
            assert driver.domain_qemu_monitor_command(ref, "info version", human=True)[:1].isdigit()
            assert not driver.domain_has_managed_save_image(ref)
            assert driver.domain_get_job_stats(ref) == (JobType.NONE, {})
            with pytest.raises(VirtError, match="Interface name not provided"):  # the host sees nothing of it
                driver.domain_interface_stats(ref, "52:54:00:00:00:07")
        finally:
            domain.destroy()


def test_screen_is_reached_by_a_descriptor_either_side_makes(tmp_path: Path) -> None:
    document = tmp_path / "d.xml"
    document.write_text(
        "<domain type='qemu'><name>seen</name><memory>65536</memory><os><type arch='x86_64'>hvm</type></os><devices>"
        "<graphics type='vnc' autoport='yes'/><video><model type='vga'/></video></devices></domain>"
    )
    with hosteld.process(directory=tmp_path) as daemon:
        virsh(daemon, "create", str(document))
        try:
            told = daemon.python(
                "import os, socket\n"
                "d = c.lookupByName('seen')\n"
                "fd = d.openGraphicsFD(0)\n"
                "print(os.read(fd, 12).decode().strip())\n"
                "ours, theirs = socket.socketpair()\n"
                "d.openGraphics(0, theirs.fileno(), libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)\n"
                "theirs.close()\n"
                "print(ours.recv(12).decode().strip())\n"
                "try: d.openGraphicsFD(1)\n"
                "except libvirt.libvirtError as error: print(error)\n",
                uri=SESSION,
            )
            assert told.splitlines() == [
                "RFB 003.008", "RFB 003.008", "internal error: No graphics backend with index 1",
            ]  # fmt: skip
        finally:
            virsh(daemon, "destroy", "seen")


def test_events_of_a_machine_come_to_who_registered(tmp_path: Path) -> None:
    document = (
        "<domain type='qemu'><name>told</name><memory>65536</memory><os><type arch='x86_64'>hvm</type></os></domain>"
    )
    with hosteld.process(directory=tmp_path) as daemon:
        told = daemon.python(
            "import threading, time\n"
            "libvirt.virEventRegisterDefaultImpl()\n"
            "def loop():\n"
            "    while True: libvirt.virEventRunDefaultImpl()\n"
            "threading.Thread(target=loop, daemon=True).start()\n"
            f"c = libvirt.open({daemon.uri(SESSION)!r})\n"
            "seen = []\n"
            "def life(c, d, event, detail, _):\n"
            "    if event != libvirt.VIR_DOMAIN_EVENT_SHUTDOWN: seen.append((d.name(), event))\n"
            "number = c.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, life, None)\n"
            "def wait(count):\n"
            "    end = time.time() + 60\n"
            "    while len(seen) < count and time.time() < end: time.sleep(0.01)\n"
            f"d = c.defineXML({document!r}); wait(1)\n"
            "d.create(); wait(3)\n"
            "time.sleep(2)\n"
            "d.suspend(); wait(4)\n"
            "d.resume(); wait(5)\n"
            "d.destroy(); wait(6)\n"
            "d.undefine(); wait(7)\n"
            "print([event for _, event in seen])\n"
            "c.domainEventDeregisterAny(number)\n",
            uri=SESSION,
        )
    # Defined, resumed and started, suspended, resumed, stopped, undefined; that QEMU ends may be told besides.
    assert told.strip() == "[0, 4, 2, 3, 4, 5, 1]"
