CREATE VIEW files.$name AS SELECT * FROM _$name;
