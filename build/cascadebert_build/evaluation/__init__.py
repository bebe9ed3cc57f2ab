"""The cascade offline: the decisions of the server, and their metrics."""
