"""What emulators can do, and processors, through our virsh beside real virsh and a real libvirtd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

import hostel
from support import libvirtd
from support.virsh import Ours, Real, run_lines

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("virsh"),
    pytest.mark.requires_tool("libvirtd"),
]
FILES = {
    "guest": "<cpu match='exact'><model>Haswell</model></cpu>",
    "hosts": (
        "<cpu><arch>x86_64</arch><model>kvm64</model><feature name='avx'/></cpu>"
        "<cpu><arch>x86_64</arch><model>qemu64</model><vendor>AMD</vendor></cpu>"
    ),
    "unknown-model": "<cpu><arch>x86_64</arch><model>Nope</model></cpu>",
    "unknown-feature": "<cpu><model>kvm64</model><feature name='zz'/></cpu>",
    "no-model": "<cpu><arch>x86_64</arch></cpu>",
    "strict": "<cpu match='strict'><model>486</model></cpu>",
    "foreign": "<cpu><arch>aarch64</arch><model>kvm64</model></cpu>",
    "vendor": "<cpu><model>kvm64</model><vendor>Hygon</vendor></cpu>",
    "vendors": (
        "<cpu><arch>x86_64</arch><model>Haswell</model><vendor>Intel</vendor></cpu>"
        "<cpu><arch>x86_64</arch><model>EPYC</model><vendor>AMD</vendor></cpu>"
    ),
    "forbidden": "<cpu><model>kvm64</model><feature name='sse2' policy='forbid'/></cpu>",
    "none": "<foo/>",
    "broken": "<cpu>",
    "domain": "<?xml version='1.0'?><domain><cpu><model>qemu32</model></cpu></domain>",
}
LINES = (
    "cpu-compare {guest}", "cpu-compare {hosts}", "cpu-compare {unknown-model}", "cpu-compare {unknown-feature}",
    "cpu-compare {no-model}", "cpu-compare {strict}", "cpu-compare --error {foreign}", "cpu-compare {foreign}",
    "cpu-compare --error {vendor}", "cpu-compare --error {forbidden}", "cpu-compare {none}", "cpu-compare /nope",
    "cpu-compare {domain}", "cpu-baseline {hosts}", "cpu-baseline {hosts} --features", "cpu-baseline {guest}",
    "cpu-baseline {vendors}", "cpu-baseline {no-model}", "cpu-models nope", "cpu-models aarch64",
    "hypervisor-cpu-compare {hosts}", "hypervisor-cpu-compare {domain}", "hypervisor-cpu-compare {unknown-model}",
    "hypervisor-cpu-compare --arch nope {hosts}", "hypervisor-cpu-baseline {hosts}", "hypervisor-cpu-baseline",
    "hypervisor-cpu-baseline --model Penryn --features", "hypervisor-cpu-baseline --model Penryn {hosts}",
    "domcapabilities --virttype xen", "domcapabilities --virttype foo", "domcapabilities --arch foo",
    "domcapabilities --arch aarch64", "domcapabilities --machine foo", "domcapabilities --emulatorbin /nope",
    "domcapabilities --emulatorbin /usr/bin/qemu-system-i386",
    "freepages", "freepages --all --pagesize 2048", "freepages --cellno 0 --pagesize 5", "freepages --cellno -2",
    "freepages --cellno 0", "freepages --cellno 99 --pagesize 4", "allocpages 5 1", "allocpages 4 1",
    "allocpages 2048 1 --cellno 99", "nodesuspend x 60", "nodesuspend mem -1", "nodesuspend hybrid 60", "nodesevinfo",
    "domlaunchsecinfo nosuch", "node-memory-tune --shm-pages-to-scan x",
)  # fmt: skip
MACHINES = ("", "--machine q35", "--machine isapc", "--machine microvm", "--arch i686")
# What stands in for the host is made of QEMU's own models; of screens this driver starts some.
LESS = ("cpu/mode[@name='host-model']", "devices/graphics")
# What it does not start, it says so of, and of what it starts, what libvirt says.
ALL_OR_NOTHING = (
    "os/loader", "memoryBacking", "devices/hostdev", "devices/filesystem", "devices/tpm", "devices/redirdev",
)  # fmt: skip
# Models that QEMU has and libvirt 9.0 has no name for.
MODELS = {"KnightsMill", "Denverton"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ours, Real]]:
    with libvirtd.running() as daemon:
        daemon.skip_unless_recorded()
        yield Ours(tmp_path_factory.mktemp("home")), Real(daemon.uri)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("cpus")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return {name: folder / name for name in FILES}


@pytest.mark.parametrize("line", LINES)
def test_lines_are_virshs(pair: tuple[Ours, Real], files: dict[str, Path], line: str) -> None:
    ours, theirs = (virsh.run(line.format(**files)) for virsh in pair)
    assert ours == theirs


def test_broken_files_are_refused(pair: tuple[Ours, Real], files: dict[str, Path]) -> None:
    for virsh in pair:
        code, out, err = virsh.run(f"cpu-compare {files['broken']}")
        assert (code, out.strip()) == (1, "")
        assert err


def test_the_host_is_what_it_says_it_is(pair: tuple[Ours, Real], tmp_path: Path) -> None:
    own = tmp_path / "host.xml"
    own.write_text(pair[0].run("capabilities")[1])
    shown = f"CPU described in {own} is identical to host CPU\n\n"
    assert pair[0].run(f"cpu-compare {own}") == (0, shown, "")
    own.write_text(pair[0].run("domcapabilities")[1])
    shown = f"CPU described in {own} is identical to the CPU provided by hypervisor on the host\n\n"
    assert pair[0].run(f"hypervisor-cpu-compare {own}") == (0, shown, "")


@pytest.mark.parametrize("options", MACHINES)
def test_capabilities_are_libvirts_without_what_is_not_started(pair: tuple[Ours, Real], options: str) -> None:
    ours, theirs = (document(virsh.run(f"domcapabilities {options}")[1]) for virsh in pair)
    assert not {value.text for value in ours.iterfind("devices/*/enum/value")} - {
        value.text for value in theirs.iterfind("devices/*/enum/value")
    }
    for model in ours.findall("cpu/mode[@name='custom']/model"):
        if model.text in MODELS:
            model.getparent().remove(model)
    left_out = [path for path in ALL_OR_NOTHING if ours.find(path).get("supported") == "no"]
    for root in (ours, theirs):
        for path in (*LESS, *left_out):
            for element in root.findall(path):
                element.getparent().remove(element)
    assert etree.tostring(ours, pretty_print=True) == etree.tostring(theirs, pretty_print=True)


def document(text: str) -> Any:
    return etree.fromstring(text, etree.XMLParser(remove_blank_text=True))


def test_models_are_those_that_machines_have(pair: tuple[Ours, Real]) -> None:
    ours, theirs = ({*virsh.run("cpu-models x86_64")[1].split()} for virsh in pair)
    listed = document(pair[0].run("domcapabilities")[1]).findall("cpu/mode[@name='custom']/model")
    assert ours == {model.text for model in listed}
    assert ours - theirs == MODELS


@pytest.mark.parametrize(
    "words",
    [
        "{hosts}",
        "{hosts} --features",
        "{hosts} --migratable",
        "{intel}",
        "{intel} --features",
        "{guest}",
        "{vendors}",
        "{no-model}",
    ],
)
def test_the_test_driver_tells_what_processors_have_in_common(words: str, tmp_path: Path) -> None:
    intel = (
        "<cpu><arch>x86_64</arch><model>Penryn</model><feature name='vmx'/></cpu>"
        "<cpu><arch>x86_64</arch><model>Nehalem</model><vendor>Intel</vendor><feature name='vmx'/></cpu>"
    )
    paths = {}
    for name, text in {**FILES, "intel": intel}.items():
        paths[name] = tmp_path / name
        paths[name].write_text(text)
    line = f"cpu-baseline {words.format(**paths)}"
    ours = run_lines("test:///default", lambda uri, *, read_only: hostel.open(uri, read_only=read_only), [[line]])[0]
    assert ours == Real("test:///default").run(line)
