SELECT
    source, space, dataset, epochs, count(*) AS rows, count(DISTINCT arch) AS architectures,
    round(max(valid_accuracy), 2) AS best_valid, round(max(test_accuracy), 2) AS best_test
FROM accuracies
GROUP BY source, space, dataset, epochs
ORDER BY space, dataset, source, epochs;
