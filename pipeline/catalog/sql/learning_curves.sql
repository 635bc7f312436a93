-- The trainings of $$archs whose $accuracy was measured more than once, with these measurements: those that ended best.
WITH measured AS (
    SELECT source, dataset, arch, epochs, seed, epoch, $accuracy AS accuracy
    FROM curves
    WHERE
        space = $$space AND dataset IN (SELECT unnest($$datasets)) AND arch IN (SELECT unnest($$archs))
        AND $accuracy IS NOT NULL
),
best AS (
    SELECT source, dataset, arch, epochs, seed, arg_max(accuracy, epoch) AS ended
    FROM measured
    GROUP BY ALL
    HAVING count(*) > 1
    ORDER BY ended DESC, arch, source, dataset, epochs, seed
    LIMIT $$most
)
SELECT b.ended, m.arch, m.source, m.dataset, m.epochs, m.seed, m.epoch, m.accuracy
FROM measured AS m
JOIN best AS b ON
    m.source = b.source AND m.dataset = b.dataset AND m.arch = b.arch AND m.epochs IS NOT DISTINCT FROM b.epochs
    AND m.seed IS NOT DISTINCT FROM b.seed
ORDER BY b.ended DESC, m.arch, m.source, m.dataset, m.epochs, m.seed, m.epoch;
