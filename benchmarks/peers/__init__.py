"""Others that serve the cascade: same policy, tokenizers, members and gate, without Triton."""
