-- The minimiser of eq. (7) among the candidates that are left, ties by name.
SELECT arch, objective(metric, kappa, $mu, $nu, $t) AS objective
FROM candidates
WHERE arch NOT IN (SELECT arch FROM taken)
ORDER BY objective, arch
LIMIT 1;
