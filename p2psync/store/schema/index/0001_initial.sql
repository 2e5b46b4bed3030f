-- The index of one replica. Paths are bytes relative to the root, without a leading or
-- trailing '/'. Authors and starts are unsigned 64-bit numbers kept in SQLite's signed ones.
-- Bodies are msgpack (store/encoding.py). Nothing here is needed to keep a user's bytes: lose
-- the database, and the disk is adopted again by hash.

-- One row: the counters and everything that must be known without counting.
--   author, seq: under which the next local change is numbered; author 0 after each start.
--   arrival: of the entry stored last.
--   digest: sum modulo 2^256 of a hash of every living entry, big-endian.
--   files, bytes: regular files in `rows`. needs, need_bytes: paths in `needed`, and the bytes
--   of the regular files wanted there. tombstones: entries without live values.
CREATE TABLE facts (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    author     INTEGER NOT NULL DEFAULT 0,
    seq        INTEGER NOT NULL DEFAULT 0 CHECK (seq >= 0),
    arrival    INTEGER NOT NULL DEFAULT 0 CHECK (arrival >= 0),
    digest     BLOB    NOT NULL DEFAULT (zeroblob(32)) CHECK (length(digest) = 32),
    files      INTEGER NOT NULL DEFAULT 0 CHECK (files >= 0),
    bytes      INTEGER NOT NULL DEFAULT 0 CHECK (bytes >= 0),
    needs      INTEGER NOT NULL DEFAULT 0 CHECK (needs >= 0),
    need_bytes INTEGER NOT NULL DEFAULT 0 CHECK (need_bytes >= 0),
    tombstones INTEGER NOT NULL DEFAULT 0 CHECK (tombstones >= 0)
) STRICT;
INSERT INTO facts (id) VALUES (1);

-- Knowledge: dots taken in or known to be dead. One row per author ever heard of; thousands
-- after years, so only the components that changed are written.
CREATE TABLE known (
    author INTEGER PRIMARY KEY,
    seq    INTEGER NOT NULL CHECK (seq > 0)
) STRICT;

-- The join of the contexts of tombstones no longer held.
CREATE TABLE collected (
    author INTEGER PRIMARY KEY,
    seq    INTEGER NOT NULL CHECK (seq > 0)
) STRICT;

-- Small facts of the replica that concern no path.
CREATE TABLE notes (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- All that is known of each path, in the order of arrival: an entry that changes moves to the
-- end, so a sender reads the table straight through.
--   live: 1 with live values, 0 for a tombstone. body: the canonical `core.entry.Entry`.
-- A path has one row; each of the two indexes holds a part of the paths, so that directories
-- full of tombstones do not slow down the search for what lives.
CREATE TABLE entries (
    arrival INTEGER PRIMARY KEY CHECK (arrival > 0),
    path    BLOB    NOT NULL CHECK (length(path) > 0),
    live    INTEGER NOT NULL CHECK (live IN (0, 1)),
    body    BLOB    NOT NULL
) STRICT;
CREATE UNIQUE INDEX entries_live ON entries (path) WHERE live = 1;
CREATE UNIQUE INDEX entries_dead ON entries (path) WHERE live = 0;

-- What stands on this disk at each path, as far as the index believes.
--   home: for a conflict copy, the path whose entry holds the dots shown; else null.
--   content: the first 8 bytes of a regular file's hash (enough to find it; the body has all
--   32); null for other kinds.
--   size: of a regular file; null for other kinds.
--   generation: how many times 2^15 regular files there were when the row was written. Hashes
--   are scattered: an index by content alone is written all over by every burst (5 MB for a
--   thousand files among a million); one generation's part of it is small. A search asks every
--   generation, 32 of them at a million files.
CREATE TABLE rows (
    id         INTEGER PRIMARY KEY,
    path       BLOB NOT NULL UNIQUE CHECK (length(path) > 0),
    home       BLOB CHECK (home <> path),
    generation INTEGER NOT NULL,
    content    INTEGER,
    size       INTEGER CHECK (size >= 0),
    body       BLOB NOT NULL
) STRICT;
CREATE INDEX rows_home ON rows (home) WHERE home IS NOT NULL;
CREATE INDEX rows_content ON rows (generation, content) WHERE content IS NOT NULL;

