-- One client connection through the gateway. Times are microseconds since 1970.
CREATE TABLE sessions (
    id                TEXT   NOT NULL PRIMARY KEY,
    pass              TEXT   NOT NULL,
    environment       TEXT   NOT NULL,
    opened_at         BIGINT NOT NULL,
    opened            TEXT   NOT NULL,
    closed_at         BIGINT,
    closed            TEXT
);
CREATE INDEX sessions_by_environment ON sessions (environment, opened_at);
CREATE INDEX sessions_by_pass ON sessions (pass, opened_at);
CREATE INDEX sessions_still_open ON sessions (id) WHERE closed_at IS NULL;

-- Statements, many to a row: one row each would cost more than the statement.
CREATE TABLE statement_blocks (
    session TEXT   NOT NULL,
    first   BIGINT NOT NULL,
    count   BIGINT NOT NULL,
    lines   BYTEA  NOT NULL,
    PRIMARY KEY (session, first)
);
