"""A store as DuckDB sees it: views over its files, in `sql/*.sql`, and what commands ask of them. Nothing here writes.

Change here what can be queried. A view's columns where no file has them yet stand in `sql/columns.sql`, the views
themselves in `sql/views.sql`; `views.py` makes a connection, `table_files.py` checks files before a query reads them.
"""
