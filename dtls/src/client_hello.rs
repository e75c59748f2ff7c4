//! The first message of a handshake, as far as an answer without state needs it (RFC 5246 §7.4.1.2, RFC 6347 §4.2).
