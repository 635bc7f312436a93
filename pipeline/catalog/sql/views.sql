-- One row for each run: its settings, each of which determines its numbers, and its location: `store`, or a table's path.
CREATE VIEW runs AS
SELECT id AS run, created, unnest(settings), place
FROM files.runs;

-- One row for each architecture ever requested: static columns at the benchmark's own network size.
CREATE VIEW architectures AS
SELECT DISTINCT ON (space, arch)
    regexp_extract(filename, 'architectures/([^/]+)/[^/]+$', 1) AS space,
    * EXCLUDE (filename)
FROM files.architectures;

-- One row for each run and canonical architecture: the eight columns, status, seconds of computation, row in ntk.zarr.
CREATE VIEW metrics AS
SELECT
    regexp_extract(filename, 'runs/([^/]+)/metrics/[^/]+$', 1) AS run,
    * EXCLUDE (filename)
FROM files.metrics;

-- One row for each run and architecture requested of it.
CREATE VIEW requests AS
SELECT DISTINCT
    regexp_extract(filename, 'runs/([^/]+)/requests/[^/]+$', 1) AS run,
    arch, canonical
FROM files.requests;

-- One row for each training, imported or done here: an architecture on a data set for a number of epochs with one seed.
CREATE VIEW accuracies AS
FROM files.accuracies;

-- One row for each measurement during a training, after `epoch` of its `epochs`; `loss` and `lr` for trainings done here.
CREATE VIEW curves AS
FROM files.curves;

-- One row for each imported score of a training-free proxy. Each encoding of an architecture has its own row.
CREATE VIEW proxies AS
FROM files.proxies;

-- One row for each space and data set: the source and number of epochs whose accuracies represent it: those that cover
-- the most architectures; ties prefer the longer training, then the one with validation accuracies.
CREATE VIEW files.accuracy_tables AS
SELECT space, dataset, source, epochs
FROM main.accuracies
GROUP BY space, dataset, source, epochs
QUALIFY row_number() OVER (
    PARTITION BY space, dataset
    ORDER BY count(DISTINCT arch) DESC, epochs DESC NULLS LAST, count(valid_accuracy) > 0 DESC, source
) = 1;

-- One row for each architecture and data set: the mean over seeds, all of one source and one number of epochs.
CREATE VIEW mean_accuracies AS
SELECT
    a.space, a.dataset, a.arch, any_value(a.source) AS source, any_value(a.epochs) AS epochs,
    avg(a.train_accuracy) AS train_accuracy,
    avg(a.valid_accuracy) AS valid_accuracy,
    avg(a.test_accuracy) AS test_accuracy
FROM accuracies AS a
JOIN files.accuracy_tables AS t
    ON a.space = t.space AND a.dataset = t.dataset AND a.source = t.source AND a.epochs IS NOT DISTINCT FROM t.epochs
GROUP BY a.space, a.dataset, a.arch;

-- One row for each run and architecture requested of it, with everything that (7) and a correlation need.
-- Members of a class that were not requested are absent: they would bias every statistic toward large classes.
CREATE VIEW pool AS
SELECT
    q.run, r.space, r.dataset, q.arch, q.canonical,
    m.grad_norm, m.grad_norm_l2, m.snip, m.snip_inner, m.grasp, m.grasp_abs, m.trace, m.kappa, m.status,
    s.* EXCLUDE (run, canonical),
    a.* EXCLUDE (space, arch, canonical),
    c.* EXCLUDE (space, dataset, arch),
    b.train_accuracy, b.valid_accuracy, b.test_accuracy
FROM requests AS q
JOIN (SELECT *, canonical_dataset(dataset) AS imported_as FROM runs) AS r ON q.run = r.run
JOIN metrics AS m ON q.run = m.run AND q.canonical = m.canonical
LEFT JOIN files.run_scores AS s ON q.run = s.run AND q.canonical = s.canonical
LEFT JOIN architectures AS a ON r.space = a.space AND q.arch = a.arch
LEFT JOIN files.columns_of_runs AS c ON r.space = c.space AND r.imported_as = c.dataset AND q.arch = c.arch
LEFT JOIN mean_accuracies AS b ON r.space = b.space AND r.imported_as = b.dataset AND q.arch = b.arch;

