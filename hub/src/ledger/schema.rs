//! The tables, in the one place where they are made and changed.
//!
//! Invariant: a migration that was released is never edited; the next one is added below it. `{…}` stands for what the two
//! databases call differently. What each table is for stands above it.

/// What differs between the databases in the text of a migration.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// Primary key that counts by itself.
    pub identity: &'static str,
    /// Bytes.
    pub bytes: &'static str,
    /// 16 bytes.
    pub id: &'static str,
    /// Behind a table whose rows are updated again and again.
    pub hot: &'static str,
    /// Behind a table with a compact primary key.
    pub clustered: &'static str,
}

impl Words {
    /// The text with the words filled in.
    pub fn fill(&self, text: &str) -> String {
        text.replace("{identity}", self.identity)
            .replace("{bytes}", self.bytes)
            .replace("{id}", self.id)
            .replace("{hot}", self.hot)
            .replace("{clustered}", self.clustered)
    }
}

/// The migrations, from version 1 on.
pub const MIGRATIONS: &[&str] = &[V1, V2, V3, V4, V5, V6];

const V1: &str = "
-- One row: what this ledger is, since when it may not have gone back.
CREATE TABLE hub (
    one SMALLINT PRIMARY KEY,
    hub_epoch {id} NOT NULL
);

-- Every hub epoch that there was; positions above the restore point of a later one may have been given again.
CREATE TABLE hub_epochs (
    number BIGINT PRIMARY KEY,
    hub_epoch {id} NOT NULL UNIQUE,
    minted_at BIGINT NOT NULL,
    restore_point BIGINT NOT NULL,
    reason TEXT NOT NULL
);

-- A row per process and role, counted up in each of its transactions: what counts less than its process remembers was restored.
CREATE TABLE processes (
    process {id} NOT NULL,
    role SMALLINT NOT NULL,
    commits BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    PRIMARY KEY (process, role)
) {hot};

-- The agents, what their last hello and their presence said.
CREATE TABLE agents (
    store_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    session {id},
    software TEXT,
    clock TEXT,
    hello_at BIGINT,
    lineage {bytes},
    presence TEXT,
    presence_session {id},
    presence_at BIGINT,
    positions_session {id},
    positions_round BIGINT,
    suspended SMALLINT NOT NULL DEFAULT 0,
    PRIMARY KEY (store_id, agent_id)
) {hot};

-- A lane of an epoch of an agent; its row lock serialises all who store into it.
CREATE TABLE streams (
    stream {identity},
    store_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    epoch {id} NOT NULL,
    lane SMALLINT NOT NULL,
    stored BIGINT NOT NULL,
    safe BIGINT NOT NULL,
    head BIGINT NOT NULL,
    received BIGINT NOT NULL,
    duplicates BIGINT NOT NULL,
    forks BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    state {bytes} NOT NULL,
    UNIQUE (store_id, agent_id, epoch, lane)
) {hot};

-- The records as they came. fork counts further records under the same number; late ones came after the watermark had passed.
CREATE TABLE records (
    stream INTEGER NOT NULL,
    seq BIGINT NOT NULL,
    fork SMALLINT NOT NULL,
    late SMALLINT NOT NULL,
    received_at BIGINT NOT NULL,
    digest {bytes} NOT NULL,
    bytes {bytes} NOT NULL,
    PRIMARY KEY (stream, seq, fork)
);

-- Late records that wait for a position.
CREATE TABLE late (
    stream INTEGER NOT NULL,
    seq BIGINT NOT NULL,
    fork SMALLINT NOT NULL,
    PRIMARY KEY (stream, seq, fork)
);

-- Batches that do not decode, bounded.
CREATE TABLE rejects (
    number {identity},
    store_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    received_at BIGINT NOT NULL,
    reason TEXT NOT NULL,
    bytes {bytes} NOT NULL
);

-- One row, whose lock makes one process at a time the one that gives positions.
CREATE TABLE poster (
    one SMALLINT PRIMARY KEY,
    next_position BIGINT NOT NULL
) {hot};

-- How far each lane has positions.
CREATE TABLE posted (
    stream INTEGER PRIMARY KEY,
    seq BIGINT NOT NULL
) {hot};

-- Positions, a row for numbers that follow on one another: position first_position + i is record first_seq + i.
CREATE TABLE runs (
    first_position BIGINT PRIMARY KEY,
    positions INTEGER NOT NULL,
    stream INTEGER NOT NULL,
    first_seq BIGINT NOT NULL,
    fork SMALLINT NOT NULL
);
CREATE INDEX runs_of_stream ON runs (stream, first_position);

-- The first record of each business identity.
CREATE TABLE identities (
    key {id} PRIMARY KEY,
    position BIGINT NOT NULL,
    content {id} NOT NULL
) {clustered};

