-- The outbox of a registration system: PostgreSQL 14 or newer, in the system's own database and schema.
-- Run it again whenever you like: `psql -f outbox.sql`, or `facematch outbox --create`.
--
-- Who registers needs INSERT on facematch_outbox and nothing else. The relay needs SELECT, UPDATE and DELETE on it, and
-- SELECT and UPDATE on facematch_outbox_lanes.

CREATE TABLE IF NOT EXISTS facematch_outbox (
    position    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id          uuid NOT NULL DEFAULT gen_random_uuid(),   -- ce_id: the same however often the row is published
    type        text NOT NULL,                             -- ce_type
    event       jsonb NOT NULL,                            -- the record's value
    source      text NOT NULL DEFAULT 'facematch/outbox',  -- ce_source
    occurred_at timestamptz NOT NULL DEFAULT now(),        -- ce_time
    traceparent text,                                      -- of your own trace, if you have one
    written_at  timestamptz NOT NULL DEFAULT now(),
    key         text NOT NULL,                             -- the record's key
    lane        smallint NOT NULL,
    problem     text                                       -- why it cannot be published
);

-- ce_specversion, for Debezium, which takes every header from a column. A table that was there before gets it too.
ALTER TABLE facematch_outbox ADD COLUMN IF NOT EXISTS specversion text NOT NULL DEFAULT '1.0';

CREATE INDEX IF NOT EXISTS facematch_outbox_waiting ON facematch_outbox (lane, position) WHERE problem IS NULL;
CREATE INDEX IF NOT EXISTS facematch_outbox_problems ON facematch_outbox (position) WHERE problem IS NOT NULL;

-- An individual's rows are all in one lane. Who has locked a lane's row here publishes what waits in it, and nobody
-- else does: that keeps the order of each individual with any number of relays.
CREATE TABLE IF NOT EXISTS facematch_outbox_lanes (lane smallint PRIMARY KEY);
INSERT INTO facematch_outbox_lanes SELECT generate_series(0, 63) ON CONFLICT DO NOTHING;

-- By a trigger and not as generated columns, which Debezium does not see before PostgreSQL 18.
CREATE OR REPLACE FUNCTION facematch_outbox_fill() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.key := concat(NEW.event ->> 'collection', '/', NEW.event ->> 'individual_id');
    NEW.lane := hashtext(NEW.key) & 63;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER facematch_outbox_fill BEFORE INSERT OR UPDATE OF event ON facematch_outbox
    FOR EACH ROW EXECUTE FUNCTION facematch_outbox_fill();

-- Commits that notify wait for each other. A system with thousands a second drops this trigger: the relay looks by
-- itself every few seconds, and as long as it finds rows it does not wait at all.
CREATE OR REPLACE FUNCTION facematch_outbox_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('facematch_outbox', '');
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER facematch_outbox_notify AFTER INSERT OR UPDATE OF event ON facematch_outbox
    FOR EACH STATEMENT EXECUTE FUNCTION facematch_outbox_notify();