-- One row for each run: the name of its group, the runs that differ only in seed and batch.
CREATE VIEW files.run_groups AS
SELECT
    id AS run, settings.space, settings.dataset, canonical_dataset(settings.dataset) AS imported_as,
    left(md5(struct_update(settings, batch := NULL, seed := NULL)::VARCHAR), 10) AS run_group
FROM files.runs;

-- A spectrum, or a matrix with the square of its trace times m, checked against the trace of its row, eq. (4). No row or NaN
-- means a missing chunk, unless numbers overflowed; a different trace belongs to another row. The texts are matched by
-- `hnas.pipeline.catalog.table_files.told`.
CREATE MACRO kept(value, total, m, trace, run, status) AS
    CASE
        WHEN status = 'nonfinite' THEN value
        WHEN value IS NULL OR isnan(total)
            THEN error(
                'ntk.zarr failed: HnasError: run ' || run || ' has lost eigenvalues: a chunk of its ntk.zarr is gone; '
                || 'the same `hnas precompute` computes it again'
            )
        WHEN abs(total - m * trace * trace) > 1e-9 * total + 1e-12
            THEN error(
                'ntk.zarr failed: HnasError: rows of ntk.zarr of run ' || run || ' are those of other architectures; '
                || 'restore it, or remove the run and precompute it again'
            )
        ELSE value
    END;
CREATE MACRO kept_spectrum(eigenvalues, trace, run, status) AS
    kept(eigenvalues, list_sum(eigenvalues), len(eigenvalues), trace, run, status);
CREATE MACRO kept_gram(gram, trace, run, status) AS
    kept(gram, list_sum(list_transform(range(1, len(gram) + 1), lambda i: gram[i][i])), len(gram), trace, run, status);

-- One row for each run and canonical architecture whose spectrum is kept: the eigenvalues of its NTK in ascending order.
-- The arrays are in ntk.zarr, which is read only when a query uses these views, and only for the runs it selects.
CREATE VIEW spectra AS
SELECT m.run, m.canonical, kept_spectrum(e.eigenvalues, m.trace, m.run, m.status) AS eigenvalues
FROM metrics AS m
LEFT JOIN files.eigenvalues AS e ON m.run = e.run AND m.ntk_row = e.ntk_row;

-- The same for its NTK itself, of runs with --keep-gram: a list of rows.
CREATE VIEW grams AS
SELECT m.run, m.canonical, kept_gram(g.gram, m.trace, m.run, m.status) AS gram
FROM metrics AS m
JOIN files.grams AS g ON m.run = g.run AND m.ntk_row = g.ntk_row;

-- One row for each row of `metrics`: the scores requested of the run (`pool` has them too, and is faster to read), and
-- published scores that depend on the NTK alone; `gram_mean` with --keep-gram. If there are matrices, any of the columns
-- reads them: m times the bytes of the spectra.
CREATE VIEW scores AS
WITH spectra AS (
    SELECT
        m.run, m.canonical, m.ntk_row, kept_spectrum(e.eigenvalues, m.trace, m.run, m.status) AS eigenvalues,
        precision_of(r.settings.dtype) AS epsilon
    FROM metrics AS m
    JOIN files.runs AS r ON m.run = r.id
    LEFT JOIN files.eigenvalues AS e ON m.run = e.run AND m.ntk_row = e.ntk_row
),
gram_means AS (
    SELECT m.run, m.ntk_row, gram_mean(kept_gram(g.gram, m.trace, m.run, m.status)) AS gram_mean
    FROM metrics AS m
    JOIN files.grams AS g ON m.run = g.run AND m.ntk_row = g.ntk_row
)
SELECT
    s.run, s.canonical,
    r.* EXCLUDE (run, canonical),
    nasi_trace(s.eigenvalues) AS nasi_trace,
    effective_rank(s.eigenvalues) AS effective_rank,
    log_determinant(s.eigenvalues, epsilon := s.epsilon) AS log_determinant,
    kappa_percentile(s.eigenvalues, 5, epsilon := s.epsilon) AS kappa_p5,
    kappa_percentile(s.eigenvalues, 10, epsilon := s.epsilon) AS kappa_p10,
    kappa_percentile(s.eigenvalues, 25, epsilon := s.epsilon) AS kappa_p25,
    g.gram_mean
