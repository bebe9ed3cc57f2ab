"""Parts that the bench and the studies share: perf_analyzer, windows, machines, repositories."""
