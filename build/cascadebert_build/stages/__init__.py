"""Model files of the stages, copied into the model repository."""
