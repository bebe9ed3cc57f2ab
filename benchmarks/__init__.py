"""Benchmarks of the served cascade, driven by the real perf_analyzer.

They are run from the root of the checkout: `python -m benchmarks.suite …`.
"""
