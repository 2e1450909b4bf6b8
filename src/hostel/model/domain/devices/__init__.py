"""The elements below ``<devices>``."""
