"""Checkpoints and backups of running machines."""
