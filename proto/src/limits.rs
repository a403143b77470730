//! The bounds of the protocol and of the retail model, each with its unit, its reason, and what happens when it is reached.
//!
//! Invariant: the relations between them are checked by the compiler, at the end of this file.

/// Bytes of one stored record. A document may have 1 MiB; flags and envelope come on top. A larger document is refused
/// with 413 before it gets a sequence number.
pub const RECORD_BYTES_MAX: usize = DOCUMENT_BYTES_MAX + 64 * 1024;

/// Bytes of one submitted document; a larger one is refused with 413.
pub const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;

/// Line items of one document; more are refused with 422.
pub const LINE_ITEMS_MAX: usize = 5_000;

/// Tenders of one transaction; more are refused with 422.
pub const TENDERS_MAX: usize = 64;

/// Entries of `attributes`; more are refused with 422.
pub const ATTRIBUTES_MAX: usize = 32;

/// Flags of one record; further findings of the same document are not listed. Most codes are flagged once a document; what is told line
/// by line leaves room for [`FLAGS_KEPT`] others.
pub const FLAGS_MAX: usize = 1_024;

/// Flags that findings which are told line by line leave for the others.
pub const FLAGS_KEPT: usize = 64;

/// Characters of an identifier in a document (`document_id`, `workstation_id`, `item_id` …).
pub const IDENTIFIER_CHARS_MAX: usize = 64;

/// Records of one batch. Keeps the hub's transaction for a batch short; the sender starts a new batch.
pub const BATCH_RECORDS_MAX: usize = 512;

/// Bytes of a batch's records before compression, unless one single record is larger. Bounds what a receiver has to
/// hold; the sender starts a new batch.
pub const BATCH_BYTES_TARGET: usize = 128 * 1024;

/// Bytes of a batch before compression that a receiver accepts: one record of the greatest length and its framing.
/// Anything that claims more is not decompressed but refused (`Nack::TooLarge`).
pub const BATCH_BYTES_MAX: usize = RECORD_BYTES_MAX + 64;

/// Bytes of one MQTT publish in either direction, also set as the client's packet limit. A packet above it ends the connection.
pub const PUBLISH_BYTES_MAX: usize = RECORD_BYTES_MAX + 32 * 1024;

/// Bytes of one MQTT publish of a batch in JSON: the longest document, the stored bytes in base64 beside it, and the attributes. Where
/// JSON is spoken, the broker and the hub must take as much.
pub const JSON_PUBLISH_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Bytes of a batch's records where JSON is spoken, unless one single record is larger: about three times as many cross the line, uncompressed.
pub const JSON_BATCH_BYTES_TARGET: usize = 32 * 1024;

/// Batches in flight on one session, all lanes together; the sender waits for an ack.
pub const WINDOW_BATCHES_MAX: u32 = 64;

/// How far above `stored` a lane may run, in sequence numbers: what the receiver keeps in ranges, and what the sender stays
/// within. What lies beyond is dropped by the receiver and asked for again.
pub const WINDOW_SEQS_MAX: u64 = 32 * 1024;

/// Ranges above `stored` in an ack. They only suppress resending, so the rest may be left out.
pub const ACK_RANGES_MAX: usize = 32;

/// Ranges above `stored` that the receiver keeps per lane; a batch that would open one more is dropped, and comes again.
pub const RECEIVER_RANGES_MAX: usize = 256;

/// Epochs in one page of a hello; more go on the next page.
pub const HELLO_EPOCHS_MAX: usize = 64;

/// Statements of `gone` in one page of a hello; more go on the next page.
pub const HELLO_GONE_MAX: usize = 64;

/// Lanes in one page of a welcome or in one ack; more go into the next.
pub const MARKS_MAX: usize = HELLO_EPOCHS_MAX * 3;

/// Stock items in one part of a positions snapshot; more go into the next part.
pub const POSITIONS_ITEMS_MAX: usize = 2_000;

/// Milliseconds without a word from the hub after which the credit lapses to one batch: enough to find out whether the hub
/// lives, too little to drown it.
pub const CREDIT_LAPSE_MS: u64 = 30_000;

/// Milliseconds between two hellos of one session, before jitter of a tenth either way. It bounds how long a hub that was
/// restored from a backup stays unnoticed on an idle lane.
pub const HELLO_INTERVAL_MS: u64 = 600_000;

/// Milliseconds after which an unanswered hello is repeated, before jitter.
pub const HELLO_RETRY_MS: u64 = 5_000;

/// Milliseconds without progress of `stored` on a lane with records in flight, after which they are sent again, before jitter; doubled
/// at each further round up to [`RESEND_MS_MAX`].
pub const RESEND_MS_MIN: u64 = 5_000;

/// The longest wait between two rounds of sending the same records again.
pub const RESEND_MS_MAX: u64 = 60_000;

const _: () = {
    assert!(RECORD_BYTES_MAX > DOCUMENT_BYTES_MAX);
    // A code and a pointer to a line take under forty bytes.
    assert!(FLAGS_MAX * 48 < RECORD_BYTES_MAX - DOCUMENT_BYTES_MAX && FLAGS_KEPT < FLAGS_MAX);
    assert!(RECORD_BYTES_MAX < BATCH_BYTES_MAX, "one record always fits a batch");
    assert!(BATCH_BYTES_TARGET < BATCH_BYTES_MAX);
    // zstd's worst case grows incompressible input by under 1/255 and 64 bytes; the batch header and the topic come on top.
    assert!(BATCH_BYTES_MAX + BATCH_BYTES_MAX / 255 + 1024 <= PUBLISH_BYTES_MAX, "every batch fits a publish");
    // Base64 makes four of three; identity, correlation and flags stand in the stored bytes too, and are bounded by them.
    assert!(RECORD_BYTES_MAX / 3 * 4 + DOCUMENT_BYTES_MAX + 2 * 64 * 1024 + 4096 <= JSON_PUBLISH_BYTES_MAX);
    assert!(ACK_RANGES_MAX <= RECEIVER_RANGES_MAX);
    assert!(RESEND_MS_MIN < RESEND_MS_MAX);
};
