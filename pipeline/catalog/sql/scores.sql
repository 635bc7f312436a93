-- The scores of the runs. The parts of a run have one column per score and version, and may hold the scores of a class in
-- several rows. Of each score the views show only the newest version that was requested of any run.
CREATE VIEW files.run_scores AS
SELECT regexp_extract(filename, 'runs/([^/]+)/scores/[^/]+$$', 1) AS run, canonical $values
FROM $source.scores
GROUP BY run, canonical;

-- The scores requested of each run: `used` are those of the version shown, `stored` is the column of each in the parts.
CREATE VIEW files.score_names AS
SELECT
    unnest([$runs]::VARCHAR[]) AS run, unnest([$names]::VARCHAR[]) AS score, unnest([$versions]::INTEGER[]) AS version,
    unnest([$used]::BOOLEAN[]) AS used, unnest([$counted]::VARCHAR[]) AS stored;

-- The columns of scores in the views, and the score of each.
CREATE VIEW files.score_columns AS
SELECT unnest([$columns]::VARCHAR[]) AS name, unnest([$of]::VARCHAR[]) AS score;

-- The mean of a score over runs, as in `mean_pool`: NULL if one of them lacks it.
CREATE MACRO mean_score(score, run) AS
    CASE WHEN count(score) = count(*) THEN avg(score ORDER BY run) END;
