"""Studies of one question each, with their recorded results."""
