-- The user's columns for one space and data set, one row per architecture: those of that data set, and those without a
-- data set. A column has one source, so an architecture has at most one value of it.
CREATE MACRO files.columns_of(of_space, of_dataset) AS TABLE
SELECT arch $values
FROM files.columns
WHERE space = of_space AND (dataset IS NULL OR dataset = of_dataset)
GROUP BY arch;

-- The same for the space and data set of each run.
CREATE VIEW files.columns_of_runs AS
SELECT r.space, r.dataset, c.arch $values
FROM (SELECT DISTINCT settings.space AS space, canonical_dataset(settings.dataset) AS dataset FROM files.runs) AS r
JOIN files.columns AS c ON r.space = c.space AND (c.dataset IS NULL OR r.dataset = c.dataset)
GROUP BY r.space, r.dataset, c.arch;
