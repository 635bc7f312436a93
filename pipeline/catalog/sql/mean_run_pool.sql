-- Like run_pool.sql, for the mean of several runs: the architectures requested and measured in all of them.
CREATE OR REPLACE TEMP TABLE $table AS
WITH requested AS (
    SELECT arch, canonical
    FROM requests
    WHERE list_contains($$runs, run)
    GROUP BY arch, canonical
    HAVING count(*) = len($$runs)
),
averaged AS (
    SELECT
        canonical,
        avg(grad_norm ORDER BY run) AS grad_norm,
        avg(grad_norm_l2 ORDER BY run) AS grad_norm_l2,
        avg(snip ORDER BY run) AS snip,
        avg(snip_inner ORDER BY run) AS snip_inner,
        avg(grasp ORDER BY run) AS grasp,
        avg(grasp_abs ORDER BY run) AS grasp_abs,
        avg(trace ORDER BY run) AS trace,
        mean_kappa(kappa, run) AS kappa,
        joint_status(status) AS status
        $means
    FROM metrics AS m
    LEFT JOIN (FROM files.run_scores WHERE list_contains($$runs, run)) AS s USING (run, canonical)
    WHERE list_contains($$runs, run)
    GROUP BY canonical
    HAVING count(*) = len($$runs)
)
SELECT q.arch, q.canonical, m.* EXCLUDE (canonical), a.* EXCLUDE (space, arch, canonical), c.* EXCLUDE (arch)
FROM requested AS q
JOIN averaged AS m ON q.canonical = m.canonical
LEFT JOIN (FROM architectures WHERE space = $$space) AS a ON q.arch = a.arch
LEFT JOIN files.columns_of($$space, $$dataset) AS c ON q.arch = c.arch;
