"""``qemu-img``: the command line of :mod:`hostel.img`, with QEMU 7.2's options, output and exit codes."""
