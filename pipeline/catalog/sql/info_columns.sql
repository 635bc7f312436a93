SELECT c.source, c.space, c.dataset, count(*) AS rows, any_value(n.columns) AS columns
FROM files.columns AS c
JOIN (SELECT source, string_agg(name, ' ' ORDER BY name) AS columns FROM files.column_names GROUP BY source) AS n
    ON c.source = n.source
GROUP BY c.source, c.space, c.dataset
ORDER BY c.space, c.dataset NULLS FIRST, c.source;
