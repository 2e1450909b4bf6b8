"""Where a drive's bytes are: names of files as ``-drive file=`` takes them, and nodes of ``-blockdev``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from hostel.model.authentication import Authentication
from hostel.model.domain.devices.source import DiskSource, Host, SourceType
from hostel.model.native.qemu.commandline import Properties
from hostel.model.native.settings import refused

_URLS: Final = ("http", "https", "ftp", "ftps", "tftp", "iscsi", "gluster", "nbd", "nfs", "ssh", "sheepdog")
_FORMATS: Final = {
    ".qcow2": "qcow2", ".qcow": "qcow", ".qed": "qed", ".vdi": "vdi", ".vmdk": "vmdk", ".vhdx": "vhd", ".vpc": "vpc",
    ".vhd": "vpc",
}  # fmt: skip
_FILES: Final = ("file", "host_device", "host_cdrom")
_IMAGES: Final = {
    **{name: name for name in ("raw", "qcow2", "qcow", "qed", "vdi", "vmdk", "vpc", "dmg", "bochs", "cloop")},
    "vhdx": "vhd", "parallels": "ploop",
}  # fmt: skip


class Image(NamedTuple):
    """An image.

    Attributes:
        kind: what kind of thing it is in.
        source: where.
        format: its format.
        opened: how its nodes are opened, by QEMU's names.
    """

    kind: SourceType
    source: DiskSource
    format: str
    opened: dict[str, Any]


def image_format(option: str, name: str) -> str:
    """A document's name of a format of QEMU's.

    Raises:
        ModelError: a document has none for it.
    """
    if name not in _IMAGES:
        raise refused(option, f"format '{name}' cannot be said in a document")
    return _IMAGES[name]


def guess_format(name: str) -> str:
    """The format of an image that nobody names: by the ending of its file's name, otherwise raw."""
    return next((format for ending, format in _FORMATS.items() if name.lower().endswith(ending)), "raw")


def read_file_name(option: str, name: str) -> tuple[SourceType, DiskSource]:
    """A file, a device or a URL.

    Raises:
        ModelError: it is what no document has.
    """
    if name.startswith("fat:"):
        return SourceType.DIR, DiskSource(dir=name.rpartition(":")[2])
    scheme, colon, rest = name.partition(":")
    if colon and scheme.split("+")[0] in _URLS and rest.startswith("//"):
        return SourceType.NETWORK, _read_url(option, name)
    if scheme == "nbd" and colon:
        return SourceType.NETWORK, _read_nbd(option, rest)
    if scheme in ("file", "host_device", "host_cdrom") and colon:
        name = rest.removeprefix("//") if rest.startswith("///") else rest
    elif colon and "/" not in scheme:
        raise refused(option, f"'{name}': a document has no source for '{scheme}:'; a file's name is written ./{name}")
    if name.startswith("/dev/"):
        return SourceType.BLOCK, DiskSource(dev=name)
    if not name.startswith("/"):
        raise refused(option, f"'{name}' depends on the directory in which QEMU is started; write the whole path")
    return SourceType.FILE, DiskSource(file=name)


def _read_url(option: str, text: str) -> DiskSource:
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise refused(option, f"'{text}': {error}") from None
    scheme, _, transport = url.scheme.partition("+")
    if url.password is not None:
        raise refused(option, f"'{scheme}' with a password: define a secret, and name it in <auth>")
    query = parse_qs(url.query)
    path = unquote(url.path)
    source = DiskSource(protocol=scheme, name=path if scheme in ("nfs", "ssh") else path.removeprefix("/"))
    if transport == "unix":
        sockets = query.pop("socket", [])
        if len(sockets) != 1:
            raise refused(option, f"'{text}' names no socket")
        source.hosts = [Host(transport="unix", socket=sockets[0])]
    elif transport in ("", "tcp", "rdma"):
        name = None if transport != "rdma" else "rdma"
        source.hosts = [Host(name=url.hostname or "", port=None if port is None else str(port), transport=name)]
    else:
        raise refused(option, f"'{text}': transport '{transport}'")
    if scheme in ("http", "https"):
        source.query = url.query or None
    elif query:
        raise refused(option, f"'{text}': '{next(iter(query))}' cannot be said in a document")
    if scheme == "nbd":
        source.name = source.name or None
    if url.username is not None:
        source.auth = Authentication(username=url.username)
    return source


