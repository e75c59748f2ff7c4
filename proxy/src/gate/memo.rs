//! What others keep with a session.

use std::any::Any;

/// What a mirror keeps with a session, for the copy of its next message. Copies say the same without it.
///
/// It lives as long as the session, which may get another mirror meanwhile: what belongs to one must say to which.
#[derive(Default)]
pub struct Memo(Option<Box<dyn Any + Send>>);

impl Memo {
    /// What was kept, if it is of this type.
    pub fn read<T: Any + Send>(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()?.downcast_mut()
    }

    /// What was kept, or the default of this type in its place.
    pub fn write<T: Any + Send + Default>(&mut self) -> &mut T {
        let kept: Box<T> = self.0.take().and_then(|kept| kept.downcast().ok()).unwrap_or_default();
        let kept = self.0.insert(kept);
        #[expect(clippy::expect_used, reason = "it was put there in the line before")]
        kept.downcast_mut().expect("its type is known")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_there_for_its_own_type_alone() {
        let mut memo = Memo::default();
        assert_eq!(memo.read::<u8>(), None);
        *memo.write() = 7_u8;
        assert_eq!(memo.read::<u8>(), Some(&mut 7));
        assert_eq!(memo.read::<u16>(), None);
        assert_eq!(*memo.write::<u8>(), 7);
        assert_eq!(*memo.write::<u16>(), 0);
        assert_eq!(memo.read::<u8>(), None);
    }
}
