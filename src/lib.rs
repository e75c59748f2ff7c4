//! An IoT API gateway.
