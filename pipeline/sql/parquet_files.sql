CREATE VIEW files.$name AS
SELECT * FROM empty.$name
UNION ALL BY NAME
SELECT * FROM read_parquet($patterns, union_by_name = true, filename = true);
