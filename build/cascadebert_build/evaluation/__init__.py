"""The cascade offline: the same decisions as the server, and what they are worth."""
