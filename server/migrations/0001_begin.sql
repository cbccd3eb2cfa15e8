-- Times are microseconds since 1970-01-01 00:00:00 UTC; labels are written as `k=v,k2=v2`.

CREATE TABLE operators (
    name    TEXT NOT NULL PRIMARY KEY,
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE environments (
    name     TEXT NOT NULL PRIMARY KEY,
    key_name TEXT NOT NULL UNIQUE,
    created  INTEGER NOT NULL
) STRICT;

CREATE TABLE secrets (
    id          INTEGER PRIMARY KEY,
    environment TEXT NOT NULL REFERENCES environments (name),
    name        TEXT NOT NULL,
    labels      TEXT NOT NULL,
    current     INTEGER NOT NULL,
    created     INTEGER NOT NULL,
    changed     INTEGER NOT NULL,
    UNIQUE (environment, name)
) STRICT;

-- Immutable: rows are inserted and removed with their secret, never updated.
CREATE TABLE versions (
    id          INTEGER PRIMARY KEY,
    secret      INTEGER NOT NULL REFERENCES secrets (id) ON DELETE CASCADE,
    number      INTEGER NOT NULL CHECK (number >= 1),
    size        INTEGER NOT NULL CHECK (size BETWEEN 1 AND 1048576),
    created     INTEGER NOT NULL,
    key_name    TEXT NOT NULL,
    key_version INTEGER NOT NULL,
    wrapped_key BLOB NOT NULL,
    sealed      BLOB NOT NULL,
    UNIQUE (secret, number)
) STRICT;

CREATE TABLE services (
    id          INTEGER PRIMARY KEY,
    environment TEXT NOT NULL REFERENCES environments (name),
    name        TEXT NOT NULL,
    created     INTEGER NOT NULL,
    UNIQUE (environment, name)
) STRICT;

CREATE TABLE attachments (
    service INTEGER NOT NULL REFERENCES services (id) ON DELETE CASCADE,
    target  TEXT NOT NULL,
    secret  INTEGER NOT NULL REFERENCES secrets (id),
    uid     INTEGER NOT NULL,
    gid     INTEGER NOT NULL,
    mode    INTEGER NOT NULL CHECK (mode BETWEEN 0 AND 511),
    changed INTEGER NOT NULL,
    PRIMARY KEY (service, target)
) STRICT;

CREATE INDEX attachments_by_secret ON attachments (secret);

-- `kind` says what `chosen` is: the name of a node or a selector over labels.
CREATE TABLE assignments (
    service INTEGER NOT NULL REFERENCES services (id) ON DELETE CASCADE,
    kind    TEXT NOT NULL CHECK (kind IN ('node', 'selector')),
    chosen  TEXT NOT NULL,
    PRIMARY KEY (service, kind, chosen)
) STRICT;

CREATE TABLE nodes (
    id                  INTEGER PRIMARY KEY,
    environment         TEXT NOT NULL REFERENCES environments (name),
    name                TEXT NOT NULL,
    state               TEXT NOT NULL CHECK (state IN ('pending', 'active', 'revoked')),
    labels              TEXT NOT NULL,
    envelope_key        BLOB NOT NULL,
    joined              INTEGER NOT NULL,
    certificate_expires INTEGER NOT NULL,
    UNIQUE (environment, name)
) STRICT;

-- The SHA-256 of each join token's secret part, never the secret itself.
CREATE TABLE tokens (
    digest      BLOB NOT NULL PRIMARY KEY,
    environment TEXT NOT NULL REFERENCES environments (name) ON DELETE CASCADE,
    approval    INTEGER NOT NULL CHECK (approval IN (0, 1)),
    labels      TEXT NOT NULL,
    created     INTEGER NOT NULL,
    expires     INTEGER NOT NULL,
    used_by     TEXT
) STRICT;
