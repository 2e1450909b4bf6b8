"""``hostel virsh``: libvirt's shell, with its commands, output and exit codes."""
