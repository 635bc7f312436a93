-- The runs that differ from one in seed and batch only, itself among them, and have measured anything.
SELECT g.run
FROM files.run_groups AS g
WHERE g.run_group = (SELECT run_group FROM files.run_groups WHERE run = $run)
    AND g.run IN (SELECT run FROM metrics)
ORDER BY g.run;
