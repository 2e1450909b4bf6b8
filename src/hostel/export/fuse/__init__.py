"""FUSE exports: a node as a raw file, in the place of an existing file."""
