-- The minimiser of eq. (7) among the candidates whose class is left, ties by name.
SELECT arch, objective(metric, kappa, $mu, $nu, $t) AS objective
FROM candidates
WHERE canonical NOT IN (SELECT canonical FROM taken)
ORDER BY objective, arch
LIMIT 1;
