"""Do guarantees hold? Tuning is repeated on many draws from populations with a known risk."""
