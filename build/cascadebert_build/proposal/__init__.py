"""A cascade proposed from checkpoints and data: columns, labels, lengths, order, machine."""
