"""What users write: cascade.toml, goals, held-out rows and the placement of stages."""
