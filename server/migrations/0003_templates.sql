-- Files that nodes make from what is attached to the same service. Their text is no secret.
CREATE TABLE templates (
    service INTEGER NOT NULL REFERENCES services (id) ON DELETE CASCADE,
    target  TEXT NOT NULL,
    text    TEXT NOT NULL CHECK (octet_length(text) BETWEEN 1 AND 65536),
    uid     INTEGER NOT NULL,
    gid     INTEGER NOT NULL,
    mode    INTEGER NOT NULL CHECK (mode BETWEEN 0 AND 511),
    changed INTEGER NOT NULL,
    PRIMARY KEY (service, target)
) STRICT;

-- What each template names: an attachment that is named here cannot be detached.
CREATE TABLE template_inputs (
    service  INTEGER NOT NULL,
    template TEXT NOT NULL,
    input    TEXT NOT NULL,
    PRIMARY KEY (service, template, input),
    FOREIGN KEY (service, template) REFERENCES templates (service, target) ON DELETE CASCADE,
    FOREIGN KEY (service, input) REFERENCES attachments (service, target)
) STRICT;

CREATE INDEX template_inputs_by_input ON template_inputs (service, input);

-- See 0002_revision.sql.
CREATE TRIGGER templates_inserted AFTER INSERT ON templates BEGIN
    UPDATE environments SET revision = revision + 1
    WHERE name = (SELECT environment FROM services WHERE id = NEW.service);
END;

CREATE TRIGGER templates_updated AFTER UPDATE ON templates BEGIN
    UPDATE environments SET revision = revision + 1
    WHERE name = (SELECT environment FROM services WHERE id = NEW.service);
END;

CREATE TRIGGER templates_deleted AFTER DELETE ON templates BEGIN
    UPDATE environments SET revision = revision + 1
    WHERE name = (SELECT environment FROM services WHERE id = OLD.service);
END;
