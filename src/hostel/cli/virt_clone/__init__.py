"""``hostel virt-clone``: a machine and its disks copied."""
