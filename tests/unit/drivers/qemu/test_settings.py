"""qemu.conf: which file counts, what is read of it, and what of it is refused."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest

from hostel.drivers.base import StartFlag
from hostel.drivers.base.migration import MigrateFlag
from hostel.drivers.qemu import screens, source
from hostel.drivers.qemu.command.host import large_pages
from hostel.drivers.qemu.document import parse
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.qemu.migration import peer
from hostel.drivers.qemu.settings import DEVICES, Settings, read
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from hostel.model.network import Network
from support import hosteld, refused
from support.arguments import CONTEXT, said, spec, text
from support.domain import QEMU


def _settings(tmp_path: Path, text: str, place: str = "config") -> Settings:
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "qemu.conf").write_text(text)
    return read(Directories.under(tmp_path))


def test_without_a_file_all_is_as_usual(tmp_path: Path) -> None:
    assert read(Directories.under(tmp_path)) == Settings()


def test_our_own_file_counts_before_that_of_libvirt(tmp_path: Path) -> None:
    assert _settings(tmp_path, 'vnc_listen = "::1"\n', "libvirt").vnc.listen == "::1"
    assert _settings(tmp_path, "# nothing\n").vnc.listen == "127.0.0.1"


def test_certificates_are_those_of_the_kind_or_those_of_all(tmp_path: Path) -> None:
    for name in ("all", "own"):
        (tmp_path / name).mkdir()
    found = _settings(
        tmp_path,
        f'default_tls_x509_cert_dir = "{tmp_path}/all"\ndefault_tls_x509_verify = 1\n'
        f'default_tls_x509_secret_uuid = "0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f"\n'
        f'spice_tls = 1; spice_tls_x509_cert_dir = "{tmp_path}/own"\n',
    )
    assert (found.vnc.certificates, found.spice.certificates) == (f"{tmp_path}/all", f"{tmp_path}/own")
    assert (found.vnc.verify, found.spice.tls, found.vnc.tls) == (True, True, False)
    assert found.vnc.secret == "0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f" and found.spice.secret == ""


def test_keys_have_the_passphrase_of_the_kind_or_that_of_all(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    found = _settings(
        tmp_path,
        f'default_tls_x509_secret_uuid = "a"\nnbd_tls_x509_secret_uuid = "b"\n'
        f'chardev_tls_x509_cert_dir = "{tmp_path}/own"\n',
    )
    assert (found.nbd.secret, found.character.secret) == ("b", "")
    assert _settings(tmp_path, 'default_tls_x509_secret_uuid = "a"').character.secret == "a"


def test_what_qemu_is_taken_not_to_have_is_refused(tmp_path: Path) -> None:
    _settings(tmp_path, 'capability_filters = [ "virtio-net", "vmcoreinfo" ]')
    driver = QemuDriver(Directories.under(tmp_path))
    wanted = text("", head="<features><vmcoreinfo state='on'/></features>")
    with pytest.raises(VirtError, match="vmcoreinfo is not available with this QEMU binary"):
        driver.domain_create_xml(wanted)
    _settings(tmp_path, "")
    assert driver.domain_define_xml(wanted)


def test_a_daemon_that_machines_go_to_is_looked_after_as_it_is_said(tmp_path: Path) -> None:
    assert _settings(tmp_path, "").migration.keepalive == (5, 5)
    assert _settings(tmp_path, "keepalive_interval = -1\nkeepalive_count = 2").migration.keepalive == (-1, 2)
    with pytest.raises(VirtError, match="expected an unsigned integer for 'keepalive_count'"):
        _settings(tmp_path, "keepalive_count = -1")


@pytest.mark.parametrize(
    ("conf", "interval"), [("", 5), ("keepalive_interval = 2", 2), ("keepalive_interval = -1", None)]
)
def test_the_daemon_that_a_machine_goes_to_is_asked_when_it_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conf: str, interval: int | None
) -> None:
    _settings(tmp_path, conf)
    (tmp_path / "there").mkdir()
    found: list[float | None] = []

    def lead(source: Any, drivers: Any, *rest: Any) -> None:
        alive = drivers.hypervisor._client._alive
        found.append(None if alive is None else alive.interval)

    monkeypatch.setattr(peer, "_lead", lead)
    driver = QemuDriver(Directories.under(tmp_path))
    ref = driver.domain_define_xml(text(""))
    with hosteld.thread(tmp_path / "there") as daemon:
        uri = f"qemu+unix:///session?socket={daemon.config.socket}"
        peer.lead(driver, driver._machines, driver._launcher, ref, uri, {}, MigrateFlag.PEER2PEER)
    assert found == [interval]


@pytest.mark.parametrize(
    ("conf", "flag"), [("", StartFlag.NONE), ("auto_start_bypass_cache = 1", StartFlag.BYPASS_CACHE)]
)
def test_saved_memory_that_starts_by_itself_spares_the_cache_where_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conf: str, flag: StartFlag
) -> None:
    _settings(tmp_path, conf)
    driver = QemuDriver(Directories.under(tmp_path))
    driver.domain_set_autostart(driver.domain_define_xml(text("")), True)
    started: list[StartFlag] = []
    monkeypatch.setattr(driver, "domain_create", lambda ref, flags: started.append(flags))
    driver.connect_autostart()
    assert started == [flag]


@pytest.mark.parametrize("wrong", ["/a", ":/b", "/a:", "/a:/b:/c"])
def test_templates_of_variables_are_pairs(tmp_path: Path, wrong: str) -> None:
    assert _settings(tmp_path, 'nvram = [ "/a:/b" ]').variables == {"/a": "/b"}
    with pytest.raises(VirtError, match=f"Invalid nvram format: '{wrong}'"):
        _settings(tmp_path, f'nvram = [ "/a:/b", "{wrong}" ]')


def test_what_is_not_acted_on_is_known_by_name(tmp_path: Path) -> None:
    found = _settings(tmp_path, 'slirp_helper = "/a"\nvnc_tls = 0\nmax_queued = 1')
    assert found.unknown == ("max_queued", "slirp_helper")


def test_first_line_that_names_a_setting_counts(tmp_path: Path) -> None:
    assert _settings(tmp_path, "max_files = 7\nmax_files = 8").limits.nofile == "7"


def test_what_is_so_anyway_needs_no_word(tmp_path: Path) -> None:
    text = "max_queued = 0\nnamespaces = [ ]\n"
    assert _settings(tmp_path, text).unknown == ()
    assert _settings(tmp_path, text.replace("0", "1")).unknown == ("max_queued",)


def test_output_is_bounded_by_us_by_virtlogd_or_by_nobody(tmp_path: Path) -> None:
    assert _settings(tmp_path, "").stdio == "own"
    assert [_settings(tmp_path, f'stdio_handler = "{kind}"').stdio for kind in ("file", "logd")] == ["file", "logd"]
    for wrong in ("own", "syslog"):
        with pytest.raises(VirtError, match=f"Unknown stdio handler {wrong}"):
            _settings(tmp_path, f'stdio_handler = "{wrong}"')


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('lock_manager = "dlm"', "there is no such lock manager; write nop, lockd or sanlock"),
        ('security_driver = [ "none", "apparmor" ]', "Security driver apparmor not enabled"),
        ("security_require_confined = 1", "Unconfined guests are not allowed on this host"),
    ],
)
def test_who_relies_on_what_is_not_here_starts_no_machine(tmp_path: Path, text: str, why: str) -> None:
    driver, path = QemuDriver(Directories.under(tmp_path)), tmp_path / "config/qemu.conf"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    ref = driver.domain_define_xml(refused.document())
    with pytest.raises(VirtError, match=why) as caught:
        driver.domain_create(ref)
    assert caught.value.code == ErrorCode.CONFIG_UNSUPPORTED


def test_what_machines_are_started_with(tmp_path: Path) -> None:
    found = _settings(
        tmp_path,
        "set_process_name = 1\ndump_guest_core = 1\nseccomp_sandbox = 0\nlog_timestamp = 0\nmax_files = 512\n"
        'deprecation_behavior = "reject"\nbridge_helper = "/h"\nmax_core = "unlimited"\nhugetlbfs_mount = ""\n',
    )
    assert found.limits == ("", "512", "unlimited")
    assert found.hugetlbfs == ()
    bridge = "<interface type='bridge'><source bridge='br0'/></interface>"
    argv = said(bridge, context=CONTEXT._replace(settings=found, is_confined=True))
    assert argv[argv.index("-name") + 1] == "guest=g,process=qemu:g,debug-threads=on"
    assert "dump-guest-core=on" in argv[argv.index("-machine") + 1]
    assert argv[argv.index("-sandbox") + 1] == "off" and "-msg" not in argv
    assert spec(argv, "-netdev")["helper"] == "/h"
    assert spec(argv, "-compat") == {"deprecated-output": "hide", "deprecated-input": "reject"}
    usual = said(bridge, context=CONTEXT._replace(is_confined=False))
    assert "-compat" not in usual and "-sandbox" not in usual and "helper" not in spec(usual, "-netdev")
    with pytest.raises(VirtError, match="this QEMU has no seccomp"):
        said("", context=CONTEXT._replace(settings=_settings(tmp_path, "seccomp_sandbox = 1")))


def test_character_devices_and_nbd_have_tls_by_default_where_the_host_wants_it(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    found = _settings(
        tmp_path,
        f'chardev_tls = 1\nchardev_tls_x509_cert_dir = "{tmp_path}/keys"\nchardev_tls_x509_verify = 0\nnbd_tls = 1',
    )
    assert (found.character.folder, found.nbd.folder, found.nbd.verify) == (f"{tmp_path}/keys", "", True)
    context = CONTEXT._replace(settings=found, certificates={"chardev": found.character.folder})
    serial = "<serial type='tcp'><source mode='bind' host='h' service='1'{}/></serial>"
    argv = said(serial.format(""), context=context)
    assert spec(argv, "-object", id="objcharserial0_tls0")["verify-peer"] is False
    assert "objcharserial0_tls0" not in " ".join(said(serial.format(" tls='no'"), context=context))
    disk = "<disk type='network'><source protocol='nbd' name='e'{}><host name='h'/></source><target dev='vda'/></disk>"
    for more, tls in (("", True), (" tls='no'", False)):
        (wanted,) = parse(text(disk.format(more)), QEMU).devices.disks
        source.encrypt_by_default(wanted, found)
        assert wanted.source is not None and wanted.source.tls is tls


def test_ports_are_those_that_the_host_wants(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        found = _settings(tmp_path, f"remote_display_port_min = {port}\nremote_display_port_max = {port}\n")
        with contextlib.ExitStack() as held, pytest.raises(VirtError, match=rf"range 'display' \({port}-{port}\)"):
            screens.reserve(parse(text("<graphics type='vnc'/>"), QEMU), found, held)
    assert _settings(tmp_path, "migration_port_min = 50000\nmigration_port_max = 50001").migration.ports == (
        50000,
        50001,
    )


def test_large_pages_are_those_that_are_mounted_for_guests(tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    (tmp_path / "meminfo").write_text("Hugepagesize:    2048 kB\n")
    (tmp_path / "mounts").write_text(f"none {pages} hugetlbfs rw,pagesize=2M 0 0\n")
    assert large_pages(tmp_path).mounts == large_pages(tmp_path, [str(pages)]).mounts == {2048: str(pages)}
    assert large_pages(tmp_path, []).mounts == {}


def test_a_password_of_vnc_is_as_long_as_vnc_looks_at(tmp_path: Path) -> None:
    found = _settings(tmp_path, 'vnc_password = "1234567890"\nspice_password = "1234567890"')
    assert (found.vnc.password, found.spice.password) == ("12345678", "1234567890")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vnc_tls = 2", "value for 'vnc_tls' parameter must be 0 or 1"),
        ("vnc_tls = 'yes'", "expected a bool for 'vnc_tls' parameter"),
        ("vnc_listen = 1", "expected a string for 'vnc_listen' parameter"),
        ("\nvnc_listen", r"configuration file syntax error: .*/qemu\.conf:2: expecting an assignment"),
        ("spice_tls_x509_cert_dir = '/not/there'", "spice_tls_x509_cert_dir directory '/not/there' does not exist"),
        ("cgroup_controllers = [ 'cpu', 'net' ]", "Unknown cgroup controller 'net'"),
        ("deprecation_behavior = 'frob'", "deprecation_behavior 'frob'; write none, omit, reject or crash"),
        ("max_core = 'much'", "Unknown core size 'much'"),
        ("max_files = 'many'", "expected an unsigned integer for 'max_files' parameter"),
        ("seccomp_sandbox = 'on'", "expected an integer for 'seccomp_sandbox' parameter"),
        ("remote_display_port_min = 1", "port must be greater than or equal to 5900"),
        ("migration_port_min = 9\nmigration_port_max = 8", "port must be between the minimal port and 65535"),
        ("chardev_tls_x509_cert_dir = '/not/there'", "chardev_tls_x509_cert_dir directory '/not/there' does not exist"),
        ("cgroup_controllers = [ 1 ]", "expected a string list for 'cgroup_controllers' parameter"),
    ],
)
def test_what_is_of_no_use_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(VirtError, match=message):
        _settings(tmp_path, text)


def test_the_hosts_address_in_a_network_is_the_first_that_it_has_there() -> None:
    routed = Network.parse(
        "<network><name>n</name><forward mode='nat'/><ip address='192.0.2.1' prefix='24'/></network>"
    )
    assert screens.host_address(routed) == "192.0.2.1"
    shared = Network.parse("<network><name>n</name><forward mode='bridge'/><bridge name='lo'/></network>")
    assert screens.host_address(shared) == "127.0.0.1"
    for document, message in (
        ("<network><name>n</name></network>", "network 'n' doesn't have an IP address"),
        ("<network><name>n</name><forward mode='private'/></network>", "'n' has no associated interface or bridge"),
    ):
        with pytest.raises(VirtError, match=message):
            screens.host_address(Network.parse(document))


def test_devices_threads_and_what_programs_say_are_set(tmp_path: Path) -> None:
    assert _settings(tmp_path, "").devices == DEVICES
    found = _settings(tmp_path, 'cgroup_device_acl = [ "/dev/a" ]\nmax_threads_per_process = 9\nvirtiofsd_debug = 1')
    assert (found.devices, found.max_threads, found.directory_debug, found.unknown) == (("/dev/a",), 9, True, ())


def test_which_threads_have_cores_of_their_own_is_said(tmp_path: Path) -> None:
    assert _settings(tmp_path, 'sched_core = "none"').refused == ""
    assert _settings(tmp_path, 'sched_core = "full"').cores == "full"
    assert _settings(tmp_path, 'sched_core = "some"').refused == "Unknown sched_core value some"