FROM spectra AS s
LEFT JOIN files.run_scores AS r ON s.run = r.run AND s.canonical = r.canonical
LEFT JOIN gram_means AS g ON s.run = g.run AND s.ntk_row = g.ntk_row;

-- One row for each query of a search. `cost` is charged to the budget; older versions charged a training's wall time.
CREATE VIEW queries AS
SELECT
    regexp_extract(filename, 'searches/([^/]+)/[^/]+$', 1) AS search,
    * EXCLUDE (filename) REPLACE (coalesce(cost, seconds) AS cost)
FROM files.queries
UNION ALL BY NAME
SELECT * EXCLUDE (seed, filename)
FROM files.compared;

-- One row for each search: its settings, and the cost of its evaluations. `metric` is the part after the colon of the method.
-- The searches of a comparison are called `<comparison>-<number of the method, from 0>-<seed>`.
CREATE VIEW searches AS
WITH found AS (
    SELECT DISTINCT search, seed, split_part(search, '-', 1) AS comparison, split_part(search, '-', 2)::INTEGER AS k
    FROM files.compared
)
SELECT s.search, s.created, s.* EXCLUDE (search, created, comparison), q.cost, s.comparison
FROM (
    SELECT id AS search, NULL::VARCHAR AS comparison, created, unnest(settings) FROM files.searches
    UNION ALL BY NAME
    SELECT f.search, f.comparison, c.created, unnest(struct_update(c.methods[f.k + 1], seed := f.seed))
    FROM files.comparisons AS c
    JOIN found AS f ON c.id = f.comparison
) AS s
LEFT JOIN (SELECT search, sum(cost) AS cost FROM queries GROUP BY search) AS q ON s.search = q.search;

-- The best of each search so far, after each of its queries: `spent` is the cost of all queries up to this one. If a method
-- trains for several numbers of epochs, the best of the longest so far. A failed evaluation, whose performance is NULL, does
-- not count.
CREATE VIEW incumbents AS
WITH steps AS (
    SELECT
        search, query, arch, performance,
        sum(cost) OVER (PARTITION BY search ORDER BY query) AS spent,
        arg_max(struct_pack(arch, performance, query), struct_pack(e := coalesce(epochs, 2147483647), performance, q := -query))
            FILTER (WHERE performance IS NOT NULL)
            OVER (PARTITION BY search ORDER BY query) AS best
    FROM queries
)
SELECT search, query, spent, best.arch AS arch, best.performance AS performance, best.query AS found
FROM steps;

-- One row for each comparison: the guide of all its searches, its methods with their budgets, the requested seeds, and the
-- stored searches and queries.
CREATE VIEW comparisons AS
SELECT
    c.id AS comparison, c.created, c.one.space, c.one.run, c.one.dataset, c.one.oracle, c.one.accuracy, c.one.epochs, c.one.source,
    c.one.condition, c.one.recipe, c.one.runs,
    list_transform(c.methods, lambda of: concat(
        of.method, ':' || of.metric, '@' || of.queries, '@' || round(of.budget, 3) || 's'
    )) AS methods,
    c.seeds, coalesce(f.searches, 0) AS searches, coalesce(f.queries, 0) AS queries
FROM (SELECT *, methods[1] AS one FROM files.comparisons) AS c
LEFT JOIN (
    SELECT split_part(search, '-', 1) AS comparison, count(DISTINCT search) AS searches, count(*) AS queries
    FROM files.compared
    GROUP BY ALL
) AS f ON c.id = f.comparison;
