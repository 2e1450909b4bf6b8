"""Virtual networks of a session."""
