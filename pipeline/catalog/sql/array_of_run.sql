-- The run is a constant here, so that a query of one run opens no other's array.
UNION ALL SELECT '$run' AS run, ntk_row, $array FROM "$source"
