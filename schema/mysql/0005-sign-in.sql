-- How people get in: passwords, a second factor, and sessions.

ALTER TABLE user ADD COLUMN password_hash VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NULL AFTER name; -- PHC; NULL: none
ALTER TABLE user ADD COLUMN password_changed_at DATETIME(6) NULL AFTER password_hash;
ALTER TABLE user ADD COLUMN totp_seed VARBINARY(255) NULL AFTER password_changed_at; -- sealed
ALTER TABLE user ADD COLUMN totp_confirmed_at DATETIME(6) NULL AFTER totp_seed;      -- NULL: not asked for yet
ALTER TABLE user ADD COLUMN totp_step BIGINT UNSIGNED NULL AFTER totp_confirmed_at;  -- the last that was used; none before it is
ALTER TABLE user ADD COLUMN recovery_hashes VARBINARY(640) NULL AFTER totp_step;     -- SHA-256 of each that is left, one after another

ALTER TABLE domain ADD COLUMN require_second_factor BOOLEAN NOT NULL DEFAULT FALSE AFTER name; -- of it and of all below

CREATE TABLE IF NOT EXISTS session (
  id               BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  uid              BINARY(16)      NOT NULL UNIQUE,
  user_id          BIGINT UNSIGNED NOT NULL,
  account_id       BIGINT UNSIGNED NOT NULL,           -- the user's, which never changes: every list asks
  token_hash       BINARY(32)      NOT NULL UNIQUE,
  how              VARCHAR(16)     NOT NULL,           -- PASSWORD, OIDC, LDAP
  second_factor    BOOLEAN         NOT NULL DEFAULT FALSE,
  address          VARCHAR(45) CHARACTER SET ascii NULL,
  user_agent       VARCHAR(255)    NULL,
  last_used_at     DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  expires_at       DATETIME(6)     NOT NULL,           -- whatever it is used for
  created_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  updated_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  deleted_at       DATETIME(6)     NULL,               -- signed out, or revoked
  KEY session_by_user (user_id, deleted_at, id),
  KEY session_by_account (account_id, deleted_at, id),
  KEY session_by_end (expires_at),
  FOREIGN KEY (user_id) REFERENCES user (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
