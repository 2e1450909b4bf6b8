"""Rules for the other devices (``virDomain*DefValidate``)."""

from __future__ import annotations

import re
from typing import Final

from hostel.errors import ErrorCode
from hostel.model.domain.clock import Timer
from hostel.model.domain.devices.character import Channel, CharacterEnd, CharacterSource, CharacterType
from hostel.model.domain.devices.controller import MODELS, Controller, ControllerType
from hostel.model.domain.devices.graphics import Graphics, GraphicsType
from hostel.model.domain.devices.input import Input
from hostel.model.domain.devices.interface import Interface, InterfaceSource, InterfaceType
from hostel.model.domain.rules.rule import Rule

MAC: Final = re.compile("[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}")
_NEEDED: Final = {
    InterfaceType.NETWORK: "network",
    InterfaceType.BRIDGE: "bridge",
    InterfaceType.DIRECT: "dev",
    InterfaceType.INTERNAL: "name",
    InterfaceType.VDPA: "dev",
    InterfaceType.MCAST: "address",
    InterfaceType.CLIENT: "address",
}
_WITH_PATH: Final = (CharacterType.DEV, CharacterType.FILE, CharacterType.PIPE)
_IFNAME: Final = re.compile(r"[^/:\s]{1,15}")


def _source(interface: Interface) -> InterfaceSource:
    return interface.source or InterfaceSource()


def _lacks_source(interface: Interface) -> bool:
    needed = _NEEDED.get(interface.type)
    return needed is not None and getattr(_source(interface), needed) in (None, "")


def _bridge(interface: Interface) -> str | None:
    return _source(interface).bridge if interface.type == InterfaceType.BRIDGE else None


INTERFACE_RULES: Final[tuple[Rule[Interface], ...]] = (
    Rule(
        lambda item: item.mac is not None and not MAC.fullmatch(item.mac.address),
        lambda item: f"unable to parse mac address '{item.mac.address if item.mac else ''}'",
        ErrorCode.XML_ERROR,
        "/mac/@address",
    ),
    Rule(
        lambda item: item.mac is not None and int(item.mac.address.partition(":")[0], 16) & 1,
        lambda item: f"expected unicast mac address, found multicast '{item.mac.address if item.mac else ''}'",
        ErrorCode.XML_ERROR,
        "/mac/@address",
    ),
    Rule(
        _lacks_source,
        lambda item: f"Missing required attribute '{_NEEDED[item.type]}' in element 'source'",
        ErrorCode.XML_ERROR,
        "/source",
    ),
    Rule(
        lambda item: _bridge(item) is not None and not _IFNAME.fullmatch(_bridge(item) or ""),
        lambda item: f"'{_bridge(item)}' is no name of a bridge: 1 to 15 characters, no '/', ':' or blanks",
        ErrorCode.XML_ERROR,
        "/source/@bridge",
    ),
    Rule(
        lambda item: item.target is not None and item.target.dev and not _IFNAME.fullmatch(item.target.dev),
        lambda item: f"'{item.target.dev if item.target else ''}' is no name of an interface",
        ErrorCode.XML_ERROR,
        "/target/@dev",
    ),
    Rule(
        lambda item: item.teaming is not None and item.teaming.type == "transient" and item.teaming.persistent is None,
        lambda _: "teaming persistent attribute must be set if teaming type is 'transient'",
        ErrorCode.XML_ERROR,
        "/teaming",
    ),
    Rule(
        lambda item: item.backend is not None and item.backend.type == "passt" and item.type != InterfaceType.USER,
        lambda _: "The 'passt' backend can only be used with interface type='user'",
        below="/backend/@type",
    ),
)


def _is_model_wrong(controller: Controller) -> bool:
    known = MODELS.get(controller.type)
    return controller.model is not None and known is not None and controller.model not in known


CONTROLLER_RULES: Final[tuple[Rule[Controller], ...]] = (
    Rule(
        _is_model_wrong,
        lambda item: f"Unknown model type '{item.model}'",
        below="/@model",
    ),
    Rule(
        lambda item: item.type == ControllerType.PCI and item.model is None,
        lambda _: "PCI controller model was not set correctly; write <controller type='pci' model='…'/>",
        ErrorCode.INTERNAL_ERROR,
        "/@model",
    ),
    Rule(
        lambda item: item.type == ControllerType.PCI and (item.index or 0) > 255,
        lambda item: f"PCI controller index {item.index} too high, maximum is 255",
        below="/@index",
    ),
    Rule(
        lambda item: item.model in ("nec-xhci", "qemu-xhci") and (item.ports or 0) > 15,
        lambda item: f"'{item.model}' controller only supports up to '15' ports",
        below="/@ports",
    ),
    Rule(
        lambda item: item.model in ("pci-root", "pcie-root") and item.address is not None,
        lambda _: "pci-root and pcie-root controllers should not have an address",
        below="/address",
    ),
    Rule(
        lambda item: (
            item.driver is not None
            and item.driver.iothread is not None
            and item.model not in ("virtio-scsi", "virtio-transitional", "virtio-non-transitional")
        ),
        lambda _: "'iothread' attribute only supported for virtio scsi controllers",
        ErrorCode.XML_ERROR,
        "/driver/@iothread",
    ),
)


