"""Temperatures and thresholds, chosen for a goal and with a guarantee."""
