-- The audit log. Nothing in it is ever changed or removed by a manager: the triggers are against
-- mistakes, and who removes them is found by the chain.

-- The chains that are kept here, in the order in which they began. Only the last one goes on, unless it
-- is `ended`: it came from a backup, and the manager that was backed up may still write it.
CREATE TABLE chains (
    id    INTEGER PRIMARY KEY,
    place INTEGER NOT NULL UNIQUE,
    ended INTEGER NOT NULL DEFAULT 0
) STRICT;

-- `record` is what is hashed. The columns before it say nothing that it does not say, and are to find it.
CREATE TABLE records (
    chain       INTEGER NOT NULL REFERENCES chains (id),
    sequence    INTEGER NOT NULL,
    environment TEXT,
    -- The id of what a node reported.
    event       TEXT,
    record      TEXT NOT NULL,
    hash        BLOB NOT NULL,
    PRIMARY KEY (chain, sequence)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX records_by_event ON records (event) WHERE event IS NOT NULL;
CREATE INDEX records_by_environment ON records (environment, chain, sequence) WHERE environment IS NOT NULL;

CREATE TABLE checkpoints (
    chain      INTEGER NOT NULL REFERENCES chains (id),
    sequence   INTEGER NOT NULL,
    checkpoint TEXT NOT NULL,
    PRIMARY KEY (chain, sequence)
) STRICT, WITHOUT ROWID;

-- The keys that sign checkpoints. `sealed` is the private key under the root key, and goes when the key
-- is replaced.
CREATE TABLE keys (
    fingerprint BLOB PRIMARY KEY,
    chain       INTEGER NOT NULL REFERENCES chains (id),
    certificate BLOB NOT NULL,
    made        INTEGER NOT NULL,
    sealed      BLOB
) STRICT, WITHOUT ROWID;

-- How many opens a node's memory had no room for, as far as they are recorded.
CREATE TABLE losses (
    node  INTEGER NOT NULL,
    log   INTEGER NOT NULL,
    total INTEGER NOT NULL,
    PRIMARY KEY (node, log)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER records_stay BEFORE DELETE ON records BEGIN
    SELECT RAISE(ABORT, 'audit records are never removed');
END;
CREATE TRIGGER records_are_final BEFORE UPDATE ON records BEGIN
    SELECT RAISE(ABORT, 'audit records are never changed');
END;
CREATE TRIGGER checkpoints_stay BEFORE DELETE ON checkpoints BEGIN
    SELECT RAISE(ABORT, 'audit checkpoints are never removed');
END;
CREATE TRIGGER checkpoints_are_final BEFORE UPDATE ON checkpoints BEGIN
    SELECT RAISE(ABORT, 'audit checkpoints are never changed');
END;
