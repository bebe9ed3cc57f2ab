"""Fine-tuned checkpoints: read, refused or hashed, and their logits in PyTorch."""
