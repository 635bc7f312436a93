CREATE VIEW files.$name AS
SELECT * FROM read_json(
    $patterns,
    columns = {
        id: 'VARCHAR',
        created: 'TIMESTAMP',
        settings: '$settings'
    }
);
