"""What the client adds to tritonclient: CPU and time of a call, channels, streams."""
