"""The command line: the only place that prints, parses argv or reads the environment."""
