-- The user's columns, from `hnas import columns`, and the source of each.
CREATE TABLE empty.columns (
    source VARCHAR, space VARCHAR, arch VARCHAR, dataset VARCHAR $columns
);

CREATE VIEW files.column_names AS
SELECT unnest([$sources]::VARCHAR[]) AS source, unnest([$names]::VARCHAR[]) AS name;
