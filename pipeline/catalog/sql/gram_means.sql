-- The mean of each candidate's Gram matrix, averaged over runs; NULL if one of them keeps none.
SELECT CASE WHEN count(g.mean) = len($$runs) THEN avg(g.mean ORDER BY g.run) END AS value
FROM $rows AS p
LEFT JOIN (SELECT run, canonical, gram_mean(gram) AS mean FROM grams WHERE list_contains($$runs, run)) AS g
    ON p.canonical = g.canonical
GROUP BY p.id
ORDER BY p.id;
