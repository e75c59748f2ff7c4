//! Cipher suites that records can be protected with.