-- What is said of a position beside its record: 1 duplicate of, 2 conflicts with another position, 4 unreadable.
CREATE TABLE marks (
    position BIGINT NOT NULL,
    mark SMALLINT NOT NULL,
    other BIGINT,
    PRIMARY KEY (position, mark)
);

-- Totals, folded from the records in the order of their positions. what: counted, tax/…, tender/…, not/….
CREATE TABLE totals (
    store_id TEXT NOT NULL,
    business_day TEXT NOT NULL,
    currency TEXT NOT NULL,
    workstation_id TEXT NOT NULL,
    what TEXT NOT NULL,
    transactions BIGINT NOT NULL,
    amount BIGINT NOT NULL,
    base BIGINT NOT NULL,
    low BIGINT,
    high BIGINT,
    PRIMARY KEY (store_id, business_day, currency, workstation_id, what)
) {hot};

-- What needs a person.
CREATE TABLE exceptions (
    id TEXT PRIMARY KEY,
    store_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    code TEXT NOT NULL,
    state TEXT NOT NULL,
    opened_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    times BIGINT NOT NULL,
    epoch {id} NOT NULL,
    lane SMALLINT NOT NULL,
    seq BIGINT NOT NULL,
    pointer TEXT NOT NULL,
    detail TEXT NOT NULL,
    changed_by TEXT,
    reason TEXT
);
CREATE INDEX exceptions_of_store ON exceptions (store_id, state);

-- Parts of snapshots of stock on hand; of a whole one, agents.positions_… names which applies.
CREATE TABLE positions (
    store_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    session {id} NOT NULL,
    round BIGINT NOT NULL,
    part INTEGER NOT NULL,
    parts INTEGER NOT NULL,
    received_at BIGINT NOT NULL,
    payload {bytes} NOT NULL,
    PRIMARY KEY (store_id, agent_id, session, round, part)
);
";

const V2: &str = "
-- What of a store's day a person asks for by name: its closes, what came after them, what is in conflict or has a number that was used.
-- workstation_id is empty where the whole store closed. sums is what it declares or adds, as the software writes it.
CREATE TABLE day_documents (
    store_id TEXT NOT NULL,
    business_day TEXT NOT NULL,
    position BIGINT NOT NULL,
    what TEXT NOT NULL,
    workstation_id TEXT NOT NULL,
    source_agent TEXT NOT NULL,
    identity TEXT NOT NULL,
    sums {bytes} NOT NULL,
    PRIMARY KEY (store_id, business_day, position, what)
);

-- The tills' own numbers that came, as runs.
CREATE TABLE till_numbers (
    store_id TEXT NOT NULL,
    business_day TEXT NOT NULL,
    workstation_id TEXT NOT NULL,
    sequence_epoch BIGINT NOT NULL,
    runs {bytes} NOT NULL,
    PRIMARY KEY (store_id, business_day, workstation_id, sequence_epoch)
) {hot};
";

const V3: &str = "
-- How far records have their names and lines in the tables below; what was posted before there were any is read again, in the order of positions.
ALTER TABLE poster ADD COLUMN tied_position BIGINT NOT NULL DEFAULT 1;

-- What a record is asked for by, beside its identity: hashes of orders, receipts that it names, correlation and trace ids that a till stated.
CREATE TABLE names (
    name {id} NOT NULL,
    position BIGINT NOT NULL,
    stream INTEGER NOT NULL,
    PRIMARY KEY (name, position)
) {clustered};

-- Voids whose receipt has not come; the key is its identity's.
CREATE TABLE voids_waiting (
    key {id} NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (key, position)
) {clustered};

-- What each customer bought, by item, unit and price, in millionths of the unit. Buyers who are not known are one, of an empty name.
CREATE TABLE purchases (
    customer_id TEXT NOT NULL,
    item_id TEXT NOT NULL,
    unit TEXT NOT NULL,
    unit_price TEXT NOT NULL,
    quantity BIGINT NOT NULL,
    PRIMARY KEY (customer_id, item_id, unit, unit_price)
) {hot};

-- Lines that gave goods back. bought_before and returned_so_far are the customer's of the item, at any price, when the line was posted.
CREATE TABLE return_lines (
    position BIGINT NOT NULL,
    line INTEGER NOT NULL,
    store_id TEXT NOT NULL,
    customer_id TEXT NOT NULL,
    item_id TEXT NOT NULL,
    unit TEXT NOT NULL,
    unit_price TEXT NOT NULL,
    quantity BIGINT NOT NULL,
    bought_before BIGINT NOT NULL,
    returned_so_far BIGINT NOT NULL,
    PRIMARY KEY (position, line)
);
CREATE INDEX return_lines_of_customer ON return_lines (customer_id, item_id, unit, position, line);

