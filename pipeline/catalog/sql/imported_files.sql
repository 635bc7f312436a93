-- The source is a constant here, so a query of one source opens no files of others.
UNION ALL BY NAME
SELECT $source AS source, * REPLACE ($dataset AS dataset)
FROM read_parquet($files, union_by_name = true, hive_partitioning = false)
