-- Hosts are known by certificates that the control plane's own authority issues.

-- Made once per database; its key is sealed. There is one row.
CREATE TABLE IF NOT EXISTS host_certificate_authority (
  id               TINYINT UNSIGNED NOT NULL PRIMARY KEY,
  certificate      VARBINARY(2048)  NOT NULL,          -- DER
  sealed_key       VARBINARY(1024)  NOT NULL,          -- PKCS #8, sealed
  created_at       DATETIME(6)      NOT NULL DEFAULT CURRENT_TIMESTAMP(6)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS host_certificate (
  id               BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  host_id          BIGINT UNSIGNED NOT NULL,
  version          INT UNSIGNED    NOT NULL,           -- of one host, in order; not below host.certificate_floor: accepted
  serial           BINARY(16)      NOT NULL UNIQUE,
  fingerprint      BINARY(32)      NOT NULL,           -- SHA-256 of the certificate
  public_key_hash  BINARY(32)      NOT NULL,           -- SHA-256 of its key, which no other has: who asks again is known by it
  join_token_id    BIGINT UNSIGNED NULL,               -- what it was joined with; NULL: renewed
  certificate      VARBINARY(2048) NOT NULL,           -- DER
  not_before       DATETIME(6)     NOT NULL,
  not_after        DATETIME(6)     NOT NULL,
  warned_at        DATETIME(6)     NULL,               -- when it was told that it ends and nobody has renewed it
  created_at       DATETIME(6)     NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  UNIQUE KEY host_certificate_version (host_id, version),
  UNIQUE KEY host_certificate_key (public_key_hash),
  KEY host_certificate_by_end (not_after),
  FOREIGN KEY (host_id) REFERENCES host (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- The lowest version of a certificate that is accepted of a host: the use of a newer one raises it, and so does a
-- revocation, past the one that may be on its way.
ALTER TABLE host ADD COLUMN certificate_floor INT UNSIGNED NOT NULL DEFAULT 1;
ALTER TABLE host ADD COLUMN certificate_revoked_at DATETIME(6) NULL;
-- What hosts showed before: they join again.
ALTER TABLE host DROP COLUMN credential_hash;

-- A token for one host that is there already, which lost its certificate; NULL: for new hosts of the cluster.
ALTER TABLE host_join_token ADD COLUMN host_id BIGINT UNSIGNED NULL;
