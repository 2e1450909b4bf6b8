"""Filters ``gzip``, ``xz`` and ``zstd``: a compressed file as what is in it, for reading."""
