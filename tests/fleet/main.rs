//! The programs as services of a box: their units, their packages, and a box that is booted with both and treated badly.
//!
//! Invariant: what is judged is what ships: the units of `systemd/`, and packages made by the manifests' own description. The programs in
//! them are those of the test's profile. Needs root, for a box of its own; what is missing is named.

mod booted;
mod machine;
mod package;
mod refused;
mod units;
