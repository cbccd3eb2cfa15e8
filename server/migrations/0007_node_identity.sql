-- What a node is recognised by: the address from which it joined, as the manager saw it, and what its
-- host said of itself (JSON). Nobody has checked the latter.
ALTER TABLE nodes ADD COLUMN address TEXT;
ALTER TABLE nodes ADD COLUMN host TEXT NOT NULL DEFAULT '{}';
-- Which daemons speak as this node, if they are more than one (JSON).
ALTER TABLE nodes ADD COLUMN duplicate TEXT;
