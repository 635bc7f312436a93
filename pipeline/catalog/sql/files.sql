-- `_check_…` has no rows. It verifies the files when a statement is bound to this view; see `hnas.pipeline.catalog.table_files`.
CREATE VIEW files.$name AS
SELECT * FROM empty.$name
UNION ALL BY NAME
SELECT * FROM _check_$name
$read;
