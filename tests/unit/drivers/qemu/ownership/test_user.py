"""Users and groups of qemu.conf and of labels, and what a process needs to become one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostel.drivers.qemu.ownership import user
from hostel.drivers.qemu.ownership.user import (
    ROOT,
    Identity,
    Owner,
    as_user,
    group_id,
    groups_of,
    identity,
    read_label,
    tpm_owner,
    user_id,
)
from hostel.drivers.qemu.settings import Settings
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError

NOBODY = 123456  # no user of any host


@pytest.mark.parametrize(
    ("label", "owner"), [("root:root", ROOT), ("+0:+0", ROOT), ("4242:+4343", (4242, 4343)), ("root:7", (0, 7))]
)
def test_labels_name_users_and_groups_or_number_them(label: str, owner: Owner) -> None:
    assert read_label(label) == owner


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ("root", "Failed to parse uid and gid from 'root'"),
        ("nosuch:root", "Failed to parse user 'nosuch'"),
        ("+root:root", "Failed to parse user '+root'"),
        ("root:-1", "Failed to parse group '-1'"),
        ("4294967295:0", "Failed to parse user '4294967295'"),
        (":0", "Failed to parse user ''"),
        ("1:2:3", "Failed to parse group '2:3'"),
    ],
)
def test_what_names_nobody_is_refused(label: str, why: str) -> None:
    with pytest.raises(VirtError) as caught:
        read_label(label)
    assert (caught.value.code, caught.value.message) == (ErrorCode.INVALID_ARG, f"invalid argument: {why}")


def test_an_unknown_user_is_in_its_group_alone() -> None:
    assert groups_of(Owner(NOBODY, 7)) == [7]
    assert 7 in groups_of(Owner(0, 7)) and 0 in groups_of(Owner(0, 7))


def test_root_needs_no_command_to_be_root_and_others_keep_what_they_are_to_keep() -> None:
    assert as_user(ROOT) == []
    assert as_user(Owner(NOBODY, 7))[1:] == [f"--reuid={NOBODY}", "--regid=7", "--groups=7"]
    assert as_user(Owner(NOBODY, 7), "sys_rawio")[4:] == ["--inh-caps=+sys_rawio", "--ambient-caps=+sys_rawio"]


def test_a_session_has_no_owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert identity(Settings(user="root"), Directories.system()) is None
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert identity(Settings(), Directories.under(tmp_path)) is None


def test_machines_of_the_host_are_the_usual_user_s_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(user, "USUAL", "root")
    assert identity(Settings(), Directories.system()) == Identity(ROOT, is_named=False)
    monkeypatch.setattr(user, "USUAL", "nosuch")
    found = identity(Settings(), Directories.system())
    assert found is not None and (found.owner, found.gives) == (ROOT, False)
    assert "there is no user 'nosuch': QEMU runs as root" in found.note


def test_qemu_conf_names_who_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(user, "USUAL", "nosuch")
    said = Settings(user="+4242", group="4343", dynamic_ownership=False, remember_owner=False)
    assert identity(said, Directories.under(tmp_path)) == Identity(Owner(4242, 4343), gives=False, remembers=False)
    assert identity(Settings(user="root"), Directories.under(tmp_path)) == Identity(ROOT)
    with pytest.raises(VirtError, match="Failed to parse user 'gone'"):
        identity(Settings(user="gone"), Directories.under(tmp_path))
    with pytest.raises(VirtError, match=r"Failed to parse group 'nosuch'; name a group in qemu\.conf"):
        identity(Settings(user=f"+{NOBODY}"), Directories.under(tmp_path))


def test_tpms_are_tss_where_the_host_has_it_or_who_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, host = Directories.under(tmp_path), Directories.system()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert tpm_owner(Settings(tpm_user="root"), host) is None
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(user, "TPM_USER", "daemon")
    assert tpm_owner(Settings(), own) is None
    assert tpm_owner(Settings(), host) == Owner(user_id("daemon"), group_id("daemon"))
    assert tpm_owner(Settings(tpm_user="+42"), own) == Owner(42, group_id("daemon"))
    assert tpm_owner(Settings(tpm_user="root", tpm_group="+0"), host) is None
    with pytest.raises(VirtError, match="Failed to parse user 'whoever'"):
        tpm_owner(Settings(tpm_user="whoever"), host)
    monkeypatch.setattr(user, "TPM_USER", "no-such-user")
    assert tpm_owner(Settings(), host) is None
