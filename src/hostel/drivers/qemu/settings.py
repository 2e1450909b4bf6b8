"""What the host says for all machines: ``qemu.conf``, as libvirt's driver has it (``qemu_conf.c``).

It is read when a machine starts, and when something of it is needed; nothing has to be restarted for a change of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from hostel.codec.assignments import Value
from hostel.drivers.qemu.conffile import ConfFile, load
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode

_FILE: Final = "qemu.conf"
_PKI: Final = Path("/etc/pki")
_VNC_PASSWORD: Final = 8  # characters that VNC looks at
_LAST_PORT: Final = 65535
CONTROLLERS: Final = ("cpu", "devices", "memory", "blkio", "cpuset", "cpuacct")  # virCgroupController, by default
_SCREEN: Final = frozenset({"listen", "password", "tls", "tls_x509_cert_dir", "sasl", "sasl_dir", "auto_unix_socket"})
_KNOWN: Final = frozenset(
    {f"{kind}_{name}" for kind in ("vnc", "spice") for name in _SCREEN}
    | {"vnc_tls_x509_verify", "vnc_tls_x509_secret_uuid"}
    | {f"default_tls_x509_{name}" for name in ("cert_dir", "verify", "secret_uuid")}
    | {"chardev_tls", "chardev_tls_x509_cert_dir", "chardev_tls_x509_verify", "nbd_tls", "nbd_tls_x509_cert_dir"}
    | {f"{kind}_tls_x509_{name}" for kind in ("backup", "migrate") for name in ("cert_dir", "verify")}
    | {f"{kind}_tls_x509_secret_uuid" for kind in ("chardev", "nbd", "backup", "migrate")}
    | {"auto_start_bypass_cache", "capability_filters", "keepalive_interval", "keepalive_count", "nvram"}
    | {f"{kind}_image_format" for kind in ("save", "dump", "snapshot")}
    | {f"{kind}_port_{end}" for kind in ("remote_display", "remote_websocket", "migration") for end in ("min", "max")}
    | {"auto_dump_path", "auto_dump_bypass_cache", "memory_backing_dir"}
    | {"set_process_name", "max_processes", "max_files", "max_core", "dump_guest_core", "seccomp_sandbox"}
    | {"hugetlbfs_mount", "bridge_helper", "pr_helper", "log_timestamp", "deprecation_behavior", "cgroup_controllers"}
    | {"migration_address", "migration_host", "migrate_tls_force", "lock_manager", "security_driver"}
    | {"security_require_confined", "security_default_confined", "user", "group"}
    | {"dynamic_ownership", "remember_owner", "stdio_handler", "swtpm_user", "swtpm_group"}
    | {"cgroup_device_acl", "max_threads_per_process", "virtiofsd_debug", "sched_core", "mac_filter"}
)
# What is so here anyway, and needs no word where it is said.
_SO_ANYWAY: Final[Mapping[str, tuple[Value, ...]]] = {
    "namespaces": ([],),
    "relaxed_acs_check": (0, 1),  # nobody looks at ACS; the kernel's groups count
    "vnc_allow_host_audio": (0,),
    "nographics_allow_host_audio": (0,),
    "max_queued": (0,),
    "gluster_debug_level": (4,),
}
DEVICES: Final = (
    "/dev/null", "/dev/full", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/ptmx", "/dev/kvm",
)  # fmt: skip
CORES: Final = ("none", "vcpus", "emulator", "full")
LOCK_MANAGERS: Final = ("nop", "lockd", "sanlock")
_DEPRECATION: Final = ("none", "omit", "reject", "crash")


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


class TlsSettings(NamedTuple):
    """TLS of what is no screen.

    Attributes:
        default: whether those have it whose document does not say.
        folder: where certificates are; empty where it is not said.
        verify: whether clients must have certificates, too.
        secret: the UUID of the secret with the passphrase of the key; empty where it has none.
    """

    default: bool = False
    folder: str = ""
    verify: bool = True
    secret: str = ""


class Limits(NamedTuple):
    """What a QEMU may have at most, in words of prlimit(1); empty for as much as we have.

    Attributes:
        nproc: processes and threads of its user.
        nofile: open files.
        core: bytes of a dump of QEMU itself, or ``unlimited``.
    """

    nproc: str = ""
    nofile: str = ""
    core: str = ""


NO_LIMITS: Final = Limits()


class Formats(NamedTuple):
    """How memory is packed that is written to files: ``raw``, or the name of a program."""

    save: str = "raw"
    dump: str = "raw"
    snapshot: str = "raw"


class Crashes(NamedTuple):
    """Dumps of guests that have crashed.

    Attributes:
        folder: where they go; empty for the driver's place.
        bypass_cache: whether the host's cache is spared.
    """

    folder: str = ""
    bypass_cache: bool = False


class Migration(NamedTuple):
    """What comes from other hosts, and goes to them.

    Attributes:
        address: where QEMU listens for it; empty for everywhere.
        host: what others reach this host by; empty for its name.
        ports: the first and the last port.
        tls_only: whether nothing moves without TLS.
        keepalive: after how many seconds of silence the daemon there is asked, and how often; 0 and less: not at all.
    """

    address: str = ""
    host: str = ""
    ports: tuple[int, int] = (49152, 49215)
    tls_only: bool = False
    keepalive: tuple[int, int] = (5, 5)


class Settings(NamedTuple):
    """The file, as far as this driver acts on it.

    Attributes:
        vnc: screens over VNC.
        spice: screens over SPICE.
        controllers: the control groups' controllers that machines are put under.
        unknown: names of settings that are not acted on.
        character: TLS of character devices.
        nbd: TLS of disks over NBD.
        backup: that of servers of backups, which have it where their document says so.
        migrate: that of what goes to other hosts, where a migration is to have it.
        ports: the first and the last port of screens.
        websockets: those of their websockets.
        formats: how memory is packed.
        crashes: dumps of guests that have crashed.
        limits: what a QEMU may have.
        process_names: whether a QEMU is called after its machine.
        dump_guest_core: whether a dump of QEMU has the guest's memory, where the document does not say.
        sandbox: whether the kernel refuses QEMU what it does not need; None for where QEMU knows how.
        hugetlbfs: where large pages are mounted; None for where the kernel says.
        bridge_helper: the program that connects to bridges; empty for QEMU's own.
        pr_helper: the one for persistent reservations; empty for the one on the path.
        memory_folder: where files of guests' memory are made; empty for the driver's place.
        timestamps: whether QEMU's messages have the time.
        deprecation: what QEMU does with what it is going to drop, where the document does not say.
        migration: what comes from other hosts, and goes to them.
        autostart_bypass_cache: whether the host's cache is spared where saved memory is started by itself.
        filtered: what QEMU is taken not to have, by libvirt's names.
        variables: of firmware that nothing describes, the template for variables, by the program's path.
        lock_manager: who keeps machines apart that would use the same disks, besides QEMU's own locks.
        refused: why no machine starts, by what is asked for here and is not done.
        user: who QEMU runs as; None where that is not said.
        group: its group.
        dynamic_ownership: whether machines get the files that they need.
        remember_owner: whether it is kept with them whose they were.
        is_confined_by_default: whether a machine whose document has no label gets one.
        stdio: what bounds what machines write into files.
        tpm_user: who emulated TPMs run as; None where that is not said.
        tpm_group: their group.
        devices: those of the host that every QEMU may open.
        max_threads: how many threads a QEMU may have at most, in its control group; 0 for any number.
        mac_filter: whether guests on bridges send with no hardware address but their own.
        directory_debug: whether programs that serve directories say all that they do.
        security_drivers: the kernel's modules that keep machines; None for what the host has.
        requires_confined: whether no machine runs that is kept to nothing.
        cores: which of a machine's threads share their cores with nobody (none, vcpus, emulator, full).
    """

    vnc: ScreenSettings = ScreenSettings()
    spice: ScreenSettings = ScreenSettings()
    controllers: tuple[str, ...] = CONTROLLERS
    unknown: tuple[str, ...] = ()
    character: TlsSettings = TlsSettings()
    nbd: TlsSettings = TlsSettings()
    backup: TlsSettings = TlsSettings(folder="/etc/pki/qemu")
    migrate: TlsSettings = TlsSettings(folder="/etc/pki/qemu")
    ports: tuple[int, int] = (5900, _LAST_PORT)
    websockets: tuple[int, int] = (5700, _LAST_PORT)
    formats: Formats = Formats()
    crashes: Crashes = Crashes()
    limits: Limits = Limits()
    process_names: bool = False
    dump_guest_core: bool = False
    sandbox: bool | None = None
    hugetlbfs: tuple[str, ...] | None = None
    bridge_helper: str = ""
    pr_helper: str = ""
    memory_folder: str = ""
    timestamps: bool = True
    deprecation: str = "none"
    migration: Migration = Migration()
    autostart_bypass_cache: bool = False
    filtered: frozenset[str] = frozenset()
    variables: Mapping[str, str] = {}
    lock_manager: str = "nop"
    refused: str = ""
    user: str | None = None
    group: str | None = None
    dynamic_ownership: bool = True
    remember_owner: bool = True
    is_confined_by_default: bool = True
    stdio: str = "own"
    tpm_user: str | None = None
    tpm_group: str | None = None
    devices: tuple[str, ...] = DEVICES
    max_threads: int = 0
    mac_filter: bool = False
    directory_debug: bool = False
    security_drivers: tuple[str, ...] | None = None
    requires_confined: bool = False
    cores: str = "none"


def read(directories: Directories) -> Settings:
    """The settings of a session: of our own file, or else of libvirt's for the same kind of session.

    Raises:
        VirtError: ``CONF_SYNTAX`` or ``INTERNAL_ERROR``: the file is not one, or a value of it is of no use.
    """
    file = load(directories, _FILE)
    return _Reading(file, directories.config / "pki/qemu").settings()


class _Reading(ConfFile):
    def __init__(self, file: ConfFile, own: Path) -> None:
        super().__init__(file.path, file.found)
        self._own = own

    def settings(self) -> Settings:
        controllers = self._texts("cgroup_controllers", CONTROLLERS)
        wrong = next((name for name in controllers if name not in CONTROLLERS), None)
        if wrong is not None:
            raise self.wrong(f"Unknown cgroup controller '{wrong}'", ErrorCode.CONF_SYNTAX)
        deprecation = self.text("deprecation_behavior", "none")
        if deprecation not in _DEPRECATION:
            raise self.wrong(f"{self.path}: deprecation_behavior '{deprecation}'; write none, omit, reject or crash")
        return Settings(
            vnc=self._screen("vnc"),
            spice=self._screen("spice"),
            controllers=controllers,
            unknown=tuple(sorted(name for name, value in self.found.items() if not _is_heeded(name, value))),
            character=self._tls("chardev"),
            nbd=self._tls("nbd"),
            backup=TlsSettings(False, self._folder("backup"), self._verify("backup"), self._key("backup")),
            migrate=TlsSettings(False, self._folder("migrate"), self._verify("migrate"), self._key("migrate")),
            ports=self._ports("remote_display", 5900, 5900),
            websockets=self._ports("remote_websocket", 5700, 1),
            formats=Formats(*(self.text(f"{kind}_image_format", "raw") for kind in Formats._fields)),
            crashes=Crashes(self.text("auto_dump_path", ""), self.flag("auto_dump_bypass_cache")),
            limits=Limits(self._limit("max_processes"), self._limit("max_files"), self._core()),
            process_names=self.flag("set_process_name"),
            dump_guest_core=self.flag("dump_guest_core"),
            sandbox=self._switch("seccomp_sandbox"),
            hugetlbfs=self._mounts(),
            bridge_helper=self.text("bridge_helper", ""),
            pr_helper=self.text("pr_helper", ""),
            memory_folder=self.text("memory_backing_dir", ""),
            timestamps=self.flag("log_timestamp", default=True),
            deprecation=deprecation,
            migration=self._migration(),
            autostart_bypass_cache=self.flag("auto_start_bypass_cache"),
            filtered=frozenset(self._texts("capability_filters", ())),
            variables=self._variables(),
            lock_manager=self.text("lock_manager", "") or "nop",
            refused=self._refused(),
            user=self._named("user"),
            group=self._named("group"),
            dynamic_ownership=self.flag("dynamic_ownership", default=True),
            remember_owner=self.flag("remember_owner", default=True),
            is_confined_by_default=self.flag("security_default_confined", default=True),
            stdio=self._stdio(),
            tpm_user=self._named("swtpm_user"),
            tpm_group=self._named("swtpm_group"),
            devices=self._texts("cgroup_device_acl", DEVICES),
            max_threads=self.number("max_threads_per_process", 0),
            mac_filter=self.flag("mac_filter"),
            directory_debug=self.flag("virtiofsd_debug"),
            security_drivers=self._texts("security_driver", ()) or None,
            requires_confined=self.flag("security_require_confined"),
            cores=self.text("sched_core", "none"),
        )

    def _stdio(self) -> str:
        handler = self.text("stdio_handler", "own")
        if handler not in ("own", "file", "logd") or (handler == "own" and "stdio_handler" in self.found):
            raise self.wrong(f"Unknown stdio handler {handler}; write logd or file", ErrorCode.CONF_SYNTAX)
        return handler

    def _named(self, name: str) -> str | None:
        """A text that may also not be said."""
        return self.text(name, "") if name in self.found else None

    def _refused(self) -> str:
        """What must not be passed over: who asks for it relies on it."""
        manager = self.text("lock_manager", "")
        if manager not in ("", *LOCK_MANAGERS):
            return f'lock_manager = "{manager}": there is no such lock manager; write nop, lockd or sanlock'
        if (cores := self.text("sched_core", "none")) not in CORES:
            return f"Unknown sched_core value {cores}"
        return ""

    def _migration(self) -> Migration:
        return Migration(
            self.text("migration_address", ""),
            self.text("migration_host", ""),
            self._ports("migration", Migration().ports[0], 1, Migration().ports[1]),
            self.flag("migrate_tls_force"),
            (self._integer("keepalive_interval", 5), self.number("keepalive_count", 5)),
        )

    def _variables(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for text in self._texts("nvram", ()):
            program, _, template = text.partition(":")
            if not program or not template or ":" in template:
                raise self.wrong(f"Invalid nvram format: '{text}'", ErrorCode.CONF_SYNTAX)
            found[program.strip()] = template.strip()
        return found

    def _tls(self, kind: str) -> TlsSettings:
        folder = self._checked(f"{kind}_tls_x509_cert_dir")
        default = self._checked("default_tls_x509_cert_dir")
        if not folder and not (_PKI / f"libvirt-{kind}").is_dir():
            folder = default
        verify = kind != "chardev" or self._verify(kind)
        return TlsSettings(self.flag(f"{kind}_tls"), folder, verify, self._key(kind))

    def _key(self, kind: str) -> str:
        """The secret of a kind's key; certificates in a folder of their own do not have that of all."""
        folder = self.text(f"{kind}_tls_x509_cert_dir", "")
        default = "" if folder else self.text("default_tls_x509_secret_uuid", "")
        return self.text(f"{kind}_tls_x509_secret_uuid", "") or default

    def _verify(self, kind: str) -> bool:
        """Whether clients of what is no screen must have certificates."""
        return self.flag(f"{kind}_tls_x509_verify", self.flag("default_tls_x509_verify", default=True))

    def _screen(self, kind: str) -> ScreenSettings:
        password = self.text(f"{kind}_password", "") if f"{kind}_password" in self.found else None
        return ScreenSettings(
            listen=self.text(f"{kind}_listen", "127.0.0.1"),
            password=password if password is None or kind != "vnc" else password[:_VNC_PASSWORD],
            tls=self.flag(f"{kind}_tls"),
            certificates=self._folder(kind),
            verify=self.flag(f"{kind}_tls_x509_verify", self.flag("default_tls_x509_verify")),
            secret=self._key(kind),
            sasl=self.flag(f"{kind}_sasl"),
            sasl_folder=self.text(f"{kind}_sasl_dir", ""),
            unix=self.flag(f"{kind}_auto_unix_socket"),
        )

    def _folder(self, kind: str) -> str:
        """Where certificates are: as it is said of the kind, where the kind has its place, or where all have theirs."""
        named, default = self._checked(f"{kind}_tls_x509_cert_dir"), self._checked("default_tls_x509_cert_dir")
        if named:
            return named
        own = _PKI / f"libvirt-{kind}"
        if own.is_dir():
            return str(own)
        return default or str(self._own if self._own.is_dir() else _PKI / "qemu")

    def _checked(self, name: str) -> str:
        """A folder that has to be there where it is named."""
        folder = self.text(name, "")
        if folder and not Path(folder).is_dir():
            raise self.wrong(f"{name} directory '{folder}' does not exist", ErrorCode.CONF_SYNTAX)
        return folder

    def _ports(self, kind: str, first: int, least: int, last: int = _LAST_PORT) -> tuple[int, int]:
        low, high = self.number(f"{kind}_port_min", first), self.number(f"{kind}_port_max", last)
        if low < least:
            raise self.wrong(f"{self.path}: {kind}_port_min: port must be greater than or equal to {least}")
        if not low <= high <= _LAST_PORT:
            what = f"{kind}_port_max: port must be between the minimal port and {_LAST_PORT}"
            raise self.wrong(f"{self.path}: {what}")
        return low, high

    def _limit(self, name: str) -> str:
        return str(self.number(name, 0) or "")

    def _core(self) -> str:
        value = self.found.get("max_core", "")
        if isinstance(value, str) and value not in ("", "unlimited"):
            raise self.wrong(f"Unknown core size '{value}'", ErrorCode.CONF_SYNTAX)
        return str(value) if isinstance(value, str) else str(self.number("max_core", 0))

    def _mounts(self) -> tuple[str, ...] | None:
        if "hugetlbfs_mount" not in self.found:
            return None
        return tuple(mount for mount in self._texts("hugetlbfs_mount", ()) if mount)

    def _switch(self, name: str) -> bool | None:
        value = self._integer(name, -1)
        return None if value < 0 else bool(value)

    def _integer(self, name: str, default: int) -> int:
        value = self.found.get(name, default)
        if not isinstance(value, int):
            raise self.wrong(f"{self.path}: expected an integer for '{name}' parameter")
        return value

    def _texts(self, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        value = self.found.get(name)
        if value is None:
            return default
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str) for item in items):
            raise self.wrong(f"{self.path}: expected a string list for '{name}' parameter")
        return tuple(str(item) for item in items)


def _is_heeded(name: str, value: Value) -> bool:
    return name in _KNOWN or value in _SO_ANYWAY.get(name, ())
