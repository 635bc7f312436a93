-- One row for each group and architecture: `pool` with the means over the `n_runs` runs of the group that have it and were
-- asked for it; a score only if all of them have it. Sums follow the order of the runs, so means are always the same. Only
-- rows of equal `n_runs` are comparable: others are means over other seeds.
CREATE VIEW mean_pool AS
WITH means AS (
    SELECT
        g.run_group, g.space, g.dataset, g.imported_as, q.arch, q.canonical, count(*) AS n_runs,
        avg(m.grad_norm ORDER BY m.run) AS grad_norm,
        avg(m.grad_norm_l2 ORDER BY m.run) AS grad_norm_l2,
        avg(m.snip ORDER BY m.run) AS snip,
        avg(m.snip_inner ORDER BY m.run) AS snip_inner,
        avg(m.grasp ORDER BY m.run) AS grasp,
        avg(m.grasp_abs ORDER BY m.run) AS grasp_abs,
        avg(m.trace ORDER BY m.run) AS trace,
        mean_kappa(m.kappa, m.run) AS kappa,
        joint_status(m.status) AS status
        $means
    FROM requests AS q
    JOIN files.run_groups AS g ON q.run = g.run
    JOIN metrics AS m ON q.run = m.run AND q.canonical = m.canonical
    LEFT JOIN files.run_scores AS s ON q.run = s.run AND q.canonical = s.canonical
    GROUP BY g.run_group, g.space, g.dataset, g.imported_as, q.arch, q.canonical
)
SELECT
    m.* EXCLUDE (imported_as),
    a.* EXCLUDE (space, arch, canonical),
    c.* EXCLUDE (space, dataset, arch),
    b.train_accuracy, b.valid_accuracy, b.test_accuracy
FROM means AS m
LEFT JOIN architectures AS a ON m.space = a.space AND m.arch = a.arch
LEFT JOIN files.columns_of_runs AS c ON m.space = c.space AND m.imported_as = c.dataset AND m.arch = c.arch
LEFT JOIN mean_accuracies AS b ON m.space = b.space AND m.imported_as = b.dataset AND m.arch = b.arch;
