CREATE VIEW files.$name AS
SELECT * FROM read_json(
    '$pattern',
    columns = {
        id: 'VARCHAR',
        created: 'TIMESTAMP',
        settings: '$settings'
    }
);
