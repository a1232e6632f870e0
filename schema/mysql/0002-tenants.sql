-- Who owns what, and who may do what with it.
--
-- Ids below 1000 are never handed out: the rows that every installation has stand there.

CREATE TABLE IF NOT EXISTS domain (
  id               BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  uid              BINARY(16)      NOT NULL UNIQUE,
  parent_id        BIGINT UNSIGNED NULL,               -- NULL: the root
  path             VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, -- ids from the root down: /1/1007/
  name             VARCHAR(255)    NOT NULL,
  wanted_state     VARCHAR(16)     NOT NULL DEFAULT 'ENABLED',
  generation       INT UNSIGNED    NOT NULL DEFAULT 1,
  created_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  updated_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  deleted_at       DATETIME(6)     NULL,
  live_name        VARCHAR(255)    AS (IF(deleted_at IS NULL, name, NULL)) VIRTUAL,
  UNIQUE KEY domain_live_name (parent_id, live_name),
  KEY domain_by_path (path),
  FOREIGN KEY (parent_id) REFERENCES domain (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS account (
  id               BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  uid              BINARY(16)      NOT NULL UNIQUE,
  domain_id        BIGINT UNSIGNED NOT NULL,
  name             VARCHAR(255)    NOT NULL,
  wanted_state     VARCHAR(16)     NOT NULL DEFAULT 'ENABLED',
  generation       INT UNSIGNED    NOT NULL DEFAULT 1,
  created_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  updated_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  deleted_at       DATETIME(6)     NULL,
  live_name        VARCHAR(255)    AS (IF(deleted_at IS NULL, name, NULL)) VIRTUAL,
  UNIQUE KEY account_live_name (domain_id, live_name),
  KEY account_by_domain (domain_id, id),
  FOREIGN KEY (domain_id) REFERENCES domain (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS role (
  id               BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  uid              BINARY(16)      NOT NULL UNIQUE,
  name             VARCHAR(255)    NOT NULL,
  reach            VARCHAR(8)      NOT NULL,           -- ALL, DOMAIN, ACCOUNT: whose objects its rules are about
  rules            JSON            NOT NULL,           -- [{effect, verb, kind}]; the first that fits decides
  built_in         BOOLEAN         NOT NULL DEFAULT FALSE,
  wanted_state     VARCHAR(16)     NOT NULL DEFAULT 'ENABLED',
  generation       INT UNSIGNED    NOT NULL DEFAULT 1,
  created_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  updated_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  deleted_at       DATETIME(6)     NULL,
  live_name        VARCHAR(255)    AS (IF(deleted_at IS NULL, name, NULL)) VIRTUAL,
  UNIQUE KEY role_live_name (live_name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS user (
  id               BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  uid              BINARY(16)      NOT NULL UNIQUE,
  account_id       BIGINT UNSIGNED NOT NULL,
  role_id          BIGINT UNSIGNED NOT NULL,
  name             VARCHAR(255)    NOT NULL,
  wanted_state     VARCHAR(16)     NOT NULL DEFAULT 'ENABLED',
  generation       INT UNSIGNED    NOT NULL DEFAULT 1,
  created_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  updated_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  deleted_at       DATETIME(6)     NULL,
  live_name        VARCHAR(255)    AS (IF(deleted_at IS NULL, name, NULL)) VIRTUAL,
  UNIQUE KEY user_live_name (account_id, live_name),
  KEY user_by_account (account_id, id),
  KEY user_by_role (role_id, id),
  FOREIGN KEY (account_id) REFERENCES account (id),
  FOREIGN KEY (role_id) REFERENCES role (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS api_key (
  id               BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  uid              BINARY(16)      NOT NULL UNIQUE,
  user_id          BIGINT UNSIGNED NOT NULL,
  account_id       BIGINT UNSIGNED NOT NULL,           -- the user's, which never changes: every list asks
  role_id          BIGINT UNSIGNED NULL,               -- narrower than the user's; NULL: the user's
  name             VARCHAR(255)    NOT NULL,
  key_hash         BINARY(32)      NOT NULL UNIQUE,
  expires_at       DATETIME(6)     NULL,
  last_used_at     DATETIME(6)     NULL,
  created_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  updated_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  deleted_at       DATETIME(6)     NULL,               -- revoked
  KEY api_key_by_user (user_id, deleted_at, id),
  KEY api_key_by_account (account_id, deleted_at, id),
  FOREIGN KEY (user_id) REFERENCES user (id),
  FOREIGN KEY (role_id) REFERENCES role (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

INSERT IGNORE INTO domain (id, uid, parent_id, path, name)
  VALUES (1, UNHEX('00000000000070008000000000000001'), NULL, '/1/', 'ROOT');
-- Their rules are in src/domain/permission.ts, so that an upgrade brings what new kinds need.
INSERT IGNORE INTO role (id, uid, name, reach, rules, built_in) VALUES
  (1, UNHEX('00000000000070008000000000000001'), 'root admin', 'ALL', '[]', TRUE),
  (2, UNHEX('00000000000070008000000000000002'), 'domain admin', 'DOMAIN', '[]', TRUE),
  (3, UNHEX('00000000000070008000000000000003'), 'user', 'ACCOUNT', '[]', TRUE),
  (4, UNHEX('00000000000070008000000000000004'), 'read-only', 'ACCOUNT', '[]', TRUE);
INSERT IGNORE INTO account (id, uid, domain_id, name)
  VALUES (1, UNHEX('00000000000070008000000000000001'), 1, 'operator');

-- What was there before is the operator's.
ALTER TABLE vm       ADD COLUMN account_id BIGINT UNSIGNED NOT NULL DEFAULT 1 AFTER template_id;
ALTER TABLE vm       ADD KEY vm_by_account (account_id, deleted_at, id);
ALTER TABLE volume   ADD COLUMN account_id BIGINT UNSIGNED NOT NULL DEFAULT 1 AFTER template_id;
ALTER TABLE volume   ADD KEY volume_by_account (account_id, deleted_at, id);
ALTER TABLE template ADD COLUMN account_id BIGINT UNSIGNED NULL AFTER zone_id; -- NULL: everybody may use it
ALTER TABLE template ADD KEY template_by_account (account_id, id);
-- Of what they are about. NULL: only operators may know of it.
ALTER TABLE job      ADD COLUMN account_id BIGINT UNSIGNED NULL AFTER target_id;
ALTER TABLE job      ADD KEY job_by_account (account_id, id);
ALTER TABLE event    ADD COLUMN account_id BIGINT UNSIGNED NULL AFTER subject_id;
ALTER TABLE event    ADD KEY event_by_account (account_id, seq);
UPDATE job   SET account_id = 1 WHERE account_id IS NULL AND target_kind = 'vm';
UPDATE event SET account_id = 1 WHERE account_id IS NULL AND subject_kind = 'vm';
