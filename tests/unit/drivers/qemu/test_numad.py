"""What becomes of what numad says, on a host of several nodes: a program in its place says it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostel.drivers.qemu.tuning.numad import Advice, advised, ask
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.domain import Domain

_XML = "<domain type='qemu'><name>w</name><memory unit='KiB'>65537</memory>{}<os><type>hvm</type></os></domain>"
_AUTO = "<vcpu placement='auto' current='2'>4</vcpu>"
_MEMORY = "<numatune><memory mode='strict' placement='auto'/></numatune>"


@pytest.fixture
def nodes(tmp_path: Path) -> Path:
    """Three nodes, of which the last has no memory."""
    for number in range(3):
        (tmp_path / f"node{number}").mkdir()
        (tmp_path / f"node{number}" / "cpulist").write_text(f"{2 * number}-{2 * number + 1}\n")
    (tmp_path / "has_memory").write_text("0-1\n")
    return tmp_path


def says(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "numad").write_text(f'#!/bin/sh\necho "$@" > {folder}/asked\n{text}\n')
    (folder / "numad").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_processors_are_those_of_the_nodes_and_memory_is_where_there_is_some(
    nodes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says("echo 1-2", nodes, monkeypatch)
    domain = Domain.parse(_XML.format(_AUTO + _MEMORY))
    advice = ask(domain, nodes)
    assert (nodes / "asked").read_text() == "-w 2:65\n"
    assert advice == Advice("2-5", "1")
    found = advised(domain, advice)
    assert found.vcpu is not None and found.vcpu.cpuset == "2-5"
    assert found.numatune is not None and found.numatune.memory is not None and found.numatune.memory.nodeset == "1"
    assert domain.vcpu is not None and domain.vcpu.cpuset is None


@pytest.mark.parametrize(("body", "cpuset", "nodeset"), [(_AUTO, "0-1", None), (_MEMORY, None, "0")])
def test_only_what_is_left_to_it_is_placed(
    body: str, cpuset: str | None, nodeset: str | None, nodes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says("echo 0", nodes, monkeypatch)
    domain = Domain.parse(_XML.format(body))
    found = advised(domain, ask(domain, nodes))
    memory = found.numatune.memory if found.numatune is not None else None
    assert (found.vcpu.cpuset if found.vcpu is not None else None) == cpuset
    assert (memory.nodeset if memory is not None else None) == nodeset


def test_nobody_is_asked_where_nothing_is_left_to_it(nodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says("exit 1", nodes, monkeypatch)
    domain = Domain.parse(_XML.format("<vcpu cpuset='0'>1</vcpu>"))
    assert ask(domain, nodes) == Advice()
    assert advised(domain, Advice()) is domain
    assert not (nodes / "asked").exists()


@pytest.mark.parametrize("answer", ["echo msgget failed >&2; exit 1", "echo 7", "echo", "echo none"])
def test_an_answer_that_is_none_is_told(answer: str, nodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says(answer, nodes, monkeypatch)
    with pytest.raises(VirtError, match="Failed to query numad for the advisory nodeset: ") as caught:
        ask(Domain.parse(_XML.format(_AUTO)), nodes)
    assert caught.value.code is ErrorCode.OPERATION_FAILED
    assert ("msgget failed" in str(caught.value)) == ("msgget" in answer)
