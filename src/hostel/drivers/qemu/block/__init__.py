"""Disks of running machines: their images, jobs on them, limits and statistics."""
