-- The run is a constant here, so a query of one run opens no arrays of others.
UNION ALL SELECT '$run' AS run, ntk_row, $array FROM "$source"
