-- Eq. (7): kappa / |M| + mu |M^2 - nu|^(2t). Infinite where kappa is, so that a singular network is never the minimum.
CREATE MACRO objective(metric, kappa, mu, nu, t) AS
    CASE
        WHEN isfinite(kappa) AND kappa > 0 AND abs(metric) > 0 AND NOT isnan(metric)
            THEN kappa / abs(metric) + mu * pow(abs(metric * metric - nu), 2 * t)
        ELSE 'inf'::DOUBLE
    END;
