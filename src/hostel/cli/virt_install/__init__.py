"""``hostel virt-install``: from a command line to a machine that installs, or boots, a system."""
