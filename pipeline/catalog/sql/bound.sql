-- The smallest objective in a sample of the remaining candidates: an upper bound for the minimum.
SELECT min(objective(metric, kappa, $$mu, $$nu, $$t))
FROM $candidates
WHERE rowid < 8192 AND limited <= $$limit AND class NOT IN (SELECT unnest($$taken::BIGINT[]));
