-- The rule of `hnas.pipeline.io.dataset_names.canonical_dataset`: `CIFAR-10`, `cifar_10` and `CIFAR10` are all `cifar10`.
CREATE MACRO canonical_dataset(name) AS
    coalesce(
        list_extract([$known], list_position([$squeezed], replace(replace(replace(lower(name), '-', ''), '_', ''), ' ', ''))),
        lower(trim(name))
    );
