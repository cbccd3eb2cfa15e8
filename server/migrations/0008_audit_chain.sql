-- The chain of audit records that this manager began last. A log without it is not this manager's.
CREATE TABLE audit_chain (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    chain INTEGER NOT NULL
) STRICT;
