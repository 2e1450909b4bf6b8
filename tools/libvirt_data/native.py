"""Other hypervisors' configuration: as documents, and documents as configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hostel.errors import ModelError
from hostel.model.domain.domain import Domain
from hostel.model.domain.platform import Platform
from hostel.model.native.bhyve.commandline import join
from hostel.model.native.bhyve.document import parse_document as parse_bhyve
from hostel.model.native.bhyve.loader import grub_device_map, loader_command
from hostel.model.native.bhyve.reading import read_bhyve
from hostel.model.native.bhyve.writing import machine_command, uses_firmware
from hostel.model.native.lxc.document import parse_document as parse_lxc
from hostel.model.native.lxc.reading import PLATFORM as LXC_PLATFORM
from hostel.model.native.lxc.reading import read_lxc
from hostel.model.native.vmx.reading import read_vmx
from hostel.model.native.vmx.writing import write_vmx
from hostel.model.native.xen.reading import OVMF, read_xl, read_xm
from hostel.model.native.xen.writing import write_xl, write_xm
from libvirt_data.case import Case, Suite, Tree, with_newline


class DatastoreNames:
    """Names of files as libvirt's test of VMware resolves them: by datastores."""

    def read(self, name: str, *, may_be_missing: bool) -> str | None:
        """What the document says."""
        if name.startswith("/vmfs/volumes/"):
            store, _, path = name.removeprefix("/vmfs/volumes/").partition("/")
            if store == "missing" or path.startswith("missing"):
                if may_be_missing:
                    return None
                raise ModelError("", f"Referenced missing file '{name}'")
            return f"[{store}] {path}"
        return name if name.startswith("/") else f"[datastore] directory/{name}"

    def write(self, source: str) -> str:
        """What the configuration says."""
        if source.startswith("["):
            store, _, path = source[1:].partition("]")
            return f"/vmfs/volumes/{store}/{path.lstrip(' ')}"
        return source


def vmx_read(case: Case) -> str:
    """A ``.vmx`` file as a document."""
    return read_vmx(case.input.read_bytes().decode("utf-8", "surrogateescape"), DatastoreNames()).format()


def vmx2xml(tree: Tree) -> Iterator[Case]:
    """Virtual machines of VMware."""
    for call in tree.calls("vmx2xmltest", "DO_TEST", "DO_TEST_FAIL"):
        name = call.words[0]
        if name == "file":
            continue
        must_fail = call.macro == "DO_TEST_FAIL"
        written = None if must_fail else tree.path(f"vmx2xmldata/{name}.xml")
        yield Case("vmx2xml", name, tree.path(f"vmx2xmldata/{name}.vmx"), written, must_fail)


def vmx_written(case: Case) -> str:
    """A document as a ``.vmx`` file."""
    return write_vmx(case.text(), DatastoreNames(), version=case.extra["version"])


def xml2vmx(tree: Tree) -> Iterator[Case]:
    """Documents for VMware."""
    for call in tree.calls("xml2vmxtest", "DO_TEST"):
        read, written, version = call.words
        folder = "xml2vmxdata/xml2vmx"
        path, extra = tree.path(f"{folder}-{read}.xml"), {"version": int(version)}
        yield Case("xml2vmx", read, path, tree.path(f"{folder}-{written}.vmx"), extra=extra)


_LXC = LXC_PLATFORM._replace(emulator="/usr/libexec/libvirt_lxc")
_NO_RANDOM = "c7a5fdbd-edaf-9455-926a-d65c16db1809"  # what libvirt's test puts where an identifier was made up


def lxc_read(case: Case) -> str:
    """A container's configuration as a document."""
    domain = read_lxc(case.text(), _LXC)
    domain.uuid = _NO_RANDOM
    return domain.format()


def lxcconf2xml(tree: Tree) -> Iterator[Case]:
    """Containers, in the words of LXC 2 and of LXC 3."""
    for call in tree.calls("lxcconf2xmltest", "DO_TEST3", "DO_TEST"):
        name, must_fail = call.words[0], call.words[1] == "true"
        if name == "name":
            continue
        ending = "-v3" if call.macro == "DO_TEST3" else ""
        path = tree.path(f"lxcconf2xmldata/lxcconf2xml-{name}{ending}.config")
        written = None if must_fail else tree.path(f"lxcconf2xmldata/lxcconf2xml-{name}.xml")
        yield Case("lxcconf2xml", name + ending, path, written, must_fail)


_XEN: dict[str, tuple[Callable[[str], Domain], Callable[[str], str]]] = {
    "xl": (read_xl, write_xl),
    "xm": (read_xm, write_xm),
}


def xen_converted(case: Case) -> str:
    """Xen's configuration as a document, or the other way round."""
    read, write = _XEN[case.extra["format"]]
    return read(case.text()).format() if case.extra["is_read"] else write(case.text())


def xen(suite: str, form: str) -> Callable[[Tree], Iterator[Case]]:
    """Xen's configurations; libvirt's test calls it parsing when it writes them."""

    def cases(tree: Tree) -> Iterator[Case]:
        for call in tree.calls(f"{form}configtest", r"DO_TEST\w*"):
            name = call.words[0]
            if name == "name":
                continue
            config, document = (tree.path(f"{form}configdata/test-{name}.{ending}") for ending in ("cfg", "xml"))
            if not call.macro.endswith("_FORMAT"):
                yield Case(suite, f"{name} written", document, config, extra={"format": form, "is_read": False})
            if not call.macro.endswith("_PARSE"):
                yield Case(suite, f"{name} read", config, document, extra={"format": form, "is_read": True})

    return cases


