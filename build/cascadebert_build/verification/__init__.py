"""Checks of every artefact against its source, and of the gate's decisions."""
