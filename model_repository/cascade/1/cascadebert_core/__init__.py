"""What the server decides, and nothing else: pure Python and numpy.

No module here imports Triton or torch. The BLS model runs this code inside the server; the
offline evaluator tokenises, pads, gates and routes with it, and the congruence tests hold its own
walk over the stages against the server.
"""
