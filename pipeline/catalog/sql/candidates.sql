-- The rows that eq. (7) may propose: alive, with a finite condition number and a nonzero metric; `limited` is the column that
-- a search may bound, 0 if it bounds none.
CREATE TEMP TABLE $table AS
SELECT arch, class, metric, kappa, limited
FROM (SELECT arch, class, kappa, status, ($metric)::DOUBLE AS metric, ($limited)::DOUBLE AS limited FROM $rows)
WHERE status = 'ok' AND isfinite(kappa) AND kappa > 0 AND isfinite(metric) AND metric <> 0
    AND NOT isnan(limited);
