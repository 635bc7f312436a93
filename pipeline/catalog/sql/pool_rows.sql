-- The candidates: rows of a pool in the order of their names, each class by number. There is no signal if the oracle trains.
CREATE TEMP TABLE $table AS
SELECT
    row_number() OVER (ORDER BY p.arch) - 1 AS id, dense_rank() OVER (ORDER BY p.canonical) - 1 AS class,
    p.*, s.performance, s.cost
FROM $pool AS p
SEMI JOIN (
    SELECT arch FROM (SELECT arch, ($where) AS qualifies FROM $known) WHERE qualifies  -- WHERE takes no windows
) AS k ON p.arch = k.arch
LEFT JOIN $signal AS s ON p.arch = s.arch
WHERE $$any_performance OR s.performance IS NOT NULL
ORDER BY p.arch;
