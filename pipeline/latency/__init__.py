"""`hnas latency`: measures how long the networks of a pool take on this machine, and stores that as a user column.

Uses `io`, `store`, `catalog` (whose pool selects the networks) and `importers` (which writes the column).
"""
