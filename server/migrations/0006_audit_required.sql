-- When an open of the file has to be on record: soon after, or before it succeeds. The triggers of
-- 0002_revision.sql see it change as they see an owner change.
ALTER TABLE attachments ADD COLUMN audit TEXT NOT NULL DEFAULT 'buffered'
    CHECK (audit IN ('buffered', 'required'));
