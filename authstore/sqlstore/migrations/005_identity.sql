-- +goose Up
-- Who an account is elsewhere: at an OpenID Connect provider (the issuer's URL), in a directory ("ldap").
CREATE TABLE tie (
  issuer  TEXT NOT NULL,
  subject TEXT NOT NULL,
  account INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
  groups  TEXT NOT NULL DEFAULT '',               -- as last told, a line each
  primary_changed INTEGER,                        -- when the primary password was changed there, as last told
  factor  INTEGER NOT NULL DEFAULT 0,             -- a second factor that was given there has counted here
  created INTEGER NOT NULL,
  seen    INTEGER NOT NULL,                       -- when it was last told of
  PRIMARY KEY (issuer, subject),
  UNIQUE (account, issuer)
) STRICT;

ALTER TABLE account ADD COLUMN admin INTEGER NOT NULL DEFAULT 0;

ALTER TABLE portal_session ADD COLUMN issuer TEXT NOT NULL DEFAULT '';    -- where it was proven who sits there; empty: here
ALTER TABLE portal_session ADD COLUMN subject TEXT NOT NULL DEFAULT '';
ALTER TABLE portal_session ADD COLUMN sid TEXT NOT NULL DEFAULT '';       -- that place's own name of its session
CREATE INDEX portal_session_issuer ON portal_session (issuer, subject) WHERE issuer <> '';

ALTER TABLE app_password ADD COLUMN made_by TEXT NOT NULL DEFAULT '';     -- the administrator who made it for a device or a shared mailbox; empty: its owner

-- One process at a time does a thing.
CREATE TABLE lease (
  name  TEXT PRIMARY KEY,
  owner TEXT NOT NULL,
  until INTEGER NOT NULL                          -- milliseconds since 1970
) STRICT;

-- What the last look into a directory found, as JSON.
CREATE TABLE look (
  issuer TEXT PRIMARY KEY,
  result TEXT NOT NULL
) STRICT;

-- What opens an account at a backend that wants OAuth. The account is 0 where one token serves all.
CREATE TABLE upstream_token (
  account   INTEGER NOT NULL,
  provider  TEXT NOT NULL,                        -- the configuration's name of it
  key       INTEGER NOT NULL,
  sealed    BLOB NOT NULL,                        -- refresh token, access token
  expires   INTEGER NOT NULL,                     -- of the access token
  refreshed INTEGER NOT NULL,
  version   INTEGER NOT NULL,                     -- counts what was written, from the milliseconds since 1970 of the first time on
  failure   TEXT NOT NULL DEFAULT '',             -- why it can't be refreshed any more, as a code; empty: it can
  failed    INTEGER,                              -- since when
  PRIMARY KEY (account, provider)
) STRICT;

-- Bearer tokens of the API.
CREATE TABLE api_token (
  id        INTEGER PRIMARY KEY AUTOINCREMENT,
  name      TEXT NOT NULL UNIQUE,
  digest    BLOB NOT NULL UNIQUE,
  scopes    TEXT NOT NULL,                        -- separated by blanks
  created   INTEGER NOT NULL,
  expires   INTEGER,
  last_used INTEGER
) STRICT;

CREATE INDEX event_actor ON event (actor, id);
CREATE INDEX event_kind ON event (kind, id);
