-- The candidates of a search with the fewest and the most parameters.
WITH sized AS (
    SELECT c.arch, a.params
    FROM $candidates c
    JOIN architectures a ON a.arch = c.arch AND a.space = ?
)
SELECT unnest([min_by(arch, params), max_by(arch, params)]) AS arch
FROM sized
HAVING count(*) > 0
