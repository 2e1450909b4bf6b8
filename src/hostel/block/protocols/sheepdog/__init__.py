"""Disks of a Sheepdog cluster, by a client of our own."""
