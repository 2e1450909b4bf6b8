"""What a disk that another program serves cannot have (``virDomainDiskVhostUserValidate``)."""

from __future__ import annotations

from typing import Final

from hostel.model.domain.devices.disk import Disk, DiskBus, DiskDriver
from hostel.model.domain.devices.source import BackingStore, SourceType
from hostel.model.domain.rules.rule import Rule

_SNAPSHOTS: Final = (None, "no")


def _is_served(disk: Disk) -> bool:
    return disk.type == SourceType.VHOSTUSER


def _stands_on(disk: Disk) -> BackingStore | None:
    below = disk.backing_store
    return below if below is not None and below.source is not None else None


def _has_not(word: str, below: str) -> Rule[Disk]:
    """It has no such element, which is named as its field is; of ``<auth>`` and such the source may have one."""

    def is_broken(disk: Disk) -> object:
        return _is_served(disk) and (getattr(disk, word) or getattr(disk.source, word, None))

    return Rule(is_broken, lambda _: f"{word} is not supported with vhostuser disk", below=below)


def _driver_has_not(word: str, *fields: str) -> Rule[Disk]:
    def is_broken(disk: Disk) -> object:
        driver = disk.driver or DiskDriver()
        said = [getattr(driver, field) for field in fields or (word,)]
        return _is_served(disk) and any(value is not None and value != "default" for value in said)

    return Rule(is_broken, lambda _: f"{word} is not supported with vhostuser disk", below=f"/driver/@{word}")


VHOST_USER_DISK_RULES: Final[tuple[Rule[Disk], ...]] = (
    Rule(
        lambda disk: _is_served(disk) and disk.target.bus != DiskBus.VIRTIO,
        lambda _: "vhostuser disk supports only virtio bus",
        below="/target/@bus",
    ),
    Rule(
        lambda disk: _is_served(disk) and disk.snapshot not in _SNAPSHOTS,
        lambda _: "only snapshot=no is supported with vhostuser disk",
        below="/@snapshot",
    ),
    _driver_has_not("cache"),
    _driver_has_not("error_policy", "error_policy", "rerror_policy"),
    *map(_driver_has_not, ("io", "ioeventfd", "copy_on_read", "discard", "iothread", "detect_zeroes")),
    _driver_has_not("metadata_cache"),
    _has_not("iotune", "/iotune"),
    Rule(
        lambda disk: _is_served(disk) and _stands_on(disk) is not None,
        lambda _: "backingStore is not supported with vhostuser disk",
        below="/backingStore",
    ),
    *(
        _has_not(word, f"/{word}")
        for word in (
            "encryption", "readonly", "shareable", "transient", "serial", "wwn", "vendor", "product", "auth",
            "geometry", "blockio",
        )
    ),
)  # fmt: skip
