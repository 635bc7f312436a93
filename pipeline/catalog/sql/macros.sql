-- Eq. (7): kappa / |M| + mu |M^2 - nu|^(2t). Infinite where kappa is, so that a singular network is never the minimum.
CREATE MACRO objective(metric, kappa, mu, nu, t) AS
    CASE
        WHEN isfinite(kappa) AND kappa > 0 AND abs(metric) > 0 AND NOT isnan(metric)
            THEN kappa / abs(metric) + mu * pow(abs(metric * metric - nu), 2 * t)
        ELSE 'inf'::DOUBLE
    END;

-- The share of the rows that a value is above or at, from 1/n for the lowest to 1: its rank from below over the number of rows
-- that have one, the mean rank for ties. NULL and NaN have none.
CREATE MACRO rank_share(x) AS
    CASE WHEN x IS NOT NULL AND NOT isnan(x::DOUBLE) THEN
        (
            rank() OVER (ORDER BY nullif(x::DOUBLE, 'nan'::DOUBLE)) + (count(*) OVER (PARTITION BY x) - 1) / 2
        ) / count(nullif(x::DOUBLE, 'nan'::DOUBLE)) OVER ()
    END;

-- Sum of ln(rank / n) over columns, as AZ-NAS aggregates (Lee, Ham, CVPR 2024): 0 for what is the highest of each.
CREATE MACRO log_rank_sum
    (a) AS ln(rank_share(a)),
    (a, b) AS ln(rank_share(a)) + ln(rank_share(b)),
    (a, b, c) AS ln(rank_share(a)) + ln(rank_share(b)) + ln(rank_share(c)),
    (a, b, c, d) AS ln(rank_share(a)) + ln(rank_share(b)) + ln(rank_share(c)) + ln(rank_share(d)),
    (a, b, c, d, e) AS ln(rank_share(a)) + ln(rank_share(b)) + ln(rank_share(c)) + ln(rank_share(d)) + ln(rank_share(e)),
    (a, b, c, d, e, f) AS ln(rank_share(a)) + ln(rank_share(b)) + ln(rank_share(c)) + ln(rank_share(d)) + ln(rank_share(e)) + ln(rank_share(f)),
    (a, b, c, d, e, f, g) AS ln(rank_share(a)) + ln(rank_share(b)) + ln(rank_share(c)) + ln(rank_share(d)) + ln(rank_share(e)) + ln(rank_share(f)) + ln(rank_share(g)),
    (a, b, c, d, e, f, g, h) AS ln(rank_share(a)) + ln(rank_share(b)) + ln(rank_share(c)) + ln(rank_share(d)) + ln(rank_share(e)) + ln(rank_share(f)) + ln(rank_share(g)) + ln(rank_share(h));

-- Mean of rank / n over columns.
CREATE MACRO mean_rank
    (a) AS (rank_share(a)) / 1,
    (a, b) AS (rank_share(a) + rank_share(b)) / 2,
    (a, b, c) AS (rank_share(a) + rank_share(b) + rank_share(c)) / 3,
    (a, b, c, d) AS (rank_share(a) + rank_share(b) + rank_share(c) + rank_share(d)) / 4,
    (a, b, c, d, e) AS (rank_share(a) + rank_share(b) + rank_share(c) + rank_share(d) + rank_share(e)) / 5,
    (a, b, c, d, e, f) AS (rank_share(a) + rank_share(b) + rank_share(c) + rank_share(d) + rank_share(e) + rank_share(f)) / 6,
    (a, b, c, d, e, f, g) AS (rank_share(a) + rank_share(b) + rank_share(c) + rank_share(d) + rank_share(e) + rank_share(f) + rank_share(g)) / 7,
    (a, b, c, d, e, f, g, h) AS (rank_share(a) + rank_share(b) + rank_share(c) + rank_share(d) + rank_share(e) + rank_share(f) + rank_share(g) + rank_share(h)) / 8;
