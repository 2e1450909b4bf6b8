"""What of libvirt's flags and parameters QEMU's migration is told (``qemu_migration_params.c``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from hostel.drivers.base.migration import COMPRESSION, MigrateFlag, Parameters
from hostel.drivers.fault import fault
from hostel.drivers.qemu.running import Running
from hostel.errors import ErrorCode, ErrorDomain, VirtError

UNLIMITED: Final = 2**63 - 1  # bytes a second
_MIB: Final = 1 << 20
# Every capability that is ever set, so that one that an earlier migration had is taken back.
_CAPABILITIES: Final = (
    "xbzrle", "auto-converge", "events", "postcopy-ram", "compress", "pause-before-switchover", "late-block-activate",
    "multifd", "return-path",
)  # fmt: skip
_METHODS: Final = {"xbzrle": "xbzrle", "mt": "compress"}
# From libvirt's parameter to QEMU's, what it is multiplied by, and whether the destination needs it as well.
_TUNED: Final = {
    "auto_converge.initial": ("cpu-throttle-initial", 1, False),
    "auto_converge.increment": ("cpu-throttle-increment", 1, False),
    "compression.mt.level": ("compress-level", 1, True),
    "compression.mt.threads": ("compress-threads", 1, True),
    "compression.mt.dthreads": ("decompress-threads", 1, True),
    "compression.xbzrle.cache": ("xbzrle-cache-size", 1, True),
    "bandwidth.postcopy": ("max-postcopy-bandwidth", _MIB, True),
    "parallel.connections": ("multifd-channels", 1, True),
}


class Tuning(NamedTuple):
    """Capabilities that are on, and parameters by QEMU's names."""

    capabilities: frozenset[str]
    parameters: Mapping[str, int | str]


def tuning(params: Parameters, flags: MigrateFlag, *, is_source: bool) -> Tuning:
    """What one side's QEMU is told.

    Raises:
        VirtError: ``INVALID_ARG``: something is tuned that is not wanted.
    """
    methods = _methods(params, flags)
    _check_wanted(params, flags, methods)
    on = {"events", *(_METHODS[method] for method in methods)}
    on |= {"pause-before-switchover"} if is_source else {"late-block-activate"}
    if not flags & MigrateFlag.TUNNELLED:
        on.add("return-path")
    if flags & MigrateFlag.AUTO_CONVERGE and is_source:
        on.add("auto-converge")
    if flags & MigrateFlag.POSTCOPY:
        on.add("postcopy-ram")
    if flags & MigrateFlag.PARALLEL:
        on.add("multifd")
    told = {
        name: number(params, key) * factor
        for key, (name, factor, both) in _TUNED.items()
        if key in params and (is_source or both)
    }
    return Tuning(frozenset(on), told)


def number(params: Parameters, name: str) -> int:
    """A parameter that is a number; 0 where it is not given."""
    value = params.get(name, 0)
    return value if isinstance(value, int) else 0


def text(params: Parameters, name: str) -> str | None:
    """A parameter that is a text."""
    value = params.get(name)
    return value if isinstance(value, str) else None


def texts(params: Parameters, name: str) -> Sequence[str]:
    """A parameter that may be given several times."""
    value = params.get(name, ())
    return (value,) if isinstance(value, str) else () if isinstance(value, int) else value


def _methods(params: Parameters, flags: MigrateFlag) -> list[str]:
    methods: list[str] = []
    for method in texts(params, COMPRESSION):
        if method not in _METHODS:
            raise _invalid(f"Unsupported compression method '{method}'")
        if method in methods:
            raise _invalid(f"Compression method '{method}' is specified twice")
        methods.append(method)
    return methods or (["xbzrle"] if flags & MigrateFlag.COMPRESSED else [])


def _check_wanted(params: Parameters, flags: MigrateFlag, methods: list[str]) -> None:
    wanted = {
        "auto_converge.": (bool(flags & MigrateFlag.AUTO_CONVERGE), "auto convergence"),
        "parallel.": (bool(flags & MigrateFlag.PARALLEL), "parallel migration"),
        "compression.mt.": ("mt" in methods, "multithread compression"),
        "compression.xbzrle.": ("xbzrle" in methods, "xbzrle compression"),
    }
    for beginning, (is_wanted, what) in wanted.items():
        if not is_wanted and any(name.startswith(beginning) for name in params):
            raise _invalid(f"Turn {what} on to tune it")


def apply(machine: Running, told: Tuning) -> None:
    """Set them, and take back all others.

    Raises:
        VirtError: QEMU does not have one, or does not take a value.
    """
    known = {item["capability"] for item in machine.ask("query-migrate-capabilities")}
    for name in told.capabilities - known:
        what = f"Migration option '{name}' is not supported by source QEMU"
        raise fault(ErrorCode.ARGUMENT_UNSUPPORTED, what, ErrorDomain.QEMU)
    wanted = [name for name in _CAPABILITIES if name in known]
    machine.ask("migrate-set-capabilities", capabilities=_states(wanted, told.capabilities))
    if told.parameters:
        machine.ask("migrate-set-parameters", **told.parameters)


def reset(machine: Running) -> None:
    """Take all of them back: saving a machine is a migration as well; QEMU may have ended."""
    machine.attempt("migrate-set-capabilities", capabilities=_states(_CAPABILITIES, frozenset()))


def _states(names: Sequence[str], on: frozenset[str]) -> list[dict[str, Any]]:
    return [{"capability": name, "state": name in on} for name in names]


def _invalid(message: str) -> VirtError:
    return fault(ErrorCode.INVALID_ARG, message, ErrorDomain.QEMU)
