-- What a node reported is known by the node, its log and the number there: another node, or a copy of this
-- one, may use the same log. Several records have one such id where the node told several events under it.
ALTER TABLE records ADD COLUMN reported TEXT AS (
    json_extract(record, '$.event.actor.id') || '/' || json_extract(record, '$.event.id.log') || '/'
        || json_extract(record, '$.event.id.number')
) VIRTUAL;
DROP INDEX IF EXISTS records_by_event;
CREATE INDEX records_by_report ON records (reported) WHERE reported IS NOT NULL;

-- In the order in which a node's logs were first heard of, so that no node has any number of them.
ALTER TABLE losses ADD COLUMN place INTEGER NOT NULL DEFAULT 0;
