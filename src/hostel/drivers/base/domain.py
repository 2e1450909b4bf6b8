"""Domains: references, states, and the calls of a hypervisor."""

from __future__ import annotations

import enum
from typing import NamedTuple, Protocol, runtime_checkable


class DomainRef(NamedTuple):
    """Names a domain; ``id`` is -1 while it is shut off."""

    name: str
    uuid: str
    id: int = -1


class DomainState(enum.IntEnum):
    """``virDomainState``."""

    NOSTATE = 0
    RUNNING = 1
    BLOCKED = 2
    PAUSED = 3
    SHUTDOWN = 4
    SHUTOFF = 5
    CRASHED = 6
    PMSUSPENDED = 7


class ShutoffReason(enum.IntEnum):
    """``virDomainShutoffReason``."""

    UNKNOWN = 0
    SHUTDOWN = 1
    DESTROYED = 2
    CRASHED = 3
    MIGRATED = 4
    SAVED = 5
    FAILED = 6
    FROM_SNAPSHOT = 7
    DAEMON = 8


class RunningReason(enum.IntEnum):
    """``virDomainRunningReason``."""

    UNKNOWN = 0
    BOOTED = 1
    MIGRATED = 2
    RESTORED = 3
    FROM_SNAPSHOT = 4
    UNPAUSED = 5
    MIGRATION_CANCELED = 6
    SAVE_CANCELED = 7
    WAKEUP = 8
    CRASHED = 9
    POSTCOPY = 10


class PausedReason(enum.IntEnum):
    """``virDomainPausedReason``."""

    UNKNOWN = 0
    USER = 1
    MIGRATION = 2
    SAVE = 3
    DUMP = 4
    IOERROR = 5
    WATCHDOG = 6
    FROM_SNAPSHOT = 7
    SHUTTING_DOWN = 8
    SNAPSHOT = 9
    POSTCOPY = 12
    POSTCOPY_FAILED = 13


class CrashedReason(enum.IntEnum):
    """``virDomainCrashedReason``."""

    UNKNOWN = 0
    PANICKED = 1


class StateInfo(NamedTuple):
    """A domain's state, libvirt's numeric reason for it, and a sentence where there is more to say."""

    state: DomainState
    reason: int
    detail: str = ""


class DomainInfo(NamedTuple):
    """``virDomainInfo``: memory in KiB, CPU time in nanoseconds."""

    state: DomainState
    max_memory: int
    memory: int
    vcpus: int
    cpu_time: int


class SecurityModel(NamedTuple):
    """``virSecurityModel``: what keeps domains apart, and its domain of interpretation."""

    model: str
    doi: str


class SecurityLabel(NamedTuple):
    """``virSecurityLabel`` of a running domain."""

    label: str
    enforcing: bool


class UndefineFlag(enum.IntFlag):
    """``virDomainUndefineFlagsValues``, as far as they are implemented."""

    NONE = 0
    MANAGED_SAVE = 1
    SNAPSHOTS_METADATA = 2
    NVRAM = 4
    KEEP_NVRAM = 8
    CHECKPOINTS_METADATA = 16
    TPM = 32
    KEEP_TPM = 64


class DomainXmlFlag(enum.IntFlag):
    """``virDomainXMLFlags``."""

    NONE = 0
    SECURE = 1
    INACTIVE = 2
    UPDATE_CPU = 4
    MIGRATABLE = 8


class StartFlag(enum.IntFlag):
    """``virDomainCreateFlags``."""

    NONE = 0
    PAUSED = 1
    AUTODESTROY = 2
    BYPASS_CACHE = 4
    FORCE_BOOT = 8
    RESET_NVRAM = 32


class DestroyFlag(enum.IntFlag):
    """``virDomainDestroyFlagsValues``."""

    DEFAULT = 0
    GRACEFUL = 1
    REMOVE_LOGS = 2


class ShutdownFlag(enum.IntFlag):
    """``virDomainShutdownFlagValues``, and the same of reboots: how the guest is asked; no way is the best one."""

    NONE = 0
    ACPI = 1
    AGENT = 2
    INITCTL = 4
    SIGNAL = 8
    PARAVIRT = 16


class Affect(enum.IntFlag):
    """``virDomainModificationImpact``: the running machine, the definition, or what there is."""

    CURRENT = 0
    LIVE = 1
    CONFIG = 2


