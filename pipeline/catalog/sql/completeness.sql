-- The computed and the requested classes of a run.
SELECT count(*) FILTER (WHERE canonical IN (SELECT canonical FROM metrics WHERE run = $1)), count(*)
FROM (SELECT DISTINCT canonical FROM requests WHERE run = $1);
