-- Who has asked for what, from where, and what became of it. Rows are added, never changed; the oldest go, page by page.
CREATE TABLE IF NOT EXISTS audit (
  seq              BIGINT UNSIGNED NOT NULL PRIMARY KEY, -- without gaps, in the order of commits: feed_head.audit_seq
  recorded_at      DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  action           VARCHAR(64)     NOT NULL,           -- a mutation's name, signIn, …
  outcome          VARCHAR(8)      NOT NULL,           -- ALLOWED, REFUSED
  code             VARCHAR(48)     NULL,               -- of the error that it was refused with
  actor            VARCHAR(255)    NOT NULL,
  user_id          BIGINT UNSIGNED NULL,
  credential       VARCHAR(48)     NULL,               -- api-key:1007, session:1008
  address          VARCHAR(45) CHARACTER SET ascii COLLATE ascii_bin NULL,
  account_id       BIGINT UNSIGNED NULL,               -- whose it is; NULL: only operators may know of it
  subject_kind     VARCHAR(32)     NULL,
  subject_id       BIGINT UNSIGNED NULL,
  asked_id         VARCHAR(40) CHARACTER SET ascii COLLATE ascii_bin NULL, -- the id that was asked for, as it was written
  job_id           BIGINT UNSIGNED NULL,
  reason           VARCHAR(1024)   NULL,
  changes          TEXT            NOT NULL,           -- JSON as it was written, for it is hashed: [{field, before, after}]
  request_id       VARCHAR(128)    NULL,
  KEY audit_by_time (recorded_at, seq),
  KEY audit_by_account (account_id, seq),
  KEY audit_by_actor (actor, seq),
  KEY audit_by_user (user_id, seq),
  KEY audit_by_subject (subject_kind, subject_id, seq),
  KEY audit_by_action (action, seq),
  KEY audit_by_outcome (outcome, seq)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Consecutive records, sealed: each page's hash is over the one before and over its own records, so that a record that
-- is missing or changed shows in every hash from there on.
CREATE TABLE IF NOT EXISTS audit_page (
  page             BIGINT UNSIGNED NOT NULL PRIMARY KEY, -- from 1, without gaps
  first_seq        BIGINT UNSIGNED NOT NULL,
  last_seq         BIGINT UNSIGNED NOT NULL,
  last_at          DATETIME(6)     NOT NULL,           -- of its last record
  records_hash     BINARY(32)      NOT NULL,
  hash             BINARY(32)      NOT NULL,           -- over the page before, and over all of the above
  sealed_at        DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  trimmed_at       DATETIME(6)     NULL,               -- its records are gone by age; the page stays, for the chain
  UNIQUE KEY audit_page_by_last_seq (last_seq)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Beside `seq`, under the same row lock: a number that is missing is a record that was removed.
ALTER TABLE feed_head ADD COLUMN audit_seq BIGINT UNSIGNED NOT NULL DEFAULT 0;
