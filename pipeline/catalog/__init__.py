"""DuckDB views over the files of a store, defined in `sql/*.sql`, and the queries that commands make. Writes nothing.

Change here what can be queried. `sql/columns.sql` gives a view's columns when there are no files yet, `sql/views.sql`
the views themselves. `views.py` opens a connection, `table_files.py` verifies files before a query reads them.
"""
