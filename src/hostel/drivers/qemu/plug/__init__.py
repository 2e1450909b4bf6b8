"""Devices that come and go while a machine runs, and in its definition."""
