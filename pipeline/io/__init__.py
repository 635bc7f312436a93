"""Input files, downloads, checksums, data set names, progress, and text that is safe to print and fits a terminal.

Independent of stores, torch and the other subpackages of `hnas.pipeline`.
"""
