"""Protocol ``vvfat``: a directory of this host as a disk with a FAT file system."""
