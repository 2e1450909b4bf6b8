"""Firmware by its descriptors: which files count, what fits a machine, and what a document becomes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hostel.drivers.qemu import document
from hostel.drivers.qemu.firmware import nvram
from hostel.drivers.qemu.firmware.choice import choose
from hostel.drivers.qemu.firmware.descriptor import installed
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.os import Loader, Nvram, Os, OsType
from support.domain import QEMU

Write = Callable[..., Path]


def descriptor(name: str = "one", **changes: Any) -> dict[str, Any]:
    """A descriptor whose files are called after it."""
    flash = {
        "device": "flash",
        "executable": {"filename": f"/fw/{name}.fd", "format": "raw"},
        "nvram-template": {"filename": f"/fw/{name}-vars.fd", "format": "raw"},
    }
    found = {
        "description": name,
        "interface-types": ["uefi"],
        "mapping": flash,
        "targets": [{"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}],
        "features": ["acpi-s3"],
        "tags": [],
    }
    return found | changes


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(directory: str, name: str, content: dict[str, Any] | None) -> Path:
        path = tmp_path / directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("" if content is None else json.dumps(content))
        return path

    return put


def chosen(tmp_path: Path, os_element: str = "", *, body: str = "", machine: str = "pc-q35-7.2") -> Os:
    """What becomes of a document's ``<os>``."""
    kind = f"<type arch='x86_64' machine='{machine}'>hvm</type>{os_element}"
    head = "" if "<loader" in os_element and "</loader>" in os_element else " firmware='efi'"
    xml = f"<domain type='qemu'><name>g</name><memory>1</memory><os{head}>{kind}</os><features><acpi/></features>{body}"
    domain = document.parse(f"{xml}</domain>", QEMU)
    choose(domain, [tmp_path / "vendor", tmp_path / "host", tmp_path / "nobody"], tmp_path / "g_VARS.fd")
    assert domain.os is not None
    return domain.os


def path_of(found: Os) -> str | None:
    assert found.loader is not None
    return found.loader.path


def test_what_sorts_first_counts_and_a_host_overrides_and_hides_what_its_vendor_says(
    tmp_path: Path, write: Write
) -> None:
    write("vendor", "10-a.json", descriptor("a"))
    write("vendor", "20-b.json", descriptor("b"))
    write("vendor", "30-c.json", descriptor("c"))
    assert path_of(chosen(tmp_path)) == "/fw/a.fd"
    write("host", "10-a.json", None)
    write("host", "20-b.json", descriptor("host-b"))
    assert path_of(chosen(tmp_path)) == "/fw/host-b.fd"
    assert [item.executable.path for item in installed([tmp_path / "vendor", tmp_path / "host"])] == [
        "/fw/host-b.fd", "/fw/c.fd",
    ]  # fmt: skip


def test_a_document_gets_files_and_what_they_need(tmp_path: Path, write: Write) -> None:
    write("vendor", "1.json", descriptor("sb", features=["secure-boot", "requires-smm", "enrolled-keys"]))
    found = chosen(tmp_path)
    assert found.loader == Loader(readonly=True, secure=True, type="pflash", path="/fw/sb.fd")
    assert found.nvram == Nvram(template="/fw/sb-vars.fd", path=str(tmp_path / "g_VARS.fd"))
    assert found.firmware is None
    with pytest.raises(VirtError, match="domain has SMM turned off but chosen firmware requires it") as caught:
        domain = document.parse(
            "<domain type='qemu'><name>g</name><memory>1</memory><os firmware='efi'><type machine='q35'>hvm</type></os>"
            "<features><acpi/><smm state='off'/></features></domain>",
            QEMU,
        )
        choose(domain, [tmp_path / "vendor"], tmp_path / "v")
    assert caught.value.code is ErrorCode.OPERATION_INVALID


