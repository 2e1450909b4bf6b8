"""Values to bytes or text and back; pure."""
