"""The steps of a build, from checkpoints to a published cascade."""
