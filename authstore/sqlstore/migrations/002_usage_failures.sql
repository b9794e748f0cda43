-- +goose Up
-- Logins that were refused though the secret was genuine. first and last are of those that were accepted, where there are any.
ALTER TABLE usage ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;
