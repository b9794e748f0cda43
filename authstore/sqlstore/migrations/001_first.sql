-- +goose Up
CREATE TABLE meta (
  name  TEXT PRIMARY KEY,
  value BLOB NOT NULL
) STRICT;

CREATE TABLE account (
  id           INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again
  public_id    TEXT NOT NULL UNIQUE,
  status       INTEGER NOT NULL,
  version      INTEGER NOT NULL,
  backend_name TEXT NOT NULL,
  created      INTEGER NOT NULL                   -- all times: seconds since 1970, UTC
) STRICT;

CREATE TABLE login_name (
  address TEXT PRIMARY KEY,
  account INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
  ordinal INTEGER NOT NULL                        -- 0: the name that the account was made with
) STRICT;
CREATE INDEX login_name_account ON login_name (account);

CREATE TABLE app_password (
  id       INTEGER PRIMARY KEY AUTOINCREMENT,
  account  INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
  label    TEXT NOT NULL,
  key      INTEGER NOT NULL,
  digest   BLOB NOT NULL,
  scopes   INTEGER NOT NULL,
  networks TEXT NOT NULL,                         -- prefixes, separated by blanks; empty: any
  created  INTEGER NOT NULL,
  expires  INTEGER,
  revoked  INTEGER,
  why      TEXT NOT NULL DEFAULT '',
  ended_by INTEGER                                -- the sequence of the change that revoked it
) STRICT;
CREATE INDEX app_password_account ON app_password (account, revoked);

CREATE TABLE usage (
  app_password INTEGER NOT NULL REFERENCES app_password ON DELETE CASCADE,
  protocol     TEXT NOT NULL,
  app          TEXT NOT NULL,
  network      TEXT NOT NULL,
  first        INTEGER NOT NULL,
  last         INTEGER NOT NULL,
  count        INTEGER NOT NULL,
  PRIMARY KEY (app_password, protocol, app, network)
) STRICT;

CREATE TABLE feed (
  one     INTEGER PRIMARY KEY CHECK (one = 1),
  counter INTEGER NOT NULL
) STRICT;
INSERT INTO feed VALUES (1, 0);

-- Rows outlive their account: the feed tells of its removal.
CREATE TABLE change (
  sequence INTEGER PRIMARY KEY,
  mark     TEXT NOT NULL,
  account  INTEGER NOT NULL,
  version  INTEGER NOT NULL,
  ended    TEXT NOT NULL,                         -- app password ids, separated by blanks
  all_ended INTEGER NOT NULL,
  names    INTEGER NOT NULL,
  at       INTEGER NOT NULL
) STRICT;
CREATE INDEX change_at ON change (at);

CREATE TABLE node (
  id           TEXT PRIMARY KEY,
  acknowledged INTEGER NOT NULL,
  keys         TEXT NOT NULL,
  last_seen    INTEGER NOT NULL
) STRICT;

CREATE TABLE event (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  at           INTEGER NOT NULL,
  account      INTEGER NOT NULL,
  app_password INTEGER NOT NULL,
  kind         TEXT NOT NULL,
  actor        TEXT NOT NULL,
  detail       TEXT NOT NULL
) STRICT;
CREATE INDEX event_account ON event (account, id);

CREATE TABLE sealed (
  account INTEGER NOT NULL REFERENCES account ON DELETE CASCADE,
  backend TEXT NOT NULL,
  key     INTEGER NOT NULL,
  value   BLOB NOT NULL,
  PRIMARY KEY (account, backend)
) STRICT;
