"""Dask, for every command that spreads work: local worker processes or a cluster that exists, behind one client.

Change here how workers are started, guarded and reached. What they compute, and where it is stored, is not known here.
"""
