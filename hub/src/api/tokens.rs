//! Who may call the API: bearer tokens with roles, from a file.

use std::path::Path;

use counterfoil_config::tokens::TokensError;

/// The callers, each with its role.
pub type Tokens = counterfoil_config::tokens::Tokens<Role>;

/// What a line of the file is to be.
const FORM: &str = "`name role token` with read, support or admin for the role";

/// What a caller may do; each may what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look.
    Read,
    /// Act on exceptions.
    Support,
    /// Everything.
    Admin,
}

impl Role {
    /// As it stands in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Support => "support",
            Self::Admin => "admin",
        }
    }
}

/// Reads lines of `name role token`; empty lines and those that begin with `#` are left out.
pub fn read(file: &Path) -> Result<Tokens, TokensError> {
    Tokens::read(file, FORM, |words| {
        let [role, token] = words else { return None };
        let role = [Role::Read, Role::Support, Role::Admin].into_iter().find(|known| known.as_str() == *role)?;
        Some((Some(*token), role))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Tokens, TokensError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path())
    }

    #[test]
    fn tokens_are_found_by_content_and_bad_files_are_refused() {
        let tokens = parse("# people\n\nana admin 0123456789abcdef\nbi read fedcba9876543210\n").unwrap();
        assert_eq!(tokens.find(b"0123456789abcdef"), Some(("ana", &Role::Admin)));
        assert_eq!(tokens.find(b"fedcba9876543210"), Some(("bi", &Role::Read)));
        assert_eq!(tokens.find(b"0123456789abcdee"), None);
        for bad in ["", "ana admin", "ana king 0123456789abcdef", "ana read short", "ana read -"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
