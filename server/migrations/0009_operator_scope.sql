-- The one environment whose admins enrolled the operator, and outside of which they have no role; all if it
-- is NULL. Whoever makes a token can become who it is for.
ALTER TABLE operators ADD COLUMN scope TEXT REFERENCES environments (name) ON DELETE CASCADE;

-- Who enrolled them is not known of operators from before, but where it was of use.
UPDATE operators SET scope = (SELECT min(environment) FROM grants WHERE operator = name)
WHERE (SELECT count(DISTINCT environment) = 1 AND count(environment) = count(*) FROM grants WHERE operator = name);

-- Of those who have no role it was of none. They are enrolled anew: the next id is in no certificate yet.
UPDATE operators SET id = abs(random() / 2) + 1, certificate_expires = NULL
WHERE name NOT IN (SELECT operator FROM grants);
DELETE FROM enrolments WHERE operator NOT IN (SELECT operator FROM grants);

-- An enrolment has the scope of the admin who made it.
ALTER TABLE enrolments RENAME COLUMN environment TO scope;
DELETE FROM enrolments WHERE scope IS NOT NULL
    AND scope IS NOT (SELECT operators.scope FROM operators WHERE name = enrolments.operator);
