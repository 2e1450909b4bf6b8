"""What each kind of device gets that its document does not say."""
