//! The hub's metrics: names, forms, labels and help.
//!
//! Invariant: what stands here is for ever: others' alerts and dashboards read it. A meaning that changes gets a new name.
//! `config/prometheus/metrics.md` is made of this table, and a test compares. A store has some twenty series; nothing else grows with the fleet.

counterfoil_telemetry::families! {
    INFO: Gauge "counterfoil_hub_info" ["version", "wire"] "What runs here; always 1.";
    UPTIME: Gauge "counterfoil_hub_uptime_seconds" [] "Since the start.";
    BATCHES: Counter "counterfoil_hub_batches_total" [] "Batches taken in by this process.";
    RECORDS: Counter "counterfoil_hub_records_total" [] "Records that were new.";
    DUPLICATES: Counter "counterfoil_hub_duplicates_total" [] "Records that were there already.";
    FORKS: Counter "counterfoil_hub_forks_total" [] "Records under a number that another has.";
    TRANSACTIONS: Counter "counterfoil_hub_transactions_total" [] "Transactions of intake.";
    HELLOS: Counter "counterfoil_hub_hellos_total" [] "Hello pages answered.";
    ACKS: Counter "counterfoil_hub_acks_total" [] "Acks published.";
    NACKS: Counter "counterfoil_hub_nacks_total" [] "Batches refused.";
    TURNED_AWAY: Counter "counterfoil_hub_turned_away_total" [] "Messages of agents whose identity was revoked.";
    UNDECODABLE: Counter "counterfoil_hub_undecodable_total" [] "Messages that do not decode.";
    DROPPED: Counter "counterfoil_hub_dropped_total" [] "Messages dropped because the receiver did not keep up; agents send them again.";
    LEDGER_FAILURES: Counter "counterfoil_hub_ledger_failures_total" [] "Failed attempts at the ledger.";
    COMMITS: Histogram "counterfoil_hub_commit_seconds" [] "Durations of transactions of intake, with their waits.";
    BROKER_CONNECTED: Gauge "counterfoil_hub_broker_connected" [] "Whether the broker accepted the subscriptions.";
    LEDGER_REACHABLE: Gauge "counterfoil_hub_ledger_reachable" [] "Whether the ledger answered; where not, all that follows of ledger, outbox and stores is absent.";
    LEDGER_AGENTS: Gauge "counterfoil_hub_ledger_agents" [] "Agents that ever spoke.";
    LEDGER_ONLINE: Gauge "counterfoil_hub_ledger_agents_online" [] "Agents whose presence is online.";
    LEDGER_RECORDS: Gauge "counterfoil_hub_ledger_records" [] "Records stored.";
    LEDGER_DUPLICATES: Gauge "counterfoil_hub_ledger_duplicates" [] "Records that came again.";
    LEDGER_FORKS: Gauge "counterfoil_hub_ledger_forks" [] "Records under a number that another has.";
    LEDGER_LAG: Gauge "counterfoil_hub_ledger_lag_records" [] "Records known of but not stored.";
    LEDGER_UNSAFE: Gauge "counterfoil_hub_ledger_unsafe_records" [] "Records stored but in no verified backup.";
    LEDGER_UNSAFE_AGE: Gauge "counterfoil_hub_ledger_unsafe_oldest_age_seconds" [] "Age of the oldest of them, since it was stored; 0 where there is none.";
    LEDGER_POSITION: Gauge "counterfoil_hub_ledger_last_position" [] "The last position that was given.";
    LEDGER_UNPOSTED: Gauge "counterfoil_hub_ledger_unposted_records" [] "Records stored that have no position yet.";
    LEDGER_UNPOSTED_AGE: Gauge "counterfoil_hub_ledger_unposted_oldest_age_seconds" [] "Age of the oldest of them, since it was stored; 0 where there is none.";
    LEDGER_RESTORES: Gauge "counterfoil_hub_ledger_restores" [] "How often the ledger was found to have gone back to a backup.";
    LEDGER_EXCEPTIONS: Gauge "counterfoil_hub_ledger_exceptions_open" [] "Exceptions that are open.";
    EXCEPTIONS: Gauge "counterfoil_hub_exceptions_open_by_code" ["class", "code", "severity", "owner"] "The same, by what was found and who deals with it.";
    EXCEPTIONS_AGE: Gauge "counterfoil_hub_exceptions_oldest_age_seconds" ["class", "code", "severity", "owner"] "Age of the oldest of each.";
    EXCEPTIONS_AGEING: Gauge "counterfoil_hub_exceptions_open_by_age" ["age"] "Open exceptions by age, each once: under_1h, under_1d, under_7d, older.";
    OUTBOX: Gauge "counterfoil_hub_outbox_letters" [] "Letters to webhooks that wait.";
    OUTBOX_FAILING: Gauge "counterfoil_hub_outbox_letters_failing" [] "Of these, those that a webhook did not take.";
    OUTBOX_OLDEST: Gauge "counterfoil_hub_outbox_oldest_seconds" [] "Age of the oldest letter that waits; 0 where none does.";
    STORE_INFO: Gauge "counterfoil_hub_store_info" ["store_id", "region"] "The stores that are known of, with the region of the configuration; always 1.";
    STORE_SILENT: Gauge "counterfoil_hub_store_silent" ["store_id"] "Whether an agent of the store is offline or was not heard of for a quarter of an hour, so that nobody knows what it sells.";
    STORE_LAST_WORD: Gauge "counterfoil_hub_store_last_word_age_seconds" ["store_id"] "Since the store's last word; absent where it never spoke.";
    STORE_LAG: Gauge "counterfoil_hub_store_lag_records" ["store_id"] "Records known of and not here; absent while the store is silent.";
    STORE_LAG_AGE: Gauge "counterfoil_hub_store_lag_seconds" ["store_id"] "Since the newest record was recorded that is here with all before it; 0 where nothing is missing, absent where it is not known.";
    STORE_AGENTS: Gauge "counterfoil_hub_store_agents" ["store_id"] "Agents of the store that ever spoke.";
    STORE_ONLINE: Gauge "counterfoil_hub_store_agents_online" ["store_id"] "Of these, those whose presence is online.";
    STORE_SUSPENDED: Gauge "counterfoil_hub_store_agents_suspended" ["store_id"] "Of these, those that two boxes claim to be.";
    STORE_RECORDS: Counter "counterfoil_hub_store_records_total" ["store_id"] "Records of the store that are in the ledger.";
    STORE_DUPLICATES: Counter "counterfoil_hub_store_duplicates_total" ["store_id"] "Records of the store that came again.";
    STORE_FORKS: Counter "counterfoil_hub_store_forks_total" ["store_id"] "Records of the store under a number that another has.";
    STORE_EXCEPTIONS: Gauge "counterfoil_hub_store_exceptions_open" ["store_id", "severity"] "Open exceptions of the store by severity.";
    STORE_EXCEPTION_AGE: Gauge "counterfoil_hub_store_oldest_exception_age_seconds" ["store_id"] "Age of the oldest of them; absent where there is none.";
    STORE_DAY: Gauge "counterfoil_hub_store_day_status" ["store_id", "day", "status"] "1 for how the store's today and yesterday (UTC) stand: matched, unknown, open, pending, late_after_close, over, short; looked at every five minutes, absent where nothing came.";
    CERTIFICATE: Gauge "counterfoil_certificate_expires_seconds" ["file"] "When the certificate in a configured file expires, in seconds since 1970; absent where it cannot be read.";
    LOG_SUPPRESSED: Counter "counterfoil_log_lines_suppressed_total" [] "Log lines that were left out because one place wrote too many.";
}
