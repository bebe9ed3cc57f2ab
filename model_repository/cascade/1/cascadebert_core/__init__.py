"""What the server decides, and nothing else: pure Python and numpy.

No module here imports Triton or torch. The BLS model runs this code inside the server, and
the offline evaluator runs the very same code, so that what was measured is what is served.
"""
