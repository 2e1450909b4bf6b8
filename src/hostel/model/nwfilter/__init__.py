"""Network filters: rules for a guest's traffic, and which interface they are bound to."""
