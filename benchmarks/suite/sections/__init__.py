"""What the bench measures, one subject in each file."""
