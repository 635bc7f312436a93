"""Terminal support for `cli`: streams, signals, completion, parser errors, and `hnas sql` from statement to file.

Uses the catalog and the names in a store, but no results of other packages; each package renders its own results.
"""
