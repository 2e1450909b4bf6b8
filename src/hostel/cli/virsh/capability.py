"""The host: what emulators can do, and processors."""

from __future__ import annotations

import re
from typing import Final
from xml.etree import ElementTree

from hostel.cli.options import Args, Command, data, flag, value
from hostel.cli.virsh.session import CommandError, Session, failing, read_document, validated
from hostel.drivers.base.capabilities import (
    BaselineFlag,
    CompareFlag,
    CpuComparison,
    DomainCapabilitiesDriver,
    ModelNamesDriver,
    ProcessorDriver,
)
from hostel.drivers.base.offered import offered

_DECLARATION: Final = re.compile(r"^<\?xml.*?\?>", re.DOTALL)
_EMULATOR: Final = (
    value("virttype", "virtualization type (/domain/@type)"),
    value("emulator", "path to emulator binary (/domain/devices/emulator)"),
    value("arch", "CPU architecture (/domain/os/type/@arch)"),
    value("machine", "machine type (/domain/os/type/@machine)"),
)
_FILE: Final = data("file", "file containing an XML CPU description")
_FILES: Final = data("file", "file containing XML CPU descriptions")
_BASELINE: Final = (
    flag("features", "Show features that are part of the CPU model type"),
    flag("migratable", "Do not include features that block migration"),
)
_COMPARE: Final = (
    flag("error", "report error if CPUs are incompatible"),
    flag("validate", "validate the XML document against schema"),
)


def _capabilities(session: Session, args: Args) -> None:
    with failing("failed to get emulator capabilities"):
        drivers = offered(session.hypervisor, DomainCapabilitiesDriver, "virConnectGetDomainCapabilities")
        text = drivers.connect_get_domain_capabilities(
            args.get("emulatorbin"), args.get("arch"), args.get("machine"), args.get("virttype")
        )
    session.output.text(f"{text}\n")


def _processors(session: Session, api: str) -> ProcessorDriver:
    return offered(session.hypervisor, ProcessorDriver, api)


def _models(session: Session, args: Args) -> None:
    with failing("failed to get CPU model names"):
        driver = offered(session.hypervisor, ModelNamesDriver, "virConnectGetCPUModelNames")
        names = driver.connect_get_cpu_model_names(args["arch"])
    for name in names:
        session.output.line(name)
    if not names:
        session.output.note("all CPU models are accepted")


def _cpus(file: str) -> list[str]:
    """The processors in a file: by themselves, or in documents of domains, hosts and emulators."""
    text = _DECLARATION.sub("", read_document(file), count=1)
    try:
        root = ElementTree.fromstring(f"<container>{text}</container>")
    except ElementTree.ParseError as error:
        raise CommandError(f"{file}: {error}") from None
    found = [*root.findall("cpu"), *root.findall("domain/cpu"), *root.findall("capabilities/host/cpu")]
    for mode in root.findall("domainCapabilities/cpu/mode[@name='host-model'][@supported='yes']"):
        mode.tag = "cpu"
        mode.attrib.clear()
        found.append(mode)
    if not found:
        raise CommandError(
            f"File '{file}' does not contain any <cpu> element or valid domain XML, host capabilities XML, or domain "
            "capabilities XML"
        )
    return [ElementTree.tostring(element, encoding="unicode") for element in found]


def _compare_flags(args: Args) -> CompareFlag:
    return args.flags(CompareFlag.NONE, {"error": CompareFlag.FAIL_INCOMPATIBLE})


def _baseline_flags(args: Args) -> BaselineFlag:
    bits = {"features": BaselineFlag.EXPAND_FEATURES, "migratable": BaselineFlag.MIGRATABLE}
    return args.flags(BaselineFlag.NONE, bits)


def _compare(session: Session, args: Args) -> None:
    file = args["file"]
    with failing(f"Failed to compare host CPU with {file}"):
        cpu = validated(args, _cpus(file)[0], "processor")
        drivers = _processors(session, "virConnectCompareCPU")
        result = drivers.connect_compare_cpu(cpu, _compare_flags(args))
    _tell(session, result, file, "host CPU", "Host CPU")


def _compare_hypervisor(session: Session, args: Args) -> None:
    file = args["file"]
    with failing(f"Failed to compare hypervisor CPU with {file}"):
        cpu = validated(args, _cpus(file)[0], "processor")
        drivers = _processors(session, "virConnectCompareHypervisorCPU")
        result = drivers.connect_compare_hypervisor_cpu(*_emulator(args), cpu, _compare_flags(args))
    whose = "the CPU provided by hypervisor on the host"
    _tell(session, result, file, whose, "The CPU provided by hypervisor on the host")


def _emulator(args: Args) -> tuple[str | None, str | None, str | None, str | None]:
    return args.get("emulator"), args.get("arch"), args.get("machine"), args.get("virttype")


def _tell(session: Session, result: int, file: str, whose: str, beginning: str) -> None:
    if result == CpuComparison.INCOMPATIBLE:
        session.output.text(f"CPU described in {file} is incompatible with {whose}\n")
        raise CommandError("")
    if result == CpuComparison.IDENTICAL:
        session.output.text(f"CPU described in {file} is identical to {whose}\n")
    else:
        session.output.text(f"{beginning} is a superset of CPU described in {file}\n")


def _baseline(session: Session, args: Args) -> None:
    cpus = _cpus(args["file"])
    drivers = _processors(session, "virConnectBaselineCPU")
    session.output.text(drivers.connect_baseline_cpu(cpus, _baseline_flags(args)))


def _baseline_hypervisor(session: Session, args: Args) -> None:
    args.exclude("file", "model")
    if args.has("model"):
        cpus = [f"<cpu><model>{args['model']}</model></cpu>"]
    elif args.has("file"):
        cpus = _cpus(args["file"])
    else:
        raise CommandError("Either --file or --model must be provided")
    drivers = _processors(session, "virConnectBaselineHypervisorCPU")
    session.output.text(drivers.connect_baseline_hypervisor_cpu(*_emulator(args), cpus, _baseline_flags(args)))


COMMANDS: Final = (
    Command(
        "domcapabilities",
        "what an emulator can do",
        (
            value("virttype", "virtualization type (/domain/@type)"),
            value("emulatorbin", "path to emulator binary (/domain/devices/emulator)"),
            value("arch", "domain architecture (/domain/os/type/@arch)"),
            value("machine", "machine type (/domain/os/type/@machine)"),
        ),
        _capabilities,
    ),
    Command("cpu-models", "the models of processors", (data("arch", "architecture"),), _models),
    Command("cpu-compare", "compare the host's processor with one", (_FILE, *_COMPARE), _compare),
    Command("cpu-baseline", "what processors have in common", (_FILES, *_BASELINE), _baseline),
    Command(
        "hypervisor-cpu-compare",
        "compare what an emulator gives with a processor",
        (_FILE, *_EMULATOR, *_COMPARE),
        _compare_hypervisor,
    ),
    Command(
        "hypervisor-cpu-baseline",
        "what an emulator gives and processors have in common",
        (
            value("file", "file containing XML CPU descriptions"),
            *_EMULATOR,
            *_BASELINE,
            value("model", "Shortcut for a single CPU model and no additional features"),
        ),
        _baseline_hypervisor,
    ),
)
