-- The one name that a node can join under with this token, if it is for one.
ALTER TABLE tokens ADD COLUMN name TEXT;
