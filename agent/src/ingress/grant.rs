//! Who calls, and what each may do: look, post, deal with exceptions; for every till, or for some.
//!
//! Invariant: pure. Who is bound to tills posts nothing of another one, and closes no day of the whole store. What the
//! calls do is deliberately not known here.

use std::collections::BTreeSet;
use std::path::Path;

use counterfoil_config::tokens::{Tokens, TokensError};
use counterfoil_proto::record::{Kind, Prepared};
use serde::Deserialize;

use super::reply::{Problem, problems};

/// What a line of the file is to be.
const FORM: &str = "`name token`, then if wanted `role=read`, `role=post` or `role=support` and `workstation=ID,ID`; with `-` as token the name is the \
                    common name of a client certificate";

/// Characters of a common name that is taken for a caller.
const COMMON_NAME_CHARS_MAX: usize = 64;

/// What a caller may do; each may what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look.
    Read,
    /// Post documents.
    Post,
    /// Say what was done about exceptions.
    Support,
}

/// What a caller may do, and for which tills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What.
    pub role: Role,
    /// The tills whose documents it may post; `None` for all.
    pub workstations: Option<BTreeSet<String>>,
}

impl Grant {
    /// Everything, for all tills.
    pub const ALL: Self = Self { role: Role::Support, workstations: None };

    /// What a till with a certificate may where no line says otherwise: its common name is its workstation.
    fn of_till(common_name: &str) -> Self {
        Self { role: Role::Post, workstations: Some(BTreeSet::from([common_name.to_owned()])) }
    }

    /// Of a line's words after the name. Who is bound to tills posts, others do everything, unless `role=` says otherwise.
    fn of_words<'a>(words: &[&'a str]) -> Option<(Option<&'a str>, Self)> {
        let (token, rest) = words.split_first()?;
        let (mut role, mut workstations) = (None, None);
        for word in rest {
            match word.split_once('=')? {
                ("role", name) if role.is_none() => {
                    role = Some(match name {
                        "read" => Role::Read,
                        "post" => Role::Post,
                        "support" => Role::Support,
                        _ => return None,
                    });
                }
                ("workstation", ids) if workstations.is_none() => {
                    let ids: BTreeSet<String> = ids.split(',').map(str::to_owned).collect();
                    workstations = Some(ids).filter(|ids| !ids.contains(""));
                    workstations.as_ref()?;
                }
                _ => return None,
            }
        }
        let usual = if workstations.is_some() { Role::Post } else { Role::Support };
        Some(((*token != "-").then_some(*token), Self { role: role.unwrap_or(usual), workstations }))
    }

    /// Whether it may post the document.
    pub fn may_post(&self, prepared: &Prepared) -> Result<(), Problem> {
        /// A document was judged before: the field is there once or not at all, and is text.
        #[derive(Deserialize)]
        struct Of {
            workstation_id: Option<String>,
        }
        let Some(own) = &self.workstations else { return Ok(()) };
        let is_own = match serde_json::from_slice::<Of>(&prepared.document) {
            Ok(Of { workstation_id: Some(id) }) => own.contains(&id),
            // A movement of stock is nobody's; a close without a till is everybody's.
            Ok(Of { workstation_id: None }) => prepared.kind != Kind::DAY_CLOSE,
            Err(_) => false,
        };
        if is_own {
            return Ok(());
        }
        Err(problems::WRONG_WORKSTATION.detail(
            "Who sent this may post for its own tills only (`workstation=` in `ingress.tokens_file`, or the common name of its \
             certificate). Nothing was recorded",
        ))
    }
}

/// Reads who may call.
pub fn read(path: &Path) -> Result<Tokens<Grant>, TokensError> {
    Tokens::read(path, FORM, Grant::of_words)
}

/// Who calls; for logs and for limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The name beside its token, or the common name of its certificate; `None` where nobody asks who it is.
    pub name: Option<String>,
    /// What it may do.
    pub grant: Grant,
}

impl Caller {
    /// Nobody asks who it is: loopback or the Unix socket without tokens configured.
    pub const LOCAL: Self = Self { name: None, grant: Grant::ALL };

    /// Who has that certificate.
    pub(super) fn of_certificate(common_name: &str, tokens: Option<&Tokens<Grant>>) -> Option<Self> {
        let is_name = !common_name.is_empty()
            && common_name.chars().count() <= COMMON_NAME_CHARS_MAX
            && !common_name.chars().any(char::is_control);
        let listed = tokens.and_then(|tokens| tokens.without_token(common_name)).cloned();
        let grant = listed.unwrap_or_else(|| Grant::of_till(common_name));
        is_name.then(|| Self { name: Some(common_name.to_owned()), grant })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<Tokens<Grant>, TokensError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path())
    }

    fn grant_of(role: Role, workstations: &[&str]) -> Grant {
        Grant { role, workstations: Some(workstations.iter().map(|id| (*id).to_owned()).collect()) }
    }

    #[test]
    fn a_file_of_tokens_is_refused_by_line_without_repeating_it() {
        for text in [
            "till1 short",
            "till1",
            "till1 0123456789abcdef x",
            "till1 0123456789abcdef role=king",
            "till1 0123456789abcdef role=post role=post",
            "till1 0123456789abcdef workstation=",
            "till1 0123456789abcdef workstation=3,,4",
            "a 0123456789abcdef\na 1123456789abcdef",
            "a 0123456789abcdef\nb 0123456789abcdef",
        ] {
            let error = tokens(text).unwrap_err();
            let message = error.to_string();
            assert!(matches!(error, TokensError::Line { .. }), "{text}");
            assert!(message.contains("write `name token`") && !message.contains("short"), "{message}");
        }
        assert!(matches!(tokens("# none\n"), Err(TokensError::Empty { .. })));
    }

    #[test]
    fn a_line_says_what_a_caller_may_do_and_for_which_tills() {
        let text = "# tills\npos 0123456789abcdef0\n\ntill3 0123456789abcdef3 workstation=3\nlane 0123456789abcdef4 workstation=4,5 role=read\n\
            7 -\ntablet - role=support workstation=8\n";
        let tokens = tokens(text).unwrap();
        let grant = |token: &str| tokens.find(token.as_bytes()).map(|(name, grant)| (name.to_owned(), grant.clone()));
        assert_eq!(grant("0123456789abcdef0"), Some(("pos".to_owned(), Grant::ALL)));
        let till3 = grant_of(Role::Post, &["3"]);
        assert_eq!(grant("0123456789abcdef3"), Some(("till3".to_owned(), till3)));
        let lane = grant_of(Role::Read, &["4", "5"]);
        assert_eq!(grant("0123456789abcdef4"), Some(("lane".to_owned(), lane)));
        // A certificate's line is not found by a token, nor a token's by a certificate.
        assert_eq!(grant("-"), None);
        let certified = |name| Caller::of_certificate(name, Some(&tokens)).map(|caller| caller.grant);
        assert_eq!(certified("7"), Some(Grant::ALL));
        assert_eq!(certified("tablet"), Some(grant_of(Role::Support, &["8"])));
        assert_eq!(certified("pos"), Some(Grant::of_till("pos")));
        assert_eq!(certified("9"), Some(grant_of(Role::Post, &["9"])));
        assert_eq!((certified(""), certified("a\nb")), (None, None));
    }
}
