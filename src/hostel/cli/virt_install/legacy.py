"""Options of older virt-installs, turned into those of today: ``--ram``, ``--file``, ``--vnc`` and others."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from hostel.errors import UsageError


def convert(options: Namespace) -> list[str]:
    """Rewrite the old options in place; returns warnings.

    Raises:
        UsageError: old and new contradict each other.
    """
    warnings: list[str] = []
    _cdrom(options)
    if options.force and not options.check:
        options.check = ["all=off"]
    if options.prompt:
        warnings.append("--prompt mode is no longer supported.")
    if options.ram is not None and not options.memory:
        options.memory = [str(options.ram)]
    _networks(options)
    _graphics(options)
    _disks(options)
    if not options.features:
        switched_off = [f"{name}=off" for name in ("acpi", "apic") if getattr(options, f"no{name}")]
        options.features = [",".join(switched_off)] if switched_off else []
    if options.init:
        options.boot = [*(options.boot or []), f"init={options.init}"]
    if options.cpuset:
        options.vcpus = [*(options.vcpus or []), f"cpuset={options.cpuset}"]
    if options.wait == 0:
        warnings.append("Treating --wait 0 as --noautoconsole")
        options.autoconsole, options.wait = "none", None
    if options.old_os_type:
        warnings.append("--os-type is deprecated and does nothing. Please stop using it.")
    return warnings


def _cdrom(options: Namespace) -> None:
    if not options.cdrom_short:
        return
    if options.cdrom:
        raise _conflict("-c", "--cdrom")
    if "://" in options.cdrom_short:
        raise UsageError(
            "-c specified with what looks like a libvirt URI. Did you mean to use --connect? "
            "If not, use --cdrom instead"
        )
    options.cdrom = options.cdrom_short


def _networks(options: Namespace) -> None:
    if options.nonetworks:
        options.network = ["none"]
    bridges, networks = options.bridge or [], options.network or []
    if bridges and networks:
        raise _conflict("--bridge", "--network")
    networks = [f"bridge={bridge}" for bridge in bridges] or list(networks)
    addresses: list[Any] = list(options.mac or [])
    least = 0 if options.reinstall else 1  # what is installed again keeps its interfaces
    networks += [None] * (max(len(addresses), least) - len(networks))
    options.network = []
    for index, network in enumerate(networks):
        text = "default" if network is None else network
        if index < len(addresses) and addresses[index]:
            text += f",mac={addresses[index]}"
        for kind in ("network", "bridge"):
            text = text.replace(f"{kind}:", f"{kind}=", 1) if text.startswith(f"{kind}:") else text
        options.network.append(text or "none")  # an empty one, too, is instead of the default


def _graphics(options: Namespace) -> None:
    old = [options.vnc, options.sdl, options.keymap, options.vncport, options.vnclisten]
    if options.graphics and any(old):
        raise UsageError("Cannot mix --graphics and old style graphical options")
    kinds = [options.vnc, options.nographics, options.sdl, options.graphics]
    if sum(map(bool, kinds)) > 1:
        raise UsageError("Can't specify more than one of VNC, SDL, --graphics or --nographics")
    if options.graphics or not any(kinds):
        return
    text = "vnc" if options.vnc else "sdl" if options.sdl else "none"
    for name, value in (("listen", options.vnclisten), ("port", options.vncport), ("keymap", options.keymap)):
        if value:
            text += f",{name}={value}"
    options.graphics = [text]


def _disks(options: Namespace) -> None:
    paths, sizes = list(options.file_paths or []), list(options.disksize or [])
    if options.nodisks and (paths or sizes or options.disk):
        raise UsageError("Cannot specify storage and use --nodisks")
    if (paths or sizes or not options.sparse) and options.disk:
        raise UsageError(
            "Cannot mix --file, --nonsparse, or --file-size with --disk options. "
            "Use --disk PATH[,size=SIZE][,sparse=yes|no]"
        )
    if options.disk:
        return
    if options.nodisks:
        options.disk = ["none"]
        return
    options.disk = []
    for index in range(max(len(paths), len(sizes))):
        words = [f"path={paths[index]}"] if index < len(paths) else []
        words += [f"size={sizes[index]}"] if index < len(sizes) and sizes[index] else []
        words += [] if options.sparse else ["sparse=no"]
        options.disk.append(",".join(words))


def _conflict(one: str, other: str) -> UsageError:
    return UsageError(f"Cannot use {one} and {other} at the same time")
