"""The public object model."""
