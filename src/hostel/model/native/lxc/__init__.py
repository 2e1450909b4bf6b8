"""LXC: the ``config`` file of a container, of version 2 and of 3 (``src/lxc/lxc_native.c``)."""
