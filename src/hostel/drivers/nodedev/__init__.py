"""Devices of the host, as sysfs has them."""
