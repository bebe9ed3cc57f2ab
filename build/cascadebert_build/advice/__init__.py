"""Whether a cascade pays, from its members on some rows, before anything is built."""
