"""qemu.conf: which file counts, what is read of it, and what of it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers.qemu import screens
from hostel.drivers.qemu.settings import Settings, read
from hostel.drivers.store import Directories
from hostel.errors import VirtError
from hostel.model.network import Network


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


def test_what_is_not_acted_on_is_known_by_name(tmp_path: Path) -> None:
    assert _settings(tmp_path, 'user = "root"\nvnc_tls = 0\nmax_files = 1').unknown == ("max_files", "user")


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
