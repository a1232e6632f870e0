-- Where an account's things are counted: its domain's path, as the last move left it. Whoever charges an account names the
-- path that he knows, so that nothing is ever counted in a domain that the account has left.
ALTER TABLE account_quota ADD COLUMN path VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '/' AFTER id;
ALTER TABLE account_quota ADD KEY account_quota_by_path (path);
UPDATE account_quota AS q
  INNER JOIN account ON account.id = q.id
  INNER JOIN domain ON domain.id = account.domain_id
  SET q.path = domain.path;
