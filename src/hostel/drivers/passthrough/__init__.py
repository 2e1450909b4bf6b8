"""PCI functions of the host on their way to guests and back: their drivers, their groups, their network settings."""