@pytest.mark.parametrize(
    ("changes", "os_element", "body", "fits"),
    [
        ({}, "", "", True),
        ({"interface-types": ["bios"]}, "", "", False),
        ({"targets": [{"architecture": "aarch64", "machines": ["*"]}]}, "", "", False),
        ({"targets": [{"architecture": "x86_64", "machines": ["pc-i440fx-*"]}]}, "", "", False),
        ({}, "<firmware><feature enabled='yes' name='secure-boot'/></firmware>", "", False),
        ({"features": ["secure-boot"]}, "<firmware><feature enabled='no' name='secure-boot'/></firmware>", "", False),
        ({"features": ["secure-boot"]}, "<firmware><feature enabled='yes' name='secure-boot'/></firmware>", "", True),
        ({}, "<loader secure='yes'/>", "", False),
        ({}, "<loader stateless='yes'/>", "", False),
        ({}, "", "<pm><suspend-to-mem enabled='yes'/></pm>", True),
        ({}, "", "<pm><suspend-to-disk enabled='yes'/></pm>", False),
    ],
)
def test_firmware_fits_what_a_document_asks_for_or_is_passed_over(
    tmp_path: Path, write: Write, changes: dict[str, Any], os_element: str, body: str, fits: bool
) -> None:
    write("vendor", "1.json", descriptor(**changes))
    if fits:
        assert path_of(chosen(tmp_path, os_element, body=body)) == "/fw/one.fd"
        return
    with pytest.raises(VirtError, match=r"any firmware to satisfy 'efi'; none of 1\.json") as caught:
        chosen(tmp_path, os_element, body=body)
    assert caught.value.code is ErrorCode.OPERATION_FAILED


def test_a_host_without_firmware_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(VirtError, match="install one, such as package ovmf"):
        chosen(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"mapping": {"device": "tape"}}'])
def test_a_broken_descriptor_is_named(tmp_path: Path, write: Write, text: str) -> None:
    write("vendor", "1.json", descriptor()).write_text(text)
    with pytest.raises(VirtError, match=r"descriptor '.*/vendor/1\.json' is broken"):
        chosen(tmp_path)


def test_a_named_firmware_gets_its_template_by_its_descriptor(tmp_path: Path, write: Write) -> None:
    write("vendor", "1.json", descriptor())
    loader = "<loader readonly='yes' type='pflash'>/fw/one.fd</loader>"
    found = chosen(tmp_path, loader + f"<nvram>{tmp_path}/own.fd</nvram>")
    assert found.nvram == Nvram(template="/fw/one-vars.fd", path=f"{tmp_path}/own.fd")
    (tmp_path / "own.fd").touch()
    found = chosen(tmp_path, loader + f"<nvram>{tmp_path}/own.fd</nvram>")
    assert found.nvram == Nvram(path=f"{tmp_path}/own.fd")  # they are there: nothing is made


def variables(tmp_path: Path, **nvram_fields: Any) -> Os:
    loader = Loader(readonly=True, type="pflash", path=f"{tmp_path}/CODE.fd")
    own = Nvram(path=f"{tmp_path}/new/VARS.fd", **nvram_fields)
    return Os(type=OsType(value="hvm"), loader=loader, nvram=own)


def test_variables_are_made_once_whole_or_not_at_all(tmp_path: Path) -> None:
    template, path = tmp_path / "template.fd", tmp_path / "new/VARS.fd"
    found = variables(tmp_path, template=str(template))
    with pytest.raises(VirtError, match=r"from '.*template.fd': No such file") as caught:
        nvram.prepare(found, reset=False)
    assert caught.value.code is ErrorCode.SYSTEM_ERROR
    assert not list(tmp_path.glob("new/*"))
    template.write_bytes(b"first" * 1000)
    nvram.prepare(found, reset=False)
    template.write_bytes(b"later" * 1000)
    nvram.prepare(found, reset=False)
    assert path.read_bytes() == b"first" * 1000
    nvram.prepare(found, reset=True)
    assert path.read_bytes() == b"later" * 1000
    template.write_bytes(b"QFI\xfb")
    with pytest.raises(VirtError, match="is a qcow2 image; write <nvram format='qcow2'>"):
        nvram.prepare(found, reset=True)
    assert path.read_bytes() == b"later" * 1000
    assert [item.name for item in path.parent.iterdir()] == ["VARS.fd"]


def test_variables_that_nobody_knows_how_to_make_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VirtError, match="unable to find any master var store for loader: "):
        nvram.prepare(variables(tmp_path), reset=False)


def test_variables_of_firmware_that_the_host_names_have_its_template(tmp_path: Path) -> None:
    (tmp_path / "template.fd").write_bytes(b"variables")
    nvram.prepare(variables(tmp_path), reset=False, known={f"{tmp_path}/CODE.fd": f"{tmp_path}/template.fd"})
    assert (tmp_path / "new/VARS.fd").read_bytes() == b"variables"
