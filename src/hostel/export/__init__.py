"""Block exports: images served to others."""
