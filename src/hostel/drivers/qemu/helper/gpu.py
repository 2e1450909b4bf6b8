"""vhost-user-gpu: a program that draws for a guest's graphics card (``qemuExtVhostUserGPUStart``)."""

from __future__ import annotations

from pathlib import Path

from hostel.drivers.qemu.command.display import is_served, socket_name
from hostel.drivers.qemu.document import unsupported
from hostel.drivers.qemu.helper import vhost_user
from hostel.drivers.qemu.process import Helper, ground
from hostel.model.domain.devices.video import Video
from hostel.model.domain.domain import Domain


def helpers(domain: Domain, run: Path) -> list[Helper]:
    """What draws for a document's cards, as who QEMU is.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: this host describes no such program.
    """
    return [_helper(video, run) for video in domain.devices.videos if is_served(video)]


def _helper(video: Video, run: Path) -> Helper:
    program = vhost_user.find("gpu")
    if program is None:
        raise unsupported(
            "<video><driver name='vhostuser'/> needs QEMU's vhost-user-gpu, described in /usr/share/qemu/vhost-user; "
            "take <driver name='qemu'/>"
        )
    socket = ground(run) / socket_name(video)
    argv = [program, f"--socket-path={socket}"]
    acceleration = video.model.acceleration if video.model is not None else None
    if acceleration is not None:
        argv += ["--virgl"] if acceleration.accel3d else []
        argv += [f"--render-node={acceleration.rendernode}"] if acceleration.rendernode is not None else []
    return Helper(f"vhost-user-gpu of '{video.alias}'", argv, socket, is_kept=True)
