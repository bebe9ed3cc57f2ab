"""Fine-tuning of members with transformers' Trainer and difficulty-aware objectives."""
