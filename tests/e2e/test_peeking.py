"""Looks at memory and disks, saves by parameters, and pools by their directory: a client's calls on the daemon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hostel import guest, libvirt
from support import hosteld
from support.session import disk, domain_xml

pytestmark = pytest.mark.qemu
POOL = "<pool type='dir'><name>here</name><target><path>{home}/pool</path></target></pool>"


def test_a_client_looks_into_a_machine_saves_it_and_finds_a_pool(tmp_path: Path) -> None:
    image = guest.image(label="peek", mode=guest.Mode.WAIT).ljust(1 << 20, b"\0")
    (tmp_path / "disk.img").write_bytes(image)
    (tmp_path / "pool").mkdir()
    with hosteld.process(directory=tmp_path) as daemon, libvirt.open(daemon.uri("qemu:///session")) as connection:
        domain = connection.createXML(domain_xml(tmp_path, disk(tmp_path / "disk.img")))
        try:
            assert domain.blockPeek("vda", 0, 512) == image[:512]
            assert domain.blockPeek(f"{tmp_path}/disk.img", 512, 16) == image[512:528]
            assert len(domain.memoryPeek(0, 4096, libvirt.VIR_MEMORY_PHYSICAL)) == 4096
            refused: tuple[tuple[Callable[[], object], str], ...] = (
                (lambda: domain.memoryPeek(0, 16, 0), "flags parameter must be"),
                (lambda: domain.blockPeek("vda", 1 << 20, 1), "has only 0 bytes available"),
                (lambda: domain.blockPeek("vdz", 0, 1), "not found in domain"),
                (lambda: domain.blockPeek("vda", 2**63, 1), "bytes available"),
            )
            for peek, reason in refused:
                with pytest.raises(libvirt.libvirtError, match=reason):
                    peek()
            domain.saveParams({"file": f"{tmp_path}/saved"}, libvirt.VIR_DOMAIN_SAVE_PAUSED)
            assert (tmp_path / "saved").exists()
            with pytest.raises(libvirt.libvirtError, match="missing path to restore from"):
                connection.restoreParams({})
            connection.restoreParams({"file": f"{tmp_path}/saved"})
            domain = connection.lookupByName("guest")
            assert domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED
        finally:
            domain.destroy()
        connection.storagePoolCreateXML(POOL.format(home=tmp_path))
        assert connection.storagePoolLookupByTargetPath(f"{tmp_path}//pool/").name() == "here"
        with pytest.raises(libvirt.libvirtError, match="no storage pool with matching target path"):
            connection.storagePoolLookupByTargetPath("/nowhere")
        connection.storagePoolLookupByName("here").destroy()
