"""What each pool type does itself, one module a type."""
