-- +goose Up
-- What app passwords are narrowed to: "calendar/work", a line each; empty: not narrowed. Then the scopes that these narrow stand in
-- narrowed instead of scopes: a gateway of an older version that runs on reads only scopes, and would open every collection.
ALTER TABLE app_password ADD COLUMN collections TEXT NOT NULL DEFAULT '';
ALTER TABLE app_password ADD COLUMN narrowed INTEGER NOT NULL DEFAULT 0;
-- What they were called then: "calendar/work", a tab, the title; a line each.
ALTER TABLE app_password ADD COLUMN titles TEXT NOT NULL DEFAULT '';
