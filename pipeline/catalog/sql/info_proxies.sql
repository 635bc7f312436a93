SELECT
    source, space, dataset, count(*) AS rows, count(DISTINCT arch) AS architectures,
    string_agg(DISTINCT proxy, ' ' ORDER BY proxy) AS proxies
FROM proxies
GROUP BY source, space, dataset
ORDER BY space, dataset, source;
