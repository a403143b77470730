//! Files that say who may call an API: one caller a line, known by a bearer token.
//!
//! Invariant: of a token only its hash is kept; hashes are compared in constant time, and always all of them. No message repeats a line,
//! which may hold a token. What a caller may do is each program's own word, and not known here.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Bytes of such a file; it holds some dozens of short lines.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Characters that a token must have at least: 96 bits in base 64.
pub const TOKEN_CHARS_MIN: usize = 16;

/// The callers; `G` is what one may do.
#[derive(Clone)]
pub struct Tokens<G> {
    callers: Vec<Caller<G>>,
}

#[derive(Clone)]
struct Caller<G> {
    name: String,
    /// `None` where it is known otherwise than by a token.
    hash: Option<blake3::Hash>,
    grant: G,
}

/// The file cannot be taken.
#[derive(Debug)]
pub enum TokensError {
    /// It cannot be read.
    File {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line is not what it should be.
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What to write.
        form: &'static str,
    },
    /// Nobody could call.
    Empty {
        /// The file.
        path: PathBuf,
        /// What to write.
        form: &'static str,
    },
}

impl fmt::Display for TokensError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => write!(formatter, "Cannot read the tokens from {}", path.display()),
            Self::Line { path, line, form } => write!(
                formatter,
                "{}:{line}: write {form}, each name and each token once, a token of at least {TOKEN_CHARS_MIN} visible ASCII characters",
                path.display()
            ),
            Self::Empty { path, form } => write!(formatter, "{} names nobody; write {form}", path.display()),
        }
    }
}

impl std::error::Error for TokensError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } => Some(source),
            Self::Line { .. } | Self::Empty { .. } => None,
        }
    }
}

impl<G> Tokens<G> {
    /// Reads a caller a line; empty lines and those that begin with `#` are passed over. The first word is the name; `read_rest` makes of
    /// the others the token (`None` for a caller that is known otherwise) and what it may do, or `None` where they are not of the `form`.
    pub fn read(
        path: &Path,
        form: &'static str,
        read_rest: impl for<'a> Fn(&[&'a str]) -> Option<(Option<&'a str>, G)>,
    ) -> Result<Self, TokensError> {
        let failed = |source| TokensError::File { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
            return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "the file has more than 256 KiB")));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let mut callers: Vec<Caller<G>> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some((name, rest)) = words.split_first().filter(|(name, _)| !name.starts_with('#')) else { continue };
            let wrong = || TokensError::Line { path: path.to_owned(), line: index + 1, form };
            let (token, grant) = read_rest(rest).ok_or_else(wrong)?;
            let is_good =
                |token: &str| token.len() >= TOKEN_CHARS_MIN && token.bytes().all(|byte| byte.is_ascii_graphic());
            let hash = token.map(|token| blake3::hash(token.as_bytes()));
            let is_taken = |caller: &Caller<G>| caller.name == *name || (hash.is_some() && caller.hash == hash);
            if !token.is_none_or(is_good) || callers.iter().any(is_taken) {
                return Err(wrong());
            }
            callers.push(Caller { name: (*name).to_owned(), hash, grant });
        }
        if callers.is_empty() { Err(TokensError::Empty { path: path.to_owned(), form }) } else { Ok(Self { callers }) }
    }

    /// Who may call.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.callers.iter().map(|caller| caller.name.as_str())
    }

    /// Name and grant of who holds the token.
    pub fn find(&self, token: &[u8]) -> Option<(&str, &G)> {
        let presented = blake3::hash(token);
        self.callers.iter().fold(None, |found, caller| {
            // `blake3::Hash` compares in constant time.
            if caller.hash.is_some_and(|hash| hash == presented) {
                Some((caller.name.as_str(), &caller.grant))
            } else {
                found
            }
        })
    }

    /// The grant of who is known by that name and by no token.
    pub fn without_token(&self, name: &str) -> Option<&G> {
        self.callers.iter().find(|caller| caller.hash.is_none() && caller.name == name).map(|caller| &caller.grant)
    }
}

impl<G> fmt::Debug for Tokens<G> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.names()).finish()
    }
}
