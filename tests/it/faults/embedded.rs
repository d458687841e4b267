//! Errors that the embedded broker answers on demand.
