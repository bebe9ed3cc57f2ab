"""The Triton model repository: versions, publishing, and what a server starts with."""
