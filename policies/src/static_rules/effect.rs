/// What a statement says where it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It may pass, unless another statement denies it.
    Allow,
    /// It must not pass, whatever other statements say.
    Deny,
}
