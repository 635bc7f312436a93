-- The least objective of a sample of the candidates that are left: no more than a bound for the least of all.
SELECT min(objective(metric, kappa, $$mu, $$nu, $$t))
FROM $candidates
WHERE rowid < 8192 AND limited <= $$limit AND class NOT IN (SELECT unnest($$taken::BIGINT[]));
