"""What the gateway adds to the asyncio client, beside Triton's own ways to take JSON."""
