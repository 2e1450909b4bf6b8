"""What desktop programs show, asked through the assistive interface; run by the system's Python, which has bindings.

``widgets.py list`` prints a JSON list of ``[role, name]``; ``widgets.py press ROLE NAME`` does what a click does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import gi  # type: ignore[import-not-found,unused-ignore]

gi.require_version("Atspi", "2.0")
from gi.repository import Atspi, GLib  # type: ignore[import-not-found,unused-ignore] # noqa: E402

_CHILDREN = 100  # more are rows of a long table
_CLICKABLE = {Atspi.StateType.SHOWING, Atspi.StateType.SENSITIVE}


def below(widget: Any) -> Iterator[Any]:
    """A widget and all in it; one that goes while it is asked is left out."""
    yield widget
    try:
        children = [widget.get_child_at_index(at) for at in range(min(widget.get_child_count(), _CHILDREN))]
    except GLib.Error:
        return
    for child in children:
        if child is not None:
            yield from below(child)


def shown() -> list[tuple[str, str, Any]]:
    """Role, name and object of every widget of every program."""
    found = []
    for widget in below(Atspi.get_desktop(0)):
        try:
            found.append((widget.get_role_name(), widget.get_name(), widget))
        except GLib.Error:
            continue
    return found


def press(role: str, name: str) -> None:
    """Do the first action of the first such widget that is shown and takes clicks.

    Raises:
        SystemExit: There is none.
    """
    for its_role, its_name, widget in shown():
        if (its_role, its_name) == (role, name) and set(widget.get_state_set().get_states()) >= _CLICKABLE:
            sys.exit(not widget.get_action_iface().do_action(0))
    sys.exit(f"no {role} named {name!r}")


if __name__ == "__main__":
    if sys.argv[1] == "list":
        print(json.dumps([(role, name) for role, name, _ in shown()]))
    else:
        press(*sys.argv[2:4])
