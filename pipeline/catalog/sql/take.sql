-- Leave out the members of an architecture's canonical class, which all compute the same function.
INSERT INTO $taken
SELECT rowid
FROM $candidates
WHERE canonical = (SELECT canonical FROM $candidates WHERE arch = ?);
