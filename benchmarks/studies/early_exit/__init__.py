"""Dynamic early exiting, the approach that cascades of complete models are compared with."""
