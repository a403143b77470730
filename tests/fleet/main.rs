//! The programs as services of a box.
