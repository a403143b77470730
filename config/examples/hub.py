#!/usr/bin/env python3
"""A small hub for Counterfoil in Python: sqlite3 and paho-mqtt, nothing else. Written from hub/README.md, which says why.

    hub.py run --db hub.db --broker 127.0.0.1:1883        receive, store, acknowledge
    hub.py backup --db hub.db --to copy.db                copy and check the ledger; what the copy holds is safe from then on

Agents need `wire.encoding = "json"`. Invariant: whatever is acknowledged is committed. The process may be killed at any moment; all that it
keeps outside the database (a queue, half a stock snapshot) comes again. One process for each database.
"""

import argparse
import base64
import json
import os
import queue
import sqlite3
import sys
import time

import paho.mqtt.client as mqtt

WINDOW = 32_768  # how far above `stored` records are taken, in sequence numbers
CREDIT = 64  # batches that an agent may have in flight
QUEUE = 512  # messages that wait here; when they are that many, the broker has to hold back
GROUP = 64  # messages in one transaction
ABSENT = 32  # ranges of a mark; of more, the last ones are told as one
BROKEN = "0" * 64  # the chain of nobody: an agent whose chain is not the hub's has to send all again, and we say so
KINDS = ["transaction", "stock_movement", "fulfillment_update", "tender_control", "day_close", "epoch_start", "clock_step", "outage", "tail_cut",
    "config_change", "exception_change", "journal_damage", "finding"]  # fmt: skip
TYPES = {f"counterfoil.{kind}.v1" for kind in KINDS}
KEY = "store = ? AND agent = ? AND epoch = ? AND lane = ?"

SCHEMA = """
CREATE TABLE IF NOT EXISTS agents (store, agent, session, live, PRIMARY KEY (store, agent));
CREATE TABLE IF NOT EXISTS retired (store, agent, epoch, PRIMARY KEY (store, agent, epoch));
CREATE TABLE IF NOT EXISTS lanes (store, agent, epoch, lane, stored INTEGER, safe INTEGER, chain,
    PRIMARY KEY (store, agent, epoch, lane));
CREATE TABLE IF NOT EXISTS records (position INTEGER PRIMARY KEY AUTOINCREMENT, store, agent, epoch, lane, seq INTEGER, digest, content,
    type, subject, business_day, recorded_at, document, bytes BLOB, chain_before, chain, status,
    UNIQUE (store, agent, epoch, lane, seq, digest));
CREATE INDEX IF NOT EXISTS subjects ON records (store, subject, status);
CREATE TABLE IF NOT EXISTS gone (store, agent, epoch, lane, first INTEGER, last INTEGER, reason, chain_after,
    PRIMARY KEY (store, agent, epoch, lane, first, last));
CREATE TABLE IF NOT EXISTS stock (store, agent, item, unit, on_hand, delta, taken_at, PRIMARY KEY (store, agent, item, unit));
CREATE TABLE IF NOT EXISTS exceptions (store, agent, code, detail, state DEFAULT 'open', raised_at DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (store, agent, code, detail));
CREATE TABLE IF NOT EXISTS rejects (store, agent, topic, why, bytes BLOB, received_at DEFAULT CURRENT_TIMESTAMP);
"""


# What bytes can raise that are not what they should be: they are kept, and never stop the hub.
FOREIGN = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError, sqlite3.InterfaceError, sqlite3.ProgrammingError)


class Refused(Exception):
    """A batch that is not what it should be; the text is the nack's reason."""


def link(chain, before, after):
    """The chain after a record; a record that does not follow on what is here has its number from a copy of the box."""
    return BROKEN if chain == BROKEN or None not in (chain, before) and chain != before else after


