SELECT source, space, dataset, epochs, count(*) AS rows, count(DISTINCT arch) AS architectures
FROM curves
GROUP BY source, space, dataset, epochs
ORDER BY space, dataset, source, epochs;
