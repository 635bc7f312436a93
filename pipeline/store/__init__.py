"""The files of a store: their layout, atomic writing, verification and removal. Change here what a file contains.

`store.py` defines the layout and writes files, `run.py` handles a run, and `records.py` supplies the views `runs` and
`searches`. A new column of `runs` is written by `Run.create`, read by `run_records`, and listed in
`pipeline/catalog/sql/columns.sql` and `views.sql`. `manifests.py` and `schema.py` handle the imported tables,
`shipped_tables.py` the read-only stores that ship with hnas. Computing rows is the job of `precompute`, querying them
that of `catalog`.
"""
