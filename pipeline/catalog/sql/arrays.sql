CREATE VIEW files.$name AS
SELECT * FROM empty.$name
$branches;
