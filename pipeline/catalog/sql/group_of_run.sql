-- The runs with any measurements that differ from one only in seed and batch, including itself.
SELECT g.run
FROM files.run_groups AS g
WHERE g.run_group = (SELECT run_group FROM files.run_groups WHERE run = $run)
    AND g.run IN (SELECT run FROM metrics)
ORDER BY g.run;
