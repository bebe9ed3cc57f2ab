"""What a user writes: cascade.toml, its goals, its held-out rows and its placement."""
