"""A scripted half hour of a served cascade, as Prometheus sees it."""
