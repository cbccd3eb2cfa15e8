-- What records are found by is taken from what is hashed. As columns of their own they could be set to
-- anything, and nobody would notice: an open that counts as recorded and is not.
DROP INDEX records_by_event;
DROP INDEX records_by_environment;
ALTER TABLE records DROP COLUMN environment;
ALTER TABLE records DROP COLUMN event;
DROP TABLE losses;

-- A text that is no JSON is found by nothing, and is found to be damaged.
ALTER TABLE records ADD COLUMN environment TEXT
    AS (iif(json_valid(record), json_extract(record, '$.event.environment'), NULL)) VIRTUAL;
-- What a node reported is known by the node, its log and the number there: another node, or a copy of this
-- one, may use the same log. Several records have one such id where the node told several events under it.
ALTER TABLE records ADD COLUMN reported TEXT
    AS (iif(json_valid(record),
        json_extract(record, '$.event.actor.id') || '/' || json_extract(record, '$.event.id.log') || '/'
            || json_extract(record, '$.event.id.number'), NULL)) VIRTUAL;
-- Whose memory had no room for opens, and for how many so far.
ALTER TABLE records ADD COLUMN loser TEXT
    AS (iif(json_valid(record),
        json_extract(record, '$.event.actor.id') || '/' || json_extract(record, '$.event.lost.log'), NULL)) VIRTUAL;
ALTER TABLE records ADD COLUMN lost INTEGER
    AS (iif(json_valid(record), json_extract(record, '$.event.lost.total'), NULL)) VIRTUAL;

CREATE INDEX records_by_report ON records (reported) WHERE reported IS NOT NULL;
CREATE INDEX records_by_environment ON records (environment, chain, sequence) WHERE environment IS NOT NULL;
CREATE INDEX records_by_loser ON records (loser, lost) WHERE loser IS NOT NULL;
