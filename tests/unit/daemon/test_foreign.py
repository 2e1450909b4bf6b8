"""What libvirtd.conf says, and what of it is called otherwise here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from hostel.daemon.foreign import unheeded
from hostel.drivers.store import Directories

# Every setting of libvirt 9.0's file.
ALL = """listen_tls listen_tcp tls_port tcp_port listen_addr unix_sock_group unix_sock_ro_perms unix_sock_rw_perms
unix_sock_admin_perms unix_sock_dir auth_unix_ro auth_unix_rw auth_tcp auth_tls tcp_min_ssf access_drivers key_file
cert_file
ca_file crl_file tls_no_sanity_certificate tls_no_verify_certificate tls_allowed_dn_list tls_priority
sasl_allowed_username_list max_clients max_queued_clients max_anonymous_clients min_workers max_workers prio_workers
max_client_requests admin_min_workers admin_max_workers admin_max_clients admin_max_queued_clients
admin_max_client_requests log_level log_filters log_outputs audit_level audit_logging host_uuid host_uuid_source
keepalive_interval keepalive_count keepalive_required admin_keepalive_required admin_keepalive_interval
admin_keepalive_count ovs_timeout"""


def write(folder: Path, text: str) -> Directories:
    (folder / "libvirt").mkdir()
    (folder / "libvirt/libvirtd.conf").write_text(text)
    return Directories.under(folder)


def test_every_setting_is_told_of(tmp_path: Path) -> None:
    names = ALL.split()
    directories = write(tmp_path, "".join(f"{name} = 77\n" for name in names))
    found = dict(unheeded(directories))
    assert [*found] == names
    assert found["unix_sock_group"] == "group of [daemon]"
    assert found["host_uuid"] == "there is no such thing here"


def test_what_is_so_here_anyway_and_a_file_that_is_not_there_need_no_word(tmp_path: Path) -> None:
    assert unheeded(Directories.under(tmp_path)) == []
    assert unheeded(write(tmp_path, 'auth_unix_rw = "none"\nlisten_tls = 0\n# max_clients = 7\n')) == []


def test_file_that_is_none_is_told_of(tmp_path: Path) -> None:
    directories = write(tmp_path, "max_clients = \n")
    ((name, why),) = unheeded(directories)
    assert name == str(tmp_path / "libvirt/libvirtd.conf")
    assert why.startswith("it cannot be read: ")


def test_a_daemon_tells_of_it_when_it_starts(tmp_path: Path) -> None:
    write(tmp_path, 'unix_sock_group = "libvirt"\n')
    command = [sys.executable, "-m", "hostel", "daemon", "--socket", f"{tmp_path}/s", "--state", str(tmp_path), "-q"]
    done = subprocess.run([*command, "-t", "0.2"], capture_output=True, text=True, timeout=60, check=True)
    said = 'setting=unix_sock_group reason="libvirtd.conf is libvirt\'s alone; here: group of \\[daemon\\]"'
    assert re.search(said, done.stderr), done.stderr
