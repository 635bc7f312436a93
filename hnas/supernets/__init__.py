"""Supernets: all of NAS-Bench-201 in one network, and the searches that train it, prune it, or look at it untrained."""
