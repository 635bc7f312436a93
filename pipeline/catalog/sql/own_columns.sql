-- The columns of one's own, from `hnas import columns`, and the source that brings each.
CREATE TABLE empty.columns (
    source VARCHAR, space VARCHAR, arch VARCHAR, dataset VARCHAR $columns
);

CREATE VIEW files.column_names AS
SELECT unnest([$sources]::VARCHAR[]) AS source, unnest([$names]::VARCHAR[]) AS name;
