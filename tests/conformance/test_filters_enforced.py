"""Filters of packets in force: with real frames, real tables and beside a real libvirtd, in networks of our own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import pytest

from support.relaxng import SCHEMAS

pytestmark = [
    *(pytest.mark.requires_tool(name) for name in ("unshare", "ip", "ebtables", "iptables")),
    pytest.mark.skipif(os.geteuid() != 0, reason="rules are root's"),
]


def run(name: str) -> None:
    """Run a function of :mod:`support.filtered` in a network of its own."""
    words = ["sh", "-c", 'mount -t sysfs none /sys && exec "$@"', "sh", sys.executable, "-m", "support.filtered", name]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["unshare", "--net", "--mount", *words], capture_output=True, text=True, timeout=180, check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": folder},
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_honest_frames_pass_and_nothing_stays_behind() -> None:
    run("packets")


@pytest.mark.requires_tool("nft")
def test_a_guest_sends_with_its_own_hardware_address_alone() -> None:
    run("spoofing")


def test_an_address_is_learned_from_what_the_guest_sends() -> None:
    run("learning_any")


def test_addresses_are_those_that_dhcp_gives_for_as_long_as_it_does() -> None:
    run("learning_dhcp")


def test_a_filter_is_changed_for_all_who_have_it_or_for_none() -> None:
    run("redefining")


def test_what_is_left_by_who_is_killed_is_put_right() -> None:
    run("kills")


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="needs libvirt's schemas (package libvirt0)")
def test_every_rule_that_is_taken_is_one_that_the_kernel_takes() -> None:
    run("every_rule")


@pytest.mark.requires_tool("libvirtd")
@pytest.mark.requires_tool("virsh")
def test_rules_and_words_are_libvirts() -> None:
    run("beside_libvirtd")


@pytest.mark.requires_tool("virsh")
def test_the_daemon_puts_filters_in_force() -> None:
    run("by_daemon")
