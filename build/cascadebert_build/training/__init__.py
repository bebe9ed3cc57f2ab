"""Fine-tuning of members on transformers' Trainer, with difficulty-aware objectives."""
