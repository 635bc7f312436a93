-- The scores of the runs. The parts of a run have each score in a column of its version, and different scores of a class in
-- different rows; of each score the views show the newest version that a run of the store was asked for, and no other.
CREATE VIEW files.run_scores AS
SELECT regexp_extract(filename, 'runs/([^/]+)/scores/[^/]+$$', 1) AS run, canonical $values
FROM $source.scores
GROUP BY run, canonical;

-- Which scores each run was asked for; `used` are those of the version that is shown, `stored` is a column of each in the parts.
CREATE VIEW files.score_names AS
SELECT
    unnest([$runs]::VARCHAR[]) AS run, unnest([$names]::VARCHAR[]) AS score, unnest([$versions]::INTEGER[]) AS version,
    unnest([$used]::BOOLEAN[]) AS used, unnest([$counted]::VARCHAR[]) AS stored;

-- The columns of scores in the views, and the score that each is of.
CREATE VIEW files.score_columns AS
SELECT unnest([$columns]::VARCHAR[]) AS name, unnest([$of]::VARCHAR[]) AS score;

-- The mean of a score over runs, as in `mean_pool`: none where one of them lacks it.
CREATE MACRO mean_score(score, run) AS
    CASE WHEN count(score) = count(*) THEN avg(score ORDER BY run) END;
