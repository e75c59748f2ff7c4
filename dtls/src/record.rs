//! The records of a datagram (RFC 6347 §4.1, RFC 9146 §4).