class Hub:
    def __init__(self, db, client, prefix, waiting, trusts_itself):
        self.db, self.client, self.prefix = db, client, prefix
        self.waiting, self.trusts_itself = waiting, trusts_itself
        # New at each start: the database may have been put back to a copy while no hub ran. Agents answer with a hello.
        self.epoch = os.urandom(16).hex()
        self.asked = {}  # agent -> when it was last asked for a hello
        self.parts = {}  # agent -> (session, round, {part: items})

    # --- one transaction, then its answers

    def take(self, messages):
        """Commits what some messages say, and only then answers them."""
        answers, batches = [], {}
        with self.db:  # BEGIN IMMEDIATE ... COMMIT; nothing of it on an exception
            self.db.execute("BEGIN IMMEDIATE")
            for topic, payload, retained in messages:
                store, agent, *rest = topic[len(self.prefix) + 1 :].split("/")
                self.read((store, agent), rest, topic, payload, retained, answers, batches)
            for source, said in batches.items():
                answers += self.ack(source, said)
        for source, answer in answers:
            topic = f"{self.prefix}/{source[0]}/{source[1]}/down/ack"
            self.client.publish(topic, json.dumps({"wire": 1, **answer}), qos=1)

    def read(self, source, rest, topic, payload, retained, answers, batches):
        message = {}
        self.db.execute("SAVEPOINT message")
        try:
            message = json.loads(payload) if payload else {}
            if rest == ["state"]:
                # What the broker had kept from before we came: its agent does not know of our new epoch.
                if retained and message.get("state") == "online":
                    answers += self.want_hello(source)
            elif message["wire"] != 1:
                raise Refused("undecodable")
            elif rest == ["up", "hello"] and message["type"] == "hello":
                answers.append((source, self.hello(source, message)))
            elif rest == ["up", "positions"] and message["type"] == "positions":
                self.positions(source, message)
            elif message["type"] == "batch" and rest == ["up", message["first"]["lane"]]:
                self.batch(source, message)
                batches.setdefault(source, []).append(message)
            else:
                raise Refused("undecodable")
        except (Refused, *FOREIGN) as error:
            self.db.execute("ROLLBACK TO message")
            why = str(error) if isinstance(error, Refused) else "undecodable"
            if why == "ahead":
                answers += self.want_hello(source)
            else:  # kept for a person; the agent halves a batch that is refused, until one record stands alone
                self.db.execute("INSERT INTO rejects (store, agent, topic, why, bytes) VALUES (?, ?, ?, ?, ?)", (*source, topic, repr(error), payload))
                self.exception(source, "UNDECODABLE", topic)
            if isinstance(message, dict) and "session" in message and "first" in message:
                answers.append((source, {"type": "nack", "session": message["session"], "first": message["first"], "reason": why}))
        self.db.execute("RELEASE message")

    # --- what agents say

    def hello(self, source, hello):
        live = next((epoch["epoch"] for epoch in hello["epochs"] if epoch["live"]), None)
        known = self.db.execute("SELECT live FROM agents WHERE store = ? AND agent = ?", source).fetchone()
        before = known[0] if known else None
        if live and before and live != before:
            if self.db.execute("SELECT 1 FROM retired WHERE store = ? AND agent = ? AND epoch = ?", (*source, live)).fetchone():
                self.exception(source, "CLONE", f"epochs {live} and {before} speak in turn: two boxes have this agent's name")
            self.db.execute("INSERT OR IGNORE INTO retired VALUES (?, ?, ?)", (*source, before))
        self.db.execute(
            "INSERT INTO agents VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET session = excluded.session, live = coalesce(excluded.live, live)",
            (*source, hello["session"], live),
        )
        marks = []
        for epoch in hello["epochs"]:
            for head in epoch["lanes"]:
                key = (*source, epoch["epoch"], head["lane"])
                stored, _, _ = self.lane(key)
                for gone in head["gone"]:
                    first, last = gone["range"]["first"], gone["range"]["last"]
                    if last <= stored:
                        continue
                    row = (*key, first, last, gone["reason"], gone.get("chain_after"))
                    if self.db.execute("INSERT OR IGNORE INTO gone VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row).rowcount:
                        self.exception(source, "GONE", f"{key[2]}.{key[3]} {first} to {last}: {gone['reason']}")
                if head["last"] < stored:
                    self.exception(source, "ROLLBACK", f"{key[2]}.{key[3]}: {stored} is stored, the agent has {head['last']}")
                self.advance(key)
                marks.append(self.mark(key))
        return {
            "type": "welcome", "version": 1, "session": hello["session"], "round": hello["round"], "page": hello["page"],
            "hub_epoch": self.epoch, "marks": marks, "window": WINDOW, "credit": CREDIT,
        }  # fmt: skip

    def batch(self, source, batch):
        first, events = batch["first"], batch["records"]
        key = (*source, first["epoch"], first["lane"])
        stored, _, _ = self.lane(key)
        if first["seq"] + len(events) - 1 > stored + WINDOW:
            raise Refused("ahead")
        rows = []
        for seq, event in enumerate(events, first["seq"]):
            if (event["epoch"], event["lane"], int(event["sequence"])) != (*key[2:], seq):
                raise Refused("undecodable")
            rows.append((seq, event, base64.b64decode(event["stored"], validate=True)))
        if not rows or first["seq"] < 1:
            raise Refused("undecodable")
        for seq, event, raw in rows:
            self.store(key, seq, event, raw)
        self.advance(key)

    def store(self, key, seq, event, raw):
        """One record, once. The same place with another digest is a fork: kept beside the first."""
        digest, content, subject = event["recorddigest"], event["contentdigest"], event.get("subject")
        there = [row[0] for row in self.db.execute(f"SELECT digest FROM records WHERE {KEY} AND seq = ?", (*key, seq))]
        if digest in there:
            return
        status = "counted"
        if event["type"] not in TYPES:
            self.exception(key[:2], "UNKNOWN_KIND", event["type"])
        if there:
            status = "fork"
            self.exception(key[:2], "FORK", event["id"])
        elif subject:
            # A till's own number decides across epochs and boxes: the first that was stored counts.
            same = "SELECT content FROM records WHERE store = ? AND subject = ? AND status = 'counted'"
            counted = self.db.execute(same, (key[0], subject)).fetchone()
            if "conflictswith" in event or counted and counted[0] != content:
                status = "conflict"
                self.exception(key[:2], "CONFLICT", f"{event['id']}: another document is {subject}")
            elif counted:
                status = "duplicate"
        # For reading; the text as it was sent is the end of `bytes`.
        document = json.dumps(event["data"], ensure_ascii=False, separators=(",", ":")) if "data" in event else None
        self.db.execute(
            "INSERT INTO records (store, agent, epoch, lane, seq, digest, content, type, subject, business_day, recorded_at, document,"
            " bytes, chain_before, chain, status) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*key, seq, digest, content, event["type"], subject, event.get("businessday"), event["recordedtime"], document,
             raw, event.get("chainbefore"), event.get("chain"), status),
        )  # fmt: skip

    def positions(self, source, part):
        """A snapshot applies whole, in place of the one before; it is kept apart from the ledger."""
        session, number, parts = self.parts.get(source, (None, None, {}))
        if (session, number) != (part["session"], part["round"]):
            parts = {}
        parts[part["part"]] = part["items"]
        self.parts[source] = (part["session"], part["round"], parts)
        if len(parts) == part["parts"]:
            self.db.execute("DELETE FROM stock WHERE store = ? AND agent = ?", source)
            rows = [(*source, item["item_id"], item["unit"], item["on_hand"], item["delta"], part["taken_at"]) for items in parts.values() for item in items]
            self.db.executemany("INSERT OR REPLACE INTO stock VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            del self.parts[source]

    # --- lanes and marks

    def lane(self, key):
        self.db.execute("INSERT OR IGNORE INTO lanes VALUES (?, ?, ?, ?, 0, 0, NULL)", key)
        return self.db.execute(f"SELECT stored, safe, chain FROM lanes WHERE {KEY}", key).fetchone()

    def advance(self, key):
        """Moves `stored` over what is there without a hole, and over what the agent declared gone."""
        stored, _, chain = self.lane(key)
        while True:
            follow = f"SELECT seq, chain_before, chain FROM records WHERE {KEY} AND seq > ? AND status <> 'fork' ORDER BY seq"
            ahead = None
            for ahead, before, after in self.db.execute(follow, (*key, stored)):
                if ahead != stored + 1:
                    break
                stored, chain, ahead = ahead, link(chain, before, after), None
            gone = f"SELECT last, chain_after FROM gone WHERE {KEY} AND first <= ? AND last >= ? ORDER BY last DESC"
            row = self.db.execute(gone, (*key, stored + 1, stored + 1)).fetchone()
            if row is None:
                break
            stored = min(row[0], ahead - 1 if ahead else row[0])
            chain = BROKEN if chain == BROKEN else row[1] if stored == row[0] else None
        self.db.execute(f"UPDATE lanes SET stored = ?, chain = ? WHERE {KEY}", (stored, chain, *key))

    def mark(self, key):
        stored, safe, chain = self.lane(key)
        absent = []
        gone = f"SELECT first, min(last, ?) FROM gone WHERE {KEY} AND first <= ? ORDER BY first"
        for first, last in self.db.execute(gone, (stored, *key, stored)).fetchall():
            first = max(first, absent[-1]["last"] + 1 if absent else first)
            came = self.db.execute(f"SELECT seq FROM records WHERE {KEY} AND seq BETWEEN ? AND ? AND status <> 'fork' ORDER BY seq", (*key, first, last))
            for (seq,) in [*came, (last + 1,)]:
                if first < seq:
                    absent.append({"first": first, "last": seq - 1})
                first = seq + 1
        if len(absent) > ABSENT:
            absent[ABSENT - 1 :] = [{"first": absent[ABSENT - 1]["first"], "last": absent[-1]["last"]}]
        safe = stored if self.trusts_itself else min(safe, stored)
        return {"key": {"epoch": key[2], "lane": key[3]}, "stored": stored, "safe": safe, "ranges": [], "absent": absent, "chain": chain}

    def ack(self, source, batches):
        """What was committed, to the session that said hello. Another one has to say hello first."""
        known = self.db.execute("SELECT session FROM agents WHERE store = ? AND agent = ?", source).fetchone()
        session = known[0] if known else None
        answers = [] if all(batch["session"] == session for batch in batches) else self.want_hello(source)
        if session is None:
            return answers
        keys = {(*source, batch["first"]["epoch"], batch["first"]["lane"]) for batch in batches}
        taken = []
        for batch in batches:
            first = batch["first"]
            span = {"first": first["seq"], "last": first["seq"] + len(batch["records"]) - 1}
            if batch["session"] == session:
                taken.append({"key": {"epoch": first["epoch"], "lane": first["lane"]}, "range": span, "content": batch["content"]})
        credit = max(1, CREDIT * (QUEUE - self.waiting()) // QUEUE)
        marks = [self.mark(key) for key in sorted(keys)]
        return [*answers, (source, {"type": "ack", "session": session, "hub_epoch": self.epoch, "marks": marks, "taken": taken, "credit": credit})]

    def want_hello(self, source):
        now = time.monotonic()
        if now - self.asked.get(source, now - 5) < 5:
            return []
        self.asked[source] = now
        return [(source, {"type": "hello_wanted", "hub_epoch": self.epoch})]

    def exception(self, source, code, detail):
        self.db.execute("INSERT OR IGNORE INTO exceptions (store, agent, code, detail) VALUES (?, ?, ?, ?)", (*source, code, detail))


def open_ledger(path):
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")  # a commit is on the disk when it returns
    db.executescript(SCHEMA)
    return db


def run(options):
    waiting = queue.Queue(QUEUE)
    newer = getattr(mqtt, "CallbackAPIVersion", None)  # paho 2 asks which callbacks are meant; paho 1 has one kind
    name = f"hub-{os.urandom(6).hex()}"
    client = mqtt.Client(newer.VERSION1, name, clean_session=True) if newer else mqtt.Client(name, clean_session=True)
    client.enable_logger()
    if options.ca:
        client.tls_set(options.ca, options.cert, options.key)

    def connected(client, _, flags, code):
        if code != 0:
            print(f"the broker refused: {mqtt.connack_string(code)}", flush=True)
        client.subscribe([(f"{options.prefix}/+/+/up/+", 1), (f"{options.prefix}/+/+/state", 1)])

    client.on_connect = connected
    client.on_subscribe = lambda *_: print("listening", flush=True)
    client.on_message = lambda _, __, message: waiting.put((message.topic, message.payload, message.retain))
    hub = Hub(open_ledger(options.db), client, options.prefix, waiting.qsize, options.safe == "stored")
    host, _, port = options.broker.rpartition(":")
    client.connect_async(host, int(port), keepalive=30)
    client.reconnect_delay_set(1, 30)
    client.loop_start()
    while True:
        messages = [waiting.get()]
        while len(messages) < GROUP and not waiting.empty():
            messages.append(waiting.get())
        hub.take(messages)


def backup(options):
    """A copy that was read back whole is what a lost ledger would be restored from: `safe` is what it holds."""
    db, copy = open_ledger(options.db), sqlite3.connect(options.to)
    db.backup(copy)
    if copy.execute("PRAGMA integrity_check").fetchone() != ("ok",):
        sys.exit(f"{options.to} is damaged; nothing is called safe")
    lanes = copy.execute("SELECT stored, store, agent, epoch, lane FROM lanes").fetchall()
    copy.close()
    with open(options.to, "rb") as file:
        os.fsync(file.fileno())
    db.execute("BEGIN IMMEDIATE")
    db.executemany(f"UPDATE lanes SET safe = max(safe, ?) WHERE {KEY}", lanes)
    db.execute("COMMIT")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("run")
    command.set_defaults(run=run)
    command.add_argument("--broker", default="127.0.0.1:1883", help="host:port")
    command.add_argument("--prefix", default="counterfoil/v1")
    command.add_argument("--safe", choices=["stored", "backup"], default="stored", help="what agents may give back: all that is stored, or what a backup holds")
    for name in ["ca", "cert", "key"]:
        command.add_argument(f"--{name}", help="PEM file, for TLS")
    copying = commands.add_parser("backup")
    copying.set_defaults(run=backup)
    copying.add_argument("--to", required=True)
    for each in [command, copying]:
        each.add_argument("--db", default="hub.db")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
