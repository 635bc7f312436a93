-- One row for each run and requested score; the views do not show older versions.
WITH counted AS (
    SELECT
        regexp_extract(filename, 'runs/([^/]+)/scores/[^/]+$$', 1) AS run,
        unnest([NULL::STRUCT(score VARCHAR, version INTEGER, rows BIGINT, seconds DOUBLE) $counts], recursive := true)
    FROM files.scores
    GROUP BY run
)
SELECT
    n.run, n.score, n.version, CASE WHEN n.used THEN 'yes' ELSE 'no' END AS shown, coalesce(q.classes, 0) AS classes,
    coalesce(c.rows, 0) AS rows,
    CASE WHEN coalesce(c.rows, 0) < coalesce(q.classes, 0) THEN 'no' ELSE 'yes' END AS complete,
    round(c.seconds) AS seconds
FROM files.score_names AS n
JOIN runs AS r ON n.run = r.run
LEFT JOIN (SELECT run, count(DISTINCT canonical) AS classes FROM requests GROUP BY run) AS q ON n.run = q.run
LEFT JOIN counted AS c ON n.run = c.run AND n.score = c.score AND n.version = c.version
ORDER BY r.created DESC, n.run, n.score, n.version;
