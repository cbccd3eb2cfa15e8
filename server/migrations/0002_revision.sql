-- Rises with each change that a node may be shown, in the transaction of the change.
ALTER TABLE environments ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;

CREATE TRIGGER secrets_updated AFTER UPDATE ON secrets BEGIN
    UPDATE environments SET revision = revision + 1 WHERE name = NEW.environment;
END;

CREATE TRIGGER services_inserted AFTER INSERT ON services BEGIN
    UPDATE environments SET revision = revision + 1 WHERE name = NEW.environment;
END;

-- Also for its attachments and assignments, whose own triggers no longer find it.
CREATE TRIGGER services_deleted AFTER DELETE ON services BEGIN
    UPDATE environments SET revision = revision + 1 WHERE name = OLD.environment;
END;

CREATE TRIGGER attachments_inserted AFTER INSERT ON attachments BEGIN
    UPDATE environments SET revision = revision + 1
    WHERE name = (SELECT environment FROM services WHERE id = NEW.service);
END;

CREATE TRIGGER attachments_updated AFTER UPDATE ON attachments BEGIN
    UPDATE environments SET revision = revision + 1
    WHERE name = (SELECT environment FROM services WHERE id = NEW.service);
END;

CREATE TRIGGER attachments_deleted AFTER DELETE ON attachments BEGIN
    UPDATE environments SET revision = revision + 1
    WHERE name = (SELECT environment FROM services WHERE id = OLD.service);
END;

CREATE TRIGGER assignments_inserted AFTER INSERT ON assignments BEGIN
    UPDATE environments SET revision = revision + 1
    WHERE name = (SELECT environment FROM services WHERE id = NEW.service);
END;

CREATE TRIGGER assignments_deleted AFTER DELETE ON assignments BEGIN
    UPDATE environments SET revision = revision + 1
    WHERE name = (SELECT environment FROM services WHERE id = OLD.service);
END;
