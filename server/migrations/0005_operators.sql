-- An operator's certificate names the id beside the name, so that whoever logs in later under the same
-- name is another. Operators from before have none, and neither have their certificates. Whoever is
-- invited has one that is in no certificate yet.
ALTER TABLE operators ADD COLUMN id INTEGER;
-- Of the newest certificate; not known of operators from before.
ALTER TABLE operators ADD COLUMN certificate_expires INTEGER;

-- In one environment, or everywhere.
CREATE TABLE grants (
    operator    TEXT NOT NULL REFERENCES operators (name) ON DELETE CASCADE,
    role        TEXT NOT NULL,
    environment TEXT REFERENCES environments (name) ON DELETE CASCADE
) STRICT;

CREATE UNIQUE INDEX grants_once ON grants (operator, role, COALESCE(environment, ''));
CREATE INDEX grants_by_environment ON grants (environment);

-- All operators could do everything.
INSERT INTO grants (operator, role) SELECT name, 'admin' FROM operators;

-- One open enrolment token for each operator at most: the SHA-256 of its secret part. It was made for who
-- has roles in one environment only, if that is named; a role elsewhere makes it worthless.
CREATE TABLE enrolments (
    operator    TEXT NOT NULL PRIMARY KEY REFERENCES operators (name) ON DELETE CASCADE,
    digest      BLOB NOT NULL UNIQUE,
    environment TEXT REFERENCES environments (name) ON DELETE CASCADE,
    expires     INTEGER NOT NULL
) STRICT;
