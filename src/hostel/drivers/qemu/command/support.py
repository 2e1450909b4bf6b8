"""What of a document this driver acts on; anything else is refused by its path, so that nothing is left out unsaid.

What a command line has, and a machine of this driver cannot be started with, is apart: it concerns what must be made
ready on the host first, such as secrets, taps and devices that are taken from the host.

A class that is missing here is refused as a whole. Attributes and elements that do not concern a running machine of a
session, such as a title, are listed as what is acted on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from hostel.codec.xml import Element
from hostel.drivers.qemu.document import unsupported
from hostel.model import authentication, encryption, port
from hostel.model.domain import clock, cpu, domain, features, memory, os, passthrough, security, sysinfo, tune
from hostel.model.domain.devices import (
    address,
    character,
    controller,
    device,
    disk,
    filesystem,
    graphics,
    hostdev,
    input,
    interface,
    paravirtual,
    platform,
    redirection,
    seclabel,
    sound,
    source,
    video,
)

_DEVICE: Final = "alias acpi_index address"
_VIRTIO: Final = "iommu ats packed page_per_vq"
_HOSTDEV: Final = f"mode type managed model boot {_DEVICE}"
_CHARACTER: Final = f"type sources protocol log target {_DEVICE}"

_MEMORY_SIZES: Final = (
    platform.MemorySize, platform.MemoryLabelSize, platform.MemoryBlock, platform.MemoryRequested,
    platform.MemoryCurrent, platform.MemoryPageSize, platform.MemoryAlignSize,
)  # fmt: skip

_SMBIOS_BLOCKS: Final = (
    sysinfo.SysinfoBios, sysinfo.SysinfoSystem, sysinfo.BaseBoard, sysinfo.Chassis, sysinfo.OemStrings,
)  # fmt: skip

_ACTED_ON: Final[dict[type[Element], str]] = {
    domain.Domain: (
        "type id name uuid genid title description metadata memory max_memory memory_backing current_memory "
        "memtune blkiotune numatune vcpu vcpus iothreads iothread_ids default_iothread cputune resource os features "
        "cpu clock on_poweroff on_reboot on_crash on_lockfailure pm perf sysinfos devices seclabels idmap "
        "launch_security qemu_commandline qemu_override qemu_deprecation"
    ),
    domain.GenerationId: "value",
    domain.PowerManagement: "suspend_to_mem suspend_to_disk",
    domain.Devices: (
        "emulator disks controllers interfaces serials parallels consoles channels inputs graphics sounds audios "
        "videos hubs watchdogs memballoon rngs panics tpms memories filesystems "
        "smartcards redirdevs redirfilter shmems vsock iommu hostdevs nvram leases"
    ),
    memory.Memory: "dump_core unit value",
    memory.MaxMemory: "slots unit value",
    memory.MemoryBacking: "hugepages nosharepages locked source access allocation discard",
    memory.HugePages: "pages",
    memory.Numatune: "memory nodes",
    memory.NumatuneMemory: "mode nodeset placement",
    memory.NumatuneNode: "cellid mode nodeset",
    memory.HugePage: "size unit nodeset",
    memory.Allocation: "mode threads",
    memory.CurrentMemory: "unit value",
    tune.IoThreadIds: "iothreads",
    tune.DefaultIoThread: "thread_pool_min thread_pool_max",
    tune.IoThread: "id thread_pool_min thread_pool_max",
    tune.Cputune: (
        "shares period quota global_period global_quota emulator_period emulator_quota iothread_period iothread_quota "
        "vcpupins emulatorpin iothreadpins emulatorsched vcpuscheds iothreadscheds cachetunes memorytunes"
    ),
    tune.Cachetune: "vcpus id caches monitors",
    tune.TunedCache: "id level type size unit",
    tune.CacheMonitor: "level vcpus",
    tune.Memorytune: "vcpus id nodes monitors",
    tune.TunedNode: "id bandwidth",
    tune.MemoryMonitor: "vcpus",
    tune.Blkiotune: "weight devices",
    tune.BlkioDevice: "path weight read_iops_sec write_iops_sec read_bytes_sec write_bytes_sec",
    memory.Memtune: "hard_limit soft_limit swap_hard_limit",
    **dict.fromkeys((memory.HardLimit, memory.SoftLimit, memory.SwapHardLimit), "unit value"),
    tune.VcpuPin: "vcpu cpuset",
    tune.IoThreadPin: "iothread cpuset",
    tune.EmulatorScheduler: "scheduler priority",
    tune.VcpuScheduler: "vcpus scheduler priority",
    tune.IoThreadScheduler: "iothreads scheduler priority",
    tune.Perf: "events",
    tune.PerfEvent: "name enabled",
    tune.Resource: "partition appid",
    seclabel.SecurityLabel: "type model relabel label image_label base_label",
    seclabel.DeviceSecurityLabel: "model label_skip relabel label",
    security.LaunchSecurity: "type kernel_hashes cbitpos reduced_phys_bits policy dh_cert session",
    tune.IdMap: "uids gids",
    **dict.fromkeys((tune.UserMap, tune.GroupMap), "start target count"),
    passthrough.QemuCommandline: "arguments environment",
    passthrough.QemuArgument: "value",
    passthrough.QemuVariable: "name value",
    passthrough.QemuOverride: "devices",
    passthrough.QemuDevice: "alias frontend",
    passthrough.QemuFrontend: "properties",
    passthrough.QemuProperty: "name type value",
    passthrough.QemuDeprecation: "behavior",
    os.Os: "firmware type firmware_features loader nvram kernel initrd cmdline dtb acpi boot bootmenu bios smbios",
    os.OsAcpi: "tables",
    os.AcpiTable: "type path",
    sysinfo.Sysinfo: "type bios system base_boards chassis oem_strings entries",
    **dict.fromkeys(_SMBIOS_BLOCKS, "entries"),
    sysinfo.Entry: "name file value",
    os.Firmware: "features",
    os.FirmwareFeature: "enabled name",
    os.Loader: "readonly secure type format_name stateless path",
    os.Nvram: "template type format_name path source",
    os.OsType: "arch machine value",
    os.BootMenu: "enable timeout",
    os.Bios: "use_serial reboot_timeout",
    features.Features: "acpi apic pae hap hyperv kvm pvspinlock pmu vmport gic smm ioapic vmcoreinfo tcg hpt htm "
    "nested_hv ccf_assist cfpc sbbc ibs",
    features.HashPageTable: "resizing max_page_size",
    features.Gic: "version",
    features.Tcg: "tb_cache",
    **dict.fromkeys((features.TranslationCache, features.TopSegment, features.MaxPageSize), "unit value"),
    features.Apic: "eoi",
    features.Hyperv: (
        "mode relaxed vapic spinlocks vpindex runtime synic stimer reset vendor_id frequencies reenlightenment "
        "tlbflush ipi evmcs avic"
    ),
    features.Spinlocks: "state retries",
    features.SyntheticTimer: "state direct",
    features.VendorId: "state value",
    features.Kvm: "hidden hint_dedicated poll_control pv_ipi dirty_ring",
    features.DirtyRing: "state size",
    features.SystemManagement: "state tseg",
    cpu.Vcpus: "vcpus",
    cpu.VcpuEntry: "id enabled hotpluggable order",
    cpu.Vcpu: "placement cpuset value current",
    cpu.Cpu: "mode match check migratable model vendor topology cache maxphysaddr features numa",
    cpu.CpuCache: "level mode",
    cpu.CpuModel: "fallback vendor_id name",
    cpu.Topology: "sockets dies cores threads",
    cpu.MaxPhysicalAddress: "mode bits",
    cpu.CpuFeature: "policy name",
    cpu.Numa: "cells interconnects",
    cpu.Cell: "id cpus memory unit mem_access discard distances caches",
    cpu.Distances: "siblings",
    cpu.Sibling: "id value",
    cpu.CellCache: "level associativity policy size line",
    cpu.CacheSize: "value unit",
    cpu.CacheLine: "value unit",
    cpu.Interconnects: "latencies bandwidths",
    cpu.Latency: "initiator target cache type value",
    cpu.CellBandwidth: "initiator target cache type value unit",
    clock.Clock: "offset adjustment basis timezone start timers",
    clock.Timer: "name present tickpolicy track frequency catchup",
    clock.Catchup: "threshold slew limit",
    hostdev.PciHostdev: f"{_HOSTDEV} driver source teaming rom",
    hostdev.UsbHostdev: f"{_HOSTDEV} source",
    hostdev.ScsiHostdev: f"{_HOSTDEV} source rawio sgio readonly shareable",
    hostdev.ScsiHostHostdev: f"{_HOSTDEV} source",
    hostdev.MdevHostdev: f"{_HOSTDEV} source display ramfb",
    hostdev.PciHostSource: "address",
    hostdev.PciHostAddress: "type domain bus slot function",
    hostdev.UsbHostSource: "startup_policy auto_address missing guest_reset vendor product address",
    hostdev.UsbHostAddress: "type bus device",
    hostdev.ScsiSource: "protocol name host auth initiator adapter address",
    hostdev.ScsiHostAddress: "type bus target unit",
    hostdev.ScsiHostSource: "protocol wwpn",
    hostdev.MdevSource: "address",
    hostdev.MdevAddress: "uuid",
    address.UnassignedAddress: "",
    address.PciAddress: "domain bus slot function multifunction zpci",
    address.ZpciAddress: "uid fid",
    address.CcwAddress: "cssid ssid devno",
    address.SpaprVioAddress: "reg",
    address.VirtioMmioAddress: "",
    address.DriveAddress: "controller bus target unit",
    address.VirtioSerialAddress: "controller bus port",
    address.UsbAddress: "bus port",
    device.Boot: "order",
    device.Rom: "enabled bar file",
    device.VirtioDriver: _VIRTIO,
    disk.Disk: (
        "type device model rawio sgio snapshot driver auth source backing_store geometry blockio target iotune "
        f"readonly shareable transient serial wwn vendor product encryption boot {_DEVICE}"
    ),
    disk.DiskDriver: (
        "name type cache error_policy rerror_policy io ioeventfd event_idx copy_on_read discard iothread detect_zeroes "
        f"queues queue_size metadata_cache {_VIRTIO}"
    ),
    disk.Transient: "share_backing",
    disk.DiskTarget: "dev bus tray removable rotation_rate",
    disk.IoTune: (
        "total_bytes_sec read_bytes_sec write_bytes_sec total_iops_sec read_iops_sec write_iops_sec "
        "total_bytes_sec_max read_bytes_sec_max write_bytes_sec_max total_iops_sec_max read_iops_sec_max "
        "write_iops_sec_max size_iops_sec group_name total_bytes_sec_max_length read_bytes_sec_max_length "
        "write_bytes_sec_max_length total_iops_sec_max_length read_iops_sec_max_length write_iops_sec_max_length"
    ),
    disk.Geometry: "cyls heads secs trans",
    disk.BlockIo: "logical_block_size physical_block_size discard_granularity",
    source.DiskSource: (
        "file dev protocol name query pool volume mode startup_policy index hosts readahead timeout identity snapshot "
        "config initiator ssl_verify cookies auth encryption dir type path reconnect reservations slices fdgroup "
        "tls tls_hostname managed namespace address seclabels"
    ),
    source.NvmeAddress: "domain bus slot function",
    source.Slices: "slices",
    source.Slice: "type offset size",
    source.Host: "name port transport socket",
    source.Identity: "user group",
    source.Initiator: "iqn",
    source.Cookies: "cookies",
    source.Cookie: "name value",
    authentication.Authentication: "type username secret",
    authentication.SecretReference: "type uuid usage",
    encryption.Encryption: "format_name engine secrets",
    source.BackingStore: "type index image_format source backing_store",
    source.ImageFormat: "type metadata_cache",
    source.MetadataCache: "max_size",
    source.MaxSize: "unit value",
    source.Reservations: "managed source",
    source.ReservationsSource: "type path mode",
    source.Reconnect: "enabled timeout",
    controller.Controller: (
        f"type index model ports vectors model_name target driver master_startport pci_hole {_DEVICE}"
    ),
    controller.PciHole64: "unit value",
    controller.ControllerTarget: "chassis_nr chassis port bus_nr hotplug index node",
    controller.ControllerDriver: f"queues cmd_per_lun max_sectors ioeventfd iothread {_VIRTIO}",
    interface.Interface: (
        "type trust_guest_rx_filters teaming mac source vlan virtualport bandwidth isolation ips port_forwards backend "
        f"script downscript target model driver filterref link_state mtu coalesce tune boot rom {_DEVICE} actual"
    ),
    interface.HostdevInterface: (
        f"type managed mac source target model driver boot rom teaming vlan virtualport {_DEVICE}"
    ),
    interface.HostdevAddress: "type domain bus slot function",
    interface.Teaming: "type persistent",
    interface.FilterReference: "filter parameters",
    interface.FilterParameter: "name value",
    interface.Mac: "address type check",
    interface.InterfaceSource: (
        "network portgroup portid bridge mac_table_manager dev mode host_address type path address port local reconnect"
    ),
    interface.LocalAddress: "address port",
    port.Bandwidth: "inbound outbound",
    port.Inbound: "average peak floor burst",
    port.Outbound: "average peak burst",
    port.Isolation: "isolated",
    port.Vlan: "trunk tags",
    port.VlanTag: "id native_mode",
    port.VirtualPort: "type parameters",
    port.VirtualPortParameters: "managerid typeid typeidversion instanceid interfaceid profileid",
    interface.InterfaceIp: "address family prefix",
    interface.PortForward: "proto address dev ranges",
    interface.PortRange: "start end to exclude",
    interface.InterfaceBackend: "type tap vhost log_file",
    interface.InterfaceTarget: "dev managed",
    interface.InterfaceDriver: (
        f"name queues txmode ioeventfd event_idx rx_queue_size tx_queue_size rss rss_hash_report host guest {_VIRTIO}"
    ),
    interface.HostOffloads: "csum gso tso4 tso6 ecn ufo mrg_rxbuf",
    interface.GuestOffloads: "csum tso4 tso6 ecn ufo",
    interface.Coalesce: "rx",
    interface.CoalesceRx: "frames",
    interface.InterfaceTune: "sndbuf",
    interface.ActualInterface: "type managed source class_id vlan virtualport bandwidth isolation",
    character.Serial: _CHARACTER,
    character.SerialTarget: "type port model",
    character.Parallel: _CHARACTER,
    character.ParallelTarget: "port",
    character.Console: f"tty {_CHARACTER}",
    character.ConsoleTarget: "type port",
    character.Channel: _CHARACTER,
    character.ChannelTarget: "type address port name state",
    character.CharacterSource: "mode path append host service tls channel seclabels reconnect clipboard mouse",
    character.Log: "file append",
    input.Input: f"type bus driver source {_DEVICE}",
    input.InputSource: "dev evdev grab grab_toggle repeat",
    input.Hub: f"type {_DEVICE}",
    graphics.Graphics: (
        "type socket port tls_port autoport websocket listen keymap share_policy power_control display xauth p2p "
        "address fullscreen passwd passwd_valid_to connected listens audio default_mode channels image_compression "
        "jpeg_compression zlib_compression playback_compression streaming mouse clipboard file_transfer gl"
    ),
    graphics.Listen: "type address network socket",
    graphics.SpiceChannel: "name mode",
    graphics.Gl: "enable rendernode",
    sound.Sound: f"model multichannel codecs audio {_DEVICE}",
    sound.Audio: "id type timer_period driver path server_name try_mmap exclusive dsp_policy input output",
    **dict.fromkeys(
        (sound.AudioInput, sound.AudioOutput),
        "mixing_engine fixed_settings voices buffer_length server_name client_name connect_ports exact_name dev "
        "buffer_count try_poll name stream_name latency settings",
    ),
    sound.AudioSettings: "frequency channels sample_format",
    video.Video: f"driver model {_DEVICE}",
    video.VideoDriver: f"name {_VIRTIO}",
    video.VideoModel: "type ram vram vram64 vgamem heads primary blob acceleration resolution",
    video.Acceleration: "accel2d accel3d rendernode",
    video.Resolution: "x y",
    paravirtual.MemoryBalloon: f"model autodeflate free_page_reporting stats_period driver {_DEVICE}",
    paravirtual.Rng: f"model rate backend driver {_DEVICE}",
    paravirtual.RngRate: "bytes period",
    paravirtual.RngBackend: "model type path sources protocol",
    platform.Watchdog: f"model action {_DEVICE}",
    platform.Lease: "lockspace key target",
    platform.LeaseTarget: "path offset",
    platform.Panic: f"model {_DEVICE}",
    filesystem.Filesystem: (
        f"type accessmode model multidevs fmode dmode driver binary source target readonly boot {_DEVICE}"
    ),
    filesystem.FilesystemDriver: f"type format_name wrpolicy queue {_VIRTIO}",
    filesystem.FilesystemBinary: "path xattr cache sandbox lock thread_pool",
    filesystem.FilesystemLock: "posix flock",
    filesystem.FilesystemSource: "dir socket",
    platform.DeviceNvram: _DEVICE,
    platform.Iommu: f"model driver {_DEVICE}",
    platform.IommuDriver: "intremap caching_mode eim iotlb aw_bits",
    redirection.Smartcard: f"mode type sources protocol log certificates database {_DEVICE}",
    redirection.Redirdev: f"bus type sources protocol log boot {_DEVICE}",
    redirection.RedirectionFilter: "rules",
    redirection.UsbRule: "usb_class vendor product version allow",
    paravirtual.SharedMemory: f"name role model size server msi {_DEVICE}",
    paravirtual.ShmemSize: "unit value",
    paravirtual.ShmemServer: "path",
    paravirtual.ShmemMsi: "vectors ioeventfd",
    paravirtual.Vsock: f"model cid driver {_DEVICE}",
    paravirtual.VsockCid: "auto address",
    address.CcidAddress: "controller slot",
    address.IsaAddress: "iobase irq",
    platform.MemoryDevice: f"model access discard uuid source target {_DEVICE}",
    platform.MemoryDeviceSource: "node_mask page_size path align_size pmem",
    platform.MemoryTarget: "size node label readonly block requested current",
    platform.MemoryLabel: "size",
    **dict.fromkeys(_MEMORY_SIZES, "unit value"),
    address.DimmAddress: "slot base",
    platform.Tpm: f"model backend {_DEVICE}",
    platform.TpmBackend: "type version persistent_state device encryption banks source",
    platform.TpmBanks: "sha1 sha256 sha384 sha512",
    platform.TpmSource: "type mode path",
}
# What only a command line has.
_SAID_TOO: Final[dict[type[Element], str]] = {
    interface.Interface: "managed",
}
FIELDS: Final = {cls: frozenset(names.split()) for cls, names in _ACTED_ON.items()}
SAID: Final = {
    cls: FIELDS.get(cls, frozenset()) | frozenset(_SAID_TOO.get(cls, "").split()) for cls in (*FIELDS, *_SAID_TOO)
}


def refuse_unknown(document: domain.Domain, fields: Mapping[type[Element], frozenset[str]] = FIELDS) -> None:
    """Refuse what a guest would miss if it were left out without a word.

    Args:
        document: the machine.
        fields: what is acted on; ``SAID`` for a command line that nobody starts.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``, naming the element or attribute.
    """
    for path, name in _not_acted_on(document, "/domain", fields):
        raise unsupported(f"<{name}> is not supported by this driver; remove it ({path})")


def _not_acted_on(
    element: Element, path: str, fields: Mapping[type[Element], frozenset[str]]
) -> Iterator[tuple[str, str]]:
    """Path and name of everything that is not in the table."""
    known = fields.get(type(element))
    if known is None:
        yield path, element.TAG
        return
    for field in element.FIELDS:
        value = getattr(element, field.name)
        if field.name not in known and not field.is_absent(value):
            if isinstance(value, list):
                value = value[0]
            name = value.TAG if isinstance(value, Element) else field.tag
            yield f"{path}/{name}", name
    for item in element.unknown:
        name = item.name.lstrip("@").rpartition("}")[2]
        yield f"{path}/{item.leaf + '/' if item.leaf else ''}{item.name}", name
    for below in element.elements():
        yield from _not_acted_on(below, f"{path}/{below.TAG}", fields)
