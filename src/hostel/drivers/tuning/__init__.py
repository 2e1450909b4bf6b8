"""What is tuned of domains, for every driver: where threads run, I/O threads, and shares and limits in a document."""