def _first(character: CharacterEnd) -> CharacterSource:
    return character.source or CharacterSource()


def _kind(character: CharacterEnd) -> CharacterType | None:
    kind: CharacterType | None = getattr(character, "type", None)
    return kind


CHARACTER_RULES: Final[tuple[Rule[CharacterEnd], ...]] = (
    Rule(
        lambda item: _kind(item) in _WITH_PATH and not _first(item).path,
        lambda _: "Missing source path attribute for char device",
        ErrorCode.INTERNAL_ERROR,
        "/source",
    ),
    Rule(
        lambda item: _kind(item) == CharacterType.TCP and not _first(item).host,
        lambda _: "Missing source host attribute for char device",
        ErrorCode.INTERNAL_ERROR,
        "/source",
    ),
    Rule(
        lambda item: (
            _kind(item) in (CharacterType.TCP, CharacterType.UDP) and not any(source.service for source in item.sources)
        ),
        lambda _: "Missing source service attribute for char device",
        ErrorCode.INTERNAL_ERROR,
        "/source",
    ),
    Rule(
        lambda item: _kind(item) == CharacterType.NMDM and not (_first(item).master and _first(item).slave),
        lambda _: "Should define both master and slave path attributes for nmdm",
        ErrorCode.INTERNAL_ERROR,
        "/source",
    ),
    Rule(
        lambda item: _kind(item) == CharacterType.SPICEPORT and not _first(item).channel,
        lambda _: "Missing source channel attribute for char device",
        below="/source",
    ),
    Rule(
        lambda item: _first(item).mode == "bind" and _first(item).reconnect is not None,
        lambda _: "chardev reconnect is possible only for connect mode",
        ErrorCode.INTERNAL_ERROR,
        "/source/reconnect",
    ),
    Rule(
        lambda item: isinstance(item, Channel) and (item.target is None or item.target.type is None),
        lambda _: "target type must be specified for channel device",
        ErrorCode.XML_ERROR,
        "/target",
    ),
)

GRAPHICS_RULES: Final[tuple[Rule[Graphics], ...]] = (
    Rule(
        lambda item: any(listen.type == "network" and not listen.network for listen in item.listens),
        lambda _: "'network' attribute is required for listen type 'network'",
        ErrorCode.XML_ERROR,
        "/listen",
    ),
    Rule(
        lambda item: (
            item.type not in (GraphicsType.VNC, GraphicsType.SPICE)
            and any(listen.type in ("socket", "none") for listen in item.listens)
        ),
        lambda item: f"listen type '{item.listens[0].type}' is not available for graphics type '{item.type}'",
        below="/listen/@type",
    ),
)

INPUT_RULES: Final[tuple[Rule[Input], ...]] = (
    Rule(
        lambda item: item.bus == "ps2" and item.type not in ("mouse", "keyboard"),
        lambda item: f"ps2 bus does not support {item.type} input device",
        ErrorCode.INTERNAL_ERROR,
        "/@bus",
    ),
    Rule(
        lambda item: item.type == "passthrough" and item.bus != "virtio",
        lambda _: "only bus 'virtio' is supported for 'passthrough' input devices",
        below="/@bus",
    ),
    Rule(
        lambda item: item.model is not None and item.bus != "virtio",
        lambda item: f"only bus 'virtio' is supported for input model '{item.model}'",
        below="/@model",
    ),
)

TIMER_RULES: Final[tuple[Rule[Timer], ...]] = (
    Rule(
        lambda item: item.name in ("kvmclock", "hypervclock") and item.tickpolicy is not None,
        lambda item: f"timer {item.name} doesn't support setting of timer tickpolicy",
    ),
    Rule(
        lambda item: item.catchup is not None and item.tickpolicy != "catchup",
        lambda _: "setting of timer catchup policies is only supported with tickpolicy='catchup'",
        ErrorCode.XML_ERROR,
    ),
    Rule(
        lambda item: item.name != "tsc" and item.frequency,
        lambda item: f"timer {item.name} doesn't support setting of timer frequency",
    ),
    Rule(
        lambda item: item.name != "tsc" and item.mode is not None,
        lambda item: f"timer {item.name} doesn't support setting of timer mode",
    ),
    Rule(
        lambda item: item.name not in ("platform", "rtc") and item.track is not None,
        lambda item: f"timer {item.name} doesn't support setting of timer track",
    ),
)
