//! The agent's metrics: names, forms, labels and help.
//!
//! Invariant: what stands here is for ever: others' alerts and dashboards read it. A meaning that changes gets a new name.
//! `config/prometheus/metrics.md` is made of this table, and a test compares.

counterfoil_telemetry::families! {
    INFO: Gauge "counterfoil_info" ["version", "store_id", "agent_id", "journal_format", "wire"] "What runs here; always 1.";
    READY: Gauge "counterfoil_ready" [] "Whether documents are accepted.";
    MODE: Gauge "counterfoil_mode" ["mode"] "1 for what the agent does now: accepting, full (nothing new until the hub has taken over enough), drain_only (the disk failed).";
    UPTIME: Gauge "counterfoil_uptime_seconds" [] "Since the start.";
    CLOCK_SYNCHRONISED: Gauge "counterfoil_clock_synchronised" [] "Whether the wall clock is vouched for.";
    CLOCK: Gauge "counterfoil_clock_state" ["state"] "1 for what the wall clock is: synchronised, unsynchronised, behind (before the build, or the newest record).";
    TIME: Gauge "counterfoil_time_seconds" [] "The wall clock, in seconds since 1970, up to half a second ago.";
    EXCEPTIONS_OPEN: Gauge "counterfoil_exceptions_open" [] "Exceptions that wait for a person.";
    EXCEPTIONS: Gauge "counterfoil_exceptions_open_by_code" ["class", "code", "severity", "owner"] "The same, by what was found and who deals with it; absent while the journal's thread does not answer.";
    EXCEPTIONS_AGE: Gauge "counterfoil_exceptions_oldest_age_seconds" ["class", "code", "severity", "owner"] "Age of the oldest of each.";
    DAY_STANDING: Gauge "counterfoil_day_standing" ["standing"] "1 for how today's close stands by this box's own count: matched, unknown (nothing recorded), open, over, short.";
    RECORDED: Counter "counterfoil_documents_recorded_total" [] "Documents recorded since the start.";
    DUPLICATES: Counter "counterfoil_documents_duplicate_total" [] "Documents that had been recorded before.";
    CONFLICTS: Counter "counterfoil_documents_conflict_total" [] "Documents with the identity of another.";
    REFUSED: Counter "counterfoil_documents_refused_total" ["problem"] "Documents or bodies that were not recorded, by problem.";
    LANE_HEAD: Gauge "counterfoil_lane_head" ["lane"] "The last number that was given in the live epoch.";
    LANE_SENT: Gauge "counterfoil_lane_sent" ["lane"] "The last number handed to MQTT in this session.";
    LANE_STORED: Gauge "counterfoil_lane_stored" ["lane"] "The last number that the hub committed, with all before it.";
    LANE_SAFE: Gauge "counterfoil_lane_safe" ["lane"] "The last number in the hub's verified backup, with all before it.";
    LANE_WAITING: Gauge "counterfoil_lane_waiting_records" ["lane"] "Records that the hub has not committed, of all epochs.";
    LANE_OLDEST: Gauge "counterfoil_lane_oldest_unsent_age_seconds" ["lane"] "Age of the oldest of them; absent where none waits.";
    UPLINK_CONNECTED: Gauge "counterfoil_uplink_connected" [] "Whether the broker accepted the connection.";
    UPLINK_WELCOMED: Gauge "counterfoil_uplink_welcomed" [] "Whether the hub answered in this session.";
    UPLINK_ATTEMPTS: Gauge "counterfoil_uplink_attempts" [] "Attempts since the hub's last word; 0 while it answers.";
    UPLINK_LAST_WORD: Gauge "counterfoil_uplink_last_word_timestamp_seconds" [] "When the hub last spoke, in seconds since 1970; absent where it has not since the start.";
    UPLINK_CONNECTIONS: Counter "counterfoil_uplink_connections_total" [] "Connections to the broker since the start.";
    BATCHES_SENT: Counter "counterfoil_uplink_batches_sent_total" [] "Batches published.";
    BATCHES_RESENT: Counter "counterfoil_uplink_batches_resent_total" [] "Batches published again.";
    BYTES_SENT: Counter "counterfoil_uplink_sent_bytes_total" [] "Bytes of batches after compression.";
    CONTESTED: Gauge "counterfoil_uplink_contested_lanes" [] "Lanes under whose numbers the hub has records of another box.";
    UPLINK_REVOKED: Gauge "counterfoil_uplink_revoked" [] "Whether head office takes nothing from this box, because its identity was revoked.";
    CERTIFICATE_VALID: Gauge "counterfoil_certificate_valid" [] "Whether the certificate for the broker is there, not expired and not revoked; absent without one.";
    CERTIFICATE_RENEWALS: Counter "counterfoil_certificate_renewals_total" [] "Renewals of that certificate.";
    CERTIFICATE_FAILURES: Counter "counterfoil_certificate_failures_total" [] "Renewals of that certificate that failed.";
    JOURNAL_BYTES: Gauge "counterfoil_journal_bytes" [] "The journal with its side files and ballast.";
    JOURNAL_BYTES_MAX: Gauge "counterfoil_journal_bytes_max" [] "What the journal may take.";
    JOURNAL_SEGMENTS: Gauge "counterfoil_journal_segments" [] "Segments in the journal.";
    JOURNAL_FULL: Gauge "counterfoil_journal_full" [] "Whether new records are refused because the disk is full.";
    JOURNAL_WRITTEN: Counter "counterfoil_journal_written_bytes_total" [] "Bytes written to journal files.";
    JOURNAL_SYNCS: Counter "counterfoil_journal_syncs_total" [] "Syncs of the journal.";
    JOURNAL_COMMITS: Histogram "counterfoil_journal_commit_seconds" [] "Durations of group commits: from the write of a group of records to the end of its sync, which is what a till waits for.";
    DISK_FREE: Gauge "counterfoil_disk_free_bytes" [] "Free bytes of the file system.";
    HTTP_CONNECTIONS: Gauge "counterfoil_http_connections" [] "Open connections of tills.";
    HTTP_GIVEN_UP: Counter "counterfoil_http_connections_given_up_total" [] "Idle or slow connections that had to make room.";
    HTTP_TURNED_AWAY: Counter "counterfoil_http_connections_turned_away_total" [] "Connections for which there was no room.";
    HTTP_CONNECTIONS_REFUSED: Counter "counterfoil_http_connections_refused_total" [] "Connections of peers that opened too many of them in a short time.";
    HTTP_SHUT_OUT: Counter "counterfoil_http_peers_shut_out_total" [] "Times that a peer which went on opening connections was not heard for a while.";
    HTTP_HANDSHAKES_FAILED: Counter "counterfoil_http_handshakes_failed_total" [] "Connections on which TLS was not agreed on.";
    HTTP_RESPONSES: Counter "counterfoil_http_responses_total" ["route", "status"] "Answers by call and status.";
    HTTP_REFUSED: Counter "counterfoil_http_requests_refused_total" ["problem"] "Requests that were answered with a problem, by its name.";
    SPOOL_TAKEN: Counter "counterfoil_spool_files_taken_total" [] "Files taken out of the spool directory.";
    SPOOL_REFUSED: Counter "counterfoil_spool_files_refused_total" [] "Files that ended in failed/: something in them was refused, or they held nothing.";
    SPOOL_DOCUMENTS: Counter "counterfoil_spool_documents_total" [] "Documents in files that were answered, whatever the answer.";
    SPOOL_RENAMED: Counter "counterfoil_spool_files_renamed_total" [] "Files whose name was not UTF-8, taken under a name that is.";
    SPOOL_WAITING: Gauge "counterfoil_spool_files_waiting" [] "Finished files that are not answered yet.";
    SPOOL_OLDEST: Gauge "counterfoil_spool_oldest_file_age_seconds" [] "Age of the oldest of them by its last change; 0 where none waits.";
    CERTIFICATE: Gauge "counterfoil_certificate_expires_seconds" ["file"] "When the certificate in a configured file expires, in seconds since 1970; absent where it cannot be read.";
    LOG_SUPPRESSED: Counter "counterfoil_log_lines_suppressed_total" [] "Log lines that were left out because one place wrote too many.";
}
