-- The columns of each kind of file, as empty tables: without such files in a store the views are empty, and a column
-- that only newer files have reads as NULL in older ones.
CREATE TABLE empty.architectures (
    arch VARCHAR, canonical VARCHAR, params BIGINT, flops BIGINT, filename VARCHAR
);
CREATE TABLE empty.requests (
    arch VARCHAR, canonical VARCHAR, filename VARCHAR
);
CREATE TABLE empty.metrics (
    canonical VARCHAR,
    grad_norm DOUBLE, grad_norm_l2 DOUBLE, snip DOUBLE, snip_inner DOUBLE,
    grasp DOUBLE, grasp_abs DOUBLE, trace DOUBLE, kappa DOUBLE,
    status VARCHAR, seconds FLOAT, ntk_row INTEGER, filename VARCHAR
);
CREATE TABLE empty.scores (
    canonical VARCHAR, filename VARCHAR $scores
);
CREATE TABLE empty.eigenvalues (
    run VARCHAR, ntk_row INTEGER, eigenvalues DOUBLE[]
);
CREATE TABLE empty.grams (
    run VARCHAR, ntk_row INTEGER, gram DOUBLE[][]
);
CREATE TABLE empty.accuracies (
    source VARCHAR, space VARCHAR, arch VARCHAR, dataset VARCHAR, epochs INTEGER, seed BIGINT,
    train_accuracy DOUBLE, valid_accuracy DOUBLE, test_accuracy DOUBLE, seconds DOUBLE
);
CREATE TABLE empty.curves (
    source VARCHAR, space VARCHAR, arch VARCHAR, dataset VARCHAR, epochs INTEGER, seed BIGINT, epoch INTEGER,
    train_accuracy DOUBLE, valid_accuracy DOUBLE, test_accuracy DOUBLE, seconds DOUBLE, loss DOUBLE, lr DOUBLE
);
CREATE TABLE empty.proxies (
    source VARCHAR, space VARCHAR, arch VARCHAR, dataset VARCHAR, proxy VARCHAR, value DOUBLE, seconds DOUBLE
);
CREATE TABLE empty.queries (
    query INTEGER, mu DOUBLE, nu DOUBLE, arch VARCHAR, objective DOUBLE, performance DOUBLE,
    seconds DOUBLE, own_seconds DOUBLE, cost DOUBLE, epochs INTEGER, failure VARCHAR, output VARCHAR,
    exit_status INTEGER, asked INTEGER, asks INTEGER, elapsed DOUBLE, filename VARCHAR
);
CREATE TABLE empty.compared (
    search VARCHAR, seed BIGINT, query INTEGER, mu DOUBLE, nu DOUBLE, arch VARCHAR, objective DOUBLE, performance DOUBLE,
    seconds DOUBLE, own_seconds DOUBLE, cost DOUBLE, epochs INTEGER, failure VARCHAR, output VARCHAR,
    exit_status INTEGER, asked INTEGER, asks INTEGER, elapsed DOUBLE, filename VARCHAR
);
CREATE TABLE empty.runs (
    id VARCHAR, created TIMESTAMP,
    settings STRUCT(
        space VARCHAR, dataset VARCHAR, batch VARCHAR, batch_size INTEGER, classes INTEGER, image_size INTEGER,
        channels INTEGER, cells INTEGER, seed BIGINT, ntk VARCHAR, dtype VARCHAR, engine INTEGER, init VARCHAR
    ),
    place VARCHAR
);
CREATE TABLE empty.searches (
    id VARCHAR, created TIMESTAMP,
    settings STRUCT(
        space VARCHAR, run VARCHAR, dataset VARCHAR, method VARCHAR, metric VARCHAR, oracle VARCHAR, accuracy VARCHAR,
        epochs INTEGER, source VARCHAR, queries INTEGER, budget DOUBLE, condition VARCHAR, recipe VARCHAR,
        t DOUBLE, acquisition VARCHAR, options VARCHAR, seed BIGINT, parallel INTEGER, runs VARCHAR[]
    )
);
CREATE TABLE empty.comparisons (
    id VARCHAR, created TIMESTAMP, seeds INTEGER,
    methods STRUCT(
        space VARCHAR, run VARCHAR, dataset VARCHAR, method VARCHAR, metric VARCHAR, oracle VARCHAR, accuracy VARCHAR,
        epochs INTEGER, source VARCHAR, queries INTEGER, budget DOUBLE, condition VARCHAR, recipe VARCHAR,
        t DOUBLE, acquisition VARCHAR, options VARCHAR, seed BIGINT, parallel INTEGER, runs VARCHAR[]
    )[]
);
