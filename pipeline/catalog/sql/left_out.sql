-- The architectures in some but not all of the runs.
SELECT count(*)
FROM (
    SELECT q.arch
    FROM requests AS q
    JOIN metrics AS m ON q.run = m.run AND q.canonical = m.canonical
    WHERE list_contains($runs, q.run) AND list_contains($runs, m.run)
    GROUP BY q.arch
    HAVING count(*) < len($runs)
);
