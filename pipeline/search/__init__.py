"""`hnas search` and `hnas evaluate`: searches over stored runs, saved query by query, and trainings of architectures.

Reads the catalog and images, writes `searches/` of the store, and its trainings; only what trains loads torch.
"""
