"""Fine-tuned checkpoints: loading, checks, hashes, and logits in PyTorch."""
