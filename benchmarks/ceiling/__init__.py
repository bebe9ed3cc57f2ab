"""What a request costs if its stages cost nothing: the ceiling of the server's own path."""
