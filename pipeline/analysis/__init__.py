"""`hnas correlate`: rank correlations of a run's columns, as numbers, text and a figure.

Reads the catalog, writes no store.
"""
