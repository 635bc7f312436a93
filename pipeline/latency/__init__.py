"""`hnas latency`: how long the networks of a pool take on this machine, as a column of one's own.

Rooms below it: `io`, `store`, `catalog`, whose pool chooses the networks, and `importers`, which writes the column.
"""
