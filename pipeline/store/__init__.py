"""The files of a store: how each is laid out, written whole, checked and removed. Change here what a file holds.

`store.py` has the layout and the writing of any file, `run.py` a run: a new column of the view `runs` is a field of its
`RunSettings`, and stands in `pipeline/catalog/sql/empty.sql` too. `manifests.py` and `schema.py` are the imported
tables, `shipped_tables.py` the read-only stores that come with hnas. How rows are computed is not known here
(`precompute`), nor how they are queried (`catalog`).
"""
