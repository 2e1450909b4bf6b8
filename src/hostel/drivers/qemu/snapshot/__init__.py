"""Snapshots of domains: inside images or as overlays, of disks alone or with the guest's memory."""
