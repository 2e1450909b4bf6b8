"""What the host says for all machines: ``qemu.conf``, as libvirt's driver has it (``qemu_conf.c``).

It is read when a machine starts; nothing has to be restarted for a change of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from hostel.codec.assignments import Dialect, Value, parse
from hostel.drivers.fault import fault
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, ErrorDomain, ModelError, VirtError

_FILE: Final = "qemu.conf"
_LIBVIRT: Final = Path("/etc/libvirt")
_PKI: Final = Path("/etc/pki")
_VNC_PASSWORD: Final = 8  # characters that VNC looks at
CONTROLLERS: Final = ("cpu", "devices", "memory", "blkio", "cpuset", "cpuacct")  # virCgroupController, by default
_SCREEN: Final = frozenset({"listen", "password", "tls", "tls_x509_cert_dir", "sasl", "sasl_dir", "auto_unix_socket"})
_KNOWN: Final = frozenset(
    {f"{kind}_{name}" for kind in ("vnc", "spice") for name in _SCREEN}
    | {"vnc_tls_x509_verify", "vnc_tls_x509_secret_uuid"}
    | {f"default_tls_x509_{name}" for name in ("cert_dir", "verify", "secret_uuid")}
    | {"cgroup_controllers"}
)


class ScreenSettings(NamedTuple):
    """What holds for screens of one kind.

    Attributes:
        listen: where they listen whose document names no address.
        password: of those whose document has none.
        tls: whether what is said is encrypted.
        certificates: the folder of X.509 credentials.
        verify: whether clients must have certificates, too.
        secret: the UUID of the secret with the passphrase of the server's key; empty where it has none.
        sasl: whether clients authenticate by SASL.
        sasl_folder: where SASL is configured; empty for the host's place.
        unix: whether those whose document names no address listen on a socket of the run's.
    """

    listen: str = "127.0.0.1"
    password: str | None = None
    tls: bool = False
    certificates: str = "/etc/pki/qemu"
    verify: bool = False
    secret: str = ""
    sasl: bool = False
    sasl_folder: str = ""
    unix: bool = False


class Settings(NamedTuple):
    """The file, as far as this driver acts on it.

    Attributes:
        vnc: screens over VNC.
        spice: screens over SPICE.
        controllers: the control groups' controllers that machines are put under.
        unknown: names of settings that are not acted on.
    """

    vnc: ScreenSettings = ScreenSettings()
    spice: ScreenSettings = ScreenSettings()
    controllers: tuple[str, ...] = CONTROLLERS
    unknown: tuple[str, ...] = ()


def read(directories: Directories) -> Settings:
    """The settings of a session: of our own file, or else of libvirt's for the same kind of session.

    Raises:
        VirtError: ``CONF_SYNTAX`` or ``INTERNAL_ERROR``: the file is not one, or a value of it is of no use.
    """
    is_system = directories == Directories.system()
    libvirt = _LIBVIRT if is_system else directories.config.parent / "libvirt"
    found: dict[str, Value] = {}
    path = directories.config / _FILE
    for path in (directories.config / _FILE, libvirt / _FILE):
        try:
            text = path.read_text()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise fault(ErrorCode.INTERNAL_ERROR, f"cannot read '{path}': {error}", ErrorDomain.QEMU) from error
        try:
            found = {item.name: item.value for item in parse(text, Dialect.XEN)}
        except ModelError as error:
            place = f"{path}:{error.path.removeprefix('line ')}"
            raise fault(ErrorCode.CONF_SYNTAX, f"{place}: {error.reason}", ErrorDomain.QEMU) from error
        break
    return _Reading(path, found, directories.config / "pki/qemu").settings()


class _Reading:
    def __init__(self, path: Path, found: Mapping[str, Value], own: Path) -> None:
        self._path = path
        self._found = found
        self._own = own

    def settings(self) -> Settings:
        controllers = self._texts("cgroup_controllers", CONTROLLERS)
        wrong = next((name for name in controllers if name not in CONTROLLERS), None)
        if wrong is not None:
            raise self._wrong(f"Unknown cgroup controller '{wrong}'", ErrorCode.CONF_SYNTAX)
        return Settings(
            self._screen("vnc"),
            self._screen("spice"),
            controllers,
            tuple(sorted(name for name in self._found if name not in _KNOWN)),
        )

    def _screen(self, kind: str) -> ScreenSettings:
        password = self._text(f"{kind}_password", "") if f"{kind}_password" in self._found else None
        folder = self._text(f"{kind}_tls_x509_cert_dir", "")
        secret = self._text(f"{kind}_tls_x509_secret_uuid", "")
        return ScreenSettings(
            listen=self._text(f"{kind}_listen", "127.0.0.1"),
            password=password if password is None or kind != "vnc" else password[:_VNC_PASSWORD],
            tls=self._flag(f"{kind}_tls"),
            certificates=self._folder(kind, folder),
            verify=self._flag(f"{kind}_tls_x509_verify", self._flag("default_tls_x509_verify")),
            secret=secret or ("" if folder else self._text("default_tls_x509_secret_uuid", "")),
            sasl=self._flag(f"{kind}_sasl"),
            sasl_folder=self._text(f"{kind}_sasl_dir", ""),
            unix=self._flag(f"{kind}_auto_unix_socket"),
        )

    def _folder(self, kind: str, named: str) -> str:
        """Where certificates are: as it is said of the kind, where the kind has its place, or where all have theirs."""
        default = self._text("default_tls_x509_cert_dir", "")
        for name, folder in ((f"{kind}_tls_x509_cert_dir", named), ("default_tls_x509_cert_dir", default)):
            if folder and not Path(folder).is_dir():
                raise self._wrong(f"{name} directory '{folder}' does not exist", ErrorCode.CONF_SYNTAX)
        if named:
            return named
        own = _PKI / f"libvirt-{kind}"
        if own.is_dir():
            return str(own)
        return default or str(self._own if self._own.is_dir() else _PKI / "qemu")

    def _flag(self, name: str, default: bool = False) -> bool:
        value = self._found.get(name, int(default))
        if not isinstance(value, int):
            raise self._wrong(f"{self._path}: expected a bool for '{name}' parameter")
        if value not in (0, 1):
            raise self._wrong(f"{self._path}: value for '{name}' parameter must be 0 or 1")
        return bool(value)

    def _text(self, name: str, default: str) -> str:
        value = self._found.get(name, default)
        if not isinstance(value, str):
            raise self._wrong(f"{self._path}: expected a string for '{name}' parameter")
        return value

    def _texts(self, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        value = self._found.get(name)
        if value is None:
            return default
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str) for item in items):
            raise self._wrong(f"{self._path}: expected a string list for '{name}' parameter")
        return tuple(str(item) for item in items)

    @staticmethod
    def _wrong(what: str, code: ErrorCode = ErrorCode.INTERNAL_ERROR) -> VirtError:
        return fault(code, what, ErrorDomain.QEMU)