-- The generations that rows may be of.
CREATE TABLE generations (
    number INTEGER PRIMARY KEY
) STRICT;

-- Names that conflict copies asked for: the copy of the dot (author, seq) of the entry at
-- home. suffix: which of the free suffixes. placed: 1 if the copy stands there in the view.
CREATE TABLE claims (
    home   BLOB    NOT NULL,
    name   BLOB    NOT NULL,
    author INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    suffix INTEGER NOT NULL CHECK (suffix >= 0),
    placed INTEGER NOT NULL CHECK (placed IN (0, 1)),
    PRIMARY KEY (home, name, author, seq, suffix)
) STRICT, WITHOUT ROWID;
CREATE INDEX claims_name ON claims (name);
CREATE INDEX claims_placed ON claims (name) WHERE placed = 1;

-- Paths whose view and row differ.
--   size: bytes of the regular file wanted; 0 for everything else. magnitude: how many bits
--   the size has; an index by size itself would be written all over for every burst.
--   content: as in `rows`. place: what the view wants; null: nothing should stand there.
CREATE TABLE needed (
    path      BLOB PRIMARY KEY CHECK (length(path) > 0),
    magnitude INTEGER NOT NULL,
    size      INTEGER NOT NULL CHECK (size >= 0),
    content   INTEGER,
    place     BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX needed_magnitude ON needed (magnitude, path);

-- The starts of the agent: from which arrival on each one counted. A peer's cursor names the
-- start it was made under, and is cut down to what that start really had.
CREATE TABLE starts (
    number  INTEGER PRIMARY KEY,
    start   INTEGER NOT NULL UNIQUE,
    arrival INTEGER NOT NULL
) STRICT;

-- How far we have durably taken each peer's arrivals: its start, its arrival.
CREATE TABLE cursors (
    peer    BLOB PRIMARY KEY,
    start   INTEGER NOT NULL,
    arrival INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What each member was last known to know and to have collected (gossip included).
CREATE TABLE peer_vectors (
    peer      BLOB    NOT NULL,
    author    INTEGER NOT NULL,
    known     INTEGER NOT NULL DEFAULT 0 CHECK (known >= 0),
    collected INTEGER NOT NULL DEFAULT 0 CHECK (collected >= 0),
    PRIMARY KEY (peer, author)
) STRICT, WITHOUT ROWID;

-- What a full listing under way has told so far; emptied at every start.
--   live: msgpack list of the dots the peer has live at the path.
CREATE TABLE listing (
    peer BLOB NOT NULL,
    path BLOB NOT NULL,
    live BLOB NOT NULL,
    PRIMARY KEY (peer, path)
) STRICT, WITHOUT ROWID;

-- The chunks of large files, by content. prefix: as in `rows.content`. hashes: 32 bytes each,
-- in order. sizes: msgpack list.
CREATE TABLE manifests (
    id      INTEGER PRIMARY KEY,
    content BLOB    NOT NULL UNIQUE CHECK (length(content) = 32),
    prefix  INTEGER NOT NULL,
    hashes  BLOB    NOT NULL,
    sizes   BLOB    NOT NULL
) STRICT;

-- Where a chunk occurs: by the first 16 bytes of its hash, the first place in each manifest.
CREATE TABLE chunks (
    hash     BLOB    NOT NULL CHECK (length(hash) = 16),
    manifest INTEGER NOT NULL,
    offset   INTEGER NOT NULL CHECK (offset >= 0),
    size     INTEGER NOT NULL CHECK (size > 0),
    PRIMARY KEY (hash, manifest)
) STRICT, WITHOUT ROWID;

-- Displaced and deleted contents under `.p2psync/history`, named by `name` there.
--   path: where the content stood. when_ns: since the epoch.
CREATE TABLE history (
    name    BLOB PRIMARY KEY,
    path    BLOB    NOT NULL,
    content BLOB    NOT NULL,
    size    INTEGER NOT NULL CHECK (size >= 0),
    when_ns INTEGER NOT NULL,
    reason  TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX history_content ON history (content);
CREATE INDEX history_when ON history (when_ns);
CREATE INDEX history_path ON history (path, when_ns);