def _read_nbd(option: str, text: str) -> DiskSource:
    """``HOST:PORT`` or ``unix:PATH``, and ``:exportname=NAME``."""
    place, _, export = text.partition(":exportname=")
    source = DiskSource(protocol="nbd", name=export or None)
    if place.startswith("unix:"):
        source.hosts = [Host(transport="unix", socket=place.removeprefix("unix:"))]
        return source
    host, colon, port = place.rpartition(":")
    if not colon:
        raise refused(option, f"'nbd:{text}': the port is missing")
    source.hosts = [Host(name=host.strip("[]"), port=port)]
    return source


class Nodes:
    """The nodes of ``-blockdev``, by name."""

    def __init__(self) -> None:
        self._nodes: dict[str, dict[str, Any]] = {}

    def add(self, properties: Properties, found: dict[str, Any]) -> None:
        """A node.

        Raises:
            ModelError: it has no name, or one that is taken.
        """
        name = found.get("node-name")
        if not isinstance(name, str) or name in self._nodes:
            raise refused(properties.option, f"node-name '{name}' is missing or taken")
        self._nodes[name] = found

    def __contains__(self, name: str) -> bool:
        return name in self._nodes

    def image(self, name: str) -> Image:
        """The image that a device on a node has.

        Raises:
            ModelError: a document cannot say what the node is.
        """
        return self._image(self._nodes[name], depth=0)

    def _image(self, found: dict[str, Any], depth: int) -> Image:
        if depth > 8:
            raise refused("-blockdev", "nodes that stand on one another without end")
        node = Properties.of("blockdev", found)
        driver = node.needed("driver")
        node.ignore("node-name", "auto-read-only", "force-share")
        cache = node.below("cache")
        opened = {"read-only": node.flag("read-only"), "discard": node.take("discard")}
        opened |= {"detect-zeroes": node.take("detect-zeroes"), "aio": node.take("aio")}
        opened |= {f"cache.{name}": value for name, value in cache.items()}
        opened = {name: value for name, value in opened.items() if value is not None}
        if driver in _IMAGES:
            below = node.below("file")
            if not below:
                name = node.needed("file")
                if name not in self._nodes:
                    raise refused("-blockdev", f"there is no node '{name}'")
                below = self._nodes[name]
            image = self._image(below, depth + 1)
            if image.format != "raw" or node.any("backing") is not None:
                raise refused("-blockdev", f"'{driver}' on '{image.format}' cannot be said in a document")
            node.end()
            # What becomes of discards is decided above: those that the format drops never reach what is below.
            below = {name: value for name, value in image.opened.items() if name != "discard"}
            return Image(image.kind, image.source, _IMAGES[driver], {**below, **opened})
        kind, source = self._storage(driver, node)
        node.end()
        return Image(kind, source, "raw", opened)

    def _storage(self, driver: str, node: Properties) -> tuple[SourceType, DiskSource]:
        if driver in _FILES:
            name = node.needed("filename")
            is_block = driver != "file"
            return (SourceType.BLOCK, DiskSource(dev=name)) if is_block else (SourceType.FILE, DiskSource(file=name))
        readers: dict[str, Callable[[Properties], DiskSource]] = {"nbd": _nbd_node, "iscsi": _iscsi_node}
        if driver in readers:
            return SourceType.NETWORK, readers[driver](node)
        if driver in ("http", "https", "ftp", "ftps", "tftp"):
            source = _read_url("-blockdev", node.needed("url"))
            source.readahead, source.timeout = node.number("readahead"), node.number("timeout")
            source.ssl_verify = node.flag("sslverify")
            return SourceType.NETWORK, source
        raise refused("-blockdev", f"driver '{driver}' cannot be said in a document")


def _nbd_node(node: Properties) -> DiskSource:
    server = Properties.of("blockdev", node.below("server"))
    source = DiskSource(protocol="nbd", name=node.take("export"))
    if server.needed("type") == "unix":
        source.hosts = [Host(transport="unix", socket=server.needed("path"))]
    else:
        source.hosts = [Host(name=server.needed("host"), port=server.needed("port"))]
    server.end()
    return source


def _iscsi_node(node: Properties) -> DiskSource:
    portal, target, unit = node.needed("portal"), node.needed("target"), node.number("lun") or 0
    node.ignore("transport")
    host, colon, port = portal.rpartition(":")
    place = Host(name=host.strip("[]"), port=port) if colon else Host(name=portal)
    return DiskSource(protocol="iscsi", name=f"{target}/{unit}", hosts=[place])
