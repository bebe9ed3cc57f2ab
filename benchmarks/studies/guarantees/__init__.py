"""Do promises hold? Tuning repeated on many draws from populations whose risk is known."""
