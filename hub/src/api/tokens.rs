//! Who may call the API: bearer tokens with roles, from a file.
//!
//! Invariant: only hashes of tokens are kept, and they are compared in constant time; which one matched is told by its name alone.

use std::path::Path;

/// Bytes of a token; a shorter one can be guessed.
const TOKEN_BYTES_MIN: usize = 16;

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

/// The callers.
#[derive(Clone, Debug)]
pub struct Tokens {
    callers: Vec<Caller>,
}

#[derive(Clone, Debug)]
struct Caller {
    name: String,
    role: Role,
    hash: blake3::Hash,
}

impl Tokens {
    /// Reads lines of `name role token`; empty lines and those that begin with `#` are left out.
    pub fn read(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|error| format!("cannot be read: {error}"))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut callers = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = index + 1;
            let mut words = line.split_whitespace();
            let (Some(name), Some(role), Some(token), None) = (words.next(), words.next(), words.next(), words.next())
            else {
                return Err(format!("has a line {at} that is not `name role token`"));
            };
            let role = match role {
                "read" => Role::Read,
                "support" => Role::Support,
                "admin" => Role::Admin,
                _ => return Err(format!("names in line {at} a role that is not read, support or admin")),
            };
            if token.len() < TOKEN_BYTES_MIN {
                return Err(format!("has in line {at} a token of less than {TOKEN_BYTES_MIN} characters"));
            }
            callers.push(Caller { name: name.to_owned(), role, hash: blake3::hash(token.as_bytes()) });
        }
        if callers.is_empty() { Err("names nobody".to_owned()) } else { Ok(Self { callers }) }
    }

    /// Name and role of who holds `token`. `blake3::Hash` compares in constant time, and every caller is compared.
    pub fn find(&self, token: &str) -> Option<(&str, Role)> {
        let hash = blake3::hash(token.as_bytes());
        let mut found = None;
        for caller in &self.callers {
            if caller.hash == hash {
                found = Some((caller.name.as_str(), caller.role));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_by_content_and_bad_files_are_refused() {
        let tokens = Tokens::parse("# people\n\nana admin 0123456789abcdef\nbi read fedcba9876543210\n").unwrap();
        assert_eq!(tokens.find("0123456789abcdef"), Some(("ana", Role::Admin)));
        assert_eq!(tokens.find("fedcba9876543210"), Some(("bi", Role::Read)));
        assert_eq!(tokens.find("0123456789abcdee"), None);
        for bad in ["", "ana admin", "ana king 0123456789abcdef", "ana read short"] {
            assert!(Tokens::parse(bad).is_err(), "{bad}");
        }
    }
}
