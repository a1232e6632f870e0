-- Each statement may run again: the database commits each by itself, so an interrupted migration begins anew.
--
-- Every row has a number for the inside and, where people meet it, a time-ordered `uid` for the outside.
-- Rows that people create are never removed while something may still speak of them: `deleted_at` hides them.
-- `live_name` makes names unique among siblings that are not deleted.

CREATE TABLE IF NOT EXISTS zone (
  id               BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  uid              BINARY(16)      NOT NULL UNIQUE,
  name             VARCHAR(255)    NOT NULL,
  wanted_state     VARCHAR(16)     NOT NULL DEFAULT 'ENABLED',
  generation       INT UNSIGNED    NOT NULL DEFAULT 1,
  created_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  updated_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  deleted_at       DATETIME(6)     NULL,
  live_name        VARCHAR(255)    AS (IF(deleted_at IS NULL, name, NULL)) VIRTUAL,
  UNIQUE KEY zone_live_name (live_name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS pod (
  id               BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  uid              BINARY(16)      NOT NULL UNIQUE,
  zone_id          BIGINT UNSIGNED NOT NULL,
  name             VARCHAR(255)    NOT NULL,
  wanted_state     VARCHAR(16)     NOT NULL DEFAULT 'ENABLED',
  generation       INT UNSIGNED    NOT NULL DEFAULT 1,
  created_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  updated_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  deleted_at       DATETIME(6)     NULL,
  live_name        VARCHAR(255)    AS (IF(deleted_at IS NULL, name, NULL)) VIRTUAL,
  UNIQUE KEY pod_live_name (zone_id, live_name),
  KEY pod_by_zone (zone_id, id),
  FOREIGN KEY (zone_id) REFERENCES zone (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS cluster (
  id               BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  uid              BINARY(16)      NOT NULL UNIQUE,
  zone_id          BIGINT UNSIGNED NOT NULL,
  pod_id           BIGINT UNSIGNED NOT NULL,
  name             VARCHAR(255)    NOT NULL,
  wanted_state     VARCHAR(16)     NOT NULL DEFAULT 'ENABLED',
  vcpu_overcommit  DOUBLE          NOT NULL DEFAULT 1,
  memory_overcommit DOUBLE         NOT NULL DEFAULT 1,
  generation       INT UNSIGNED    NOT NULL DEFAULT 1,
  created_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  updated_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  deleted_at       DATETIME(6)     NULL,
  live_name        VARCHAR(255)    AS (IF(deleted_at IS NULL, name, NULL)) VIRTUAL,
  UNIQUE KEY cluster_live_name (pod_id, live_name),
  KEY cluster_by_zone (zone_id, id),
  KEY cluster_by_pod (pod_id, id),
  FOREIGN KEY (pod_id) REFERENCES pod (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS host (
  id               BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  uid              BINARY(16)      NOT NULL UNIQUE,
  zone_id          BIGINT UNSIGNED NOT NULL,
  pod_id           BIGINT UNSIGNED NOT NULL,
  cluster_id       BIGINT UNSIGNED NOT NULL,
  name             VARCHAR(255)    NOT NULL,
  wanted_state     VARCHAR(16)     NOT NULL DEFAULT 'ENABLED',
  link_state       VARCHAR(16)     NOT NULL DEFAULT 'CONNECTING',
  link_process     CHAR(36)        NULL,              -- control_process that holds its link
  link_session     CHAR(36)        NULL,
  last_seen_at     DATETIME(6)     NULL,
  hypervisor       VARCHAR(8)      NULL,
  hostd_version    VARCHAR(32)     NULL,
  capabilities     JSON            NOT NULL,
  vcpus_total      INT UNSIGNED    NOT NULL DEFAULT 0,
  memory_total_mib INT UNSIGNED    NOT NULL DEFAULT 0,
  vcpus_cap        INT UNSIGNED    NOT NULL DEFAULT 0, -- total × the cluster's overcommit, less what the host keeps
  memory_cap_mib   INT UNSIGNED    NOT NULL DEFAULT 0,
  vcpus_used       INT UNSIGNED    NOT NULL DEFAULT 0, -- sum of reservation; the guard of every placement
  memory_used_mib  INT UNSIGNED    NOT NULL DEFAULT 0,
  credential_hash  BINARY(32)      NOT NULL UNIQUE,
  generation       INT UNSIGNED    NOT NULL DEFAULT 1,
  created_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  updated_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  deleted_at       DATETIME(6)     NULL,
  live_name        VARCHAR(255)    AS (IF(deleted_at IS NULL, name, NULL)) VIRTUAL,
  UNIQUE KEY host_live_name (cluster_id, live_name),
  KEY host_by_zone (zone_id, id),
  KEY host_by_pod (pod_id, id),
  KEY host_by_cluster (cluster_id, id),
  KEY host_by_process (link_process),
  FOREIGN KEY (cluster_id) REFERENCES cluster (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS host_join_token (
  id               BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  cluster_id       BIGINT UNSIGNED NOT NULL,
  token_hash       BINARY(32)      NOT NULL UNIQUE,
  hosts_max        INT UNSIGNED    NOT NULL,
  hosts_joined     INT UNSIGNED    NOT NULL DEFAULT 0,
  expires_at       DATETIME(6)     NOT NULL,
  created_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  FOREIGN KEY (cluster_id) REFERENCES cluster (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS primary_storage (
  id               BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  uid              BINARY(16)      NOT NULL UNIQUE,
  zone_id          BIGINT UNSIGNED NOT NULL,
  pod_id           BIGINT UNSIGNED NOT NULL,
  cluster_id       BIGINT UNSIGNED NOT NULL,
  name             VARCHAR(255)    NOT NULL,
  kind             VARCHAR(16)     NOT NULL DEFAULT 'DIRECTORY',
  path             VARCHAR(1024)   NOT NULL,
  wanted_state     VARCHAR(16)     NOT NULL DEFAULT 'ENABLED',
  bytes_cap        BIGINT UNSIGNED NOT NULL,
  bytes_used       BIGINT UNSIGNED NOT NULL DEFAULT 0, -- virtual sizes of its volumes; the guard of every volume
  generation       INT UNSIGNED    NOT NULL DEFAULT 1,
  created_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  updated_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  deleted_at       DATETIME(6)     NULL,
  live_name        VARCHAR(255)    AS (IF(deleted_at IS NULL, name, NULL)) VIRTUAL,
  UNIQUE KEY primary_storage_live_name (cluster_id, live_name),
  KEY primary_storage_by_zone (zone_id, id),
  KEY primary_storage_by_pod (pod_id, id),
  KEY primary_storage_by_cluster (cluster_id, id),
  FOREIGN KEY (cluster_id) REFERENCES cluster (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS offering (
  id               BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  uid              BINARY(16)      NOT NULL UNIQUE,
  name             VARCHAR(255)    NOT NULL,
  wanted_state     VARCHAR(16)     NOT NULL DEFAULT 'ENABLED',
  vcpus            INT UNSIGNED    NOT NULL,
  memory_mib       INT UNSIGNED    NOT NULL,
  disk_gib         INT UNSIGNED    NULL,               -- root volume; NULL: as large as the template
  generation       INT UNSIGNED    NOT NULL DEFAULT 1,
  created_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  updated_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  deleted_at       DATETIME(6)     NULL,
  live_name        VARCHAR(255)    AS (IF(deleted_at IS NULL, name, NULL)) VIRTUAL,
  UNIQUE KEY offering_live_name (live_name)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS template (
  id               BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  uid              BINARY(16)      NOT NULL UNIQUE,
  zone_id          BIGINT UNSIGNED NOT NULL,
  name             VARCHAR(255)    NOT NULL,
  wanted_state     VARCHAR(16)     NOT NULL DEFAULT 'ENABLED',
  state            VARCHAR(16)     NOT NULL,           -- REGISTERING, READY, ERROR
  state_reason     VARCHAR(1024)   NULL,
  format           VARCHAR(8)      NOT NULL,
  file_name        VARCHAR(255)    NOT NULL,
  virtual_bytes    BIGINT UNSIGNED NULL,
  file_bytes       BIGINT UNSIGNED NULL,
  sha256           CHAR(64)        NULL,
  active_job_id    BIGINT UNSIGNED NULL,
  generation       INT UNSIGNED    NOT NULL DEFAULT 1,
  created_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  updated_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  deleted_at       DATETIME(6)     NULL,
  live_name        VARCHAR(255)    AS (IF(deleted_at IS NULL, name, NULL)) VIRTUAL,
  UNIQUE KEY template_live_name (zone_id, live_name),
  KEY template_by_zone (zone_id, id),
  FOREIGN KEY (zone_id) REFERENCES zone (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Templates that a primary storage holds a prepared copy of.
CREATE TABLE IF NOT EXISTS template_copy (
  template_id        BIGINT UNSIGNED NOT NULL,
  primary_storage_id BIGINT UNSIGNED NOT NULL,
  created_at         DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  PRIMARY KEY (template_id, primary_storage_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS vm (
  id               BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  uid              BINARY(16)      NOT NULL UNIQUE,
  zone_id          BIGINT UNSIGNED NOT NULL,
  pod_id           BIGINT UNSIGNED NOT NULL,
  cluster_id       BIGINT UNSIGNED NOT NULL,
  host_id          BIGINT UNSIGNED NULL,               -- the host that it may run on; NULL while it is stopped
  last_host_id     BIGINT UNSIGNED NULL,
  offering_id      BIGINT UNSIGNED NOT NULL,
  template_id      BIGINT UNSIGNED NOT NULL,
  name             VARCHAR(255)    NOT NULL,
  description      VARCHAR(4096)   NULL,
  state            VARCHAR(16)     NOT NULL,           -- wanted: written by ops and jobs
  state_reason     VARCHAR(1024)   NULL,
  vcpus            INT UNSIGNED    NOT NULL,
  memory_mib       INT UNSIGNED    NOT NULL,
  epoch            INT UNSIGNED    NOT NULL DEFAULT 0, -- fencing token, raised by whoever picks a host
  active_job_id    BIGINT UNSIGNED NULL,               -- the claim: one job at a time
  generation       INT UNSIGNED    NOT NULL DEFAULT 1, -- raised by each change of what its owner decides
  observed_state   VARCHAR(16)     NULL,               -- seen: written by hosts
  observed_reason  VARCHAR(1024)   NULL,
  observed_at      DATETIME(6)     NULL,
  observed_host_id BIGINT UNSIGNED NULL,
  observed_epoch   INT UNSIGNED    NULL,
  created_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  updated_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  started_at       DATETIME(6)     NULL,
  destroyed_at     DATETIME(6)     NULL,
  deleted_at       DATETIME(6)     NULL,               -- expunged
  KEY vm_live (deleted_at, id),
  KEY vm_by_zone (zone_id, deleted_at, id),
  KEY vm_by_pod (pod_id, deleted_at, id),
  KEY vm_by_cluster (cluster_id, deleted_at, id),
  KEY vm_by_host (host_id, deleted_at, id),
  KEY vm_by_offering (offering_id, deleted_at, id),
  KEY vm_by_template (template_id, deleted_at, id),
  KEY vm_by_state (deleted_at, state, id),
  KEY vm_by_name (deleted_at, name, id),
  KEY vm_by_destroyed (destroyed_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- What a VM occupies on a host. host.*_used is their sum; the audit recomputes it.
CREATE TABLE IF NOT EXISTS reservation (
  vm_id            BIGINT UNSIGNED NOT NULL,
  host_id          BIGINT UNSIGNED NOT NULL,
  vcpus            INT UNSIGNED    NOT NULL,
  memory_mib       INT UNSIGNED    NOT NULL,
  PRIMARY KEY (vm_id, host_id),
  KEY reservation_by_host (host_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- The newest load that a host told.
CREATE TABLE IF NOT EXISTS host_usage (
  host_id          BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  sampled_at       DATETIME(6)     NOT NULL,
  cpu_load         DOUBLE          NOT NULL,           -- busy share of all CPUs, 0 to 1
  memory_used_mib  INT UNSIGNED    NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- The newest counters that a host sent of a VM.
CREATE TABLE IF NOT EXISTS vm_usage (
  vm_id            BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  sampled_at       DATETIME(6)     NOT NULL,
  cpu_ns           BIGINT UNSIGNED NOT NULL,
  memory_bytes     BIGINT UNSIGNED NOT NULL,
  disk_read_bytes  BIGINT UNSIGNED NOT NULL,
  disk_write_bytes BIGINT UNSIGNED NOT NULL,
  network_receive_bytes  BIGINT UNSIGNED NULL,
  network_transmit_bytes BIGINT UNSIGNED NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS volume (
  id               BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  uid              BINARY(16)      NOT NULL UNIQUE,
  zone_id          BIGINT UNSIGNED NOT NULL,
  cluster_id       BIGINT UNSIGNED NOT NULL,
  primary_storage_id BIGINT UNSIGNED NOT NULL,
  vm_id            BIGINT UNSIGNED NULL,
  template_id      BIGINT UNSIGNED NULL,
  name             VARCHAR(255)    NOT NULL,
  role             VARCHAR(8)      NOT NULL,           -- ROOT, DATA
  format           VARCHAR(8)      NOT NULL,
  state            VARCHAR(16)     NOT NULL,           -- CREATING, READY, DELETING, DELETED
  size_bytes       BIGINT UNSIGNED NOT NULL,
  created_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  updated_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  deleted_at       DATETIME(6)     NULL,
  KEY volume_live (deleted_at, id),
  KEY volume_by_vm (vm_id, id),
  KEY volume_by_storage (primary_storage_id, deleted_at, id),
  KEY volume_by_zone (zone_id, deleted_at, id),
  KEY volume_by_cluster (cluster_id, deleted_at, id),
  KEY volume_by_template (template_id, deleted_at, id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS job (
  id               BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  uid              BINARY(16)      NOT NULL UNIQUE,
  kind             VARCHAR(32)     NOT NULL,
  workflow_version SMALLINT UNSIGNED NOT NULL,
  state            VARCHAR(16)     NOT NULL,           -- QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED, NEEDS_ATTENTION
  direction        VARCHAR(4)      NOT NULL DEFAULT 'DO',
  step             SMALLINT UNSIGNED NOT NULL DEFAULT 0, -- seq of the open step; guards every move
  target_kind      VARCHAR(16)     NOT NULL,
  target_id        BIGINT UNSIGNED NOT NULL,
  parent_id        BIGINT UNSIGNED NULL,
  actor            VARCHAR(255)    NOT NULL,
  reason           VARCHAR(1024)   NULL,
  input            JSON            NOT NULL,           -- what was asked
  context          JSON            NULL,               -- what was resolved when it began: host, epoch, volumes
  error_code       VARCHAR(32)     NULL,
  error_message    VARCHAR(2048)   NULL,
  failed_step      VARCHAR(32)     NULL,
  progress         DOUBLE          NOT NULL DEFAULT 0, -- percent; never goes back
  step_percent     DOUBLE          NOT NULL DEFAULT 0, -- share of the whole that the open step makes up
  cancellable      BOOLEAN         NOT NULL DEFAULT TRUE,
  cancel_requested_at DATETIME(6)  NULL,
  lease_owner      CHAR(36)        NULL,
  lease_epoch      INT UNSIGNED    NOT NULL DEFAULT 1, -- raised by every claim; a write with an older one hits zero rows
  due_at           DATETIME(6)     NULL,               -- when any process may take it up; NULL once it has ended
  created_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  started_at       DATETIME(6)     NULL,
  finished_at      DATETIME(6)     NULL,
  KEY job_due (due_at),
  KEY job_by_target (target_kind, target_id, state, id),
  KEY job_by_state (state, id),
  KEY job_by_kind (kind, id),
  KEY job_by_parent (parent_id, id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- A step that calls a host IS the host command: the host knows it as <job>.<seq>.
CREATE TABLE IF NOT EXISTS job_step (
  job_id           BIGINT UNSIGNED NOT NULL,
  seq              SMALLINT UNSIGNED NOT NULL,
  name             VARCHAR(32)     NOT NULL,
  direction        VARCHAR(4)      NOT NULL,           -- DO, UNDO
  attempt          SMALLINT UNSIGNED NOT NULL DEFAULT 1,
  state            VARCHAR(16)     NOT NULL,           -- OPEN, DONE, FAILED, SKIPPED
  host_id          BIGINT UNSIGNED NULL,
  vm_epoch         INT UNSIGNED    NOT NULL DEFAULT 0,
  command          VARCHAR(32)     NULL,
  payload          JSON            NULL,
  result           JSON            NULL,
  error_code       VARCHAR(32)     NULL,
  error_message    VARCHAR(2048)   NULL,
  timeout_ms       INT UNSIGNED    NOT NULL DEFAULT 0,
  progress_done    BIGINT UNSIGNED NULL,
  progress_total   BIGINT UNSIGNED NULL,
  progress_unit    VARCHAR(16)     NULL,
  progress_rate    DOUBLE          NULL,               -- units per second, smoothed
  started_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  finished_at      DATETIME(6)     NULL,
  PRIMARY KEY (job_id, seq),
  KEY job_step_by_host (host_id, state)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- One committed mutation per key: the same key and arguments give the same answer.
CREATE TABLE IF NOT EXISTS idempotency_key (
  id               BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  actor            VARCHAR(255)    NOT NULL,
  mutation         VARCHAR(64)     NOT NULL,
  idempotency_key  VARCHAR(128)    NOT NULL,
  args_hash        BINARY(32)      NOT NULL,
  resource_id      BIGINT UNSIGNED NULL,
  job_id           BIGINT UNSIGNED NULL,
  created_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  UNIQUE KEY idempotency_once (actor, mutation, idempotency_key),
  KEY idempotency_key_by_age (created_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS api_token (
  id               BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  name             VARCHAR(255)    NOT NULL,
  role             VARCHAR(16)     NOT NULL,
  token_hash       BINARY(32)      NOT NULL UNIQUE,
  created_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Control planes that live: each renews `seen_at`; the links of one that stopped doing so are nobody's.
CREATE TABLE IF NOT EXISTS control_process (
  id               CHAR(36)        NOT NULL PRIMARY KEY,
  url              VARCHAR(255)    NOT NULL,
  peer_secret      CHAR(43)        NOT NULL,           -- what other control planes show it to be let in
  started_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  seen_at          DATETIME(6)     NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Who did what to what, and why.
CREATE TABLE IF NOT EXISTS event (
  seq              BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  type             VARCHAR(48)     NOT NULL,
  occurred_at      DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  subject_kind     VARCHAR(16)     NOT NULL,
  subject_id       BIGINT UNSIGNED NOT NULL,
  job_id           BIGINT UNSIGNED NULL,
  actor            VARCHAR(255)    NOT NULL,
  reason           VARCHAR(1024)   NULL,
  changes          JSON            NOT NULL,           -- [{field, before, after}]
  KEY event_by_subject (subject_kind, subject_id, seq),
  KEY event_by_job (job_id, seq),
  KEY event_by_type (type, seq)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- One row per committed change of a resource, in commit order without gaps: `feed_head` hands out the numbers under
-- its row lock as the last thing in a transaction.
CREATE TABLE IF NOT EXISTS `change` (
  seq              BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  kind             VARCHAR(16)     NOT NULL,
  resource_id      BIGINT UNSIGNED NOT NULL,
  origin           CHAR(36)        NOT NULL,           -- the process that wrote it, and has told its own subscribers
  committed_at     DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  KEY change_by_age (committed_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS feed_head (
  seq              BIGINT UNSIGNED NOT NULL,           -- the highest that is committed
  event_trimmed_to BIGINT UNSIGNED NOT NULL DEFAULT 0
) ENGINE=InnoDB;
INSERT INTO feed_head (seq) SELECT 0 FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM (SELECT seq FROM feed_head) h);

-- Each process takes ids by the thousand, so a whole write set is known before it is sent and needs no insertId.
CREATE TABLE IF NOT EXISTS id_block (
  next_id          BIGINT UNSIGNED NOT NULL
) ENGINE=InnoDB;
INSERT INTO id_block (next_id) SELECT 1000 FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM (SELECT next_id FROM id_block) b);
