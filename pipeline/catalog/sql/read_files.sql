UNION ALL BY NAME
SELECT * FROM read_parquet($files, union_by_name = true, filename = true, hive_partitioning = false)
