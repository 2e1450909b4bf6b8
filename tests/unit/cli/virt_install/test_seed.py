"""The CD-ROM of cloud-init: what it says, and that it is found by its label."""

from __future__ import annotations

import io
from pathlib import Path

import pycdlib
import pytest

from hostel.cli.virt_install.seed import Seed
from hostel.errors import HostelError


def read(path: Path) -> dict[str, str]:
    iso = pycdlib.PyCdlib()
    iso.open(str(path))
    try:
        assert iso.pvd.volume_identifier.decode().strip() == "cidata"
        found = {}
        for child in iso.list_children(joliet_path="/"):
            if child is None or not child.is_file():
                continue
            name = child.file_identifier().decode("utf-16_be")
            content = io.BytesIO()
            iso.get_file_from_iso_fp(content, joliet_path=f"/{name}")
            found[name] = content.getvalue().decode()
        return found
    finally:
        iso.close()


def written(tmp_path: Path, text: str | None) -> dict[str, str]:
    Seed(text).write(tmp_path / "seed.iso")
    assert (tmp_path / "seed.iso").stat().st_mode & 0o777 == 0o600
    return read(tmp_path / "seed.iso")


def test_without_a_word_root_gets_a_password_and_cloud_init_ends(tmp_path: Path) -> None:
    seed = Seed(None)
    seed.write(tmp_path / "seed.iso")
    files = read(tmp_path / "seed.iso")
    assert seed.password is not None
    assert len(seed.password) == 16
    assert files == {
        "meta-data": "",
        "user-data": "#cloud-config\nchpasswd:\n  list: |\n    root:" + seed.password + "\n  expire: True\n"
        'runcmd:\n- echo "Disabled by virt-install" > /etc/cloud/cloud-init.disabled\n',
    }


def test_passwords_and_keys_come_from_files(tmp_path: Path) -> None:
    for name, content in (("password", "secret\nmore"), ("root.pub", "ssh-rsa A\n"), ("user.pub", "ssh-rsa B\n")):
        (tmp_path / name).write_text(content)
    text = f"root-password-file={tmp_path}/password,ssh-key={tmp_path}/root.pub,clouduser-ssh-key={tmp_path}/user.pub"
    assert written(tmp_path, text)["user-data"] == (
        "#cloud-config\nchpasswd:\n  list: |\n    root:secret\n  expire: False\nusers:\n  - name: root\n"
        "    ssh-authorized-keys:\n      - ssh-rsa A\n  - ssh-authorized-keys: ssh-rsa B\n"
    )


def test_documents_are_taken_as_they_are(tmp_path: Path) -> None:
    for name in ("user-data", "meta-data", "network-config"):
        (tmp_path / name).write_text(f"{name}: x\n")
    text = ",".join(f"{name}={tmp_path}/{name}" for name in ("user-data", "meta-data", "network-config"))
    assert written(tmp_path, text) == {name: f"{name}: x\n" for name in ("user-data", "meta-data", "network-config")}


@pytest.mark.parametrize("text", ["nosuch=1", "user-data=/nosuch", "disable=maybe", "ssh-key"])
def test_what_cannot_be_said_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(HostelError):
        Seed(text).write(tmp_path / "seed.iso")
    assert not (tmp_path / "seed.iso").exists()
