"""``hostel virt-xml``: a machine's document changed by the options of virt-install."""
