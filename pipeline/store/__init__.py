"""The files of a store: how each is laid out, written whole, checked and removed. Change here what a file holds.

`store.py` has the layout and the writing of any file, `run.py` a run, `records.py` what the views `runs` and `searches`
are told of one. A new column of `runs` is written by `Run.create`, read by `run_records` there, and stands in
`pipeline/catalog/sql/columns.sql` and `views.sql`. `manifests.py` and `schema.py` are the imported tables,
`shipped_tables.py` the read-only stores that come with hnas. How rows are computed is not known here (`precompute`),
nor how they are queried (`catalog`).
"""
