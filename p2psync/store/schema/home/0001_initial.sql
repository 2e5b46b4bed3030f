-- The agent's own database: what this device shares, with whom, and the pairings under way.
-- Keys are not here but in the key file. Times are nanoseconds since the epoch.

-- Small facts of the device: its name, settings.
CREATE TABLE notes (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Replicas of this device, each with a database of its own.
--   replica: 16 random bytes, names that database. root: absolute path, one replica each.
--   The rowid says which was first: of two replicas of one folder that one meets the peers.
CREATE TABLE folders (
    replica BLOB    PRIMARY KEY CHECK (length(replica) = 16),
    folder  BLOB    NOT NULL CHECK (length(folder) = 16),
    root    BLOB    NOT NULL UNIQUE,
    name    TEXT    NOT NULL
) STRICT;

-- Devices we are paired with or share a folder with.
--   device: Ed25519 public key. key: X25519 public key. addresses: msgpack list of texts, where
--   it was last reached. last_seen_ns: null when it never was.
CREATE TABLE peers (
    device       BLOB PRIMARY KEY CHECK (length(device) = 32),
    key          BLOB NOT NULL CHECK (length(key) = 32),
    name         TEXT NOT NULL,
    addresses    BLOB NOT NULL,
    last_seen_ns INTEGER
) STRICT, WITHOUT ROWID;

-- Every signed statement about a folder's members that was ever accepted; the list only grows.
-- What it means (who is a member now) is decided by protocol/members.py.
-- row: the msgpack of a protocol.messages.MemberRow, signature and all.
CREATE TABLE members (
    folder BLOB NOT NULL CHECK (length(folder) = 16),
    row    BLOB NOT NULL,
    PRIMARY KEY (folder, row)
) STRICT, WITHOUT ROWID;

-- Pairing codes put up here. guesses: wrong or right, counted before they are compared.
-- The code itself is never stored.
CREATE TABLE codes (
    code_id    BLOB    PRIMARY KEY,
    expires_ns INTEGER NOT NULL,
    guesses    INTEGER NOT NULL DEFAULT 0 CHECK (guesses >= 0),
    burned     INTEGER NOT NULL DEFAULT 0 CHECK (burned IN (0, 1))
) STRICT, WITHOUT ROWID;
