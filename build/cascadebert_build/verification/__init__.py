"""Checks of every artefact against what it was made of, and of the gate's decisions."""
