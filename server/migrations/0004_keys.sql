-- Which backend has an environment's key, and which one has the key of each data key.
ALTER TABLE environments ADD COLUMN key_backend TEXT NOT NULL DEFAULT 'local';
-- Since now the wrapping of a version's data key (key_backend, key_name, key_version, wrapped_key)
-- changes when it is moved to another key; all else of a version is immutable as before.
ALTER TABLE versions ADD COLUMN key_backend TEXT NOT NULL DEFAULT 'local';

CREATE INDEX versions_by_key ON versions (key_backend, key_name, key_version);

-- Every key that is or was an environment's. No other environment may take it. Nothing may be wrapped
-- under a version below `floor`: they are retired.
CREATE TABLE keys (
    backend     TEXT NOT NULL,
    name        TEXT NOT NULL,
    environment TEXT NOT NULL REFERENCES environments (name) ON DELETE CASCADE,
    floor       INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (backend, name)
) STRICT;

INSERT INTO keys (backend, name, environment) SELECT 'local', key_name, name FROM environments;
