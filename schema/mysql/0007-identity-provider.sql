-- Where else people of a domain are known: an OpenID Connect provider or a directory.

CREATE TABLE IF NOT EXISTS identity_provider (
  id               BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  uid              BINARY(16)      NOT NULL UNIQUE,
  domain_id        BIGINT UNSIGNED NOT NULL,
  account_id       BIGINT UNSIGNED NOT NULL,           -- of the domain; its users are made there
  name             VARCHAR(255)    NOT NULL,
  type             VARCHAR(8)      NOT NULL,           -- OIDC, LDAP
  settings         JSON            NOT NULL,           -- OidcSettings or LdapSettings; no secret
  secret           VARBINARY(2048) NULL,               -- sealed: of the client, or of the one who searches
  role_mapping     JSON            NOT NULL,           -- [{group, roleId}]; the first whose group somebody is in decides
  wanted_state     VARCHAR(16)     NOT NULL DEFAULT 'ENABLED',
  generation       INT UNSIGNED    NOT NULL DEFAULT 1,
  created_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  updated_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  deleted_at       DATETIME(6)     NULL,
  live_name        VARCHAR(255)    AS (IF(deleted_at IS NULL, name, NULL)) VIRTUAL,
  UNIQUE KEY identity_provider_live_name (domain_id, live_name),
  KEY identity_provider_by_domain (domain_id, id),
  KEY identity_provider_by_account (account_id, id),
  FOREIGN KEY (domain_id) REFERENCES domain (id),
  FOREIGN KEY (account_id) REFERENCES account (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Who somebody is to his provider, for ever: never by a name or an address, which change hands.
ALTER TABLE user ADD COLUMN identity_provider_id BIGINT UNSIGNED NULL AFTER role_id; -- NULL: known here alone
ALTER TABLE user ADD COLUMN external_subject VARCHAR(255) NULL AFTER identity_provider_id; -- OIDC sub, LDAP entryUUID
ALTER TABLE user ADD COLUMN live_subject VARCHAR(255) AS (IF(deleted_at IS NULL, external_subject, NULL)) VIRTUAL;
ALTER TABLE user ADD UNIQUE KEY user_live_subject (identity_provider_id, live_subject);

-- Answers of providers that were used; each is good for once.
CREATE TABLE IF NOT EXISTS used_sign_in (
  id               BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  state_hash       BINARY(32)      NOT NULL,
  used_at          DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  UNIQUE KEY used_sign_in_once (state_hash),
  KEY used_sign_in_by_time (used_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- `identity_provider` is longer than the kinds before it. No row is rewritten for it.
ALTER TABLE job    MODIFY COLUMN target_kind  VARCHAR(32) NOT NULL;
ALTER TABLE event  MODIFY COLUMN subject_kind VARCHAR(32) NOT NULL;
ALTER TABLE `change` MODIFY COLUMN kind       VARCHAR(32) NOT NULL;
