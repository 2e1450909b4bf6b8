"""The host's control groups, of both versions: where they are, groups of machines, and what they limit."""
