"""The bench: every contender on the same machine, members and text, and a report of it."""
