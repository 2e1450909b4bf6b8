"""libvirt's own test data: every case comes out as libvirt's does, or has its reason (``make libvirt-data``)."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from libvirt_data import source
from libvirt_data.__main__ import explain, judge
from libvirt_data.case import Tree
from libvirt_data.registry import SUITES

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs Debian's source package of libvirt")


@pytest.fixture(scope="module")
def tree() -> Tree:
    try:
        return Tree(source.tests())
    except (OSError, SystemExit, subprocess.CalledProcessError) as error:
        pytest.skip(f"the source of libvirt {source.VERSION} cannot be had: {error}")


@pytest.mark.parametrize("name", SUITES)
def test_every_case_comes_out_as_libvirts_or_has_its_reason(name: str, tree: Tree) -> None:
    suite = SUITES[name]
    ended = [judge(suite, case) for case in suite.cases(tree)]
    assert ended, "there are no cases"
    found = explain(suite, ended).surprises
    assert not found, "\n".join(found)
