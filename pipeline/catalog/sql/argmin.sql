-- The minimiser of eq. (7) among the candidates of the remaining classes, ties by name. Both terms of (7) are positive and
-- neither exceeds `bound`, a value known to be reached, so few candidates remain for the powers and the sort.
SELECT arch, objective(metric, kappa, $$mu, $$nu, $$t) AS objective
FROM $candidates
WHERE limited <= $$limit AND kappa <= $$bound * abs(metric) * (1 + 1e-9) AND abs(metric * metric - $$nu) <= $$distance
    AND class NOT IN (SELECT unnest($$taken::BIGINT[]))
ORDER BY objective, arch
LIMIT 1;
