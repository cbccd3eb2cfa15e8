-- Who made a join token; not known of those from before. What is open of them goes with its maker.
ALTER TABLE tokens ADD COLUMN created_by TEXT;
