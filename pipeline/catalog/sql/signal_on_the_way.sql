-- The same after `epoch` of trainings of `epochs`; `seconds` of a curve are those since the training began.
CREATE OR REPLACE TEMP TABLE $table AS
SELECT arch, avg($accuracy) AS performance, avg(seconds) AS cost
FROM curves
WHERE space = $$space AND dataset = $$dataset AND source = $$source AND epochs = $$epochs AND epoch = $$epoch
GROUP BY arch
HAVING avg($accuracy) IS NOT NULL;
