SELECT comparison, space, run, dataset, oracle, seeds, searches, queries, array_to_string(methods, ',') AS methods
FROM comparisons
ORDER BY created DESC, comparison;
