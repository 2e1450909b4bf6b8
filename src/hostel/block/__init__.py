"""The block layer: nodes, formats, protocols and filters."""