@runtime_checkable
class ConsoleStream(Protocol):
    """A guest's character device, attached: blocking bytes both ways."""

    def read(self, length: int, timeout: float) -> bytes | None:
        """Read up to ``length`` bytes; ``b""`` at the end, None when ``timeout`` seconds passed with nothing."""

    def write(self, data: bytes) -> None:
        """Write all of ``data`` to the guest."""

    def close(self) -> None:
        """Detach; the guest runs on."""


class HypervisorDriver(Protocol):
    """Domains. Lookups raise ``NO_DOMAIN``; a call that the state forbids raises ``OPERATION_INVALID``."""

    def connect_get_type(self) -> str:
        """``QEMU`` or ``TEST``."""

    def connect_get_version(self) -> int:
        """The hypervisor's version: 1,000,000 * major + 1,000 * minor + release."""

    def connect_get_hostname(self) -> str:
        """The host's name."""

    def connect_get_capabilities(self) -> str:
        """The capabilities document."""

    def connect_domain_xml_from_native(self, native_format: str, native_config: str) -> str:
        """The document of another hypervisor's configuration; ``INVALID_ARG`` where nobody knows the format."""

    def connect_domain_xml_to_native(self, native_format: str, domain_xml: str) -> str:
        """A document as another hypervisor's configuration."""

    def node_get_security_model(self) -> SecurityModel:
        """What keeps domains apart; the model is ``none`` where nothing does."""

    def connect_list_all_domains(self) -> list[DomainRef]:
        """Every domain, running or defined."""

    def domain_lookup_by_name(self, name: str) -> DomainRef:
        """Find by name."""

    def domain_lookup_by_uuid(self, uuid: str) -> DomainRef:
        """Find by UUID, in its canonical text form."""

    def domain_lookup_by_id(self, id: int) -> DomainRef:
        """Find a running domain by id."""

    def domain_define_xml(self, xml: str) -> DomainRef:
        """Make or replace a persistent definition."""

    def domain_create_xml(self, xml: str, flags: StartFlag = StartFlag.NONE) -> DomainRef:
        """Start a transient domain."""

    def domain_create(self, domain: DomainRef, flags: StartFlag = StartFlag.NONE) -> DomainRef:
        """Start a defined domain; returns the reference with its new id."""

    def domain_shutdown(self, domain: DomainRef, flags: ShutdownFlag = ShutdownFlag.NONE) -> None:
        """Ask the guest to shut down; returns at once."""

    def domain_reboot(self, domain: DomainRef, flags: ShutdownFlag = ShutdownFlag.NONE) -> None:
        """Ask the guest to reboot; returns at once."""

    def domain_reset(self, domain: DomainRef) -> None:
        """Reset as the button does."""

    def domain_suspend(self, domain: DomainRef) -> None:
        """Stop the virtual CPUs."""

    def domain_resume(self, domain: DomainRef) -> None:
        """Let the virtual CPUs run on."""

    def domain_destroy(self, domain: DomainRef, flags: DestroyFlag = DestroyFlag.DEFAULT) -> None:
        """End the domain now; a transient one is gone afterwards."""

    def domain_undefine(self, domain: DomainRef, flags: UndefineFlag = UndefineFlag.NONE) -> None:
        """Drop the definition; a running domain becomes transient."""

    def domain_get_xml_desc(self, domain: DomainRef, flags: DomainXmlFlag = DomainXmlFlag.NONE) -> str:
        """The live document, or with ``INACTIVE`` the persistent one."""

    def domain_get_os_type(self, domain: DomainRef) -> str:
        """``hvm``, or whatever the hypervisor calls what its guests are."""

    def domain_get_security_label(self, domain: DomainRef) -> SecurityLabel:
        """The label of a running domain; empty where there is none."""

    def domain_get_info(self, domain: DomainRef) -> DomainInfo:
        """State, memory, CPUs, CPU time."""

    def domain_get_state(self, domain: DomainRef) -> StateInfo:
        """State with its reason."""

    def domain_is_persistent(self, domain: DomainRef) -> bool:
        """Whether a definition exists."""

    def domain_get_autostart(self, domain: DomainRef) -> bool:
        """Whether it starts with the driver."""

    def domain_set_autostart(self, domain: DomainRef, autostart: bool) -> None:
        """Set whether it starts with the driver; ``OPERATION_INVALID`` for a transient domain."""

    def domain_open_console(
        self, domain: DomainRef, device: str | None = None, *, force: bool = False
    ) -> ConsoleStream:
        """Attach to a serial port or console by alias (``serial0``); the first one when None."""

    def connect_autostart(self) -> list[DomainRef]:
        """Start every domain marked for it that is not running; returns those started."""

    def close(self) -> None:
        """Release what the driver holds; running domains run on."""
