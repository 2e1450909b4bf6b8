"""Image operations, one verb a file."""
