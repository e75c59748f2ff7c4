//! Cookies that a server makes and checks without keeping state (RFC 6347 §4.2.1).
