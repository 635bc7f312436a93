-- As run_pool.sql, of the mean of several runs: the architectures that all of them were asked for and have measured.
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
        canonical, avg($metric ORDER BY run) AS metric, mean_kappa(kappa, run) AS kappa,
        joint_status(status) AS status
    FROM metrics
    WHERE list_contains($$runs, run)
    GROUP BY canonical
    HAVING count(*) = len($$runs)
)
SELECT
    q.arch, q.canonical, m.metric, m.kappa, m.status,
    b.valid_accuracy, b.test_accuracy
FROM requested AS q
JOIN averaged AS m ON q.canonical = m.canonical
LEFT JOIN files.accuracies_of($$space, $$dataset, $$source, $$epochs) AS b ON q.arch = b.arch;
