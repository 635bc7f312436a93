-- Each source, data set and number of epochs whose accuracies may guide a search, and the number of architectures with
-- each. For a requested number of epochs also that epoch of longer trainings, whose length is `of`.
SELECT source, dataset, epochs, NULL::INTEGER AS "of", count(valid_accuracy) AS valid, count(test_accuracy) AS test
FROM (
    SELECT source, dataset, epochs, arch, any_value(valid_accuracy) AS valid_accuracy, any_value(test_accuracy) AS test_accuracy
    FROM accuracies
    WHERE space = $space AND list_contains($datasets, dataset)
    GROUP BY source, dataset, epochs, arch
)
GROUP BY source, dataset, epochs
UNION ALL
SELECT source, dataset, epoch, epochs, count(DISTINCT arch) FILTER (WHERE valid_accuracy IS NOT NULL),
    count(DISTINCT arch) FILTER (WHERE test_accuracy IS NOT NULL)
FROM curves
WHERE $epochs IS NOT NULL AND space = $space AND list_contains($datasets, dataset) AND epoch = $epochs AND epochs > $epochs
GROUP BY source, dataset, epoch, epochs;
