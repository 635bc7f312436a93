-- Scores of a spectrum, eigenvalues in ascending order, as in `hnas.metrics.spectrum`; `epsilon` is the precision of the
-- gradients, by default that of float32. DuckDB sorts NaN above all numbers, so NaN is tested first.
CREATE MACRO is_finite_spectrum(eigenvalues) AS
    isfinite(list_sum(eigenvalues));
CREATE MACRO is_no_spectrum(eigenvalues) AS
    coalesce(len(eigenvalues), 0) = 0;

-- Eigenvalues up to this are zero to working precision.
CREATE MACRO singular_below(eigenvalues, epsilon := 1.1920928955078125e-07) AS
    greatest(pow(len(eigenvalues) * epsilon, 2), len(eigenvalues) * 2.220446049250313e-16) * eigenvalues[-1];

CREATE MACRO nasi_trace(eigenvalues) AS
    CASE
        WHEN is_no_spectrum(eigenvalues) THEN NULL
        WHEN is_finite_spectrum(eigenvalues) THEN list_sum(eigenvalues) / len(eigenvalues)
        ELSE 'nan'::DOUBLE
    END;

-- Without the k smallest eigenvalues; NULL if there are at most k.
CREATE MACRO kappa_at(eigenvalues, k, epsilon := 1.1920928955078125e-07) AS
    CASE
        WHEN is_no_spectrum(eigenvalues) OR k IS NULL OR k < 0 OR k >= len(eigenvalues) THEN NULL
        WHEN is_finite_spectrum(eigenvalues) AND eigenvalues[k + 1] > singular_below(eigenvalues, epsilon := epsilon)
            THEN eigenvalues[-1] / eigenvalues[k + 1]
        ELSE 'inf'::DOUBLE
    END;

-- The percentile 100 - p over the percentile p, for a constant p; NULL unless 0 <= p < 50.
CREATE MACRO kappa_percentile(eigenvalues, p, epsilon := 1.1920928955078125e-07) AS
    CASE
        WHEN is_no_spectrum(eigenvalues) OR p IS NULL OR p < 0 OR p >= 50 THEN NULL
        WHEN is_finite_spectrum(eigenvalues)
            AND list_aggregate(eigenvalues, 'quantile_cont', p / 100) > singular_below(eigenvalues, epsilon := epsilon)
            THEN list_aggregate(eigenvalues, 'quantile_cont', 1 - p / 100)
                / list_aggregate(eigenvalues, 'quantile_cont', p / 100)
        ELSE 'inf'::DOUBLE
    END;

-- exp(H) with H = ln S - (1/S) sum(x ln x), S = sum(x), x >= 0: the entropy of the shares x / S, in one pass.
CREATE MACRO effective_rank(eigenvalues) AS
    CASE
        WHEN is_no_spectrum(eigenvalues) THEN NULL
        WHEN NOT is_finite_spectrum(eigenvalues) THEN 'nan'::DOUBLE
        WHEN eigenvalues[-1] <= 0 THEN 0.0::DOUBLE
        ELSE exp(
            ln(list_sum(list_transform(eigenvalues, lambda x: greatest(x, 0))))
            - list_sum(list_transform(eigenvalues, lambda x: CASE WHEN x > 0 THEN x * ln(x) ELSE 0 END))
            / list_sum(list_transform(eigenvalues, lambda x: greatest(x, 0)))
        )
    END;

CREATE MACRO log_determinant(eigenvalues, epsilon := 1.1920928955078125e-07) AS
    CASE
        WHEN is_no_spectrum(eigenvalues) THEN NULL
        WHEN NOT is_finite_spectrum(eigenvalues) THEN 'nan'::DOUBLE
        WHEN eigenvalues[1] > singular_below(eigenvalues, epsilon := epsilon)
            -- ln of a number that is not positive is an error, and a CASE does not protect every row from it.
            THEN list_sum(list_transform(eigenvalues, lambda x: ln(CASE WHEN x > 0 THEN x ELSE 1 END)))
        ELSE '-inf'::DOUBLE
    END;

CREATE MACRO gram_mean(gram) AS
    list_sum(flatten(gram)) / (len(gram) * len(gram));

-- The precision of a run's gradients, by its `dtype`.
CREATE MACRO precision_of(dtype) AS
    CASE dtype WHEN 'float64' THEN 2.220446049250313e-16 ELSE 1.1920928955078125e-07 END;
