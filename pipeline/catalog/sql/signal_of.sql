-- The performance of each architecture by one signal, and the cost of its training: means over seeds.
CREATE OR REPLACE TEMP TABLE $table AS
SELECT arch, avg($accuracy) AS performance, avg(seconds) AS cost
FROM accuracies
WHERE space = $$space AND dataset = $$dataset AND source = $$source AND epochs IS NOT DISTINCT FROM $$epochs
GROUP BY arch
HAVING avg($accuracy) IS NOT NULL;
