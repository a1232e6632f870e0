-- Which key seals the secrets that must be readable again: a control plane with another one is told so at its start.
CREATE TABLE IF NOT EXISTS sealing_check (
  id     TINYINT UNSIGNED NOT NULL PRIMARY KEY,
  sealed VARBINARY(255)   NOT NULL
) ENGINE=InnoDB;
