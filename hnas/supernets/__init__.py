"""Supernets: all of NAS-Bench-201 in one network, and the searches that train, prune or measure it."""
