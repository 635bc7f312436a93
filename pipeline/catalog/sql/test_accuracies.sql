SELECT arch, avg(test_accuracy)
FROM accuracies
WHERE space = $space AND dataset = $dataset AND source = $source AND epochs IS NOT DISTINCT FROM $epochs
    AND test_accuracy IS NOT NULL AND ($archs IS NULL OR list_contains($archs::VARCHAR[], arch))
GROUP BY arch;
