-- The architectures that a search may propose: alive, with a finite condition number and a metric that is not zero.
CREATE TEMP TABLE $candidates AS
SELECT arch, canonical, metric, kappa, $accuracy AS performance
FROM $table
WHERE status = 'ok' AND isfinite(kappa) AND kappa > 0 AND isfinite(metric) AND metric <> 0
    AND ($accuracy IS NOT NULL OR $$any_performance);
