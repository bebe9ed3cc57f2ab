"""What `cascadebert demo` runs on: its corpus, its members, and how they are compared."""
