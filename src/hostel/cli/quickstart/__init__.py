"""``hostel quickstart``: from an empty directory to a guest that boots from our disk."""
