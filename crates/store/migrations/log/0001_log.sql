-- The log: each line is sealed into the chain by daypass_core::chain.
CREATE TABLE log (
    seq  BIGINT NOT NULL PRIMARY KEY,
    line TEXT   NOT NULL
);
-- Secrets, sealed with AES-256-GCM; the id is bound in as associated data.
CREATE TABLE secrets (
    id     TEXT  NOT NULL PRIMARY KEY,
    sealed BYTEA NOT NULL
);
