-- The classes of a run that are computed, and all that it was asked for.
SELECT count(*) FILTER (WHERE canonical IN (SELECT canonical FROM metrics WHERE run = $1)), count(*)
FROM (SELECT DISTINCT canonical FROM requests WHERE run = $1);