-- marks 8: voids another position, 16: was voided by another position.
CREATE INDEX marks_of_other ON marks (other);
CREATE INDEX streams_of_epoch ON streams (epoch);
CREATE INDEX exceptions_of_record ON exceptions (epoch, lane, seq);
";

const V4: &str = "
-- Who deals with an exception, and who was told. untold: its state may differ from the one that was told last.
ALTER TABLE exceptions ADD COLUMN untold SMALLINT NOT NULL DEFAULT 1;
ALTER TABLE exceptions ADD COLUMN told_state TEXT;
ALTER TABLE exceptions ADD COLUMN route TEXT;
ALTER TABLE exceptions ADD COLUMN owner TEXT;
ALTER TABLE exceptions ADD COLUMN escalate_at BIGINT;
ALTER TABLE exceptions ADD COLUMN escalated_at BIGINT;
ALTER TABLE exceptions ADD COLUMN notified_at BIGINT;
CREATE INDEX exceptions_untold ON exceptions (untold) WHERE untold = 1;
CREATE INDEX exceptions_to_escalate ON exceptions (escalate_at) WHERE escalate_at IS NOT NULL;

-- Letters about exceptions, each to one webhook, with their body as it was written. due_at is moved on by whoever takes one to deliver it.
CREATE TABLE outbox (
    number {identity},
    id {id} NOT NULL UNIQUE,
    exception_id TEXT NOT NULL,
    target TEXT NOT NULL,
    made_at BIGINT NOT NULL,
    body {bytes} NOT NULL,
    attempts INTEGER NOT NULL,
    due_at BIGINT NOT NULL,
    delivered_at BIGINT,
    failure TEXT
) {hot};
CREATE INDEX outbox_due ON outbox (target, due_at) WHERE delivered_at IS NULL;
CREATE INDEX outbox_delivered ON outbox (delivered_at) WHERE delivered_at IS NOT NULL;
";

const V5: &str = "
-- Signed control totals of the boxes, with what each counted as the software writes it. wrong says what is wrong with one, in words.
CREATE TABLE seals (
    position BIGINT PRIMARY KEY,
    store_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    business_day TEXT NOT NULL,
    workstation_id TEXT NOT NULL,
    number BIGINT NOT NULL,
    digest {bytes} NOT NULL,
    public_key {bytes} NOT NULL,
    computed {bytes} NOT NULL,
    wrong TEXT NOT NULL
);
CREATE INDEX seals_of_agent ON seals (store_id, agent_id, position);
CREATE INDEX seals_of_day ON seals (store_id, business_day, position);

-- How long documents took from their capture until they were stored (until 0) and posted (1), in classes of durations, by the day of posting.
CREATE TABLE delays (
    day TEXT NOT NULL,
    store_id TEXT NOT NULL,
    channel TEXT NOT NULL,
    fulfillment_type TEXT NOT NULL,
    until SMALLINT NOT NULL,
    class SMALLINT NOT NULL,
    documents BIGINT NOT NULL,
    PRIMARY KEY (day, store_id, channel, fulfillment_type, until, class)
) {hot};

-- Ranges that a person wants from an agent again: who, why, when the agent was asked, and the lane's counts at the order.
CREATE TABLE replays (
    number {identity},
    stream INTEGER NOT NULL,
    first BIGINT NOT NULL,
    last BIGINT NOT NULL,
    ordered_at BIGINT NOT NULL,
    ordered_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    asked_at BIGINT,
    duplicates BIGINT NOT NULL,
    received BIGINT NOT NULL
);
CREATE INDEX replays_to_ask ON replays (number) WHERE asked_at IS NULL;
";

const V6: &str = "
-- What people changed by hand, written with the change; entries are only added. peer is the address that it came from.
CREATE TABLE audit (
    number {identity},
    at BIGINT NOT NULL,
    who TEXT NOT NULL,
    role TEXT NOT NULL,
    peer TEXT,
    route TEXT NOT NULL,
    what TEXT NOT NULL,
    outcome TEXT NOT NULL
);

-- One-time tokens with which boxes are enrolled: their hashes, for whom, until when, and the public key that came with one first.
CREATE TABLE enrolments (
    token {bytes} PRIMARY KEY,
    common_name TEXT NOT NULL,
    made_at BIGINT NOT NULL,
    valid_until BIGINT NOT NULL,
    public_key {bytes}
);

-- What the authority has signed, and what of it is revoked.
CREATE TABLE certificates (
    serial {bytes} PRIMARY KEY,
    common_name TEXT NOT NULL,
    role TEXT NOT NULL,
    issued_at BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    revoked_at BIGINT
);
CREATE INDEX certificates_of_name ON certificates (common_name, issued_at);

-- Of whom nothing is taken, until they are enrolled again.
CREATE TABLE barred (
    common_name TEXT PRIMARY KEY,
    since BIGINT NOT NULL,
    reason TEXT NOT NULL
);
";