def _same_firmware(ours: str, theirs: str) -> bool:
    """Whether two texts are equal, wherever the firmware is."""
    return with_newline(ours, theirs).replace(OVMF, "/LIBXL_FIRMWARE_DIR/ovmf.bin") == theirs


_NO_BYTES = Platform(arch="x86_64", random_bytes=bytes)


def bhyve_read(case: Case) -> str:
    """Command lines of bhyve's as a document, without the firmware that libvirt leaves out."""
    domain = read_bhyve(case.text(), _NO_BYTES)
    if "-U" not in case.text():
        domain.uuid = _NO_RANDOM
    if domain.os is not None:
        domain.os.loader = None
    return domain.format()


def bhyveargv2xml(tree: Tree) -> Iterator[Case]:
    """Command lines of bhyve's."""
    for call in tree.calls("bhyveargv2xmltest", r"DO_TEST\w*"):
        name, must_fail = call.words[0], "FAIL" in call.macro
        if (name in ("name", "info") and len(call.words) > 1) or call.macro == "DO_TEST_FULL":
            continue
        path, written = (tree.path(f"bhyveargv2xmldata/bhyveargv2xml-{name}.{ending}") for ending in ("args", "xml"))
        if path.exists():
            yield Case("bhyveargv2xml", name, path, None if must_fail else written, must_fail)


def bhyve_written(case: Case) -> str:
    """A document as bhyve's command line, or its loader's."""
    ports = case.extra["ports"]
    domain = parse_bhyve(case.text(), _NO_BYTES, ports=ports)
    command = machine_command(domain, tap="faketapdev", firmware="fakefirmwaredir/BHYVE_UEFI.fd", ports=ports)
    if not uses_firmware(domain):
        loader = loader_command(domain, "<device.map>")
        command = loader if case.extra["is_loader"] else command
        if case.extra["is_map"]:
            return grub_device_map(domain)
    command[0] = command[0].rpartition("/")[2]
    return f"{join(command)}\n"


def bhyve_stored(case: Case) -> str:
    """A document as bhyve's driver stores it."""
    return parse_bhyve(case.text(), _NO_BYTES, ports=case.extra["ports"]).format()


def _bhyve(tree: Tree, program: str) -> Iterator[tuple[str, str, int]]:
    """Names, macros and ports of bhyve's documents; a name that comes again is a case of an older bhyve."""
    source, seen = tree.source(program), set()
    older = source.text.find("driver.bhyvecaps ^= BHYVE_CAP_AHCI32SLOT")
    for call in tree.calls(program, r"DO_TEST\w*"):
        name = call.words[0]
        if not tree.exists(f"bhyvexml2argvdata/bhyvexml2argv-{name}.xml") or name in seen:
            continue
        seen.add(name)
        yield name, call.macro, 1 if call.position > older else 32


def bhyvexml2argv(tree: Tree) -> Iterator[Case]:
    """Documents for bhyve: its command line, its loader's, and what GRUB is told."""
    for name, macro, ports in _bhyve(tree, "bhyvexml2argvtest"):
        base = f"bhyvexml2argvdata/bhyvexml2argv-{name}"
        must_fail = "FAIL" in macro or "ERROR" in macro
        for ending in ("args", "ldargs", "devmap"):
            path = tree.path(f"{base}.{ending}")
            extra = {"ports": ports, "is_loader": ending == "ldargs", "is_map": ending == "devmap"}
            is_wanted = path.exists() and path.read_text() != "dummy\n" and name != "serial-grub-nocons"
            if is_wanted if not must_fail else ending == "args":
                label = name if ending == "args" else f"{name} {ending}"
                yield Case(
                    "bhyvexml2argv", label, tree.path(f"{base}.xml"), None if must_fail else path, must_fail, extra
                )


def bhyvexml2xml(tree: Tree) -> Iterator[Case]:
    """Documents that bhyve's driver stores."""
    for name, macro, ports in _bhyve(tree, "bhyvexml2xmltest"):
        must_fail = "FAIL" in macro
        read = tree.path(f"bhyvexml2argvdata/bhyvexml2argv-{name}.xml")
        written = None if must_fail else tree.path(f"bhyvexml2xmloutdata/bhyvexml2xmlout-{name}.xml")
        yield Case("bhyvexml2xml", name, read, written, must_fail, {"ports": ports})


def lxc_stored(case: Case) -> str:
    """A document as the LXC driver stores it."""
    return parse_lxc(case.text(), _LXC).format()


def lxcxml2xml(tree: Tree) -> Iterator[Case]:
    """Documents of containers."""
    for call in tree.calls("lxcxml2xmltest", "DO_TEST_DIFFERENT", "DO_TEST"):
        name = call.words[0]
        if name == "name":
            continue
        read = tree.path(f"lxcxml2xmldata/lxc-{name}.xml")
        is_other = call.macro == "DO_TEST_DIFFERENT"
        yield Case("lxcxml2xml", name, read, tree.path(f"lxcxml2xmloutdata/lxc-{name}.xml") if is_other else read)


SUITES = (
    Suite("lxcxml2xml", lxcxml2xml, lxc_stored),
    Suite("bhyvexml2argv", bhyvexml2argv, bhyve_written),
    Suite("bhyvexml2xml", bhyvexml2xml, bhyve_stored),
    Suite("bhyveargv2xml", bhyveargv2xml, bhyve_read),
    Suite("xlconfig", xen("xlconfig", "xl"), xen_converted, _same_firmware),
    Suite("xmconfig", xen("xmconfig", "xm"), xen_converted),
    Suite("lxcconf2xml", lxcconf2xml, lxc_read),
    Suite("vmx2xml", vmx2xml, vmx_read),
    Suite("xml2vmx", xml2vmx, vmx_written),
)
