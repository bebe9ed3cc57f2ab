"""How fast `cascadebert score` is beside a server, transformers' pipeline and the bare runtime."""
