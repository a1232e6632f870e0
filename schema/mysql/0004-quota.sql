-- How much an account, and a domain with all below it, may have and has. NULL: without a limit.
--
-- Beside `account` and `domain` and not in them: what makes something in an account holds those rows, shared, and would
-- wait for itself and others if it had to write to them too. Two tables alike: the root domain and the first account have
-- the same id, each row needs the owner that it refers to, and a charge locks the account's before those of domains.

CREATE TABLE IF NOT EXISTS account_quota (
  id                   BIGINT UNSIGNED NOT NULL PRIMARY KEY,  -- the account's
  vms_used             BIGINT UNSIGNED NOT NULL DEFAULT 0,
  vms_cap              BIGINT UNSIGNED NULL,
  vcpus_used           BIGINT UNSIGNED NOT NULL DEFAULT 0,
  vcpus_cap            BIGINT UNSIGNED NULL,
  memory_used_mib      BIGINT UNSIGNED NOT NULL DEFAULT 0,
  memory_cap_mib       BIGINT UNSIGNED NULL,
  volumes_used         BIGINT UNSIGNED NOT NULL DEFAULT 0,
  volumes_cap          BIGINT UNSIGNED NULL,
  primary_bytes_used   BIGINT UNSIGNED NOT NULL DEFAULT 0,
  primary_bytes_cap    BIGINT UNSIGNED NULL,
  templates_used       BIGINT UNSIGNED NOT NULL DEFAULT 0,
  templates_cap        BIGINT UNSIGNED NULL,
  secondary_bytes_used BIGINT UNSIGNED NOT NULL DEFAULT 0,
  secondary_bytes_cap  BIGINT UNSIGNED NULL,
  generation           INT UNSIGNED    NOT NULL DEFAULT 1,    -- of the limits
  FOREIGN KEY (id) REFERENCES account (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS domain_quota (
  id                   BIGINT UNSIGNED NOT NULL PRIMARY KEY,  -- the domain's
  vms_used             BIGINT UNSIGNED NOT NULL DEFAULT 0,
  vms_cap              BIGINT UNSIGNED NULL,
  vcpus_used           BIGINT UNSIGNED NOT NULL DEFAULT 0,
  vcpus_cap            BIGINT UNSIGNED NULL,
  memory_used_mib      BIGINT UNSIGNED NOT NULL DEFAULT 0,
  memory_cap_mib       BIGINT UNSIGNED NULL,
  volumes_used         BIGINT UNSIGNED NOT NULL DEFAULT 0,
  volumes_cap          BIGINT UNSIGNED NULL,
  primary_bytes_used   BIGINT UNSIGNED NOT NULL DEFAULT 0,
  primary_bytes_cap    BIGINT UNSIGNED NULL,
  templates_used       BIGINT UNSIGNED NOT NULL DEFAULT 0,
  templates_cap        BIGINT UNSIGNED NULL,
  secondary_bytes_used BIGINT UNSIGNED NOT NULL DEFAULT 0,
  secondary_bytes_cap  BIGINT UNSIGNED NULL,
  generation           INT UNSIGNED    NOT NULL DEFAULT 1,    -- of the limits
  FOREIGN KEY (id) REFERENCES domain (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

INSERT IGNORE INTO account_quota (id) SELECT id FROM account;
INSERT IGNORE INTO domain_quota (id) SELECT id FROM domain;

-- What is there already counts.
UPDATE account_quota AS q
  LEFT JOIN (SELECT account_id, COUNT(*) AS vms, SUM(vcpus) AS vcpus, SUM(memory_mib) AS memory_mib
             FROM vm WHERE deleted_at IS NULL GROUP BY account_id) AS v ON v.account_id = q.id
  LEFT JOIN (SELECT account_id, COUNT(*) AS volumes, SUM(size_bytes) AS bytes
             FROM volume WHERE deleted_at IS NULL GROUP BY account_id) AS d ON d.account_id = q.id
  LEFT JOIN (SELECT account_id, COUNT(*) AS templates, SUM(file_bytes) AS bytes
             FROM template WHERE deleted_at IS NULL AND account_id IS NOT NULL GROUP BY account_id) AS t
    ON t.account_id = q.id
  SET q.vms_used = COALESCE(v.vms, 0), q.vcpus_used = COALESCE(v.vcpus, 0), q.memory_used_mib = COALESCE(v.memory_mib, 0),
    q.volumes_used = COALESCE(d.volumes, 0), q.primary_bytes_used = COALESCE(d.bytes, 0),
    q.templates_used = COALESCE(t.templates, 0), q.secondary_bytes_used = COALESCE(t.bytes, 0);
UPDATE domain_quota AS q
  INNER JOIN (SELECT above.id, SUM(a.vms_used) AS vms, SUM(a.vcpus_used) AS vcpus, SUM(a.memory_used_mib) AS memory_mib,
                SUM(a.volumes_used) AS volumes, SUM(a.primary_bytes_used) AS primary_bytes,
                SUM(a.templates_used) AS templates, SUM(a.secondary_bytes_used) AS secondary_bytes
              FROM account_quota AS a
                INNER JOIN account ON account.id = a.id
                INNER JOIN domain ON domain.id = account.domain_id
                INNER JOIN domain AS above ON domain.path LIKE CONCAT(above.path, '%')
              GROUP BY above.id) AS s ON s.id = q.id
  SET q.vms_used = s.vms, q.vcpus_used = s.vcpus, q.memory_used_mib = s.memory_mib, q.volumes_used = s.volumes,
    q.primary_bytes_used = s.primary_bytes, q.templates_used = s.templates,
    q.secondary_bytes_used = s.secondary_bytes;
