-- The minimiser of eq. (7) among the candidates whose class is left, ties by name. Both terms of (7) are positive: neither
-- exceeds `bound`, a value that is known to be reached, so that few candidates are left for the powers and the order.
SELECT arch, objective(metric, kappa, $$mu, $$nu, $$t) AS objective
FROM $candidates
WHERE limited <= $$limit AND kappa <= $$bound * abs(metric) * (1 + 1e-9) AND abs(metric * metric - $$nu) <= $$distance
    AND class NOT IN (SELECT unnest($$taken::BIGINT[]))
ORDER BY objective, arch
LIMIT 1;
