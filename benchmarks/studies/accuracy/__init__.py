"""What difficulty-aware training buys, measured: members, cascades and early exits on GLUE."""
