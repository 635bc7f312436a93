-- The rows that eq. (7) may propose: alive, with a finite condition number and a metric that is not zero.
CREATE TEMP TABLE $table AS
SELECT arch, class, metric, kappa
FROM (SELECT *, ($expression)::DOUBLE AS metric FROM $rows)
WHERE status = 'ok' AND isfinite(kappa) AND kappa > 0 AND isfinite(metric) AND metric <> 0;
