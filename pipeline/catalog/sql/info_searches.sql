SELECT
    s.search, s.run, s.dataset, s.method, s.metric, s.oracle, s.seed,
    count(q.query) AS queries, round(sum(q.cost)) AS cost, round(max(q.performance), 2) AS best,
    arg_max(q.arch, q.performance) AS arch
FROM searches AS s
LEFT JOIN queries AS q ON s.search = q.search
WHERE s.comparison IS NULL
GROUP BY s.search, s.run, s.dataset, s.method, s.metric, s.oracle, s.seed, s.created
ORDER BY s.created DESC, s.search;
