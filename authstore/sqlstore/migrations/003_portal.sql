-- +goose Up
ALTER TABLE event ADD COLUMN client TEXT NOT NULL DEFAULT '';  -- the person's address; empty: this machine
ALTER TABLE event ADD COLUMN agent TEXT NOT NULL DEFAULT '';   -- the person's browser, as it calls itself
ALTER TABLE account ADD COLUMN language TEXT NOT NULL DEFAULT ''; -- for notices: a BCP 47 tag; empty: the first language
ALTER TABLE account ADD COLUMN zone TEXT NOT NULL DEFAULT '';     -- and an IANA time zone; empty: UTC
ALTER TABLE app_password ADD COLUMN request TEXT;              -- the form that made it, so that it is made once
CREATE UNIQUE INDEX app_password_request ON app_password (account, request);

-- What is sealed stands with its root key's number, and is bound to its table, account and row.
CREATE TABLE primary_password (
  account INTEGER PRIMARY KEY REFERENCES account ON DELETE CASCADE,
  key     INTEGER NOT NULL,
  sealed  BLOB NOT NULL,                          -- Argon2id
  changed INTEGER NOT NULL
) STRICT;

CREATE TABLE factor (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  account    INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
  kind       TEXT NOT NULL,                       -- "totp", "passkey"
  label      TEXT NOT NULL,
  created    INTEGER NOT NULL,
  last_used  INTEGER,
  credential BLOB UNIQUE,                         -- a passkey's id
  key        INTEGER NOT NULL,
  sealed     BLOB NOT NULL,                       -- a TOTP's seed, a passkey's public key and what belongs to it
  step       INTEGER NOT NULL DEFAULT 0           -- a TOTP's last step that was taken
) STRICT;
CREATE INDEX factor_account ON factor (account);

CREATE TABLE recovery_code (
  account INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
  number  INTEGER NOT NULL,
  key     INTEGER NOT NULL,
  sealed  BLOB NOT NULL,                          -- SHA-256
  used    INTEGER,
  PRIMARY KEY (account, number)
) STRICT;

CREATE TABLE invitation (
  account INTEGER PRIMARY KEY REFERENCES account ON DELETE CASCADE, -- a new one takes the place of the last
  digest  BLOB NOT NULL UNIQUE,
  purpose TEXT NOT NULL,
  created INTEGER NOT NULL,
  expires INTEGER NOT NULL
) STRICT;

CREATE TABLE portal_session (
  id        INTEGER PRIMARY KEY AUTOINCREMENT,
  digest    BLOB NOT NULL UNIQUE,                 -- of the cookie
  account   INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
  stage     INTEGER NOT NULL,
  began     INTEGER NOT NULL,
  seen      INTEGER NOT NULL,
  factor_at INTEGER,                              -- the last second factor
  method    TEXT NOT NULL,                        -- how it was proven who sits there
  client    TEXT NOT NULL,
  agent     TEXT NOT NULL
) STRICT;
CREATE INDEX portal_session_account ON portal_session (account);

-- What may be used once, such as a challenge that was answered, until nobody would take it anyway.
CREATE TABLE spent (
  digest BLOB PRIMARY KEY,
  until  INTEGER NOT NULL
) STRICT;

-- Token buckets of signing in, by an opaque name.
CREATE TABLE budget (
  name  BLOB PRIMARY KEY,
  empty INTEGER NOT NULL                          -- when it is empty again, in milliseconds since 1970
) STRICT;

-- Notices that are to be sent of events.
CREATE TABLE outbox (
  event    INTEGER PRIMARY KEY REFERENCES event,
  due      INTEGER NOT NULL,
  refusals INTEGER NOT NULL DEFAULT 0,            -- by the mail server
  done     INTEGER                                -- when it was sent or given up; kept for a day, to be counted
) STRICT;
CREATE INDEX outbox_due ON outbox (due) WHERE done IS NULL;
CREATE INDEX event_password ON event (app_password, id);

ALTER TABLE usage ADD COLUMN operator TEXT NOT NULL DEFAULT '';

CREATE TABLE usage_day (
  app_password INTEGER NOT NULL REFERENCES app_password ON DELETE CASCADE,
  day          INTEGER NOT NULL,                  -- of UTC, counted since 1970
  protocol     TEXT NOT NULL,
  app          TEXT NOT NULL,
  network      TEXT NOT NULL,
  count        INTEGER NOT NULL,
  failures     INTEGER NOT NULL,
  PRIMARY KEY (app_password, day, protocol, app, network)
) STRICT;
CREATE INDEX usage_day_day ON usage_day (day);
