"""Storage pools and volumes of a session."""
