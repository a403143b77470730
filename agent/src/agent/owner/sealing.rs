//! Control totals after each close.
//!
//! Invariant: they are made when everything before them is synced and folded, and nothing waits: what they say was counted, and the chains
//! that they state, are of the same moment. A close without them gets them at the next chance, also after a restart.

use counterfoil_proto::record::Kind;
use counterfoil_proto::record::control_totals::{ALGORITHM, EpochHeads, LaneHead, signed_bytes};
use serde_json::{Value, json};
use tracing::error;

use super::{Mode, Owner, fatal};
use crate::agent::group::{Group, StagingError};
use crate::agent::notes::Note;
use crate::answer::CurrencyTotals;
use crate::error::ExitError;
use crate::journal::JournalError;
use crate::state::CloseToSeal;

/// Epochs whose heads are stated; a day has as many as the agent had starts.
const EPOCHS_MAX: usize = 64;

/// Of the document without what each till counted, at the most; a record has room for twice as much.
const DOCUMENT_BYTES_MAX: usize = 512 * 1024;

impl Owner {
    /// Writes control totals for every close that has none.
    pub(super) fn seal_closes(&mut self) -> Result<(), ExitError> {
        let mut last = None;
        while self.mode == Mode::Accepting
            && let Some(close) = self.state.close_to_seal()
        {
            if last.replace(close.key) == Some(close.key) {
                error!(record = %close.key.correlation_id(), "control totals were written and not taken in");
                break;
            }
            if self.refusal()?.is_some() {
                break;
            }
            let note = self.control_totals(close);
            let mut group = Group::default();
            match self.stage(&mut group, |stager, group| stager.note(group, note.clone())) {
                Ok(_) => self.finish(&mut group)?,
                Err(StagingError::Journal(JournalError::Full)) => self.full(&mut group),
                Err(error) => return Err(fatal(error)),
            }
        }
        Ok(())
    }

    fn control_totals(&self, close: CloseToSeal) -> Note {
        let views = self.journal.lanes();
        let heads = views.iter().skip(views.len().saturating_sub(EPOCHS_MAX)).map(|view| EpochHeads {
            epoch: view.epoch,
            lanes: view
                .lanes
                .iter()
                .map(|lane| LaneHead { lane: lane.lane, last: lane.last, chain: lane.after })
                .collect(),
        });
        let mut document = json!({
            "number": close.previous.map_or(0, |previous| previous.number).saturating_add(1),
            "closes": close.key,
            "business_day_date": close.business_day_date,
            "workstation_id": close.workstation_id,
            "declared": close.declared,
            "computed": close.computed,
            "perpetual": close.perpetual,
            "epochs": heads.collect::<Vec<_>>(),
            "previous": close.previous,
            "software": crate::SOFTWARE,
            "made_at": self.env.wall().to_rfc3339(),
            "algorithm": ALGORITHM,
            "public_key": self.device.public_key(),
        });
        if document.to_string().len() > DOCUMENT_BYTES_MAX {
            // The sums stay; what each of very many tills counted is in the ledger.
            let sums = close.computed.iter().map(|totals| CurrencyTotals { tills: Vec::new(), ..totals.clone() });
            document["computed"] = json!(sums.collect::<Vec<_>>());
            document["declared"] = Value::Null;
        }
        let signed = signed_bytes(document.to_string().as_bytes()).unwrap_or_default();
        document["signature"] = json!(self.device.sign(&signed));
        let correlation_id = close.correlation_id;
        Note { kind: Kind::CONTROL_TOTALS, document, flag: None, correlation_id, urgent: true }
    }
}
