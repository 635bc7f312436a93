struct_pack(
    score := '$score', version := $version, rows := count(DISTINCT canonical) FILTER (WHERE "$column" IS NOT NULL),
    seconds := sum("${score}_seconds@$version")
)
