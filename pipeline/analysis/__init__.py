"""`hnas correlate` and `hnas pareto`: rank correlations and fronts of a run's columns, as numbers, text and figures.

Reads the catalog and writes to no store.
"""
