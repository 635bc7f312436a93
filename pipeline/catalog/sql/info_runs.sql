SELECT
    r.run, r.space, r.dataset, r.channels, r.cells, r.batch_size AS batch, r.seed, r.init, r.ntk,
    coalesce(q.asked, 0) AS asked, coalesce(q.classes, 0) AS classes, coalesce(m.rows, 0) AS rows,
    CASE WHEN coalesce(m.rows, 0) < coalesce(q.classes, 0) THEN 'no' ELSE 'yes' END AS complete,
    coalesce(m.singular, 0) AS singular,
    round(coalesce(m.seconds, 0)) AS seconds,
    r.place
FROM runs AS r
LEFT JOIN (
    SELECT run, count(*) AS asked, count(DISTINCT canonical) AS classes FROM requests GROUP BY run
) AS q ON r.run = q.run
LEFT JOIN (
    SELECT run, count(*) AS rows, count(*) FILTER (WHERE isinf(kappa)) AS singular, sum(seconds) AS seconds
    FROM metrics
    GROUP BY run
) AS m ON r.run = m.run
ORDER BY r.created DESC, r.run;
