//! Which records of an epoch have come already (RFC 6347 §4.1.2.6).
