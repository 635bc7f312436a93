-- The test accuracies reported on each data set of a space; a part of another data set ranks behind.
WITH counted AS (
    SELECT dataset, source, epochs, count(DISTINCT arch) AS architectures
    FROM accuracies
    WHERE space = $space AND test_accuracy IS NOT NULL
    GROUP BY dataset, source, epochs
)
SELECT dataset, source, epochs
FROM counted
WHERE regexp_replace(dataset, '-(valid|ori-test)$', '') NOT IN (SELECT c.dataset FROM counted AS c WHERE c.dataset <> counted.dataset)
QUALIFY row_number() OVER (
    PARTITION BY dataset
    ORDER BY architectures DESC, epochs DESC NULLS LAST, source
) = 1
ORDER BY dataset;
