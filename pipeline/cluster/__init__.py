"""Dask for every command that distributes work: local worker processes, or an existing cluster, behind one client.

This package starts, secures and reaches workers. It does not know what they compute or where results are stored.
"""
