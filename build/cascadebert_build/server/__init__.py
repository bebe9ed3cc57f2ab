"""The embedded Triton server: start, watch, load and roll out."""
