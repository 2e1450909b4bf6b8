"""Security labels of machines, in kernels of their own that have SELinux and AppArmor."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import told, uml

pytestmark = [
    pytest.mark.requires_tool("linux.uml"),
    pytest.mark.requires_tool("qemu-system-x86_64"),
    pytest.mark.requires_tool("setpriv"),
    pytest.mark.skipif(not uml.may_boot(), reason="the kernel's root is the host's: root only"),
]


@pytest.mark.requires_tool("checkpolicy")
@pytest.mark.requires_tool("swtpm_setup")
def test_machines_are_kept_apart_by_selinux(tmp_path: Path) -> None:
    told.tell(tmp_path)
    uml.run(tmp_path, "support.kernel_labels", "selinux", kernel=("security=selinux", "selinux=1"))


@pytest.mark.requires_tool("apparmor_parser")
def test_machines_are_kept_apart_by_apparmor(tmp_path: Path) -> None:
    told.tell(tmp_path)
    uml.run(tmp_path, "support.kernel_labels", "apparmor", kernel=("security=apparmor", "apparmor=1"))
