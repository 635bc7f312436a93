-- Kappa is a ratio that spans orders of magnitude: its mean over runs is geometric, and infinite if any of them is.
-- Summed in the order of the runs, so the result is always the same; exp(ln(x)) is x up to rounding only.
CREATE MACRO mean_kappa(kappa, run) AS
    CASE WHEN min(kappa) = max(kappa) THEN min(kappa) ELSE exp(avg(ln(kappa) ORDER BY run)) END;

CREATE MACRO joint_status(status) AS
    coalesce(min(status) FILTER (WHERE status <> 'ok'), 'ok');
