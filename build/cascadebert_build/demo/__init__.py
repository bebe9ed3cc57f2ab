"""The data and the base checkpoints of `cascadebert demo`: nothing to download, nothing to agree to."""
