"""Directories of the host in the guest: by QEMU itself over 9p, or by a program over vhost-user."""

from __future__ import annotations

from typing import Any, Final

from hostel.drivers.qemu.command.context import Context, alias_of, escape, option
from hostel.drivers.qemu.command.place import place, virtio, virtio_name, zpci
from hostel.drivers.qemu.helper.virtiofs import is_virtiofs, socket_name
from hostel.model.domain.devices.filesystem import Filesystem, FilesystemDriver, FilesystemSource
from hostel.model.domain.domain import Domain

_SECURITY: Final = {"mapped": "mapped", "passthrough": "passthrough", "squash": "none"}


def arguments(domain: Domain, context: Context, bootindex: dict[int, int]) -> list[str]:
    """Every directory of the document."""
    argv: list[str] = []
    for item in domain.devices.filesystems:
        if is_virtiofs(item):
            argv += vhost_user(domain, item, context, bootindex.get(id(item)))
        else:
            argv += _plan9(domain, item)
    return argv


def _plan9(domain: Domain, item: Filesystem) -> list[str]:
    name, driver = alias_of(item), item.driver or FilesystemDriver()
    words = ["handle" if driver.type == "handle" else "local"]
    if driver.type != "handle":
        words.append(f"security_model={_SECURITY[item.accessmode or 'passthrough']}")
        words += [f"multidevs={item.multidevs}"] if item.multidevs not in (None, "default") else []
        words += [f"{key}={mode:04o}" for key, mode in (("fmode", item.fmode), ("dmode", item.dmode)) if mode]
    words += [f"writeout={driver.wrpolicy}"] if driver.wrpolicy not in (None, "default") else []
    words += [f"id=fsdev-{name}", f"path={escape((item.source or FilesystemSource()).dir or '')}"]
    words += ["readonly=on"] if item.readonly else []
    spec: dict[str, Any] = {"driver": virtio_name("virtio-9p", item, item.model), "id": name, **virtio(item.driver)}
    spec |= {"fsdev": f"fsdev-{name}", "mount_tag": item.target, **place(domain, item)}
    return ["-fsdev", ",".join(words), *zpci(item), *option("-device", spec)]


def vhost_user(domain: Domain, item: Filesystem, context: Context, bootindex: int | None) -> list[str]:
    """A directory that a program serves."""
    name = alias_of(item)
    path = (item.source or FilesystemSource()).socket or str(context.run / socket_name(item))
    spec: dict[str, Any] = {"driver": virtio_name("vhost-user-fs", item, item.model), "id": name}
    spec |= {**virtio(item.driver), "chardev": f"chr-vu-{name}", "tag": item.target}
    spec |= {"queue-size": item.driver.queue if item.driver is not None else None, "bootindex": bootindex}
    return [
        "-chardev", f"socket,id=chr-vu-{name},path={escape(path)}",
        *zpci(item), *option("-device", {**spec, **place(domain, item)}),
    ]  # fmt: skip
