"""The simulated fleet of `cascadebert plan` beside the real server."""
