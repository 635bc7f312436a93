-- The pool of one run: its rows of the view `pool`, without accuracies. Much cheaper than the view, which ranks and
-- averages the accuracies of all spaces.
CREATE OR REPLACE TEMP TABLE $table AS
-- Without the view's DISTINCT: a precompute adds only what is missing, and a duplicate row does no harm.
WITH requested AS (
    SELECT arch, canonical
    FROM files.requests
    WHERE regexp_extract(filename, 'runs/([^/]+)/requests/[^/]+$$', 1) = $$run
)
SELECT
    q.arch, q.canonical, m.* EXCLUDE (run, canonical, seconds, ntk_row), s.* EXCLUDE (run, canonical), a.* EXCLUDE (space, arch, canonical),
    c.* EXCLUDE (arch)
FROM requested AS q
JOIN (FROM metrics WHERE run = $$run) AS m ON q.canonical = m.canonical
LEFT JOIN (FROM files.run_scores WHERE run = $$run) AS s ON q.canonical = s.canonical
LEFT JOIN (FROM architectures WHERE space = $$space) AS a ON q.arch = a.arch
LEFT JOIN files.columns_of($$space, $$dataset) AS c ON q.arch = c.arch;
