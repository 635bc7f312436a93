"""Files that users name, downloads, checksums, names of data sets, progress, and text that is safe and fits a terminal.

Knows no store, no torch and no other room.
"""
