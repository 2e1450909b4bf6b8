"""Sheepdog's protocol between a client and a server of its cluster.

A virtual disk (VDI) is an inode object and data objects of one size. The inode's table says of each data object which
VDI has it: the disk itself, or an ancestor that was snapshotted; 0 for none, which reads as zeroes.
"""
