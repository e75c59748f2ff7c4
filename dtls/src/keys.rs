//! Keys of a session, and how records are protected with them (RFC 5246 §6.2.3.3, RFC 9146 §5).
