"""What is tuned of running machines, and of definitions."""
