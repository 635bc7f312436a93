"""`hnas search` and `hnas evaluate`: searches over stored runs, saved after every query, and trainings.

Reads the catalog and images; writes `searches/` and trainings to the store. Only trainings load torch.
"""
