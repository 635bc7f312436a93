-- Eq. (7): kappa / |M| + mu |M^2 - nu|^(2t). Infinite if kappa is, so a singular network is never the minimum.
CREATE MACRO objective(metric, kappa, mu, nu, t) AS
    CASE
        WHEN isfinite(kappa) AND kappa > 0 AND abs(metric) > 0 AND NOT isnan(metric)
            THEN kappa / abs(metric) + mu * pow(abs(metric * metric - nu), 2 * t)
        ELSE 'inf'::DOUBLE
    END;

-- The fraction of rows with a value at or below this one, from 1/n for the lowest to 1: the ascending rank, mean for ties,
-- over the number of rows with a value. NULL and NaN have no rank.
CREATE MACRO rank_share(x) AS
    CASE WHEN x IS NOT NULL AND NOT isnan(x::DOUBLE) THEN
        (
            rank() OVER (ORDER BY nullif(x::DOUBLE, 'nan'::DOUBLE)) + (count(*) OVER (PARTITION BY x) - 1) / 2
        ) / count(nullif(x::DOUBLE, 'nan'::DOUBLE)) OVER ()
    END;

-- ln(rank / n), 0 for the highest: AZ-NAS (Lee, Ham, CVPR 2024) aggregates columns by the sum of theirs.
CREATE MACRO log_rank(x) AS
    ln(rank_share(x));

-- Regularised SWAP, swap exp(-(params - mu)^2 / sigma) (Peng et al., ICLR 2024): mu and the square root of sigma are in the
-- unit of `params`.
CREATE MACRO swap_regularised(swap, params, mu, sigma) AS
    swap * exp(-pow(params - mu, 2) / sigma);
