-- A project: an account that has members of other accounts instead of users of its own.
ALTER TABLE account ADD COLUMN type VARCHAR(8) NOT NULL DEFAULT 'ACCOUNT' AFTER domain_id;

CREATE TABLE IF NOT EXISTS project_member (
  id                BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  uid               BINARY(16)      NOT NULL UNIQUE,
  account_id        BIGINT UNSIGNED NOT NULL,          -- the project
  member_account_id BIGINT UNSIGNED NULL,              -- all users of an account, or
  member_user_id    BIGINT UNSIGNED NULL,              -- one user
  role_id           BIGINT UNSIGNED NOT NULL,
  generation        INT UNSIGNED    NOT NULL DEFAULT 1,
  created_at        DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  updated_at        DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  deleted_at        DATETIME(6)     NULL,
  live_account_id   BIGINT UNSIGNED AS (IF(deleted_at IS NULL, member_account_id, NULL)) VIRTUAL,
  live_user_id      BIGINT UNSIGNED AS (IF(deleted_at IS NULL, member_user_id, NULL)) VIRTUAL,
  UNIQUE KEY project_member_account (account_id, live_account_id),
  UNIQUE KEY project_member_user (account_id, live_user_id),
  KEY project_member_by_project (account_id, deleted_at, id),
  KEY project_member_by_account (member_account_id, deleted_at),
  KEY project_member_by_user (member_user_id, deleted_at),
  KEY project_member_by_role (role_id, deleted_at),
  FOREIGN KEY (account_id) REFERENCES account (id),
  FOREIGN KEY (member_account_id) REFERENCES account (id),
  FOREIGN KEY (member_user_id) REFERENCES user (id),
  FOREIGN KEY (role_id) REFERENCES role (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

INSERT IGNORE INTO role (id, uid, name, reach, rules, built_in) VALUES
  (5, UNHEX('00000000000070008000000000000005'), 'project admin', 'ACCOUNT', '[]', TRUE);
