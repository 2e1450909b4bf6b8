"""An installation from a tree, a file in its initial RAM disk and a seed for cloud-init: the guest has them all."""

from __future__ import annotations

from pathlib import Path

import pytest

import hostel
from hostel.cli.main import main
from support.linux import BEGIN, END, Linux

pytestmark = pytest.mark.qemu
TREEINFO = """[general]
family = Fedora
version = 37
arch = x86_64
[images-x86_64]
kernel = images/pxeboot/vmlinuz
initrd = images/pxeboot/initrd.img
"""
SCRIPT = """cat /proc/cmdline
cat /sys/class/dmi/id/product_serial
dd if=/dev/sr0 bs=1 skip=32808 count=6 2>/dev/null
mkdir /cd
mount -t iso9660 -o ro /dev/sr0 /cd
ls /cd
cat /cd/user-data
"""


def test_a_tree_is_booted_with_what_was_put_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "linux").mkdir()
    linux = Linux(tmp_path / "linux")
    monkeypatch.setenv("HOSTEL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    images = tmp_path / "tree" / "images" / "pxeboot"
    images.mkdir(parents=True)
    (tmp_path / "tree" / ".treeinfo").write_text(TREEINFO)
    (images / "vmlinuz").write_bytes(linux.kernel.image.read_bytes())
    (images / "initrd.img").write_bytes(linux.initramfs("echo not mine", {}, ("sr_mod", "isofs", "nls_utf8")))
    Path("script").write_text(SCRIPT)
    Path("user-data").write_text("#cloud-config\nhostname: web\n")
    code = main([
        "virt-install", "--name", "g1", "--memory", "256", "--osinfo", "generic", "--disk", "none",
        "--location", "tree", "--initrd-inject", "script", "--extra-args", "console=ttyS0 quiet panic=-1 a=b",
        "--cloud-init", "user-data=user-data", "--network", "none", "--graphics", "none", "--noautoconsole",
        "--serial", f"pty,log.file={tmp_path}/serial", "--cpu", "mode=maximum", "--wait", "3", "--noreboot",
    ])  # fmt: skip
    assert code == 0, capsys.readouterr().err
    told = Path("serial").read_text(errors="replace").replace("\r\n", "\n")
    printed = told.partition(f"{BEGIN}\n")[2]
    assert f"{END}0" in printed, told
    for expected in ("a=b", "ds=nocloud", "cidata", "meta-data", "hostname: web"):
        assert expected in printed
    assert "not mine" not in printed
    assert not list((tmp_path / "home").rglob("virtinst-*"))
    with hostel.open("qemu:///session") as connection:
        kept = connection.domain("g1").xml()
    assert "<kernel>" not in kept
    assert "cloudinit.iso" not in kept
