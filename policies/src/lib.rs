//! What mgate asks before anything passes.
//!
//! A [`Query`] names a *client*, an *action*, a *resource* and its *payload*; a [`Policy`] answers it with a
//! [`Decision`]; a [`Chain`] puts policies in a row: a deny overrides, and what nobody allows is denied. A
//! [`Transform`] changes what a client says before anybody is asked.
//!
//! This crate knows no packet, no configuration file and no runtime. It does no input or output, reads no
//! clock (time comes in as [`Now`]) and depends on nothing but the standard library.

mod attributes;
mod chain;
mod cidr;
mod client;
mod decision;
pub mod jwt_scopes;
mod mount;
mod now;
mod path;
mod prefix;
mod query;
mod scope;
mod session_terms;
pub mod static_rules;
mod topic;
mod transform;

pub use attributes::Attributes;
pub use chain::{Chain, Objection, Outcome, Standing, Suspended, Word};
pub use cidr::{Cidr, CidrError};
pub use client::{Client, Principal, Protocol};
pub use decision::{Answer, BoxFuture, Cause, Decision, Grant, Reason};
pub use mount::mount;
pub use now::Now;
pub use path::{PathError, RequestPath};
pub use prefix::TopicPrefix;
pub use query::{Action, Policy, Query, Resource};
pub use scope::Scope;
pub use session_terms::{SessionLimits, SessionTerms};
pub use topic::{FilterError, TopicFilter, TopicName};
pub use transform::{
    Editable, EditableFilter, EditableLogin, EditableMessage, Outdated, Part, Refusal, Transform, Transforms,
};
