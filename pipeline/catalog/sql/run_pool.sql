-- The pool of one run with one metric and without its static columns, with the accuracies of one source and number of epochs.
CREATE OR REPLACE TEMP TABLE $table AS
-- Without the view's DISTINCT: a precompute adds only what is missing, and one row too many would do no harm.
WITH requested AS (
    SELECT arch, canonical
    FROM files.requests
    WHERE regexp_extract(filename, 'runs/([^/]+)/requests/[^/]+$$', 1) = $$run
)
SELECT
    q.arch, q.canonical, m.metric, m.kappa, m.status,
    b.valid_accuracy, b.test_accuracy
FROM requested AS q
JOIN (SELECT canonical, $metric AS metric, kappa, status FROM metrics WHERE run = $$run) AS m ON q.canonical = m.canonical
LEFT JOIN files.accuracies_of($$space, $$dataset, $$source, $$epochs) AS b ON q.arch = b.arch;
